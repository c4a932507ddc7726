//! A read that needs several images: answered when the last part has arrived, or failed.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::{ReadError, Reply};

/// The bytes of one read, while its parts arrive.
pub struct Assembly(Mutex<Assembled>);

struct Assembled {
    bytes: Vec<u8>,
    /// Number of parts that have not arrived.
    missing: usize,
    error: Option<ReadError>,
    reply: Option<Reply>,
}

impl Assembly {
    pub fn new(bytes: Vec<u8>, parts: usize, reply: Reply) -> Arc<Assembly> {
        Arc::new(Assembly(Mutex::new(Assembled { bytes, missing: parts, error: None, reply: Some(reply) })))
    }

    /// Takes the part for a range of the bytes. A part of another length fails the read: a shorter one would leave zeros.
    pub fn arrived(&self, range: Range<usize>, result: Result<&[u8], &ReadError>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(part) => match state.bytes.get_mut(range).filter(|place| place.len() == part.len()) {
                Some(place) => place.copy_from_slice(part),
                None => state.error = Some(ReadError::Internal("a part does not fit its place".to_owned())),
            },
            Err(error) => state.error = Some(error.clone()),
        }
        state.missing -= 1;
        if state.missing > 0 {
            return;
        }
        let (bytes, error, reply) = (std::mem::take(&mut state.bytes), state.error.take(), state.reply.take());
        drop(state);
        if let Some(reply) = reply {
            reply(error.as_ref().map_or(Ok(&bytes), Err));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// The answer to a read of 4 bytes, of which the second half is `part`.
    fn read(part: &'static [u8]) -> Result<Vec<u8>, String> {
        let (sender, receiver) = mpsc::channel();
        let reply: Reply = Box::new(move |result| {
            let _ = sender.send(result.map(<[u8]>::to_vec).map_err(ToString::to_string));
        });
        let assembly = Assembly::new(vec![0; 4], 2, reply);
        assembly.arrived(2..4, Ok(part));
        assert!(receiver.try_recv().is_err(), "the other part is missing");
        assembly.arrived(0..2, Ok(&[1, 2]));
        receiver.try_recv().expect("an answer")
    }

    #[test]
    fn a_part_of_another_length_is_an_error() {
        assert_eq!(read(&[3, 4]), Ok(vec![1, 2, 3, 4]));
        assert!(read(&[3]).is_err() && read(&[3, 4, 5]).is_err());
    }
}

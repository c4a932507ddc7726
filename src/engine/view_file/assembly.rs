//! A read that needs several images: answered when the last part has arrived, or failed.

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

    /// Takes the part for position `at`. Parts have their full length; a shorter one would leave zeros.
    pub fn arrived(&self, at: usize, result: Result<&[u8], &ReadError>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(part) => match state.bytes.get_mut(at..at + part.len()) {
                Some(place) => place.copy_from_slice(part),
                None => state.error = Some(ReadError::Internal("a part is longer than its place".to_owned())),
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

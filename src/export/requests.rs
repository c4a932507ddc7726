//! Reads ranges of files of many batches: several requests in flight, results in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::engine::view_file::{ViewFile, ViewFiles};

use super::ExportError;

/// Requests in flight; more are not needed, as the engine prefetches.
const DEPTH: usize = 8;

/// An iterator over the bytes of the given ranges, in their order.
pub struct InOrder<'a, I> {
    files: &'a std::sync::Arc<ViewFiles>,
    requests: I,
    coming: VecDeque<Receiver<Result<Vec<u8>, String>>>,
}

impl<'a, I: Iterator<Item = (ViewFile, Range<u64>)>> InOrder<'a, I> {
    pub fn new(files: &'a std::sync::Arc<ViewFiles>, requests: I) -> InOrder<'a, I> {
        InOrder { files, requests, coming: VecDeque::new() }
    }

    fn ask(&mut self) {
        while self.coming.len() < DEPTH {
            let Some((file, range)) = self.requests.next() else { return };
            let (sender, receiver) = sync_channel(1);
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let answer = move |found: Result<&[u8], &crate::engine::ReadError>| {
                // The receiver is gone when another request has failed.
                _ = sender.send(match found {
                    Ok(bytes) if bytes.len() == len => Ok(bytes.to_vec()),
                    Ok(bytes) => Err(format!("{} bytes of {len} were read; please report it", bytes.len())),
                    Err(error) => Err(error.to_string()),
                });
            };
            self.files.read(file, (range.start, len), Box::new(answer));
            self.coming.push_back(receiver);
        }
    }
}

impl<I: Iterator<Item = (ViewFile, Range<u64>)>> Iterator for InOrder<'_, I> {
    type Item = Result<Vec<u8>, ExportError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.ask();
        let answer = self.coming.pop_front()?.recv();
        Some(answer.unwrap_or_else(|_| Err("a read was given up".to_owned())).map_err(ExportError::Read))
    }
}

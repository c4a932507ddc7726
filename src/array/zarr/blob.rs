//! The bytes of one key of a store: a run of a file, or what was inflated.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::sync::Arc;

use crate::array::{Counters, Extent, file};

#[derive(Clone)]
pub enum Blob {
    File { file: Arc<File>, offset: u64, len: u64 },
    InMemory(Arc<Vec<u8>>),
}

impl Blob {
    pub fn len(&self) -> u64 {
        match self {
            Blob::File { len, .. } => *len,
            Blob::InMemory(bytes) => bytes.len() as u64,
        }
    }

    /// Where a part lies, if it lies in a file.
    pub fn extent(&self, at: u64, len: u64) -> Option<Extent> {
        match self {
            Blob::File { file, offset, len: whole } if at.checked_add(len)? <= *whole => {
                Some(Extent { file: Arc::clone(file), offset: offset.checked_add(at)?, len })
            }
            _ => None,
        }
    }

    /// Fills `buffer` from `at` on.
    pub fn read(&self, at: u64, buffer: &mut [u8], counters: &Counters) -> Result<(), Error> {
        let end = || Error::from(ErrorKind::UnexpectedEof);
        match self {
            Blob::File { .. } => {
                let extent = self.extent(at, buffer.len() as u64).ok_or_else(end)?;
                file::read_exact(&extent.file, extent.offset, buffer, counters)
            }
            Blob::InMemory(bytes) => {
                let from = usize::try_from(at).map_err(|_| end())?;
                let part = bytes.get(from..).and_then(|rest| rest.get(..buffer.len())).ok_or_else(end)?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }

    /// All of it, if it is no longer than `most`.
    pub fn all(&self, most: u64) -> Result<Vec<u8>, Error> {
        if self.len() > most {
            return Err(Error::other(format!("{} bytes are too many", self.len())));
        }
        let mut bytes = vec![0; usize::try_from(self.len()).map_err(Error::other)?];
        self.read(0, &mut bytes, &Counters::default())?;
        Ok(bytes)
    }
}

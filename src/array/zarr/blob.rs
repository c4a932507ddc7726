//! The bytes of one key of a store: a range of an object, or decompressed bytes.

use std::io::{Error, ErrorKind};
use std::sync::{Arc, Weak};

use crate::array::{Counters, Extent, file};
use crate::storage::{Identity, Object, WeakObject};

#[derive(Clone)]
pub enum Blob {
    Stored(Extent),
    Memory(Arc<Vec<u8>>),
}

/// A reference that keeps neither an object open nor memory.
pub enum WeakBlob {
    None,
    Stored { object: WeakObject, offset: u64, len: u64 },
    Memory(Weak<Vec<u8>>),
}

impl WeakBlob {
    /// The blob, if it still exists.
    pub fn upgrade(&self) -> Option<Blob> {
        match self {
            WeakBlob::None => None,
            WeakBlob::Stored { object, offset, len } => {
                object.upgrade().map(|object| Blob::Stored(Extent { object, offset: *offset, len: *len }))
            }
            WeakBlob::Memory(bytes) => bytes.upgrade().map(Blob::Memory),
        }
    }
}

impl Blob {
    pub fn downgrade(&self) -> WeakBlob {
        match self {
            Blob::Stored(Extent { object, offset, len }) => {
                WeakBlob::Stored { object: object.downgrade(), offset: *offset, len: *len }
            }
            Blob::Memory(bytes) => WeakBlob::Memory(Arc::downgrade(bytes)),
        }
    }

    /// A whole object.
    pub fn whole(object: Object) -> Blob {
        let len = object.len();
        Blob::Stored(Extent { object, offset: 0, len })
    }

    pub fn len(&self) -> u64 {
        match self {
            Blob::Stored(extent) => extent.len,
            Blob::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// The object's identity, if the blob is a whole object.
    pub fn identity(&self) -> Option<Identity> {
        match self {
            Blob::Stored(Extent { object, offset: 0, len }) if *len == object.len() => Some(object.identity()),
            _ => None,
        }
    }

    /// The location of a part, if it is in an object.
    pub fn extent(&self, at: u64, len: u64) -> Option<Extent> {
        match self {
            Blob::Stored(whole) if at.checked_add(len)? <= whole.len => {
                Some(Extent { object: whole.object.clone(), offset: whole.offset.checked_add(at)?, len })
            }
            _ => None,
        }
    }

    /// Reads `len` bytes from `at` on to the front of a buffer, which grows as needed.
    ///
    /// # Errors
    /// `UnexpectedEof` beyond the end; those of the storage.
    pub fn stored<'a>(
        &'a self,
        at: u64,
        len: u64,
        buffer: &'a mut Vec<u8>,
        counters: &Counters,
    ) -> Result<&'a [u8], Error> {
        let end = || Error::from(ErrorKind::UnexpectedEof);
        match self {
            Blob::Stored(_) => file::read_stored(&self.extent(at, len).ok_or_else(end)?, buffer, counters),
            Blob::Memory(bytes) => {
                let (from, len) = (usize::try_from(at).map_err(|_| end())?, usize::try_from(len).map_err(|_| end())?);
                bytes.get(from..).and_then(|rest| rest.get(..len)).ok_or_else(end)
            }
        }
    }

    /// Reads `len` bytes from `at` on.
    ///
    /// # Errors
    /// As above.
    pub fn read(&self, at: u64, len: u64, counters: &Counters) -> Result<Vec<u8>, Error> {
        let mut buffer = Vec::new();
        let bytes = self.stored(at, len, &mut buffer, counters)?;
        Ok(bytes.to_vec())
    }

    /// All bytes; fails if there are more than `most`.
    pub fn all(&self, most: u64) -> Result<Vec<u8>, Error> {
        if self.len() > most {
            return Err(Error::new(ErrorKind::FileTooLarge, format!("{} bytes are too many", self.len())));
        }
        self.read(0, self.len(), &Counters::default())
    }
}

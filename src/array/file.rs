//! Reads of stored objects, and what they were at the mount.
//!
//! An object that ends before a run that it held at the mount has been cut meanwhile: that is staleness, not damage.

use std::io::{Error, ErrorKind, IoSliceMut};
use std::sync::Arc;

use super::{ArrayError, Counters, Extent, grow};
use crate::storage::{Identity, Object};

/// Compares every object with what it was.
///
/// # Errors
/// `Stale`, for the first that differs; `Io`, where that cannot be known.
pub fn check_unchanged(store: &str, objects: &[Identity]) -> Result<(), ArrayError> {
    for object in objects {
        match object.changed() {
            Ok(None) => {}
            Ok(Some(cause)) => return Err(ArrayError::Stale { store: store.to_owned(), cause }),
            Err(error) => return Err(failed(store, object.address.to_string(), error)),
        }
    }
    Ok(())
}

/// As `check_unchanged`, but asks the storage in any case: where nothing was read, nothing was conditional.
///
/// # Errors
/// As above.
pub fn confirm(store: &str, objects: &[Identity]) -> Result<(), ArrayError> {
    for object in objects {
        match object.confirm() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StaleNetworkFileHandle => {
                return Err(ArrayError::Stale { store: store.to_owned(), cause: error.to_string() });
            }
            Err(error) => return Err(failed(store, object.address.to_string(), error)),
        }
    }
    Ok(())
}

/// Fills `buffer` from `offset` on.
pub fn read_exact(object: &Object, offset: u64, buffer: &mut [u8], counters: &Counters) -> Result<(), Error> {
    read_vectored(object, offset, &mut [IoSliceMut::new(buffer)], counters)
}

/// Fills the places from `offset` on, in order.
pub fn read_vectored(
    object: &Object,
    offset: u64,
    places: &mut [IoSliceMut<'_>],
    counters: &Counters,
) -> Result<(), Error> {
    Counters::add(&counters.reads, 1);
    Counters::add(&counters.bytes, places.iter().map(|place| place.len() as u64).sum());
    object.read_vectored_at(offset, places)
}

/// The bytes of an extent, in the front of a buffer that grows as needed.
pub fn read_stored<'a>(extent: &Extent, buffer: &'a mut Vec<u8>, counters: &Counters) -> Result<&'a [u8], Error> {
    let size = usize::try_from(extent.len).map_err(|_| ErrorKind::FileTooLarge)?;
    grow(buffer, size)?;
    let stored = buffer.get_mut(..size).unwrap_or_default();
    read_exact(&extent.object, extent.offset, stored, counters)?;
    Ok(stored)
}

/// The error of a read that failed: an end before its time means an object cut short.
pub fn read_error(store: &str, element: &str, chunk: u64, error: Error) -> ArrayError {
    match error.kind() {
        ErrorKind::UnexpectedEof => ArrayError::Stale {
            store: store.to_owned(),
            cause: format!("{element}: chunk {chunk}: the file ends before it"),
        },
        ErrorKind::StaleNetworkFileHandle => {
            ArrayError::Stale { store: store.to_owned(), cause: format!("{element}: chunk {chunk}: {error}") }
        }
        _ => failed(store, format!("{element}: chunk {chunk}: cannot be read"), error),
    }
}

/// A storage's failure about `what` of a store. The error stays what it is, as its number is the reader's errno.
pub fn failed(store: &str, mut what: String, error: Error) -> ArrayError {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        what.push_str(" (raise `ulimit -n`)");
    }
    ArrayError::Io { store: store.to_owned(), what, source: Arc::new(error) }
}

//! Reads stored objects, and compares them with their state at the mount.
//!
//! An object that ends before a range it had at the mount was truncated since: that is `Stale`, not damage.

use std::io::{Error, ErrorKind, IoSliceMut};
use std::sync::Arc;

use super::{ArrayError, Counters, Extent, grow};
use crate::storage::{Identity, Object};

/// Compares all objects with their state at the mount.
///
/// # Errors
/// `Stale` for the first that differs; `Io` if that cannot be found out.
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

/// As `check_unchanged`, but always asks the storage: for missing objects, no read has been conditional on a version.
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

/// Fills the slices from `offset` on, in order.
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

/// Reads an extent to the front of a buffer, which grows as needed.
pub fn read_stored<'a>(extent: &Extent, buffer: &'a mut Vec<u8>, counters: &Counters) -> Result<&'a [u8], Error> {
    let size = usize::try_from(extent.len).map_err(|_| ErrorKind::FileTooLarge)?;
    grow(buffer, size)?;
    let stored = buffer.get_mut(..size).unwrap_or_default();
    read_exact(&extent.object, extent.offset, stored, counters)?;
    Ok(stored)
}

/// The error of a failed read; an unexpected end means that the object was truncated since.
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

/// A failure of the storage with `what` of a store. The source keeps its number, which is the reader's errno.
pub fn failed(store: &str, mut what: String, error: Error) -> ArrayError {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        what.push_str(" (raise `ulimit -n`)");
    }
    ArrayError::Io { store: store.to_owned(), what, source: Arc::new(error) }
}

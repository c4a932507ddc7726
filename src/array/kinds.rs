//! The registry of containers, one line each; and how a path is opened.
//!
//! `STORE::INNER` names a group in a store, such as `file.h5mu::mod/rna`. If a path with `::` in it exists, it is taken literally.

use std::ffi::OsStr;
use std::io::Error;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::container::{Candidate, Container, Kind};
use super::{ArrayError, hdf5, zarr};
use crate::storage::{self, Address, name};

/// All kinds; the first that recognises a candidate opens it.
pub const KINDS: &[Kind] = &[hdf5::KIND, zarr::ZIP, zarr::DIRECTORY];

/// Splits `STORE::INNER`; INNER is empty for a whole store.
fn split(path: &Path) -> (&Path, &str) {
    if name::is_remote(path) {
        // Remote names are split at the last `::`, without asking the storage whether the whole name exists.
        let (store, inner) = path.to_str().and_then(|name| name.rsplit_once("::")).unwrap_or(("", ""));
        return if store.is_empty() { (path, "") } else { (Path::new(store), inner.trim_matches('/')) };
    }
    let bytes = path.as_os_str().as_bytes();
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    if exists(path) {
        return (path, "");
    }
    let cuts = (0..bytes.len().saturating_sub(1)).rev().filter(|&at| bytes.get(at..at + 2) == Some(b"::"));
    for at in cuts {
        let (store, inner) = bytes.split_at_checked(at).unwrap_or((bytes, b""));
        let store = Path::new(OsStr::from_bytes(store));
        let inner = inner.get(2..).and_then(|inner| std::str::from_utf8(inner).ok());
        if let (Some(inner), true) = (inner, exists(store)) {
            return (store, inner.trim_matches('/'));
        }
    }
    (path, "")
}

/// The file or directory of a store, without a group.
pub fn file_of(path: &Path) -> &Path {
    split(path).0
}

/// Opens a store, or a group in it: `STORE::INNER`.
///
/// # Errors
/// `Open`, with what exists instead, and what to do.
pub fn open(path: &Path) -> Result<Box<dyn Container>, ArrayError> {
    open_as(KINDS, path)
}

/// As [`open`], for the given kinds.
///
/// # Errors
/// Those of `open`.
pub fn open_as(kinds: &[Kind], path: &Path) -> Result<Box<dyn Container>, ArrayError> {
    let (address, name, inner) = located(path)?;
    opened(kinds, Candidate::new(&address, name, inner)?)
}

/// Opens the store at an address, or the group `inner` in it (empty: the root); `name` is for messages.
///
/// # Errors
/// Those of `open`.
pub fn open_at(address: &Address, name: Arc<str>, inner: &str) -> Result<Box<dyn Container>, ArrayError> {
    opened(KINDS, Candidate::new(address, name, inner)?)
}

fn opened(kinds: &[Kind], candidate: Candidate<'_>) -> Result<Box<dyn Container>, ArrayError> {
    match kinds.iter().find(|kind| (kind.recognises)(&candidate)) {
        Some(kind) => (kind.open)(candidate),
        None => Err(candidate.unknown()),
    }
}

/// The address of a path, its name for messages, and the group.
fn located(path: &Path) -> Result<(Address, Arc<str>, &str), ArrayError> {
    let name: Arc<str> = path.display().to_string().into();
    let (path, inner) = split(path);
    let unreached = |error: Error| ArrayError::Open { store: name.to_string(), cause: error.to_string() };
    let address = storage::locate(path).map_err(unreached)?;
    Ok((address, name, inner))
}

/// Whether a C library would parse the file; false if it cannot be opened at all.
pub fn needs_trial(path: &Path) -> bool {
    let Ok((address, name, inner)) = located(path) else { return false };
    let Ok(candidate) = Candidate::new(&address, name, inner) else { return false };
    KINDS.iter().find(|kind| (kind.recognises)(&candidate)).is_some_and(|kind| kind.needs_trial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zip_archives_and_directories_need_no_libhdf5() {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = place.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        assert!(needs_trial(&file("a.h5ad", b"\x89HDF\r\n\x1a\n")));
        assert!(needs_trial(&place.path().join("a.h5ad::mod/rna")));
        assert!(!needs_trial(&file("a.zip", b"PK\x03\x04...")));
        assert!(!needs_trial(place.path()) && !needs_trial(Path::new("/nonexistent")));
    }
}

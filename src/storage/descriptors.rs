//! A bounded number of open descriptors for local files. Further files are closed, and opened again when they are read.
//!
//! Invariant: a file that is opened again is the same, by size, mtime and inode; otherwise the read fails with
//! `StaleNetworkFileHandle`. The bound is soft: files that are being read are not closed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Error, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use rustix::process::{Resource, getrlimit};

use super::Version;

/// A number of eighths of the descriptors that this process may have.
pub fn share(eighths: u64) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(limit / 8 * eighths).unwrap_or(usize::MAX).max(4)
}

/// Open files, at most, even if the system allows more.
const MOST: usize = 1 << 14;

/// A file that may be closed between reads.
pub struct Descriptor {
    path: PathBuf,
    version: Version,
    slot: Arc<Slot>,
}

#[derive(Default)]
struct Slot {
    file: RwLock<Option<File>>,
    /// Whether it was read since `make_room` last considered it.
    used: AtomicBool,
}

/// The slots of open files, in the order of opening.
static OPEN: Mutex<VecDeque<Weak<Slot>>> = Mutex::new(VecDeque::new());

/// Opens a file for reading.
///
/// # Errors
/// Those of the system, with their numbers; `EMFILE` if no descriptor can be freed.
pub fn open(path: &Path) -> io::Result<File> {
    // O_NONBLOCK: opening a pipe must not wait for a writer; for regular files the flag has no effect.
    let open = || File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let is_full = |error: &Error| matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    match open() {
        Err(error) if is_full(&error) => {
            make_room(0);
            open()
        }
        result => result,
    }
}

impl Descriptor {
    /// Takes over an open file.
    pub fn new(file: File, path: &Path, version: Version) -> Descriptor {
        let descriptor = Descriptor { path: path.to_path_buf(), version, slot: Arc::default() };
        descriptor.fill(file);
        descriptor
    }

    /// Calls a function with the open file.
    ///
    /// # Errors
    /// The file was closed, and cannot be opened again or has changed.
    pub fn with<T>(&self, call: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        self.slot.used.store(true, Ordering::Relaxed);
        let guard = self.slot.file.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*guard {
            return call(file);
        }
        drop(guard);
        let file = open(&self.path)?;
        if let Some(change) = self.version.difference(&Version::of_file(&file.metadata()?)) {
            let change = format!("{}: {change}", self.path.display());
            return Err(Error::new(ErrorKind::StaleNetworkFileHandle, change));
        }
        let result = call(&file);
        self.fill(file);
        result
    }

    fn fill(&self, file: File) {
        let mut slot = self.slot.file.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have opened it first.
        if slot.is_none() {
            *slot = Some(file);
            drop(slot);
            make_room(share(3).min(MOST) - 1);
            OPEN.lock().unwrap_or_else(PoisonError::into_inner).push_back(Arc::downgrade(&self.slot));
        }
    }
}

/// Closes files until at most `most` are open. Candidates are considered in the order of opening; those read since last time are skipped.
fn make_room(most: usize) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if open.len() <= most {
        return;
    }
    // Dropped files need no closing.
    open.retain(|slot| slot.strong_count() > 0);
    for _ in 0..open.len() * 2 {
        if open.len() <= most {
            return;
        }
        let Some(slot) = open.pop_front() else { return };
        let Some(here) = slot.upgrade() else { continue };
        if here.used.swap(false, Ordering::Relaxed) {
            open.push_back(slot);
            continue;
        }
        // Files that are being read stay open.
        match here.file.try_write() {
            Ok(mut file) => drop(file.take()),
            Err(_) => open.push_back(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_closed_file_is_opened_again_and_must_be_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, b"abc").unwrap();
        let file = open(&path).unwrap();
        let version = Version::of_file(&file.metadata().unwrap());
        let descriptor = Descriptor::new(file, &path, version);
        let read = || {
            descriptor.with(|file| {
                let mut bytes = [0; 3];
                file.read_exact_at(&mut bytes, 0).map(|()| bytes)
            })
        };
        for _ in 0..3 {
            assert_eq!(read().unwrap(), *b"abc");
            make_room(0);
            assert!(descriptor.slot.file.read().unwrap().is_none());
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read().unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read().unwrap_err().kind(), ErrorKind::StaleNetworkFileHandle);
    }
}

//! Open descriptors of local files: a bounded number. A file beyond that is closed, and opened again when it is read.
//!
//! Invariant: a file that was opened again is the one that was closed, by size, mtime and inode; else the read fails with
//! `StaleNetworkFileHandle`. The bound is soft: a file that is being read is not closed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Error, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use rustix::process::{Resource, getrlimit};

use super::Version;

/// A share of the descriptors that this process may have.
pub fn share(eighths: u64) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(limit / 8 * eighths).unwrap_or(usize::MAX).max(4)
}

/// Open files at most, however many the system allows.
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
    /// Read since it was last passed over.
    used: AtomicBool,
}

/// The slots that hold an open file, the longest open first.
static OPEN: Mutex<VecDeque<Weak<Slot>>> = Mutex::new(VecDeque::new());

/// Opens a file for reading.
///
/// # Errors
/// The system's, with its number: `EMFILE` where no descriptor is left.
pub fn open(path: &Path) -> io::Result<File> {
    // A pipe without a writer must not be waited for; for files the flag means nothing.
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
    /// Takes an open file of a path.
    pub fn new(file: File, path: &Path, version: Version) -> Descriptor {
        let descriptor = Descriptor { path: path.to_path_buf(), version, slot: Arc::default() };
        descriptor.fill(file);
        descriptor
    }

    /// Calls with the open file.
    ///
    /// # Errors
    /// It was closed and cannot be opened again, or is another one now.
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
        // Another thread may have been faster.
        if slot.is_none() {
            *slot = Some(file);
            drop(slot);
            make_room(share(3).min(MOST) - 1);
            OPEN.lock().unwrap_or_else(PoisonError::into_inner).push_back(Arc::downgrade(&self.slot));
        }
    }
}

/// Closes files until no more than `most` are open: those first that were opened longest ago and not read since.
fn make_room(most: usize) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if open.len() <= most {
        return;
    }
    // Files that are dropped no longer count.
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
        // One that is being read stays.
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

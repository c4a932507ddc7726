//! Files that libhdf5 has open: a bounded number. Structure is read when a store is opened, so a file that is closed then is
//! seldom missed, and opened again if it is.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ::hdf5::File;
use lru::LruCache;

use super::native;
use crate::array::{ArrayError, file};
use crate::storage::Object;
use crate::storage::descriptors::share;

/// The files, by number, the one used last first.
static OPEN: LazyLock<Mutex<LruCache<u64, File>>> = LazyLock::new(|| {
    let most = NonZeroUsize::new(share(3)).unwrap_or(NonZeroUsize::MIN);
    Mutex::new(LruCache::new(most))
});
static NEXT: AtomicU64 = AtomicU64::new(0);

fn open_files() -> MutexGuard<'static, LruCache<u64, File>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The library's file of one store.
pub struct LibraryFile(u64);

impl LibraryFile {
    /// One that is not open yet.
    pub fn new() -> LibraryFile {
        LibraryFile(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The open file: the same as the object.
    ///
    /// # Errors
    /// It cannot be opened; `Stale` if it is another one now.
    pub fn get(&self, store: &str, object: &Object) -> Result<File, ArrayError> {
        if let Some(file) = open_files().get(&self.0) {
            return Ok(file.clone());
        }
        let fail = |cause: String| ArrayError::Open { store: store.to_owned(), cause };
        let opened = match object.address().local_path() {
            Some(path) => native::open(&path),
            None => super::driver::open(object.clone()),
        };
        let opened = opened.map_err(fail)?;
        // The library opened the path, not our descriptor: they must be one file.
        file::check_unchanged(store, &[object.identity()])?;
        // What has to go is closed without the lock.
        let closed = open_files().push(self.0, opened.clone());
        drop(closed);
        Ok(opened)
    }

    /// Closes it.
    pub fn close(&self) {
        let closed = open_files().pop(&self.0);
        drop(closed);
    }
}

impl Drop for LibraryFile {
    fn drop(&mut self) {
        self.close();
    }
}

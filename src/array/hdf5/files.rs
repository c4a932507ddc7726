//! A bounded number of files that libhdf5 has open, each with its opened objects. Structure is read when a store is opened, so a closed
//! file is rarely needed later; it is then opened again.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use ::hdf5::File;
use lru::LruCache;

use super::Hdf5;
use super::native::{self, Node};
use crate::array::{ArrayError, file};
use crate::storage::Object;
use crate::storage::descriptors::share;

/// Opened objects of one file to keep, at most.
const MOST_OBJECTS: usize = 4096;

/// The open files by number, with LRU eviction.
static OPEN: LazyLock<Mutex<LruCache<u64, Open>>> = LazyLock::new(|| {
    let most = NonZeroUsize::new(share(3)).unwrap_or(NonZeroUsize::MIN);
    Mutex::new(LruCache::new(most))
});
static NEXT: AtomicU64 = AtomicU64::new(0);

fn open_files() -> MutexGuard<'static, LruCache<u64, Open>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open file.
#[derive(Clone)]
struct Open {
    file: File,
    /// The library's file number.
    number: u64,
    objects: Arc<Mutex<HashMap<String, Option<Node>>>>,
}

/// The file cannot be opened, or the call failed.
pub enum Failed {
    File(ArrayError),
    Object(String),
}

impl Failed {
    pub fn of(self, file: &Hdf5, element: &str) -> ArrayError {
        match self {
            Failed::File(error) => error,
            Failed::Object(cause) => file.error(element, cause),
        }
    }
}

/// A store's file in the library.
pub struct LibraryFile(u64);

impl LibraryFile {
    /// A file that is not open yet.
    pub fn new() -> LibraryFile {
        LibraryFile(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens the file, which must be the same as `object`.
    ///
    /// # Errors
    /// It cannot be opened; `Stale` if it has changed.
    pub fn get(&self, store: &str, object: &Object) -> Result<File, ArrayError> {
        self.open(store, object).map(|open| open.file)
    }

    /// The object at a path whose parent exists; `None` if there is no object.
    ///
    /// # Errors
    /// The file cannot be opened, or the object is damaged.
    pub fn node(&self, store: &str, object: &Object, path: &str) -> Result<Option<Node>, Failed> {
        let open = self.open(store, object).map_err(Failed::File)?;
        let mut objects = open.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = objects.get(path) {
            return Ok(node.clone());
        }
        let node = native::node(&open.file, open.number, path).map_err(Failed::Object)?;
        if objects.len() >= MOST_OBJECTS {
            objects.clear();
        }
        objects.insert(path.to_owned(), node.clone());
        Ok(node)
    }

    fn open(&self, store: &str, object: &Object) -> Result<Open, ArrayError> {
        if let Some(open) = open_files().get(&self.0) {
            return Ok(open.clone());
        }
        let fail = |cause: String| ArrayError::Open { store: store.to_owned(), cause };
        let opened = match object.address().local_path() {
            Some(path) => native::open(&path),
            None => super::driver::open(object.clone()),
        };
        let file = opened.map_err(fail)?;
        // The library has opened the path, not our descriptor: it must be the same file.
        file::check_unchanged(store, &[object.identity()])?;
        let number = native::file_number(file.id()).map_err(fail)?;
        let open = Open { file, number, objects: Arc::default() };
        // An evicted file is closed after the lock is released.
        let closed = open_files().push(self.0, open.clone());
        drop(closed);
        Ok(open)
    }

    /// Closes the file.
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

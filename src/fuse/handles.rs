//! File handles: that of a batch is the time of its `open`, that of a control file finds the content as of `open`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::FileHandle;

/// Set in handles of control files; other handles are times in microseconds.
pub(super) const CONTENT: u64 = 1 << 63;

/// Contents of open control files.
#[derive(Default)]
pub struct Handles {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Vec<u8>>>>,
}

impl Handles {
    pub(super) fn add(&self, content: Vec<u8>) -> FileHandle {
        let handle = CONTENT | self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(content));
        FileHandle(handle)
    }

    pub(super) fn get(&self, handle: FileHandle) -> Option<Arc<Vec<u8>>> {
        if handle.0 & CONTENT == 0 {
            return None;
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&handle.0).cloned()
    }

    pub(super) fn remove(&self, handle: FileHandle) {
        if handle.0 & CONTENT == 0 {
            return;
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
    }
}

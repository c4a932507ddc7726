//! Shards: many chunks in one file, with an index of their locations.
//!
//! The inner chunks are the chunks of the array. An index is read with one request and cached (bounded), as many chunks of a shard are
//! usually needed. Files are not kept open beyond their reads.

use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lru::LruCache;

use super::blob::{Blob, WeakBlob};
use super::source::{ChunkPlaces, Files, StoredRange, indices};
use crate::array::codec::shard::Index;
use crate::array::{ArrayError, Counters, file, grid};
use crate::storage::Identity;

/// Maximum bytes of indices that one array caches.
const KEPT: u64 = 16 << 20;

/// An index: offset and length of each chunk, all bits set if it was never written. Empty for a missing shard.
struct ShardIndex {
    entries: Vec<(u64, u64)>,
    /// Length of the shard.
    len: u64,
    /// The identity of the shard, if it is an object.
    identity: Option<Identity>,
    /// The shard, while it is being read.
    blob: Mutex<WeakBlob>,
}

/// The index of one shard, once it has been read. Failures are not cached.
#[derive(Default)]
struct ShardEntry {
    reading: Mutex<()>,
    index: OnceLock<Arc<ShardIndex>>,
}

pub struct Shards {
    files: Files,
    /// Inner chunks along each axis, of the array and of one shard.
    chunks: Vec<u64>,
    inner: Vec<u64>,
    shards: Vec<u64>,
    /// Chunks of a shard.
    count: usize,
    layout: Index,
    kept: Mutex<LruCache<u64, Arc<ShardEntry>>>,
}

impl Shards {
    /// `None` if the shard shape is not a multiple of the chunk shape.
    pub fn new(files: Files, shape: &[u64], shard: &[u64], chunk: &[u64], layout: Index) -> Option<Shards> {
        if shard.iter().zip(chunk).any(|(&s, &c)| c == 0 || s % c != 0) {
            return None;
        }
        let inner: Vec<u64> = shard.iter().zip(chunk).map(|(&s, &c)| s / c).collect();
        let count = inner.iter().try_fold(1_usize, |n, &c| n.checked_mul(usize::try_from(c).ok()?))?;
        let bytes = layout.stored(count)? as u64;
        let most = usize::try_from((KEPT / bytes.max(1)).clamp(4, 1024)).ok().and_then(NonZeroUsize::new)?;
        Some(Shards {
            files,
            chunks: grid(shape, chunk),
            inner,
            shards: grid(shape, shard),
            count,
            layout,
            kept: Mutex::new(LruCache::new(most)),
        })
    }

    fn open(&self, shard: u64, chunk: u64) -> Result<Option<Blob>, ArrayError> {
        self.files.open(&indices(shard, &self.shards), chunk)
    }

    /// The index of a shard. One thread reads it, while others that need it wait.
    fn index(&self, shard: u64, chunk: u64, counters: &Counters) -> Result<Arc<ShardIndex>, ArrayError> {
        let entry = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.get_or_insert(shard, Arc::default).clone()
        };
        if let Some(index) = entry.index.get() {
            return Ok(Arc::clone(index));
        }
        let _only_one = entry.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = entry.index.get() {
            return Ok(Arc::clone(index));
        }
        let index = match self.open(shard, chunk)? {
            None => ShardIndex { entries: Vec::new(), len: 0, identity: None, blob: Mutex::new(WeakBlob::None) },
            Some(blob) => {
                let entries = self.read_index(&blob, chunk, counters)?;
                ShardIndex { entries, len: blob.len(), identity: blob.identity(), blob: Mutex::new(blob.downgrade()) }
            }
        };
        Ok(Arc::clone(entry.index.get_or_init(|| Arc::new(index))))
    }

    fn read_index(&self, blob: &Blob, chunk: u64, counters: &Counters) -> Result<Vec<(u64, u64)>, ArrayError> {
        let len = blob.len();
        // That the size is known was checked when the array was opened; the file's length bounds the buffer.
        let size = self.layout.stored(self.count).unwrap_or(usize::MAX) as u64;
        let Some(offset) = len.checked_sub(size).map(|end| if self.layout.at_start { 0 } else { end }) else {
            let cause = format!("the shard of {len} bytes is too short for its index of {size}: it is truncated");
            return Err(self.files.damaged(chunk, cause));
        };
        let bytes = blob
            .read(offset, size, counters)
            .map_err(|e| file::read_error(&self.files.store, &self.files.element, chunk, e))?;
        self.layout.entries(&bytes, self.count).map_err(|cause| self.files.damaged(chunk, cause))
    }
}

impl ChunkPlaces for Shards {
    fn files(&self) -> &Files {
        &self.files
    }

    fn find(&self, chunk: u64, counters: &Counters) -> Result<Option<StoredRange>, ArrayError> {
        let (mut shard, mut within) = (0, 0);
        let at = indices(chunk, &self.chunks);
        for ((&index, &inner), &shards) in at.iter().zip(&self.inner).zip(&self.shards) {
            shard = shard * shards + index / inner;
            within = within * inner + index % inner;
        }
        let index = self.index(shard, chunk, counters)?;
        let entry = usize::try_from(within).ok().and_then(|at| index.entries.get(at).copied());
        let Some((offset, len)) = entry.filter(|&entry| entry != (u64::MAX, u64::MAX)) else {
            return Ok(None);
        };
        if offset.checked_add(len).is_none_or(|end| end > index.len) {
            let cause = format!("{len} bytes at {offset} lie beyond its shard of {} bytes", index.len);
            return Err(self.files.damaged(chunk, cause));
        }
        let mut held = index.blob.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(blob) = held.upgrade() {
            return Ok(Some(StoredRange { blob, offset, len }));
        }
        let reopened = match &index.identity {
            Some(identity) => identity.open().map(|object| Some(Blob::whole(object))),
            // Without identity it is in an archive, whose directory has its location.
            None => Ok(self.open(shard, chunk)?),
        };
        match reopened {
            Ok(Some(blob)) if blob.len() == index.len => {
                *held = blob.downgrade();
                Ok(Some(StoredRange { blob, offset, len }))
            }
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::StaleNetworkFileHandle) => {
                Err(file::read_error(&self.files.store, &self.files.element, chunk, error))
            }
            _ => Err(ArrayError::Stale {
                store: self.files.store.to_string(),
                cause: format!("{}: the shard of chunk {chunk} is another", self.files.element),
            }),
        }
    }
    fn looks_up(&self) -> bool {
        true
    }
}

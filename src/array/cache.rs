//! A cache of decoded chunks, for other fetches of the epoch, later epochs and other readers.
//!
//! It is bounded in bytes, with LRU eviction. One thread decodes a chunk while others that need it wait; failures are not cached. An
//! evicted
//! chunk lives until its users are done, so the bound may be exceeded by one chunk a thread, and by 1/16 for spare buffers of other sizes.

#[cfg(test)]
mod models;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError};

use lru::LruCache;

use crate::slab::{Buffer, Slab};
use crate::sync::{Mutex, MutexGuard};

use super::{Array, ArrayError, ArrayId};

/// The array, and the number of the chunk.
type ChunkKey = (ArrayId, u64);

/// A chunk; empty while it is decoded for the first time.
struct CachedChunk {
    len: usize,
    decoding: Mutex<()>,
    bytes: OnceLock<Buffer>,
}

struct CacheState {
    entries: LruCache<ChunkKey, Arc<CachedChunk>>,
    bytes: u64,
    /// Evicted chunks that may still be in use.
    leaving: Vec<Arc<CachedChunk>>,
    /// Buffers of evicted chunks for reuse, by size.
    spare: HashMap<usize, Vec<Buffer>>,
    /// Source of new buffers.
    slab: Slab,
}

impl CacheState {
    /// Bytes of all buffers: of cached chunks, evicted chunks in use, and spare ones.
    fn held(&self) -> u64 {
        let leaving: u64 = self.leaving.iter().map(|entry| entry.len as u64).sum();
        let spare: u64 = self.spare.iter().map(|(&len, spare)| (len * spare.len()) as u64).sum();
        self.bytes + leaving + spare
    }

    /// Frees spare buffers of other sizes than `len` until all buffers are within `most` bytes. Otherwise buffers for arrays that are no
    /// longer read would never be freed.
    fn drop_spare(&mut self, len: usize, most: u64) {
        let mut held = self.held();
        self.spare.retain(|&size, spare| {
            while size != len && held > most && spare.pop().is_some() {
                held -= size as u64;
            }
            !spare.is_empty()
        });
    }
}

/// The cache of one collection.
pub struct ChunkCache {
    limit: u64,
    state: Mutex<CacheState>,
}

impl ChunkCache {
    /// A cache of at most `limit` bytes.
    pub fn new(limit: u64) -> ChunkCache {
        let state = CacheState {
            entries: LruCache::unbounded(),
            bytes: 0,
            leaving: Vec::new(),
            spare: HashMap::new(),
            slab: Slab::default(),
        };
        ChunkCache { limit, state: Mutex::new(state) }
    }

    /// Bytes of the cached chunks.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Whether a decoded chunk is cached. This counts as a use of it, as a read follows: other chunks are evicted first.
    pub fn has(&self, array: &Array, chunk: u64) -> bool {
        self.lock().entries.get(&(array.id(), chunk)).is_some_and(|entry| entry.bytes.get().is_some())
    }

    /// Passes a chunk of `len` bytes to `take`, after decoding it with `decode` if it is not cached.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn with(
        &self,
        array: &Array,
        chunk: u64,
        len: usize,
        decode: impl FnOnce(&mut [u8]) -> Result<(), ArrayError>,
        take: impl FnOnce(&[u8]),
    ) -> Result<(), ArrayError> {
        let key = (array.id(), chunk);
        let entry = self.entry(key, len);
        if entry.bytes.get().is_none() {
            let _only_one = entry.decoding.lock().unwrap_or_else(PoisonError::into_inner);
            if entry.bytes.get().is_none() {
                let mut bytes =
                    self.buffer(len).map_err(|error| array.damaged(chunk, format!("no memory: {error}")))?;
                if let Err(error) = decode(&mut bytes) {
                    self.forget(key, &entry, bytes);
                    return Err(error);
                }
                // Cannot fail: this thread holds the lock.
                let _ = entry.bytes.set(bytes);
            }
        }
        take(entry.bytes.get().map(|bytes| &**bytes).unwrap_or_default());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of a chunk, marked as most recently used; evicts others as needed.
    fn entry(&self, key: ChunkKey, len: usize) -> Arc<CachedChunk> {
        let mut state = self.lock();
        if let Some(entry) = state.entries.get(&key) {
            return entry.clone();
        }
        let entry = Arc::new(CachedChunk { len, decoding: Mutex::default(), bytes: OnceLock::new() });
        state.bytes += len as u64;
        state.entries.put(key, entry.clone());
        while state.bytes > self.limit && state.entries.len() > 1 {
            let Some((_, old)) = state.entries.pop_lru() else { break };
            state.bytes = state.bytes.saturating_sub(old.len as u64);
            state.leaving.push(old);
        }
        entry
    }

    fn buffer(&self, len: usize) -> std::io::Result<Buffer> {
        let mut guard = self.lock();
        let state = &mut *guard;
        for old in std::mem::take(&mut state.leaving) {
            match Arc::try_unwrap(old) {
                Ok(CachedChunk { len, bytes, .. }) => state.spare.entry(len).or_default().extend(bytes.into_inner()),
                Err(old) => state.leaving.push(old),
            }
        }
        state.drop_spare(len, self.limit + self.limit / 16);
        state.spare.get_mut(&len).and_then(Vec::pop).map_or_else(|| state.slab.cut(len), Ok)
    }

    fn forget(&self, key: ChunkKey, entry: &Arc<CachedChunk>, bytes: Buffer) {
        let mut state = self.lock();
        state.spare.entry(entry.len).or_default().push(bytes);
        // The entry may have been replaced since.
        if state.entries.peek(&key).is_some_and(|there| Arc::ptr_eq(there, entry)) {
            state.entries.pop(&key);
            state.bytes = state.bytes.saturating_sub(entry.len as u64);
            // Threads that wait for the entry will fill it.
            state.leaving.push(entry.clone());
        }
    }
}

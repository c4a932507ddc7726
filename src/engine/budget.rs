//! Image buffers within one budget, reused: fresh memory costs a page fault for every 4 KiB (1.5 GB/s, DESIGN.md 5).
//!
//! All bytes are counted from allocation to release, whether an image, a reply under way or the free list holds them.

use std::sync::{Arc, Mutex, PoisonError};

use crate::collection::Collection;
use crate::plan::Plan;

/// The part of the budget that decoded chunks may take: what four fetches (in use, two ahead, retained) leave, but no more
/// than two thirds, and nothing where less than a quarter of all chunks would be there when they are needed again.
pub fn for_chunks(collection: &Collection, plans: &[Plan], memory: u64) -> u64 {
    let arrays = collection.stores.iter().flat_map(|store| store.elements.iter().flat_map(|part| part.matrix.arrays()));
    let encoded = arrays.filter(|array| array.source.is_encoded());
    let decoded = encoded.fold(0_u64, |sum, array| sum.saturating_add(array.bytes().unwrap_or(u64::MAX)));
    let rows = plans.iter().map(|plan| plan.sampling().fetch_rows().min(plan.rows())).max().unwrap_or(0);
    let images = 4.0 * rows as f64 * collection.grain().row_bytes;
    let room = memory.saturating_sub((images as u64).max(memory / 3)).min(decoded.saturating_add(decoded / 8));
    // A little less, as buffers are cut from pieces of 32 MiB.
    if room < decoded / 4 { 0 } else { room - room / 16 }
}

/// Buffers of one engine.
pub struct Pool {
    limit: u64,
    state: Mutex<Buffers>,
}

#[derive(Default)]
struct Buffers {
    /// Bytes of all buffers, in use or free.
    used: u64,
    free: Vec<Box<[u8]>>,
    free_bytes: u64,
}

/// The bytes of one file.
pub struct Image {
    buffer: Box<[u8]>,
    len: usize,
    pool: Arc<Pool>,
}

impl Image {
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that it takes of the budget.
    pub fn capacity(&self) -> u64 {
        self.buffer.len() as u64
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut state = self.pool.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.used > self.pool.limit {
            state.used -= buffer.len() as u64;
        } else {
            state.free_bytes += buffer.len() as u64;
            state.free.push(buffer);
        }
    }
}

impl Pool {
    pub fn new(limit: u64) -> Pool {
        Pool { limit, state: Mutex::default() }
    }

    /// Bytes of images at most.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// A buffer of `size` bytes (holding anything), if the budget has room for it.
    pub fn take(self: &Arc<Pool>, size: usize) -> Option<Image> {
        self.get(size, false)
    }

    /// The same, whatever the budget says.
    pub fn take_anyway(self: &Arc<Pool>, size: usize) -> Image {
        match self.get(size, true) {
            Some(image) => image,
            // `get` always finds room when forced.
            None => Image { buffer: vec![0; size].into_boxed_slice(), len: size, pool: self.clone() },
        }
    }

    fn get(self: &Arc<Pool>, size: usize, anyway: bool) -> Option<Image> {
        let class = capacity(size);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |len: usize| len >= size && len <= class.saturating_mul(2);
        if let Some(at) = state.free.iter().rposition(|buffer| fits(buffer.len())) {
            let buffer = state.free.swap_remove(at);
            state.free_bytes -= buffer.len() as u64;
            return Some(Image { buffer, len: size, pool: self.clone() });
        }
        while state.used + class as u64 > self.limit {
            let Some(buffer) = state.free.pop() else { break };
            state.used -= buffer.len() as u64;
            state.free_bytes -= buffer.len() as u64;
        }
        if state.used + class as u64 > self.limit && !anyway {
            return None;
        }
        state.used += class as u64;
        drop(state);
        Some(Image { buffer: vec![0; class].into_boxed_slice(), len: size, pool: self.clone() })
    }

    /// Bytes that could be taken without evicting anything.
    pub fn room(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (self.limit + state.free_bytes).saturating_sub(state.used)
    }

    /// Bytes allocated, and those of them that are free for reuse.
    pub fn used(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.used, state.free_bytes)
    }
}

/// Buffer size for an image: steps of an eighth of its magnitude, so that batches of about one size share buffers.
pub fn capacity(size: usize) -> usize {
    let step = (size.next_power_of_two() / 16).max(4096);
    size.max(1).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_for_every_byte() {
        let pool = Arc::new(Pool::new(1 << 20));
        let images: Vec<Image> = (0..100).map_while(|_| pool.take(100_000)).collect();
        assert!(images.len() >= 9, "{}", images.len());
        assert!(pool.used().0 <= 1 << 20);
        let more = pool.take_anyway(100_000);
        assert!(pool.used().0 > 1 << 20);
        drop(more);
        assert!(pool.used().0 <= 1 << 20);
        drop(images);
        assert_eq!(pool.room(), 1 << 20);
        // Another size: the free buffers give way.
        let large = pool.take(1_000_000).expect("room");
        assert_eq!(large.bytes().len(), 1_000_000);
        drop(large);
        assert_eq!(pool.room(), 1 << 20);
    }

    #[test]
    fn buffers_are_reused() {
        let pool = Arc::new(Pool::new(1 << 20));
        let mut image = pool.take(5000).expect("room");
        image.bytes_mut().fill(7);
        let used = pool.used().0;
        drop(image);
        assert_eq!(pool.take(4999).expect("room").bytes()[0], 7);
        assert_eq!(pool.used().0, used);
    }
}

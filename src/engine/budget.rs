//! Image buffers within one budget. They are reused, as fresh memory costs a page fault for every 4 KiB, which limits it to 1.5 GB/s.
//!
//! Bytes count from allocation to release, whether used by an image, a pending reply, a mapping of a reader, or the free list.

use std::sync::{Arc, PoisonError};

use crate::collection::Collection;
use crate::plan::Plan;
use crate::slab::{Buffer, Slab};
use crate::sync::{Mutex, MutexGuard};

use super::lease_table::LeaseTable;
use super::memory::Memory;

/// The part of the budget for decoded chunks: what four fetches (one read, two ahead, one retained) leave, at most two thirds; but nothing
/// if less than a quarter of all chunks would be cached.
pub fn for_chunks(collection: &Collection, plans: &[Plan], memory: u64) -> u64 {
    let arrays = collection.all_stores().flat_map(|store| store.elements.iter().flat_map(|part| part.matrix.arrays()));
    let encoded = arrays.filter(|array| array.source.is_encoded());
    let decoded = encoded.fold(0_u64, |sum, array| sum.saturating_add(array.bytes().unwrap_or(u64::MAX)));
    let rows = plans.iter().map(|plan| plan.sampling().fetch_rows().min(plan.rows())).max().unwrap_or(0);
    let images = 4.0 * rows as f64 * collection.storage_profile().row_bytes;
    let room = memory.saturating_sub((images as u64).max(memory / 3)).min(decoded.saturating_add(decoded / 8));
    // Some is left, as buffers are cut from regions of 32 MiB.
    if room < decoded / 4 { 0 } else { room - room / 16 }
}

/// The buffers of one engine.
pub struct Pool {
    limit: u64,
    state: Mutex<Buffers>,
}

#[derive(Default)]
struct Buffers {
    /// Bytes of all buffers, used and free.
    used: u64,
    free: Vec<Memory>,
    free_bytes: u64,
    leased: LeaseTable,
    /// The number of buffers that are tmpfs files, and its maximum.
    files: usize,
    most_files: usize,
    /// The number of the next file.
    next_file: u64,
    /// Source of the other buffers.
    slab: Slab,
}

/// The bytes of one file.
pub struct Image {
    memory: Memory,
    len: usize,
    pool: Arc<Pool>,
}

impl Image {
    pub fn bytes(&self) -> &[u8] {
        &self.memory.bytes()[..self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes_mut()[..self.len]
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Allocates its missing memory, on several threads, as that is slow.
    ///
    /// # Errors
    /// Out of memory.
    pub fn prepare(&mut self) -> std::io::Result<()> {
        self.memory.prepare()
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Adds a lease, if its memory is a tmpfs file, and at most a quarter of the budget is leased.
    pub fn lease(&self) -> bool {
        self.pool.lock().leased.lease(&self.memory, self.pool.limit / 4)
    }

    /// Ends a lease.
    pub fn end_lease(&self) {
        self.pool.lock().leased.end_lease(&self.memory);
    }

    /// Bytes that it takes of the budget.
    pub fn capacity(&self) -> u64 {
        self.memory.capacity() as u64
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let memory = std::mem::replace(&mut self.memory, Memory::Private(Buffer::default()));
        let mut state = self.pool.lock();
        if let Some(memory) = state.leased.keep(memory) {
            state.put_back(memory, self.pool.limit);
        }
    }
}

impl Buffers {
    /// Returns an unused buffer.
    fn put_back(&mut self, memory: Memory, limit: u64) {
        if self.used > limit || (memory.as_file().is_none() && self.wants_files()) {
            return self.discard(memory);
        }
        self.free_bytes += memory.capacity() as u64;
        self.free.push(memory);
    }

    fn discard(&mut self, memory: Memory) {
        self.used -= memory.capacity() as u64;
        self.files -= usize::from(memory.as_file().is_some());
    }

    /// A free buffer whose capacity suits `size` bytes.
    fn reuse(&mut self, size: usize, class: usize) -> Option<Memory> {
        let fits = |len: usize| len >= size && len <= class.saturating_mul(2);
        while let Some(at) = self.free.iter().rposition(|memory| fits(memory.capacity())) {
            let mut memory = self.free.swap_remove(at);
            self.free_bytes -= memory.capacity() as u64;
            match memory.fit(size) {
                Ok(()) => return Some(memory),
                Err(_) => self.discard(memory),
            }
        }
        None
    }

    fn wants_files(&self) -> bool {
        self.files < self.most_files
    }
}

impl Pool {
    pub fn new(limit: u64) -> Pool {
        Pool { limit, state: Mutex::default() }
    }

    /// Maximum bytes of images.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// A buffer of `size` bytes with arbitrary content, if the budget allows.
    pub fn take(self: &Arc<Pool>, size: usize) -> Option<Image> {
        self.get(size, false)
    }

    /// The same regardless of the budget; `None` if the system is out of memory.
    pub fn take_anyway(self: &Arc<Pool>, size: usize) -> Option<Image> {
        self.get(size, true)
    }

    fn get(self: &Arc<Pool>, size: usize, anyway: bool) -> Option<Image> {
        let class = capacity(size);
        let mut state = self.lock();
        let mut found = state.reuse(size, class);
        if found.is_none() {
            for memory in state.leased.returned() {
                state.put_back(memory, self.limit);
            }
            found = state.reuse(size, class);
        }
        if let Some(memory) = found {
            return Some(Image { memory, len: size, pool: self.clone() });
        }
        while state.used + class as u64 > self.limit {
            let Some(memory) = state.free.pop() else { break };
            state.free_bytes -= memory.capacity() as u64;
            state.discard(memory);
        }
        if state.used + class as u64 > self.limit && !anyway {
            return None;
        }
        state.used += class as u64;
        let as_file = state.wants_files();
        state.files += usize::from(as_file);
        let number = state.next_file;
        state.next_file += u64::from(as_file);
        if as_file {
            drop(state);
            if let Ok(memory) = Memory::file(class, size, number) {
                return Some(Image { memory, len: size, pool: self.clone() });
            }
            // There is no memory, or no descriptor, for more files: other buffers are used.
            state = self.lock();
            state.files -= 1;
            state.most_files = state.files;
        }
        match state.slab.cut(class) {
            Ok(buffer) => Some(Image { memory: Memory::Private(buffer), len: size, pool: self.clone() }),
            Err(_) => {
                state.used -= class as u64;
                None
            }
        }
    }

    /// From now on makes buffers as tmpfs files, at most `most` of them (see `lease`).
    pub fn use_files(&self, most: usize) {
        let mut state = self.lock();
        state.most_files = most;
        let free = std::mem::take(&mut state.free);
        state.free_bytes = 0;
        for memory in free {
            state.put_back(memory, self.limit);
        }
    }

    /// Leased bytes, which cannot be freed.
    pub fn leased(&self) -> u64 {
        self.lock().leased.bytes()
    }

    /// Leased bytes whose image was dropped.
    pub fn gone(&self) -> u64 {
        self.lock().leased.gone_bytes()
    }

    fn lock(&self) -> MutexGuard<'_, Buffers> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that can be taken without eviction.
    pub fn room(&self) -> u64 {
        let state = self.lock();
        (self.limit + state.free_bytes).saturating_sub(state.used)
    }

    /// Allocated bytes, and how many of them are free for reuse.
    pub fn used(&self) -> (u64, u64) {
        let state = self.lock();
        (state.used, state.free_bytes)
    }
}

/// The buffer size for an image: rounded up to an eighth of its magnitude, so that batches of similar size share buffers.
pub fn capacity(size: usize) -> usize {
    let step = (size.next_power_of_two() / 16).max(4096);
    size.max(1).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::check;

    #[test]
    fn every_byte_is_accounted_for() {
        check(1, accounts_for_every_byte);
    }

    #[test]
    fn buffers_come_back() {
        check(1, buffers_are_reused);
    }

    fn accounts_for_every_byte() {
        let pool = Arc::new(Pool::new(1 << 20));
        let images: Vec<Image> = (0..100).map_while(|_| pool.take(100_000)).collect();
        assert!(images.len() >= 9, "{}", images.len());
        assert!(pool.used().0 <= 1 << 20);
        let more = pool.take_anyway(100_000).expect("memory");
        assert!(pool.used().0 > 1 << 20);
        drop(more);
        assert!(pool.used().0 <= 1 << 20);
        drop(images);
        assert_eq!(pool.room(), 1 << 20);
        // The free buffers have another size, and are freed.
        let large = pool.take(1_000_000).expect("room");
        assert_eq!(large.bytes().len(), 1_000_000);
        drop(large);
        assert_eq!(pool.room(), 1 << 20);
    }

    fn buffers_are_reused() {
        let pool = Arc::new(Pool::new(1 << 20));
        let mut image = pool.take(5000).expect("room");
        image.bytes_mut().fill(7);
        let used = pool.used().0;
        drop(image);
        assert_eq!(pool.take(4999).expect("room").bytes()[0], 7);
        assert_eq!(pool.used().0, used);
    }

    /// Memory that a reader has mapped is not overwritten, even if its image is dropped.
    #[test]
    fn what_is_lent_is_not_reused() {
        check(1, keeps_what_is_lent);
    }

    fn keeps_what_is_lent() {
        use std::fs::File;
        use std::os::fd::AsRawFd;

        let pool = Arc::new(Pool::new(1 << 20));
        pool.use_files(100);
        let mut image = pool.take(50_000).expect("room");
        image.bytes_mut().fill(7);
        assert!(image.lease());
        let (file, number) = image.memory().as_file().expect("a file");
        let reader = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("opens");
        // SAFETY: nobody writes to it, as this test verifies.
        let map = unsafe { memmap2::Mmap::map(&reader).expect("maps") };
        drop(reader);
        image.end_lease();
        drop(image);
        let others: Vec<Image> = (0..10).filter_map(|_| pool.take(50_000)).collect();
        assert!(others.iter().all(|image| image.memory().as_file().is_some_and(|(_, other)| other != number)));
        for mut image in others {
            image.bytes_mut().fill(8);
        }
        assert!(map.iter().all(|&byte| byte == 7) && pool.leased() > 0 && pool.gone() > 0);
        drop(map);
        let again: Vec<Image> = (0..11).map_while(|_| pool.take(50_000)).collect();
        assert!(again.iter().any(|image| image.memory().as_file().is_some_and(|(_, other)| other == number)));
        drop(again);
        assert_eq!((pool.leased(), pool.gone(), pool.room()), (0, 0, 1 << 20));
    }

    #[test]
    fn a_quarter_is_lent_at_most() {
        check(1, lends_a_quarter);
    }

    fn lends_a_quarter() {
        let pool = Arc::new(Pool::new(1 << 20));
        pool.use_files(100);
        let images: Vec<Image> = (0..8).map_while(|_| pool.take(100_000)).collect();
        assert_eq!(images.iter().filter(|image| image.lease()).count(), 2);
        assert!(images[0].lease(), "it is lent already");
        for image in [&images[0], &images[0], &images[1]] {
            image.end_lease();
        }
        assert!(images[5].lease());
    }
}

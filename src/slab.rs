//! Buffers cut from large pieces of memory in huge pages.
//!
//! Fresh memory costs a page fault for every 4 KiB, more than the decoding of it; in huge pages it costs one for every
//! 2 MiB. Copying rows to and from many places is a quarter faster in them, too, as the processor finds their pages
//! sooner (docs/performance.md).

pub mod reserve;

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Advice, MmapMut};
use rustix::mm::{self, madvise};

/// Bytes of one piece, but for larger buffers.
const REGION: usize = 32 << 20;
/// Buffers begin at multiples of a cache line.
const ALIGN: usize = 64;

/// Cuts buffers.
#[derive(Default)]
pub struct Slab {
    region: Option<Arc<Region>>,
    used: usize,
}

struct Region {
    /// Kept for its memory alone, which the buffers point into.
    _memory: MmapMut,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: `start` points into `_memory`, which is owned and moves nowhere; only disjoint buffers look through it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// A buffer; its memory goes back to the system with it.
pub struct Buffer {
    /// None of an empty one.
    region: Option<Arc<Region>>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: no other buffer has its bytes, which live as long as its piece.
unsafe impl Send for Buffer {}
// SAFETY: as above; they are written to through `&mut` alone.
unsafe impl Sync for Buffer {}

impl Slab {
    /// A buffer of `size` zeros.
    ///
    /// # Errors
    /// The system has no memory.
    pub fn cut(&mut self, size: usize) -> std::io::Result<Buffer> {
        let region = match &self.region {
            Some(region) if region.len - self.used >= size => region.clone(),
            _ => {
                let region = Arc::new(Region::new(REGION.max(size))?);
                self.used = 0;
                self.region.insert(region).clone()
            }
        };
        // SAFETY: the region has at least `size` bytes behind `used`.
        let start = unsafe { region.start.add(self.used) };
        self.used = (self.used + size).next_multiple_of(ALIGN).min(region.len);
        Ok(Buffer { region: Some(region), start, len: size })
    }
}

impl Region {
    fn new(len: usize) -> std::io::Result<Region> {
        let mut memory = MmapMut::map_anon(len)?;
        // Where there are no huge pages, it is slower and nothing else.
        let _ = memory.advise(Advice::HugePage);
        let start = NonNull::new(memory.as_mut_ptr()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Region { start, len, _memory: memory })
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer { region: None, start: NonNull::dangling(), len: 0 }
    }
}

impl Drop for Buffer {
    /// The rest of the piece may stay in use for long.
    fn drop(&mut self) {
        let Some(region) = &self.region else { return };
        let page = rustix::param::page_size();
        let begin = self.start.as_ptr().align_offset(page);
        let Some(len) = self.len.checked_sub(begin).map(|len| len / page * page).filter(|&len| len > 0) else { return };
        // SAFETY: these pages are within the buffer, which is being dropped. The advice keeps the kernel from making huge pages of
        // this piece from now on, which would take their memory again; of the whole piece, as a mapping has one advice.
        unsafe {
            let _ = madvise(region.start.as_ptr().cast(), region.len, mm::Advice::LinuxNoHugepage);
            let _ = madvise(self.start.as_ptr().add(begin).cast(), len, mm::Advice::LinuxDontNeed);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `cut` gives every buffer a run of the piece of its own, and the piece lives as long as they do.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_apart_and_outlive_the_slab() {
        let mut slab = Slab::default();
        let sizes = [REGION / 3, 1, REGION / 3, 2 * REGION, 1000, REGION / 3, REGION / 3, 0, REGION];
        let mut buffers: Vec<Buffer> = sizes.iter().map(|&size| slab.cut(size).expect("memory")).collect();
        drop(slab);
        for (i, (buffer, size)) in buffers.iter_mut().zip(sizes).enumerate() {
            assert!(buffer.len() == size && buffer.iter().all(|&byte| byte == 0));
            buffer.fill(i as u8 + 1);
        }
        // Those that go leave their neighbours alone.
        let mut number = 0;
        buffers.retain(|_| {
            number += 1;
            number % 3 != 0
        });
        for (buffer, i) in buffers.iter().zip([1, 2, 4, 5, 7, 8]) {
            assert!(buffer.iter().all(|&byte| byte == i));
        }
    }

    /// The memory of a buffer is given back, though others of its piece stay.
    #[test]
    fn memory_goes_with_its_buffer() {
        let mut slab = Slab::default();
        let mut first = slab.cut(1_000_000).expect("memory");
        let page = rustix::param::page_size();
        let mut second = slab.cut(10 * page).expect("memory");
        first.fill(1);
        second.fill(2);
        let start = second.start.as_ptr();
        let inner = start.wrapping_add(start.align_offset(page));
        let resident = || {
            let mut pages = vec![0_u8; 9];
            // SAFETY: the piece lives, as `first` does, and there is a byte for each page.
            let done = unsafe { libc::mincore(inner.cast(), 9 * page, pages.as_mut_ptr()) };
            assert_eq!(done, 0);
            pages.iter().filter(|&page| page & 1 == 1).count()
        };
        assert!(resident() > 0);
        drop(second);
        assert_eq!(resident(), 0);
        assert!(first.iter().all(|&byte| byte == 1));
    }
}

//! Writes gathered elements straight into images, from many threads at once.
//!
//! Places are handed out before the gather starts and never overlap (each row has its own run in its image), so no
//! lock is needed; the one `unsafe` of this room is here.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::array::Dtype;
use crate::array::cast::{cast, max_index};
use crate::array::gather::Sink;

/// A writable run of bytes of an image.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    start: *mut u8,
    len: usize,
}

// SAFETY: a Place is only a promise of exclusive access (see `Place::new`); moving it between threads keeps it.
unsafe impl Send for Place {}
// SAFETY: as above; `Scatter` writes each place from one thread at a time.
unsafe impl Sync for Place {}

impl Place {
    /// The place of a buffer that nobody else touches while places made from it live.
    pub fn new(buffer: &mut [u8]) -> Place {
        Place { start: buffer.as_mut_ptr(), len: buffer.len() }
    }

    /// A part of this place; `None` where it does not lie within.
    pub fn part(self, start: usize, len: usize) -> Option<Place> {
        if start.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: start + len <= self.len, so the offset stays within the same buffer.
        Some(Place { start: unsafe { self.start.add(start) }, len })
    }

    /// The bytes.
    ///
    /// # Safety
    /// The buffer is alive, and no other slice of these bytes is.
    pub unsafe fn bytes<'a>(self) -> &'a mut [u8] {
        // SAFETY: `start..start + len` was cut from one live buffer; the caller vouches for exclusiveness.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

/// A sink with one place for each piece, converting where the dtypes differ.
pub struct Scatter {
    from: Dtype,
    to: Dtype,
    places: Vec<Place>,
    /// Converted integers must be below it: a narrower type would wrap them in silence.
    bound: u64,
    worst: AtomicU64,
}

impl Scatter {
    /// A sink for pieces of dtype `from` into `places` of dtype `to`.
    ///
    /// # Safety
    /// The places do not overlap, and their buffers stay alive and untouched by others while the sink lives.
    pub unsafe fn new(from: Dtype, to: Dtype, places: Vec<Place>, bound: u64) -> Scatter {
        Scatter { from, to, places, bound, worst: AtomicU64::new(0) }
    }

    /// The largest converted integer, where it is not below `bound`.
    pub fn out_of_bound(&self) -> Option<u64> {
        Some(self.worst.load(Ordering::Relaxed)).filter(|&worst| worst >= self.bound)
    }

    #[allow(clippy::mut_from_ref)]
    fn bytes(&self, piece: usize, at: u64, len: u64) -> Option<&mut [u8]> {
        let size = self.to.size();
        let part = self.places.get(piece)?.part(at as usize * size, len as usize * size)?;
        // SAFETY: the constructor's promise, and a gather hands each run of a piece to one thread once.
        Some(unsafe { part.bytes() })
    }
}

impl Sink for Scatter {
    fn place(&self, piece: usize, at: u64, len: u64) -> Option<&mut [u8]> {
        if self.from == self.to { self.bytes(piece, at, len) } else { None }
    }

    fn put(&self, piece: usize, at: u64, elements: &[u8]) {
        let len = (elements.len() / self.from.size()) as u64;
        if self.bound != u64::MAX && self.from != self.to {
            self.worst.fetch_max(max_index(self.from, elements), Ordering::Relaxed);
        }
        match self.bytes(piece, at, len) {
            Some(out) => cast(self.from, self.to, elements, out),
            None => debug_assert!(false, "piece {piece} has no elements {at}..{}", at + len),
        }
    }
}

//! Writes gathered elements straight into images, from many threads at once.
//!
//! Places are handed out before the gather starts and never overlap (each row has its own run in its image), so no
//! lock is needed; the one `unsafe` of this room is here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::array::Dtype;
use crate::array::cast::{all_below, cast, max_index, to_u64s};
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

/// What is done to the columns of a store whose genes are not the collection's, by a table of new column numbers.
#[derive(Clone, Debug)]
pub enum Align {
    /// Nothing.
    Same,
    /// The elements are column numbers (sparse): each is looked up.
    Numbers(Arc<[u32]>),
    /// The elements are the columns of a row (dense): each goes to its place, or nowhere (`u32::MAX`).
    Elements(Arc<[u32]>),
}

/// A sink with one place for each piece, converting where the dtypes differ.
pub struct Scatter {
    from: Dtype,
    to: Dtype,
    align: Align,
    places: Vec<Place>,
    /// Column numbers must be below it: nobody is served an index outside the matrix, and a narrower type would wrap it in
    /// silence. `u64::MAX` for values.
    bound: u64,
    worst: AtomicU64,
}

impl Scatter {
    /// A sink for pieces of dtype `from` into `places` of dtype `to`.
    ///
    /// # Safety
    /// The places do not overlap, and their buffers stay alive and untouched by others while the sink lives. No two
    /// columns go to one (`Align::Elements`).
    pub unsafe fn new(from: Dtype, to: Dtype, align: Align, places: Vec<Place>, bound: u64) -> Scatter {
        Scatter { from, to, align, places, bound, worst: AtomicU64::new(0) }
    }

    /// Fills the place of a piece with one element: what its row lacks. To be called before the gather.
    pub fn clear(&self, piece: usize, element: &[u8]) {
        let Some(place) = self.places.get(piece) else { return };
        // SAFETY: the constructor's promise; one caller a piece, before the gather.
        let bytes = unsafe { place.bytes() };
        bytes.chunks_exact_mut(element.len().max(1)).for_each(|out| out.copy_from_slice(element));
    }

    /// The largest column number, where one is not below `bound`.
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

impl Scatter {
    fn check(&self, elements: &[u8]) {
        if self.bound != u64::MAX && !all_below(self.from, elements, self.bound) {
            self.worst.fetch_max(max_index(self.from, elements), Ordering::Relaxed);
        }
    }

    fn put_same(&self, piece: usize, at: u64, elements: &[u8]) {
        let len = (elements.len() / self.from.size()) as u64;
        self.check(elements);
        match self.bytes(piece, at, len) {
            Some(out) => cast(self.from, self.to, elements, out),
            None => debug_assert!(false, "piece {piece} has no elements {at}..{}", at + len),
        }
    }

    /// Column numbers by the table; what is outside it is told by `out_of_bound`, and then nothing here is served.
    fn put_numbers(&self, map: &[u32], piece: usize, at: u64, elements: &[u8]) {
        fn each<const N: usize>(map: &[u32], elements: impl Iterator<Item = u64>, out: &mut [u8]) -> u64 {
            let mut worst = 0;
            for (column, out) in elements.zip(out.as_chunks_mut::<N>().0) {
                match usize::try_from(column).ok().and_then(|column| map.get(column)) {
                    Some(&to) => out.copy_from_slice(&u64::from(to).to_le_bytes()[..N]),
                    None => worst = worst.max(column),
                }
            }
            worst
        }
        let len = (elements.len() / self.from.size()) as u64;
        let Some(out) = self.bytes(piece, at, len) else { return };
        let wide;
        let worst = match (self.from.size(), self.to.size()) {
            (4, 4) => each::<4>(map, elements.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b).into()), out),
            (_, to) => {
                wide = to_u64s(self.from, elements);
                if to == 4 { each::<4>(map, wide.into_iter(), out) } else { each::<8>(map, wide.into_iter(), out) }
            }
        };
        self.worst.fetch_max(worst, Ordering::Relaxed);
    }

    /// Elements of a dense row, each to its column.
    fn put_elements(&self, map: &[u32], piece: usize, at: u64, elements: &[u8]) {
        let mut converted = Vec::new();
        let elements = if self.from == self.to {
            elements
        } else {
            converted.resize(elements.len() / self.from.size() * self.to.size(), 0);
            cast(self.from, self.to, elements, &mut converted);
            &converted
        };
        let columns = usize::try_from(at).ok().and_then(|at| map.get(at..)).unwrap_or_default();
        for (&to, element) in columns.iter().zip(elements.chunks_exact(self.to.size())) {
            if to != u32::MAX
                && let Some(out) = self.bytes(piece, u64::from(to), 1)
            {
                out.copy_from_slice(element);
            }
        }
    }
}

impl Sink for Scatter {
    fn place(&self, piece: usize, at: u64, len: u64) -> Option<&mut [u8]> {
        match self.align {
            Align::Same if self.from == self.to => self.bytes(piece, at, len),
            _ => None,
        }
    }

    fn placed(&self, elements: &[u8]) {
        self.check(elements);
    }

    fn put(&self, piece: usize, at: u64, elements: &[u8]) {
        match &self.align {
            Align::Same => self.put_same(piece, at, elements),
            Align::Numbers(map) => self.put_numbers(map, piece, at, elements),
            Align::Elements(map) => self.put_elements(map, piece, at, elements),
        }
    }
}

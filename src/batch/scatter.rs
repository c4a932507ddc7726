//! Writes gathered elements straight into images, from many threads at once.
//!
//! Destinations are fixed before the gather starts and never overlap (each row has its own range of its image), so no lock is needed.
//! The only `unsafe` code of this room is here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::array::cast::fits::{always_fits, misfit};
use crate::array::cast::{all_below, cast, max_index, to_text, to_u64s};
use crate::array::gather::Sink;
use crate::array::{DestSlice, Dtype};

/// How columns of a store map to columns of the collection.
#[derive(Clone, Debug, PartialEq)]
pub enum Align {
    /// They are the same.
    Same,
    /// Elements are column numbers (sparse): each is replaced by the table's entry.
    Numbers(Arc<[u32]>),
    /// Elements are the columns of a row (dense): those listed (stored number, ascending, and position) are copied.
    Elements(Arc<[(u32, u32)]>),
}

/// A sink with one destination for each element range; it converts where dtypes differ.
pub struct Scatter {
    from: Dtype,
    to: Dtype,
    align: Align,
    places: Vec<DestSlice>,
    /// The number of columns. A column number that is not below it would lie outside the matrix, or wrap in a narrower type.
    /// `u64::MAX` where the elements are values.
    bound: u64,
    worst: AtomicU64,
    /// Whether values must be checked, because `to` cannot represent all values of `from`.
    checked: bool,
    misfit: OnceLock<String>,
}

impl Scatter {
    /// A sink that writes elements of dtype `from` to `places` of dtype `to`.
    ///
    /// # Safety
    /// The places do not overlap; nothing else accesses their buffers, which outlive the sink. With `Align::Elements`, no two columns
    /// have the same position.
    pub unsafe fn new(from: Dtype, to: Dtype, align: Align, places: Vec<DestSlice>, bound: u64) -> Scatter {
        let checked = bound == u64::MAX && !always_fits(from, to);
        Scatter { from, to, align, places, bound, worst: AtomicU64::new(0), checked, misfit: OnceLock::new() }
    }

    /// Whether another sink converts in the same way, so that its places can be appended to these.
    pub fn is_alike(&self, other: &Scatter) -> bool {
        (self.from, self.to, self.bound) == (other.from, other.to, other.bound) && self.align == other.align
    }

    /// Appends the places of a sink for which [`Scatter::is_alike`] holds.
    pub fn append(&mut self, other: Scatter) {
        self.places.extend(other.places);
    }

    /// Fills the place of a range with one repeated element: the value for columns that the store lacks. Call it before the gather.
    pub fn clear(&self, piece: usize, element: &[u8]) {
        let Some(place) = self.places.get(piece) else { return };
        // SAFETY: the constructor's promise; each range is cleared by one thread, before the gather.
        let bytes = unsafe { place.bytes() };
        bytes.chunks_exact_mut(element.len().max(1)).for_each(|out| out.copy_from_slice(element));
    }

    /// The largest column number found, if it is not below `bound`.
    pub fn out_of_bound(&self) -> Option<u64> {
        Some(self.worst.load(Ordering::Relaxed)).filter(|&worst| worst >= self.bound)
    }

    /// The dtype that is written.
    pub fn to(&self) -> Dtype {
        self.to
    }

    /// The first value that `to` cannot represent, if any; the batch must then fail.
    pub fn misfit(&self) -> Option<&str> {
        self.misfit.get().map(String::as_str)
    }

    #[allow(clippy::mut_from_ref)]
    fn bytes(&self, piece: usize, at: u64, len: u64) -> Option<&mut [u8]> {
        let size = self.to.size();
        let part = self.places.get(piece)?.part(at as usize * size, len as usize * size)?;
        // SAFETY: the constructor's promise, and a gather hands each run of a range to one thread, once.
        Some(unsafe { part.bytes() })
    }
}

impl Scatter {
    fn check(&self, elements: &[u8]) {
        if self.bound != u64::MAX && !all_below(self.from, elements, self.bound) {
            self.worst.fetch_max(max_index(self.from, elements), Ordering::Relaxed);
        }
        if self.checked
            && let Some(at) = misfit(self.from, self.to, elements)
        {
            self.misfit.get_or_init(|| to_text(self.from, &elements[at * self.from.size()..][..self.from.size()]));
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

    /// Maps column numbers by the table; those outside it are reported by `out_of_bound`.
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
        let worst = if (self.from.size(), self.to.size()) == (4, 4) {
            each::<4>(map, elements.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b).into()), out)
        } else {
            let wide = to_u64s(self.from, elements).into_iter();
            match self.to.size() {
                2 => each::<2>(map, wide, out),
                4 => each::<4>(map, wide, out),
                _ => each::<8>(map, wide, out),
            }
        };
        self.worst.fetch_max(worst, Ordering::Relaxed);
    }

    /// Copies the selected elements of a dense row, each to its column.
    fn put_elements(&self, taken: &[(u32, u32)], piece: usize, at: u64, elements: &[u8]) {
        let (size, count) = (self.from.size(), (elements.len() / self.from.size()) as u64);
        for &(column, to) in within(taken, at, count) {
            let element = &elements[(u64::from(column) - at) as usize * size..][..size];
            if self.checked {
                self.check(element);
            }
            let Some(out) = self.bytes(piece, u64::from(to), 1) else { continue };
            match (self.from == self.to, size) {
                (true, 4) => out.copy_from_slice(&element[..4]),
                _ => cast(self.from, self.to, element, out),
            }
        }
    }
}

/// The entries of `taken` whose stored column lies in `at..at + count`.
fn within(taken: &[(u32, u32)], at: u64, count: u64) -> &[(u32, u32)] {
    let before = |end: u64| taken.partition_point(|&(column, _)| u64::from(column) < end);
    &taken[before(at)..before(at + count)]
}

// SAFETY: the constructor's promise: places of different ranges do not overlap; `place` returns exactly the requested run.
unsafe impl Sink for Scatter {
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
            Align::Elements(taken) => self.put_elements(taken, piece, at, elements),
        }
    }

    fn needs(&self, at: u64, len: u64) -> bool {
        match &self.align {
            Align::Elements(taken) => !within(taken, at, len).is_empty(),
            _ => true,
        }
    }
}

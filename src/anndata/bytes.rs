//! Arrays with a value for each row: in memory, or in a mapped file of the index directory.
//!
//! Readers need not distinguish them. They are immutable, so clones share their bytes.

use std::ops::{Deref, Index};
use std::sync::Arc;

use super::mapping::{AT_ONCE, Mapping};
use super::shared::Shared;

/// Elements of one column, little-endian, in one or more parts (such as one a store). No element crosses parts.
#[derive(Clone, Default)]
pub struct Bytes {
    parts: Vec<Shared<u8>>,
    /// The end of each part, in bytes.
    ends: Vec<usize>,
}

impl Bytes {
    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a part.
    pub fn push(&mut self, part: Vec<u8>) {
        self.share(part.into());
    }

    /// Appends a part that may be shared.
    fn share(&mut self, part: Shared<u8>) {
        if !part.is_empty() {
            self.ends.push(self.len() + part.len());
            self.parts.push(part);
        }
    }

    /// Appends all parts of another column.
    pub fn append(&mut self, other: Bytes) {
        other.parts.into_iter().for_each(|part| self.share(part));
    }

    /// The parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| &**part)
    }

    /// `len` bytes from `start` on, which must lie in one part.
    pub fn get(&self, start: usize, len: usize) -> &[u8] {
        // A single part is the usual case.
        if let [part] = self.parts.as_slice() {
            return &part[start..start + len];
        }
        let number = self.ends.partition_point(|&end| end <= start);
        let first = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.parts[number][start - first..][..len]
    }

    /// Element `i` of `N` bytes.
    pub fn array<const N: usize>(&self, i: usize) -> [u8; N] {
        let bytes = self.get(i * N, N);
        std::array::from_fn(|at| bytes[at])
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().collect::<Vec<_>>().concat()
    }
}

impl Index<usize> for Bytes {
    type Output = u8;

    fn index(&self, i: usize) -> &u8 {
        &self.get(i, 1)[0]
    }
}

impl From<Shared<u8>> for Bytes {
    fn from(part: Shared<u8>) -> Bytes {
        let mut bytes = Bytes::default();
        bytes.share(part);
        bytes
    }
}

// Not for vectors of other integers: their literals would silently become four bytes each.
impl From<Vec<u8>> for Bytes {
    fn from(part: Vec<u8>) -> Bytes {
        Bytes::from(Shared::from(part))
    }
}

impl FromIterator<u8> for Bytes {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Bytes {
        bytes.into_iter().collect::<Vec<u8>>().into()
    }
}

impl PartialEq for Bytes {
    /// The division into parts does not matter.
    fn eq(&self, other: &Bytes) -> bool {
        self.len() == other.len() && self.parts().flatten().eq(other.parts().flatten())
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<&u8> = self.parts().flatten().take(64).collect();
        write!(f, "{} bytes in {} parts: {shown:?}", self.len(), self.parts.len())
    }
}

/// Row bounds: the start of each row in `data`, and the end of the last one.
#[derive(Clone)]
pub struct Bounds {
    numbers: Shared<u64>,
    mapping: Option<Arc<Mapping>>,
}

impl Bounds {
    /// Bounds in a part of a mapped file; `None` if it is not aligned to 8 bytes.
    pub fn mapped(bytes: &Shared<u8>, mapping: Arc<Mapping>) -> Option<Bounds> {
        Some(Bounds { numbers: bytes.numbers()?, mapping: Some(mapping) })
    }

    /// The number of values of a row. Bounds were checked when the file was written; saturating, in case its disk returns other bytes
    /// later.
    pub fn length(&self, row: usize) -> u64 {
        self.numbers[row + 1].saturating_sub(self.numbers[row])
    }

    /// The file that they are mapped from.
    pub fn mapping(&self) -> Option<&Arc<Mapping>> {
        self.mapping.as_ref()
    }
}

/// Row lengths at ascending rows. Of a mapped file, a few neighbours are read with each, so that no page becomes resident.
pub struct Lengths<'a> {
    bounds: &'a Bounds,
    /// The bounds read last: of row `first` and the following ones.
    first: usize,
    read: [u64; AT_ONCE],
    count: usize,
}

impl<'a> Lengths<'a> {
    pub fn new(bounds: &'a Bounds) -> Lengths<'a> {
        Lengths { bounds, first: 0, read: [0; AT_ONCE], count: 0 }
    }

    pub fn of(&mut self, row: usize) -> u64 {
        let Some(mapping) = self.bounds.mapping() else { return self.bounds.length(row) };
        if row < self.first || row + 1 >= self.first + self.count {
            let slice = &self.bounds[row..self.bounds.len().min(row + AT_ONCE)];
            (self.first, self.count) = (row, slice.len());
            if mapping.read(slice, &mut self.read).is_err() {
                self.count = 0;
                return self.bounds.length(row);
            }
        }
        let at = row - self.first;
        self.read[at + 1].saturating_sub(self.read[at])
    }
}

impl Deref for Bounds {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.numbers
    }
}

impl From<Vec<u64>> for Bounds {
    fn from(numbers: Vec<u64>) -> Bounds {
        Bounds { numbers: numbers.into(), mapping: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_one_run() {
        let mut bytes = Bytes::from(vec![1u8, 2, 3, 4]);
        bytes.push(Vec::<u8>::new());
        bytes.append(Bytes::from(vec![5u8, 6]));
        assert_eq!((bytes.len(), bytes.parts().count(), bytes[3], bytes[4]), (6, 2, 4, 5));
        assert_eq!((bytes.array::<2>(1), bytes.array::<2>(2)), ([3, 4], [5, 6]));
        assert_eq!(bytes, Bytes::from(vec![1u8, 2, 3, 4, 5, 6]));
        assert_ne!(bytes, Bytes::from(vec![1u8, 2, 3, 4, 5, 7]));
        assert!(Bytes::default().is_empty());
    }
}

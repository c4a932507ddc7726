//! Arrays with one value for each row: in memory, or in a mapped file of the index directory.
//!
//! Both look alike to those who read them. Nothing here is ever written again, so clones share the bytes.

use std::ops::{Deref, Index};
use std::sync::Arc;

use arrow_buffer::{Buffer, ScalarBuffer};

use super::mapping::{AT_ONCE, Mapping};

/// Elements of one column, little-endian: one part a store, or one in all. No element lies across two parts.
#[derive(Clone, Default)]
pub struct Bytes {
    parts: Vec<Buffer>,
    /// Where each part ends.
    ends: Vec<usize>,
}

impl Bytes {
    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a part behind the others.
    pub fn push(&mut self, part: Vec<u8>) {
        self.share(part.into());
    }

    /// Adds a part that others may hold too.
    fn share(&mut self, part: Buffer) {
        if !part.is_empty() {
            self.ends.push(self.len() + part.len());
            self.parts.push(part);
        }
    }

    /// Adds all parts of another column.
    pub fn append(&mut self, other: Bytes) {
        other.parts.into_iter().for_each(|part| self.share(part));
    }

    /// The parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(Buffer::as_slice)
    }

    /// `len` bytes from `start` on, all of one part.
    pub fn get(&self, start: usize, len: usize) -> &[u8] {
        // Nearly always there is one.
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

    /// All bytes, copied.
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

impl From<Buffer> for Bytes {
    fn from(part: Buffer) -> Bytes {
        let mut bytes = Bytes::default();
        bytes.share(part);
        bytes
    }
}

// Not from vectors of any number: a literal would become four bytes each.
impl From<Vec<u8>> for Bytes {
    fn from(part: Vec<u8>) -> Bytes {
        Bytes::from(Buffer::from(part))
    }
}

impl FromIterator<u8> for Bytes {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Bytes {
        bytes.into_iter().collect::<Vec<u8>>().into()
    }
}

impl PartialEq for Bytes {
    /// How they are divided does not matter.
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

/// Where each row begins, and where the last one ends.
#[derive(Clone)]
pub struct Bounds {
    numbers: ScalarBuffer<u64>,
    mapping: Option<Arc<Mapping>>,
}

impl Bounds {
    /// Those that fill a part of a mapped file.
    pub fn mapped(bytes: Buffer, mapping: Arc<Mapping>) -> Bounds {
        Bounds { numbers: bytes.into(), mapping: Some(mapping) }
    }

    /// Values of a row. Bounds were checked when they were written; a disk that changes its mind since must not end the
    /// mount.
    pub fn length(&self, row: usize) -> u64 {
        self.numbers[row + 1].saturating_sub(self.numbers[row])
    }

    /// The file that they lie in.
    pub fn mapping(&self) -> Option<&Arc<Mapping>> {
        self.mapping.as_ref()
    }
}

/// Row lengths at ascending rows: of a mapped file a little is read around each, and nothing is touched.
pub struct Lengths<'a> {
    bounds: &'a Bounds,
    /// The bounds read last: of this row and the next ones.
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

//! The cost of reading parts of arrays: chunks to decode, elements needed of them, requests.

use std::collections::HashSet;

use super::{Array, Counters};

/// Sums over arrays and fetches. Within a fetch, each chunk is decoded once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCost {
    /// Encoded chunks, and their elements.
    pub chunks: u64,
    pub decoded: u64,
    /// The elements needed among these.
    pub needed: u64,
    /// Runs of adjacent chunks, or of unfiltered elements: the number of requests over a network.
    pub requests: u64,
    /// Bytes to read: as stored where known, else as decoded.
    pub bytes: u64,
}

/// Bytes of a stored chunk; of the decoded one if finding out would take a request.
fn stored(array: &Array, chunk: u64) -> u64 {
    let decoded = array.chunk_elements().saturating_mul(array.dtype.size() as u64);
    if array.source.looks_up() {
        return decoded;
    }
    match array.source.stored(chunk, &Counters::default()) {
        Ok(Some(extent)) => extent.len,
        _ => decoded,
    }
}

impl ReadCost {
    /// Adds runs (start, length) of elements of a 1-D array, in ascending order.
    pub fn runs(&mut self, array: &Array, runs: &[(u64, u64)]) {
        let size = array.chunk_elements().max(1);
        // Runs are sorted: one that starts where the last ended, or in the same or the next chunk, needs no further request.
        let unit = if array.source.is_encoded() { size } else { 1 };
        let mut last = None;
        for &(start, end) in runs.iter().filter(|(start, end)| start < end) {
            self.requests += u64::from(last.is_none_or(|last| start / unit > last + 1));
            last = Some((end - 1) / unit);
        }
        if !array.source.is_encoded() {
            self.bytes += runs.iter().map(|(start, end)| (end - start) * array.dtype.size() as u64).sum::<u64>();
            return;
        }
        let mut chunks = HashSet::new();
        for &(start, end) in runs.iter().filter(|(start, end)| start < end) {
            chunks.extend(start / size..=(end - 1) / size);
            self.needed += end - start;
        }
        self.bytes += chunks.iter().map(|&chunk| stored(array, chunk)).sum::<u64>();
        self.chunks += chunks.len() as u64;
        self.decoded += chunks.len() as u64 * size.min(array.shape[0]);
    }

    /// Adds whole rows of an n-D array, in ascending order.
    pub fn rows(&mut self, array: &Array, rows: impl Iterator<Item = u64>) {
        let high = if array.source.is_encoded() { array.chunk_shape[0].max(1) } else { 1 };
        let mut bands = HashSet::new();
        let mut count = 0;
        let mut last = None;
        for row in rows {
            self.requests += u64::from(last.is_none_or(|last| row / high > last + 1));
            last = Some(row / high);
            bands.insert(row / high);
            count += 1;
        }
        let row: u64 = array.shape.iter().skip(1).product();
        if !array.source.is_encoded() {
            self.bytes += count * row * array.dtype.size() as u64;
            return;
        }
        let across = |(shape, chunk): (&u64, &u64)| shape.div_ceil((*chunk).max(1));
        let wide: u64 = array.shape.iter().zip(&array.chunk_shape).skip(1).map(across).product();
        let chunks = bands.iter().flat_map(|band| band * wide..(band + 1) * wide);
        self.bytes += chunks.map(|chunk| stored(array, chunk)).sum::<u64>();
        self.chunks += bands.len() as u64 * wide;
        self.decoded += bands.len() as u64 * wide * array.chunk_elements();
        self.needed += count * row;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::array::{ArrayError, ChunkBuf, ChunkSource, Counters, Dtype, Scratch};

    /// A source whose chunks are never read.
    struct Encoded(bool);

    impl ChunkSource for Encoded {
        fn decode(
            &self,
            _: u64,
            _: Option<&[u8]>,
            _: ChunkBuf<'_>,
            _: &mut Scratch,
            _: &Counters,
        ) -> Result<(), ArrayError> {
            Ok(())
        }

        fn is_encoded(&self) -> bool {
            self.0
        }
    }

    fn array(shape: &[u64], chunk: &[u64], is_encoded: bool) -> Array {
        let shapes = (shape.to_vec(), chunk.to_vec());
        Array::new(("store".into(), "x".into()), Dtype::U8, shapes, Arc::new(Encoded(is_encoded)))
    }

    #[test]
    fn runs_share_chunks_and_neighbours_a_request() {
        let runs = [(0, 5), (5, 9), (12, 12), (40, 41), (50, 60)];
        let mut cost = ReadCost::default();
        cost.runs(&array(&[100], &[10], true), &runs);
        assert_eq!(cost, ReadCost { chunks: 3, decoded: 30, needed: 20, requests: 2, bytes: 30 });
        // Without encoding, only elements count: 0..5 and 5..9 are adjacent.
        let mut cost = ReadCost::default();
        cost.runs(&array(&[100], &[100], false), &runs);
        assert_eq!(cost, ReadCost { requests: 3, bytes: 20, ..ReadCost::default() });
    }

    #[test]
    fn rows_take_all_chunks_across() {
        let rows = [0, 1, 9, 35, 99];
        let mut cost = ReadCost::default();
        cost.rows(&array(&[100, 7], &[10, 4], true), rows.into_iter());
        // Three bands of two chunks.
        assert_eq!(cost, ReadCost { chunks: 6, decoded: 6 * 40, needed: 5 * 7, requests: 3, bytes: 6 * 40 });
        let mut cost = ReadCost::default();
        cost.rows(&array(&[100, 7], &[100, 7], false), rows.into_iter());
        assert_eq!(cost, ReadCost { requests: 4, bytes: 5 * 7, ..ReadCost::default() });
    }
}

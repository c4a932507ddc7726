//! The transpose of a matrix: chunks are transposed one by one when they are decoded.

use std::sync::Arc;

use super::{Array, ArrayError, ChunkBuf, ChunkSource, Counters, Scratch};

struct Transposed {
    stored: Array,
    /// Chunks along each axis of the stored matrix.
    grid: [u64; 2],
}

impl Array {
    /// The transpose of a 2-D array; other arrays are returned unchanged.
    #[must_use]
    pub fn transposed(self) -> Array {
        let (&[rows, columns], &[chunk_rows, chunk_columns]) = (self.shape.as_slice(), self.chunk_shape.as_slice())
        else {
            return self;
        };
        let grid = [rows.div_ceil(chunk_rows.max(1)), columns.div_ceil(chunk_columns.max(1))];
        let names = (Arc::clone(&self.store), Arc::clone(&self.element));
        let shapes = (vec![columns, rows], vec![chunk_columns, chunk_rows]);
        Array::new(names, self.dtype, shapes, Arc::new(Transposed { stored: self, grid }))
    }
}

impl ChunkSource for Transposed {
    fn decode(
        &self,
        chunk: u64,
        _: Option<&[u8]>,
        out: ChunkBuf<'_>,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        let (row, column) = (chunk % self.grid[0].max(1), chunk / self.grid[0].max(1));
        let mut bytes = Vec::new();
        let no_memory = |_| self.stored.damaged(chunk, "no memory to decode it; lower --memory");
        bytes.try_reserve_exact(out.bytes.len()).map_err(no_memory)?;
        bytes.resize(out.bytes.len(), 0);
        self.stored.source.decode(row * self.grid[1] + column, None, ChunkBuf::whole(&mut bytes), scratch, counters)?;
        let width = self.stored.chunk_shape.last().and_then(|&n| usize::try_from(n).ok()).unwrap_or(1);
        match self.stored.dtype.size() {
            1 => transpose::<1>(&bytes, width, out.bytes),
            2 => transpose::<2>(&bytes, width, out.bytes),
            4 => transpose::<4>(&bytes, width, out.bytes),
            _ => transpose::<8>(&bytes, width, out.bytes),
        }
        Ok(())
    }

    fn filters(&self) -> Vec<String> {
        let mut filters = self.stored.source.filters();
        filters.push("transposed".to_owned());
        filters
    }

    fn is_encoded(&self) -> bool {
        true
    }
}

/// Transposes rows of `width` elements of `N` bytes.
fn transpose<const N: usize>(from: &[u8], width: usize, to: &mut [u8]) {
    let (from, to) = (from.as_chunks::<N>().0, to.as_chunks_mut::<N>().0);
    let height = from.len() / width.max(1);
    for (row, elements) in from.chunks_exact(width.max(1)).enumerate() {
        for (element, place) in elements.iter().zip(to.iter_mut().skip(row).step_by(height.max(1))) {
            *place = *element;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dtype;
    use super::super::constant::InMemory;
    use super::*;

    #[test]
    fn rows_become_columns() {
        let bytes: Vec<u8> = (0..6u16).flat_map(u16::to_le_bytes).collect();
        let names = ("s".into(), "e".into());
        let stored = Array::new(names, Dtype::U16, (vec![2, 3], vec![2, 3]), Arc::new(InMemory { bytes }));
        let array = stored.transposed();
        assert_eq!((array.shape.as_slice(), array.chunk_shape.as_slice()), ([3, 2].as_slice(), [3, 2].as_slice()));
        let got = array.read_all(100, &Counters::default()).unwrap();
        let expected: Vec<u8> = [0u16, 3, 1, 4, 2, 5].into_iter().flat_map(u16::to_le_bytes).collect();
        assert_eq!(got, expected);
    }
}

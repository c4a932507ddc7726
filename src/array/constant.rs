//! Arrays without data files: never written, or held in memory.

use std::sync::Arc;

use super::{Array, ArrayError, ChunkBuf, ChunkSource, Counters, Dtype, Scratch, codec};

/// An array that was never written.
pub struct Unwritten {
    pub fill: Vec<u8>,
}

impl ChunkSource for Unwritten {
    fn decode(
        &self,
        _: u64,
        _: Option<&[u8]>,
        out: ChunkBuf<'_>,
        _: &mut Scratch,
        _: &Counters,
    ) -> Result<(), ArrayError> {
        codec::fill(out.bytes, &self.fill);
        Ok(())
    }
}

/// An array in memory, chunk after chunk.
pub struct InMemory {
    pub bytes: Vec<u8>,
}

impl ChunkSource for InMemory {
    fn decode(
        &self,
        chunk: u64,
        _: Option<&[u8]>,
        out: ChunkBuf<'_>,
        _: &mut Scratch,
        _: &Counters,
    ) -> Result<(), ArrayError> {
        let start = usize::try_from(chunk).unwrap_or(usize::MAX).saturating_mul(out.bytes.len());
        let stored = self.bytes.get(start..).unwrap_or_default();
        // The last chunk may extend beyond the array.
        let (inside, beyond) = out.bytes.split_at_mut(stored.len().min(out.bytes.len()));
        inside.copy_from_slice(&stored[..inside.len()]);
        beyond.fill(0);
        Ok(())
    }
}

/// An array of the given elements, in C order.
pub fn in_memory(store: &str, element: &str, dtype: Dtype, shape: Vec<u64>, bytes: Vec<u8>) -> Array {
    of(store, element, dtype, shape, Arc::new(InMemory { bytes }))
}

/// An array whose elements are all `fill`.
pub fn filled(store: &str, element: &str, dtype: Dtype, shape: Vec<u64>, fill: Vec<u8>) -> Array {
    of(store, element, dtype, shape, Arc::new(Unwritten { fill }))
}

fn of(store: &str, element: &str, dtype: Dtype, shape: Vec<u64>, source: Arc<dyn ChunkSource>) -> Array {
    let chunk_shape = parts(&shape, dtype.size()).into_iter().map(|axis| axis.max(1)).collect();
    Array::new((store.into(), element.into()), dtype, (shape, chunk_shape), source)
}

/// A chunk shape of about 1 MiB along the first axis, for arrays without chunks.
pub fn parts(shape: &[u64], size: usize) -> Vec<u64> {
    const PART: u64 = 1 << 20;
    let row = shape.iter().skip(1).fold(size as u64, |n, &c| n.saturating_mul(c)).max(1);
    let mut parts = shape.to_vec();
    if let Some(first) = parts.first_mut() {
        *first = (PART / row).clamp(1, (*first).max(1));
    }
    parts
}

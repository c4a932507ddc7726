//! Arrays without bytes in a data file of their own: never written, or small enough to hold.

use super::{ArrayError, ChunkBuf, ChunkSource, Counters, Extent, Scratch, codec};

/// An array that was declared and never written.
pub struct Unwritten {
    pub fill: Vec<u8>,
}

impl ChunkSource for Unwritten {
    fn raw(&self, _: u64) -> Result<Option<Extent>, ArrayError> {
        Ok(None)
    }

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

    fn filters(&self) -> Vec<String> {
        Vec::new()
    }

    fn is_encoded(&self) -> bool {
        false
    }
}

/// An array held in memory as one chunk (HDF5's compact layout: at most 64 KiB).
pub struct InMemory {
    pub bytes: Vec<u8>,
}

impl ChunkSource for InMemory {
    fn raw(&self, _: u64) -> Result<Option<Extent>, ArrayError> {
        Ok(None)
    }

    fn decode(
        &self,
        _: u64,
        _: Option<&[u8]>,
        out: ChunkBuf<'_>,
        _: &mut Scratch,
        _: &Counters,
    ) -> Result<(), ArrayError> {
        // Of the same shape by construction.
        if out.bytes.len() == self.bytes.len() {
            out.bytes.copy_from_slice(&self.bytes);
        }
        Ok(())
    }

    fn filters(&self) -> Vec<String> {
        Vec::new()
    }

    fn is_encoded(&self) -> bool {
        false
    }
}

/// Chunks of about 1 MiB along the first axis, for an array that has none of its own.
pub fn parts(shape: &[u64], size: usize) -> Vec<u64> {
    const PART: u64 = 1 << 20;
    let row = shape.iter().skip(1).fold(size as u64, |n, &c| n.saturating_mul(c)).max(1);
    let mut parts = shape.to_vec();
    if let Some(first) = parts.first_mut() {
        *first = (PART / row).clamp(1, (*first).max(1));
    }
    parts
}

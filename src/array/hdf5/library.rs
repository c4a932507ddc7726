//! The fallback: libhdf5 reads chunks as hyperslabs, one at a time under its lock.
//!
//! For filters without a decoder here (nbit, scale-offset), and for virtual and external layouts.

use ::hdf5::{Dataset, File};

use super::native::TypedObject;
use super::types::{self};
use crate::array::{ArrayError, ChunkBuf, ChunkSource, Counters, Scratch};
use crate::number::as_usize;

pub struct Hdf5Library {
    pub store: std::sync::Arc<str>,
    pub element: std::sync::Arc<str>,
    pub dataset: Dataset,
    /// Keeps the file open while the dataset is used.
    pub _file: File,
    pub shape: Vec<u64>,
    pub chunk_shape: Vec<u64>,
    pub size: usize,
    pub filters: Vec<String>,
}

impl Hdf5Library {
    fn read(&self, chunk: u64, out: &mut [u8]) -> Result<(), String> {
        let mut rest = chunk;
        let mut start = vec![0; self.shape.len()];
        let mut count = vec![0; self.shape.len()];
        for axis in (0..self.shape.len()).rev() {
            let (n, c) = (self.shape[axis], self.chunk_shape[axis].max(1));
            let grid = n.div_ceil(c).max(1);
            start[axis] = (rest % grid) * c;
            count[axis] = c.min(n.saturating_sub(start[axis]));
            rest /= grid;
        }
        let values = TypedObject::of(&self.dataset);
        let memory = types::little_endian(&values.datatype()?)?;
        if count == self.chunk_shape {
            return values.read_bytes(&memory, &start, &count, out);
        }
        // An edge chunk: elements within the array are the front corner of the full chunk.
        let inside =
            count.iter().try_fold(self.size as u64, |n, &c| n.checked_mul(c)).ok_or("the shape is too large")?;
        let mut part = vec![0; usize::try_from(inside).map_err(|_| "the chunk is too large")?];
        values.read_bytes(&memory, &start, &count, &mut part)?;
        out.fill(0);
        corner(&part, &count, out, &self.chunk_shape, self.size);
        Ok(())
    }
}

/// Copies a block to the front corner of a larger one.
fn corner(part: &[u8], count: &[u64], out: &mut [u8], shape: &[u64], size: usize) {
    let Some(&run) = count.last() else { return };
    let run = as_usize(run) * size;
    for (number, line) in part.chunks_exact(run.max(1)).enumerate() {
        let (mut rest, mut at, mut stride) = (number as u64, 0, shape.last().copied().unwrap_or(1));
        for axis in (0..count.len() - 1).rev() {
            at += (rest % count[axis]) * stride;
            rest /= count[axis];
            stride *= shape[axis];
        }
        let at = as_usize(at) * size;
        if let Some(place) = out.get_mut(at..at + run) {
            place.copy_from_slice(line);
        }
    }
}

impl ChunkSource for Hdf5Library {
    fn decode(
        &self,
        chunk: u64,
        _: Option<&[u8]>,
        out: ChunkBuf<'_>,
        _: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        Counters::add(&counters.reads, 1);
        Counters::add(&counters.bytes, out.bytes.len() as u64);
        self.read(chunk, out.bytes).map_err(|cause| ArrayError::Damaged {
            store: self.store.to_string(),
            element: self.element.to_string(),
            chunk,
            cause,
        })
    }

    fn filters(&self) -> Vec<String> {
        let mut names = self.filters.clone();
        names.push("(library)".to_owned());
        names
    }

    fn is_encoded(&self) -> bool {
        true
    }
}

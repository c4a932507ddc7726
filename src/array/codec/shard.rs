//! Shards that are decoded whole: those within another shard, or behind other codecs.

use super::{Fault, Stage, decode_into};

/// A shard's chunks, and its index.
#[derive(Clone, Debug, PartialEq)]
pub struct Shard {
    /// Elements along each axis of the shard, and of its chunks.
    pub shape: Vec<usize>,
    pub chunk: Vec<usize>,
    /// Bytes of an element; 1 for chunks of strings.
    pub size: usize,
    /// The stages of a chunk, outermost first.
    pub stages: Vec<Stage>,
    pub index: Index,
    /// The fill value.
    pub fill: Vec<u8>,
}

/// A shard's index: offset and length of each chunk, all bits set if it was never written.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Stages of fixed size, outermost first.
    pub stages: Vec<Stage>,
    pub at_start: bool,
}

impl Index {
    /// The stored size of an index with this many chunks; `None` if it varies.
    pub fn stored(&self, chunks: usize) -> Option<usize> {
        self.stages.iter().rev().try_fold(chunks.checked_mul(16)?, |size, stage| stage.encoded(size))
    }

    /// Decodes an index.
    pub fn entries(&self, stored: &[u8], chunks: usize) -> Result<Vec<(u64, u64)>, String> {
        let mut bytes = vec![0; chunks.saturating_mul(16)];
        decode_into(&self.stages, stored, &mut bytes, &mut Default::default())
            .map_err(|cause| format!("the shard's index: {cause}"))?;
        let pairs = bytes.as_chunks::<8>().0.as_chunks::<2>().0;
        Ok(pairs.iter().map(|[offset, len]| (u64::from_le_bytes(*offset), u64::from_le_bytes(*len))).collect())
    }

    /// The stored bytes of each chunk in a shard.
    pub fn split<'a>(&self, shard: &'a [u8], chunks: usize) -> Result<Vec<Option<&'a [u8]>>, String> {
        let size = self.stored(chunks).filter(|&size| size <= shard.len());
        let size = size.ok_or_else(|| format!("the shard of {} bytes is too short for its index", shard.len()))?;
        let (start, end) = if self.at_start { (0, size) } else { (shard.len() - size, shard.len()) };
        let entries = self.entries(shard.get(start..end).unwrap_or_default(), chunks)?;
        let part = |(offset, len): (u64, u64)| {
            if (offset, len) == (u64::MAX, u64::MAX) {
                return Ok(None);
            }
            let start = usize::try_from(offset).ok();
            let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
            let bytes = start.zip(end).and_then(|(start, end)| shard.get(start..end));
            bytes.map(Some).ok_or_else(|| format!("{len} bytes at {offset} lie beyond the shard of {}", shard.len()))
        };
        entries.into_iter().map(part).collect()
    }
}

impl Shard {
    /// Decodes into the front of `out`; returns the number of bytes written.
    pub fn decode(&self, input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
        let whole = self.shape.iter().product::<usize>() * self.size;
        let out = out.get_mut(..whole).ok_or(Fault::Full)?;
        let grid: Vec<usize> = self.shape.iter().zip(&self.chunk).map(|(s, c)| s / c).collect();
        let parts = self.index.split(input, grid.iter().product())?;
        let mut bytes = vec![0; self.chunk.iter().product::<usize>() * self.size];
        let mut buffers = Default::default();
        for (number, part) in parts.into_iter().enumerate() {
            match part {
                Some(stored) => decode_into(&self.stages, stored, &mut bytes, &mut buffers)?,
                None => super::fill(&mut bytes, &self.fill),
            }
            runs(&self.shape, &self.chunk, number, |from, to, len| {
                let (from, to, len) = (from * self.size, to * self.size, len * self.size);
                if let (Some(place), Some(run)) = (out.get_mut(to..to + len), bytes.get(from..from + len)) {
                    place.copy_from_slice(run);
                }
            });
        }
        Ok(whole)
    }
}

/// Calls `copy` with (first element in the chunk, first element in the whole, number of elements) for each contiguous run of chunk
/// `number`; elements beyond the edge are left out.
pub fn runs(whole: &[usize], chunk: &[usize], number: usize, mut copy: impl FnMut(usize, usize, usize)) {
    let axes = whole.len();
    let Some(last) = axes.checked_sub(1) else { return copy(0, 0, 1) };
    let mut rest = number;
    let mut origin = vec![0; axes];
    for axis in (0..axes).rev() {
        let count = whole[axis].div_ceil(chunk[axis].max(1)).max(1);
        origin[axis] = rest % count * chunk[axis];
        rest /= count;
    }
    let here: Vec<usize> = (0..axes).map(|a| chunk[a].min(whole[a].saturating_sub(origin[a]))).collect();
    if here.contains(&0) {
        return;
    }
    let mut index = vec![0; last];
    loop {
        let (mut from, mut to) = (0, 0);
        for axis in 0..axes {
            let at = index.get(axis).copied().unwrap_or(0);
            from = from * chunk[axis] + at;
            to = to * whole[axis] + origin[axis] + at;
        }
        copy(from, to, here[last]);
        let mut axis = last;
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < here[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

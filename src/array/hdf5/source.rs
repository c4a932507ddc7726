//! Chunks of an HDF5 dataset, read through `storage` without the library.

use std::sync::Arc;

use crate::array::codec::checksum::Sum;
use crate::array::codec::{self, Stage};
use crate::array::{ArrayError, ChunkBuf, ChunkSource, Counters, Extent, Scratch, file};
use crate::number::as_usize;
use crate::storage::{Meter, Object};

/// The decoder of a filter, by its number and first parameter; `None` if the library must decode it.
pub fn stage(id: i32, parameter: usize) -> Option<Stage> {
    match id {
        1 => Some(Stage::Zlib),
        2 if parameter > 0 => Some(Stage::Shuffle(parameter)),
        3 => Some(Stage::sum(Sum::Fletcher32)),
        32000 => Some(Stage::Lzf),
        32001 => Some(Stage::Blosc),
        super::zstd_filter::ZSTD => Some(Stage::Zstd),
        _ => None,
    }
}

/// The location of a chunk.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
#[serde(from = "(u64, u32, u32)", into = "(u64, u32, u32)")]
pub struct StoredChunk {
    pub offset: u64,
    pub size: u32,
    /// Filters that were not applied, as a bit mask over the pipeline.
    pub mask: u32,
}

/// A short form, as there are many to hand over.
impl From<(u64, u32, u32)> for StoredChunk {
    fn from((offset, size, mask): (u64, u32, u32)) -> StoredChunk {
        StoredChunk { offset, size, mask }
    }
}

impl From<StoredChunk> for (u64, u32, u32) {
    fn from(StoredChunk { offset, size, mask }: StoredChunk) -> (u64, u32, u32) {
        (offset, size, mask)
    }
}

/// Locations of chunks by number; 16 bytes a chunk if all were written.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ChunkMap {
    places: Vec<StoredChunk>,
    /// The number of each chunk, ascending; `None` if all were written.
    numbers: Option<Vec<u64>>,
}

impl ChunkMap {
    /// Makes the map of chunks in any order; the first counts if two have the same number.
    pub fn new(mut chunks: Vec<(u64, StoredChunk)>, grid: u64) -> ChunkMap {
        chunks.sort_by_key(|&(number, _)| number);
        chunks.dedup_by_key(|&mut (number, _)| number);
        let numbers = (chunks.len() as u64 != grid).then(|| chunks.iter().map(|&(number, _)| number).collect());
        ChunkMap { places: chunks.into_iter().map(|(_, place)| place).collect(), numbers }
    }

    fn get(&self, chunk: u64) -> Option<StoredChunk> {
        let index = match &self.numbers {
            None => usize::try_from(chunk).ok()?,
            Some(numbers) => numbers.binary_search(&chunk).ok()?,
        };
        self.places.get(index).copied()
    }
}

/// A chunked dataset.
pub struct Chunked {
    pub store: Arc<str>,
    pub element: Arc<str>,
    pub object: Object,
    pub map: Arc<ChunkMap>,
    /// In the order of encoding (innermost first), which the masks refer to.
    pub stages: Vec<Stage>,
    pub big: bool,
    pub size: usize,
    pub chunk_bytes: u64,
    pub fill: Vec<u8>,
}

impl Chunked {
    fn extent(&self, place: StoredChunk) -> Extent {
        Extent { object: self.object.clone(), offset: place.offset, len: u64::from(place.size) }
    }

    fn active(&self, mask: u32) -> impl DoubleEndedIterator<Item = Stage> {
        let skipped = move |index: usize| u32::try_from(index).ok().and_then(|i| mask.checked_shr(i)).unwrap_or(0) & 1;
        self.stages.iter().cloned().enumerate().filter(move |&(index, _)| skipped(index) == 0).map(|(_, stage)| stage)
    }
}

impl ChunkSource for Chunked {
    fn raw(&self, chunk: u64) -> Result<Option<Extent>, ArrayError> {
        let Some(place) = self.map.get(chunk) else { return Ok(None) };
        let plain = !self.big && self.active(place.mask).next().is_none();
        Ok((plain && u64::from(place.size) == self.chunk_bytes).then(|| self.extent(place)))
    }

    fn decode(
        &self,
        chunk: u64,
        stored: Option<&[u8]>,
        mut out: ChunkBuf<'_>,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        let Some(place) = self.map.get(chunk) else {
            codec::fill(out.bytes, &self.fill);
            return Ok(());
        };
        let stored = match stored {
            Some(stored) => stored,
            // Its size is bounded by the file's length, which was checked when the array was opened.
            None => file::read_stored(&self.extent(place), &mut scratch.stored, counters)
                .map_err(|e| file::read_error(&self.store, &self.element, chunk, e))?,
        };
        let damaged = |cause| ArrayError::Damaged {
            store: self.store.to_string(),
            element: self.element.to_string(),
            chunk,
            cause,
        };
        // At most 32 filters, the size of the mask; usually one or two.
        let stages: Vec<Stage> = self.active(place.mask).rev().collect();
        codec::decode(&stages, stored, &mut out, &mut scratch.filter).map_err(damaged)?;
        if self.big {
            codec::swap(out.bytes, self.size);
        }
        Ok(())
    }

    fn stored(&self, chunk: u64, _: &Counters) -> Result<Option<Extent>, ArrayError> {
        Ok(self.map.get(chunk).map(|place| self.extent(place)))
    }

    fn meter(&self) -> Option<&Meter> {
        Some(self.object.address().meter())
    }

    fn filters(&self) -> Vec<String> {
        self.stages.iter().map(|stage| stage.name().to_owned()).collect()
    }

    fn is_encoded(&self) -> bool {
        self.big || !self.stages.is_empty()
    }
}

/// A contiguous dataset: one raw chunk, or, if its byte order must be swapped, many parts.
pub struct Contiguous {
    pub store: Arc<str>,
    pub element: Arc<str>,
    pub object: Object,
    pub offset: u64,
    pub len: u64,
    pub big: bool,
    pub size: usize,
}

impl ChunkSource for Contiguous {
    fn raw(&self, chunk: u64) -> Result<Option<Extent>, ArrayError> {
        let whole = || Extent { object: self.object.clone(), offset: self.offset, len: self.len };
        Ok((!self.big && chunk == 0).then(whole))
    }

    fn decode(
        &self,
        chunk: u64,
        _: Option<&[u8]>,
        out: ChunkBuf<'_>,
        _: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        let skip = chunk.saturating_mul(out.bytes.len() as u64).min(self.len);
        // The last part may extend beyond the array.
        let here = as_usize((self.len - skip).min(out.bytes.len() as u64));
        let (inside, beyond) = out.bytes.split_at_mut(here);
        beyond.fill(0);
        file::read_exact(&self.object, self.offset + skip, inside, counters)
            .map_err(|e| file::read_error(&self.store, &self.element, chunk, e))?;
        if self.big {
            codec::swap(inside, self.size);
        }
        Ok(())
    }

    fn meter(&self) -> Option<&Meter> {
        Some(self.object.address().meter())
    }

    fn is_encoded(&self) -> bool {
        self.big
    }
}

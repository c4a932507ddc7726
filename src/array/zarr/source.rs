//! Chunk files (or members of an archive), one for each chunk, read whole.

use std::sync::Arc;
use std::time::SystemTime;

use super::blob::Blob;
use super::layout::Keys;
use super::location::{Location, Trouble};
use crate::array::codec::{self, Stage};
use crate::array::{ArrayError, ChunkBuf, ChunkSource, Counters, Extent, Scratch, file, grid};
use crate::storage::{Identity, Meter};

/// What all sources need to find, read and decode chunks of one array.
pub struct Files {
    pub store: Arc<str>,
    pub element: Arc<str>,
    /// The location of the array.
    pub root: Location,
    pub opened: SystemTime,
    /// The metadata files of the array.
    pub metadata: Vec<Identity>,
    pub keys: Keys,
    /// Whether the array has one more axis than its chunk keys (strings as bytes).
    pub trailing: bool,
    /// Stages, outermost first.
    pub stages: Vec<Stage>,
    pub fill: Vec<u8>,
    /// Bytes of a decoded chunk (of an inner chunk, with shards).
    pub chunk_bytes: u64,
}

impl Files {
    pub fn damaged(&self, chunk: u64, cause: impl Into<String>) -> ArrayError {
        ArrayError::Damaged {
            store: self.store.to_string(),
            element: self.element.to_string(),
            chunk,
            cause: cause.into(),
        }
    }

    fn key(&self, indices: &[u64]) -> String {
        // The last index, which is always 0, is not part of the key.
        let indices = if self.trailing { indices.split_last().map_or(indices, |(_, rest)| rest) } else { indices };
        self.keys.key(indices)
    }

    /// Opens a chunk or shard; `None` if it was never written.
    pub fn open(&self, indices: &[u64], chunk: u64) -> Result<Option<Blob>, ArrayError> {
        match self.root.chunk(&self.key(indices), self.opened) {
            Ok(Some(blob)) => Ok(Some(blob)),
            // Missing chunks read as fill values, but those of a removed store must not.
            Ok(None) => file::confirm(&self.store, &self.metadata).map(|()| None),
            Err(Trouble::Written(cause)) => Err(ArrayError::Stale { store: self.store.to_string(), cause }),
            Err(Trouble::Damaged(cause)) => {
                // Members of a replaced archive look damaged, so that is checked first.
                file::check_unchanged(&self.store, &self.metadata)?;
                Err(self.damaged(chunk, cause))
            }
            Err(Trouble::Unreadable(name, error)) => {
                file::check_unchanged(&self.store, &self.metadata)?;
                let what = format!("{}: chunk {chunk}: {name} cannot be read", self.element);
                Err(file::failed(&self.store, what, error))
            }
        }
    }

    /// Fails if a stored chunk is much larger than a decoded one: no codec does that, and it must not take the memory.
    fn check_len(&self, chunk: u64, len: u64) -> Result<(), ArrayError> {
        if len > self.chunk_bytes.saturating_mul(2).saturating_add(1 << 20) {
            let cause = format!("{len} bytes are stored for a chunk of {}", self.chunk_bytes);
            return Err(self.damaged(chunk, cause));
        }
        Ok(())
    }

    /// The location of stored bytes, if they are in an object.
    fn extent(
        &self,
        chunk: u64,
        StoredRange { blob, offset, len }: &StoredRange,
    ) -> Result<Option<Extent>, ArrayError> {
        self.check_len(chunk, *len)?;
        Ok(blob.extent(*offset, *len))
    }

    /// Reads and decodes stored bytes.
    fn decode(
        &self,
        chunk: u64,
        StoredRange { blob, offset, len }: &StoredRange,
        out: ChunkBuf<'_>,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        self.check_len(chunk, *len)?;
        let stored = blob
            .stored(*offset, *len, &mut scratch.stored, counters)
            .map_err(|e| file::read_error(&self.store, &self.element, chunk, e))?;
        self.decode_stored(chunk, stored, out, &mut scratch.filter)
    }

    /// Decodes stored bytes.
    fn decode_stored(
        &self,
        chunk: u64,
        stored: &[u8],
        mut out: ChunkBuf<'_>,
        buffers: &mut [Vec<u8>; 2],
    ) -> Result<(), ArrayError> {
        codec::decode(&self.stages, stored, &mut out, buffers).map_err(|cause| self.damaged(chunk, cause))
    }

    fn is_encoded(&self) -> bool {
        !self.stages.is_empty()
    }

    fn filters(&self) -> Vec<String> {
        self.stages.iter().rev().map(|stage| stage.name().to_owned()).collect()
    }
}

/// The indices of a chunk along the axes, from its number in a grid.
pub fn indices(number: u64, grid: &[u64]) -> Vec<u64> {
    let mut rest = number;
    let mut indices: Vec<u64> = grid
        .iter()
        .rev()
        .map(|&n| {
            let index = rest % n.max(1);
            rest /= n.max(1);
            index
        })
        .collect();
    indices.reverse();
    indices
}

/// The location of a written chunk.
pub struct StoredRange {
    pub blob: Blob,
    pub offset: u64,
    pub len: u64,
}

/// Finds the chunks of an array.
pub trait ChunkPlaces: Send + Sync {
    fn files(&self) -> &Files;

    /// The location of a chunk; `None` if it was never written.
    fn find(&self, chunk: u64, counters: &Counters) -> Result<Option<StoredRange>, ArrayError>;

    /// Whether `find` may read from the storage.
    fn looks_up(&self) -> bool;
}

/// The source of an array's chunks.
pub struct StoredChunks<P>(pub P);

impl<P: ChunkPlaces> ChunkSource for StoredChunks<P> {
    fn raw(&self, chunk: u64) -> Result<Option<Extent>, ArrayError> {
        let files = self.0.files();
        if files.is_encoded() {
            return Ok(None);
        }
        let found = self.0.find(chunk, &Counters::default())?;
        let extent = found.and_then(|StoredRange { blob, offset, len }| blob.extent(offset, len));
        Ok(extent.filter(|extent| extent.len == files.chunk_bytes))
    }

    fn decode(
        &self,
        chunk: u64,
        stored: Option<&[u8]>,
        out: ChunkBuf<'_>,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        let files = self.0.files();
        if let Some(stored) = stored {
            return files.decode_stored(chunk, stored, out, &mut scratch.filter);
        }
        match self.0.find(chunk, counters)? {
            Some(range) => files.decode(chunk, &range, out, scratch, counters),
            None => {
                codec::fill(out.bytes, &files.fill);
                Ok(())
            }
        }
    }

    fn stored(&self, chunk: u64, counters: &Counters) -> Result<Option<Extent>, ArrayError> {
        match self.0.find(chunk, counters)? {
            Some(range) => self.0.files().extent(chunk, &range),
            None => Ok(None),
        }
    }

    fn looks_up(&self) -> bool {
        self.0.looks_up()
    }

    fn is_scattered(&self) -> bool {
        !self.0.looks_up()
    }

    fn meter(&self) -> Option<&Meter> {
        Some(self.0.files().root.meter())
    }

    fn filters(&self) -> Vec<String> {
        self.0.files().filters()
    }

    fn is_encoded(&self) -> bool {
        self.0.files().is_encoded()
    }
}

/// An array without shards: each chunk is a separate object.
pub struct ChunkFiles {
    files: Files,
    grid: Vec<u64>,
}

impl ChunkFiles {
    pub fn new(files: Files, shape: &[u64], chunk: &[u64]) -> ChunkFiles {
        ChunkFiles { files, grid: grid(shape, chunk) }
    }
}

impl ChunkPlaces for ChunkFiles {
    fn files(&self) -> &Files {
        &self.files
    }

    fn find(&self, chunk: u64, _: &Counters) -> Result<Option<StoredRange>, ArrayError> {
        let blob = self.files.open(&indices(chunk, &self.grid), chunk)?;
        Ok(blob.map(|blob| StoredRange { offset: 0, len: blob.len(), blob }))
    }

    fn looks_up(&self) -> bool {
        false
    }
}

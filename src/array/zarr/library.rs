//! The fallback: zarrs reads and decodes a whole chunk (or shard).
//!
//! For codecs that are not decoded here: transposed (F order) chunks, nested shards, bz2, fixed-scale-offset, ...

use zarrs::array::{ArrayBytes, CodecOptions};

use super::source::{Files, grid, indices};
use crate::array::catch_panic::catch_panic;
use crate::array::{ArrayError, ChunkBuf, ChunkSource, Counters, Extent, Scratch};

pub struct ZarrsLibrary {
    files: Files,
    grid: Vec<u64>,
    names: Vec<String>,
}

impl ZarrsLibrary {
    pub fn new(files: Files, shape: &[u64], chunk: &[u64], mut names: Vec<String>) -> ZarrsLibrary {
        names.push("(library)".to_owned());
        ZarrsLibrary { files, grid: grid(shape, chunk), names }
    }
}

impl ChunkSource for ZarrsLibrary {
    fn raw(&self, _: u64) -> Result<Option<Extent>, ArrayError> {
        Ok(None)
    }

    fn decode(
        &self,
        chunk: u64,
        _: Option<&[u8]>,
        out: ChunkBuf<'_>,
        _: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        let at = indices(chunk, &self.grid);
        // For staleness: zarrs opens the file by itself, and takes a missing one for the fill value.
        let stored = self.files.open(&at, chunk)?.map_or(0, |blob| blob.len());
        Counters::add(&counters.reads, 1);
        Counters::add(&counters.bytes, stored);
        // The chunks are what runs in parallel.
        let options = CodecOptions::default().with_concurrent_target(1);
        let read = || {
            let bytes = self.files.zarrs.retrieve_chunk_opt::<ArrayBytes>(&at, &options).map_err(|e| e.to_string())?;
            bytes.into_fixed().map_err(|e| e.to_string())
        };
        let bytes = catch_panic(read).flatten().map_err(|cause| self.files.damaged(chunk, cause))?;
        if bytes.len() != out.bytes.len() {
            let cause = format!("decodes to {} bytes, {} are declared", bytes.len(), out.bytes.len());
            return Err(self.files.damaged(chunk, cause));
        }
        out.bytes.copy_from_slice(&bytes);
        Ok(())
    }

    fn filters(&self) -> Vec<String> {
        self.names.clone()
    }

    fn is_encoded(&self) -> bool {
        true
    }
}

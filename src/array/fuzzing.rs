//! Doors for the fuzz targets to what is otherwise private. No part of the library's interface.

use std::ops::Range;

use super::ChunkBuf;
use super::codec::{self, Stage};

/// Decodes a part through a chain of stages, one byte each.
pub fn decode(kinds: &[u8], stored: &[u8], part: Range<usize>, size: usize) -> Result<Vec<u8>, String> {
    let stage = |kind: &u8| match kind % 8 {
        0 => Stage::Gzip,
        1 => Stage::Zlib,
        2 => Stage::Zstd,
        3 => Stage::Blosc,
        4 => Stage::Lzf,
        5 => Stage::Shuffle(usize::from(kind / 8)),
        6 => Stage::Crc32c,
        _ => Stage::Fletcher32,
    };
    let stages: Vec<Stage> = kinds.iter().map(stage).collect();
    let mut out = vec![0; size];
    let place = &mut ChunkBuf { bytes: &mut out, part };
    codec::decode(&stages, stored, place, &mut Default::default()).map(|()| out)
}

/// The checksum of shards' indices, so that a fuzzer gets past it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

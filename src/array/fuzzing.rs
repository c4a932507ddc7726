//! Access for fuzz targets to private functions. Not part of the library's interface.

use std::ops::Range;
use std::sync::Arc;

use super::ChunkBuf;
use super::codec::checksum::Sum;
use super::codec::lzma::{Filter, Lzma};
use super::codec::{self, Stage};

/// Decodes a part through a chain of stages, each chosen by a byte.
pub fn decode(kinds: &[u8], stored: &[u8], part: Range<usize>, size: usize) -> Result<Vec<u8>, String> {
    let stage = |kind: &u8| match kind % 16 {
        0 => Stage::Gzip,
        1 => Stage::Zlib,
        2 => Stage::Zstd,
        3 => Stage::Blosc,
        4 => Stage::Lzf,
        5 => Stage::Shuffle(usize::from(kind / 16)),
        6 => Stage::sum(Sum::Crc32c),
        7 => Stage::sum(Sum::Fletcher32),
        8 => Stage::Lz4,
        9 => Stage::Bzip2,
        10 => Stage::Lzma(Arc::new(Lzma::Auto)),
        11 => Stage::Lzma(Arc::new(Lzma::Raw(vec![Filter::Delta(u32::from(kind / 16) + 1), Filter::Lzma2(1 << 20)]))),
        12 => Stage::Pcodec,
        13 => Stage::Packbits,
        14 => Stage::LeadingSum(Arc::new(Sum::Adler32)),
        _ => Stage::Swap(usize::from(kind / 16)),
    };
    let stages: Vec<Stage> = kinds.iter().map(stage).collect();
    let mut out = vec![0; size];
    let place = &mut ChunkBuf { bytes: &mut out, part };
    codec::decode(&stages, stored, place, &mut Default::default()).map(|()| out)
}

/// The checksum of shard indices, so that a fuzzer can make valid ones.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

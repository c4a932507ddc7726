//! Decodes stored chunks to elements.
//!
//! Input is untrusted. Every decoder writes to a slice whose size follows from the array's shape, not from a size in the compressed
//! stream, and a chunk that decodes to another size is an error.

pub mod blosc;
mod bzip2;
pub mod checksum;
mod convert;
mod deflate;
pub mod filter;
mod lz4;
mod lzf;
pub mod lzma;
mod packbits;
mod pcodec;
pub mod shard;
mod shuffle;
mod stage;
mod stream;
pub mod transpose;
pub mod value_cast;
mod zstd;

use super::{ChunkBuf, grow};
pub use stage::{Fault, Stage};

/// Decodes `stored` through `stages` (outermost first) so that it fills `out` exactly. Bytes outside of `out.part` are decoded only if that
/// is less work.
///
/// # Errors
/// The cause, if the bytes cannot be decoded, or decode to another size.
pub fn decode(
    stages: &[Stage],
    stored: &[u8],
    out: &mut ChunkBuf<'_>,
    buffers: &mut [Vec<u8>; 2],
) -> Result<(), String> {
    let ChunkBuf { bytes: out, part } = out;
    // The buffer with the current bytes (`None`: `stored`), and their range in it.
    let mut held: Option<usize> = None;
    let mut at = 0..stored.len();
    for (index, stage) in stages.iter().enumerate() {
        let inner = stages.get(index + 1..).unwrap_or_default();
        let [first, second] = &mut *buffers;
        let (source, spare) = match held {
            None => (stored, first),
            Some(0) => (first.as_slice(), second),
            Some(_) => (second.as_slice(), first),
        };
        let input = source.get(at.clone()).unwrap_or_default();
        if let Some(data) = stage.verify(input) {
            let len = data.map_err(|fault| stage.words(fault, out.len()))?.len();
            let start = if matches!(stage, Stage::LeadingSum(_)) { at.end - len } else { at.start };
            at = start..start + len;
            continue;
        }
        if inner.is_empty() {
            if part.len() < out.len() && stage.decode_part(input, part.clone(), out) {
                return Ok(());
            }
            let got = stage.decode(input, out).map_err(|fault| stage.words(fault, out.len()))?;
            return exactly(got, out.len());
        }
        let bound = output_bound(inner, out.len());
        grow(spare, bound).map_err(|error| error.to_string())?;
        let place = spare.get_mut(..bound).unwrap_or_default();
        at = 0..stage.decode(input, place).map_err(|fault| stage.words(fault, bound))?;
        held = Some(match held {
            Some(0) => 1,
            _ => 0,
        });
    }
    let bytes = match held {
        None => stored,
        Some(0) => &buffers[0],
        Some(_) => &buffers[1],
    };
    exactly(at.len(), out.len())?;
    if let Some(bytes) = bytes.get(at) {
        out.copy_from_slice(bytes);
    }
    Ok(())
}

/// Decodes a whole chunk.
pub fn decode_into(stages: &[Stage], stored: &[u8], out: &mut [u8], buffers: &mut [Vec<u8>; 2]) -> Result<(), String> {
    decode(stages, stored, &mut ChunkBuf::whole(out), buffers)
}

/// Decodes data whose size only the stream knows, such as strings.
///
/// # Errors
/// The cause; also if more than 4,096 bytes come from one stored byte, which no text compresses to.
pub fn decode_unsized(stages: &[Stage], stored: &[u8]) -> Result<Vec<u8>, String> {
    const LEAST: usize = 64 << 10;
    let most = stored.len().saturating_mul(4096).saturating_add(16 << 20).min(2 << 30);
    let mut bytes = stored.to_vec();
    for stage in stages {
        let mut room = bytes.len().saturating_mul(4).max(LEAST).min(most);
        bytes = loop {
            let mut out = Vec::new();
            grow(&mut out, room).map_err(|error| error.to_string())?;
            match stage.decode(&bytes, &mut out) {
                Ok(len) => {
                    out.truncate(len);
                    break out;
                }
                Err(Fault::Full) if room < most => room = room.saturating_mul(4).min(most),
                Err(fault) => return Err(stage.words(fault, room)),
            }
        };
    }
    Ok(bytes)
}

/// Upper bound of the size before the stages `inner`, which decode to `end` bytes.
fn output_bound(inner: &[Stage], end: usize) -> usize {
    inner.iter().rev().fold(end, |size, stage| {
        // Compressors enlarge incompressible data only a little.
        stage.encoded(size).unwrap_or_else(|| size.saturating_add(size / 8).saturating_add(64 << 10))
    })
}

fn exactly(got: usize, want: usize) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("decodes to {got} bytes, {want} are declared")) }
}

/// Swaps the byte order of elements of `size` bytes.
pub fn swap(bytes: &mut [u8], size: usize) {
    match size {
        2 => bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|e| e.reverse()),
        4 => bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|e| e.reverse()),
        8 => bytes.as_chunks_mut::<8>().0.iter_mut().for_each(|e| e.reverse()),
        _ => {}
    }
}

/// Fills `out` with copies of one element.
pub fn fill(out: &mut [u8], element: &[u8]) {
    if element.iter().all(|&b| b == 0) {
        out.fill(0);
    } else if !element.is_empty() {
        out.chunks_mut(element.len()).for_each(|place| {
            if let Some(bytes) = element.get(..place.len()) {
                place.copy_from_slice(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::checksum::Sum;
    use super::filter::Filter;
    use super::lzma::Lzma;
    use super::*;

    fn sample(n: usize) -> Vec<u8> {
        let mut state = 12345_u32;
        (0..n)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if i % 3 == 0 { (state >> 29) as u8 } else { (i / 64) as u8 }
            })
            .collect()
    }

    fn run(stages: &[Stage], stored: &[u8], size: usize) -> Result<Vec<u8>, String> {
        let mut out = vec![7; size];
        decode(stages, stored, &mut ChunkBuf::whole(&mut out), &mut Default::default()).map(|()| out)
    }

    fn gz(data: &[u8]) -> Vec<u8> {
        let mut c = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut out = vec![0; c.gzip_compress_bound(data.len())];
        let n = c.gzip_compress(data, &mut out).unwrap();
        out.truncate(n);
        out
    }

    #[test]
    fn chains_decode_and_sizes_are_held() {
        let data = sample(10_000);
        let zst = ::zstd::bulk::compress(&data, 3).unwrap();
        let lz = ::lzf::compress(&data).unwrap();
        for (stages, stored) in [
            (vec![], data.clone()),
            (vec![Stage::Gzip], gz(&data)),
            (vec![Stage::Zstd], zst.clone()),
            (vec![Stage::Lzf], lz.clone()),
            (vec![Stage::Gzip, Stage::Zstd], gz(&zst)),
            (vec![Stage::Gzip, Stage::Gzip, Stage::Lzf], gz(&gz(&lz))),
        ] {
            assert_eq!(run(&stages, &stored, data.len()).unwrap(), data, "{stages:?}");
            for wrong in [0, 1, data.len() - 1, data.len() + 1, data.len() * 2] {
                assert!(run(&stages, &stored, wrong).is_err(), "{stages:?} as {wrong}");
            }
            for cut in [0, 1, 7, stored.len() / 2, stored.len() - 1] {
                assert!(run(&stages, &stored[..cut], data.len()).is_err(), "{stages:?} cut to {cut}");
            }
        }
    }

    /// Decoding a part gives the same bytes as decoding all; other parts are skipped where possible, but checksums are verified.
    #[test]
    fn parts_are_parts_of_the_whole() {
        let data = sample(1_000_000);
        let zst = ::zstd::bulk::compress(&data, 3).unwrap();
        let mut compressor = ::zstd::bulk::Compressor::new(3).unwrap();
        compressor.include_checksum(true).unwrap();
        let summed = compressor.compress(&data).unwrap();
        let two = [::zstd::bulk::compress(&data[..500_000], 3).unwrap(), zst[..].to_vec()].concat();
        let lz4 = |typesize, shuffle| blosc::encode(c"lz4", typesize, shuffle, 1 << 14, &data).unwrap();
        let mut state = 7_u32;
        let mut below = |n: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % n
        };
        for (stage, stored, most) in [
            (Stage::Zstd, &zst, 128 << 10),
            (Stage::Zstd, &summed, usize::MAX),
            (Stage::Blosc, &lz4(4, true), 2 << 17),
            (Stage::Blosc, &lz4(1, false), 2 << 17),
            (Stage::Blosc, &lz4(7, true), 2 << 17),
            (Stage::Blosc, &blosc::encode(c"zstd", 8, true, 1 << 14, &data).unwrap(), 2 << 17),
            (Stage::Gzip, &gz(&data), usize::MAX),
        ] {
            for _ in 0..60 {
                let start = below(data.len());
                let part = start..start + below(data.len() - start) + 1;
                let mut out = vec![255; data.len()];
                let place = &mut ChunkBuf { bytes: &mut out, part: part.clone() };
                decode(std::slice::from_ref(&stage), stored, place, &mut Default::default()).unwrap();
                assert!(out[part.clone()] == data[part.clone()], "{stage:?} {part:?}");
                let end = part.end.saturating_add(most).min(data.len());
                assert!(out[end..].iter().all(|&byte| byte == 255), "{stage:?} {part:?}: more than that was decoded");
            }
        }
        // Two frames, or a frame of another size, are not decoded in part.
        for stored in [&two, &zst[..].to_vec()] {
            let size = if stored == &two { data.len() } else { data.len() + 1 };
            let mut out = vec![0; size];
            let place = &mut ChunkBuf { bytes: &mut out, part: 0..10 };
            assert!(decode(&[Stage::Zstd], stored, place, &mut Default::default()).is_err());
        }
        let mut damaged = summed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let mut out = vec![0; data.len()];
        let place = &mut ChunkBuf { bytes: &mut out, part: 0..10 };
        assert!(decode(&[Stage::Zstd], &damaged, place, &mut Default::default()).is_err());
    }

    #[test]
    fn checksums_are_verified_wherever_they_stand() {
        let data = sample(1000);
        let mut summed = data.clone();
        summed.extend(crc32c::crc32c(&data).to_le_bytes());
        assert_eq!(run(&[Stage::sum(Sum::Crc32c)], &summed, 1000).unwrap(), data);
        assert_eq!(run(&[Stage::Gzip, Stage::sum(Sum::Crc32c)], &gz(&summed), 1000).unwrap(), data);
        summed[17] ^= 1;
        assert!(run(&[Stage::sum(Sum::Crc32c)], &summed, 1000).unwrap_err().contains("crc32c"));
        assert!(run(&[Stage::Gzip, Stage::sum(Sum::Crc32c)], &gz(&summed), 1000).is_err());
        assert!(run(&[Stage::sum(Sum::Crc32c)], &[1, 2], 0).is_err());
    }

    fn every_stage() -> Vec<Stage> {
        let lzma = |lzma| Stage::Lzma(Arc::new(lzma));
        vec![
            Stage::Gzip,
            Stage::Zlib,
            Stage::Zstd,
            Stage::Blosc,
            Stage::Lz4,
            Stage::Lzf,
            Stage::Bzip2,
            lzma(Lzma::Auto),
            lzma(Lzma::Xz),
            lzma(Lzma::Alone),
            lzma(Lzma::Raw(vec![lzma::Filter::Lzma2(1 << 20)])),
            lzma(Lzma::Raw(vec![lzma::Filter::Delta(4), lzma::Filter::Lzma1(1 << 20, [3, 0, 2])])),
            Stage::Pcodec,
            Stage::Packbits,
            Stage::Swap(4),
            Stage::sum(Sum::Fletcher32),
            Stage::sum(Sum::Crc32c),
            Stage::LeadingSum(Arc::new(Sum::Adler32)),
            Stage::Filter(Arc::new(Filter::Delta { stored: crate::array::Dtype::I16, to: crate::array::Dtype::F64 })),
        ]
    }

    #[test]
    fn noise_never_panics() {
        let noise = sample(4096);
        for stage in every_stage() {
            for at in 0..200 {
                let _ = run(std::slice::from_ref(&stage), &noise[at..at + at], 512);
                let _ = run(&[stage.clone(), Stage::Shuffle(4)], &noise[at..at + 100], 96);
                let _ = decode_unsized(std::slice::from_ref(&stage), &noise[at..at + 100]);
            }
        }
    }

    #[test]
    fn big_endian_is_swapped_and_fill_repeats() {
        let mut bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        swap(&mut bytes, 4);
        assert_eq!(bytes, [4, 3, 2, 1, 8, 7, 6, 5]);
        fill(&mut bytes, &[9, 8]);
        assert_eq!(bytes, [9, 8, 9, 8, 9, 8, 9, 8]);
    }
}

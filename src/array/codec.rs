//! Decoders of stored chunks: from the bytes in a file to the bytes of the elements.
//!
//! Input is not trusted. Every decoder writes into a slice whose size follows from the array's shape, never from
//! what a compressed stream says of itself, and a chunk that comes out longer or shorter than declared is an error.

mod blosc;
mod checksum;
mod deflate;
mod lzf;
mod shuffle;
mod zstd;

use std::ops::Range;

use super::{ChunkBuf, grow};

/// One step of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Gzip,
    Zlib,
    Zstd,
    Blosc,
    Lzf,
    /// Byte shuffle of elements of so many bytes.
    Shuffle(usize),
    /// Four bytes of CRC-32C after the data.
    Crc32c,
    /// Four bytes of HDF5's Fletcher checksum after the data.
    Fletcher32,
}

impl Stage {
    /// The name that `info` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Gzip | Stage::Zlib => "gzip",
            Stage::Zstd => "zstd",
            Stage::Blosc => "blosc",
            Stage::Lzf => "lzf",
            Stage::Shuffle(_) => "shuffle",
            Stage::Crc32c => "crc32c",
            Stage::Fletcher32 => "fletcher32",
        }
    }

    /// Bytes that this step takes off the end, if it is a checksum.
    const fn trailer(self) -> Option<usize> {
        match self {
            Stage::Crc32c | Stage::Fletcher32 => Some(4),
            _ => None,
        }
    }

    const fn keeps_size(self) -> bool {
        matches!(self, Stage::Shuffle(_))
    }

    /// Decodes `input` into the front of `out`; says how many bytes came.
    fn decode(self, input: &[u8], out: &mut [u8]) -> Result<usize, String> {
        match self {
            Stage::Gzip => deflate::gzip(input, out),
            Stage::Zlib => deflate::zlib(input, out),
            Stage::Zstd => zstd::decode(input, out),
            Stage::Blosc => blosc::decode(input, out),
            Stage::Lzf => lzf::decode(input, out),
            Stage::Shuffle(size) => {
                let place = out.get_mut(..input.len()).ok_or("shuffled data is longer than the chunk")?;
                shuffle::unshuffle(size, input, place);
                Ok(input.len())
            }
            Stage::Crc32c | Stage::Fletcher32 => Err("a checksum is no transform".to_owned()),
        }
    }

    /// Decodes only `part` of what comes to exactly `out`, if that is less work and skips no checksum; whether it did.
    fn decode_part(self, input: &[u8], part: Range<usize>, out: &mut [u8]) -> bool {
        match self {
            Stage::Zstd => zstd::decode_prefix(input, part.end, out),
            Stage::Blosc => blosc::decode_part(input, part, out),
            _ => false,
        }
    }

    /// The data before the checksum, if the checksum is right.
    fn verify(self, input: &[u8]) -> Result<usize, String> {
        let Some((data, sum)) = input.split_last_chunk::<4>() else {
            return Err(format!("{} bytes are too few for a checksum", input.len()));
        };
        let good = match self {
            Stage::Crc32c => crc32c::crc32c(data) == u32::from_le_bytes(*sum),
            _ => checksum::fletcher32_matches(data, *sum),
        };
        if good { Ok(data.len()) } else { Err(format!("the {} checksum does not match", self.name())) }
    }
}

/// Decodes `stored` through `stages` (outermost first) so that it fills `out` exactly. What lies outside of its part is
/// decoded or not, whichever is less work.
///
/// # Errors
/// The cause in words, where the bytes do not decode or come to another size.
pub fn decode(
    stages: &[Stage],
    stored: &[u8],
    out: &mut ChunkBuf<'_>,
    buffers: &mut [Vec<u8>; 2],
) -> Result<(), String> {
    let ChunkBuf { bytes: out, part } = out;
    // Which buffer holds the current bytes (none: `stored` does), and how many there are.
    let mut held: Option<usize> = None;
    let mut len = stored.len();
    for (index, &stage) in stages.iter().enumerate() {
        let inner = stages.get(index + 1..).unwrap_or_default();
        let [first, second] = &mut *buffers;
        let (input, spare) = match held {
            None => (stored, first),
            Some(0) => (first.as_slice(), second),
            Some(_) => (second.as_slice(), first),
        };
        let input = input.get(..len).unwrap_or_default();
        if stage.trailer().is_some() {
            len = stage.verify(input)?;
            continue;
        }
        if inner.is_empty() {
            if part.len() < out.len() && stage.decode_part(input, part.clone(), out) {
                return Ok(());
            }
            let got = stage.decode(input, out)?;
            return exactly(got, out.len());
        }
        let bound = output_bound(stage, inner, len, out.len());
        grow(spare, bound).map_err(|error| error.to_string())?;
        let place = spare.get_mut(..bound).unwrap_or_default();
        len = stage.decode(input, place)?;
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
    exactly(len, out.len())?;
    if let Some(bytes) = bytes.get(..len) {
        out.copy_from_slice(bytes);
    }
    Ok(())
}

/// The most bytes that a step may yield, from what the steps after it must end in.
fn output_bound(stage: Stage, inner: &[Stage], input: usize, end: usize) -> usize {
    if stage.keeps_size() {
        return input;
    }
    let trailers = inner.iter().filter_map(|s| s.trailer()).sum::<usize>();
    if inner.iter().all(|s| s.keeps_size() || s.trailer().is_some()) {
        end.saturating_add(trailers)
    } else {
        // One compressor inside another: what the inner one made of incompressible data is little larger.
        end.saturating_add(end / 8).saturating_add(64 << 10)
    }
}

fn exactly(got: usize, want: usize) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("decodes to {got} bytes, {want} are declared")) }
}

/// Turns big-endian elements of `size` bytes into little-endian ones.
pub fn swap(bytes: &mut [u8], size: usize) {
    match size {
        2 => bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|e| e.reverse()),
        4 => bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|e| e.reverse()),
        8 => bytes.as_chunks_mut::<8>().0.iter_mut().for_each(|e| e.reverse()),
        _ => {}
    }
}

/// Fills `out` with one element, over and over.
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

    /// Parts are those of the whole; what is not asked for is left out where it can be, and no checksum is skipped.
    #[test]
    fn parts_are_parts_of_the_whole() {
        let data = sample(1_000_000);
        let zst = ::zstd::bulk::compress(&data, 3).unwrap();
        let mut compressor = ::zstd::bulk::Compressor::new(3).unwrap();
        compressor.include_checksum(true).unwrap();
        let summed = compressor.compress(&data).unwrap();
        let two = [::zstd::bulk::compress(&data[..500_000], 3).unwrap(), zst[..].to_vec()].concat();
        let lz4 = |typesize, shuffle| blosc::encode(c"lz4", typesize, shuffle, 1 << 14, &data);
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
            (Stage::Blosc, &blosc::encode(c"zstd", 8, true, 1 << 14, &data), 2 << 17),
            (Stage::Gzip, &gz(&data), usize::MAX),
        ] {
            for _ in 0..60 {
                let start = below(data.len());
                let part = start..start + below(data.len() - start) + 1;
                let mut out = vec![255; data.len()];
                let place = &mut ChunkBuf { bytes: &mut out, part: part.clone() };
                decode(&[stage], stored, place, &mut Default::default()).unwrap();
                assert!(out[part.clone()] == data[part.clone()], "{stage:?} {part:?}");
                let end = part.end.saturating_add(most).min(data.len());
                assert!(out[end..].iter().all(|&byte| byte == 255), "{stage:?} {part:?}: more than that was decoded");
            }
        }
        // Two frames, or one of another size, are no chunk.
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
        assert_eq!(run(&[Stage::Crc32c], &summed, 1000).unwrap(), data);
        assert_eq!(run(&[Stage::Gzip, Stage::Crc32c], &gz(&summed), 1000).unwrap(), data);
        summed[17] ^= 1;
        assert!(run(&[Stage::Crc32c], &summed, 1000).unwrap_err().contains("crc32c"));
        assert!(run(&[Stage::Gzip, Stage::Crc32c], &gz(&summed), 1000).is_err());
        assert!(run(&[Stage::Crc32c], &[1, 2], 0).is_err());
    }

    #[test]
    fn noise_never_panics() {
        let noise = sample(4096);
        for stage in [Stage::Gzip, Stage::Zlib, Stage::Zstd, Stage::Blosc, Stage::Lzf, Stage::Fletcher32, Stage::Crc32c]
        {
            for at in 0..200 {
                let _ = run(&[stage], &noise[at..at + at], 512);
                let _ = run(&[stage, Stage::Shuffle(4)], &noise[at..at + 100], 96);
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

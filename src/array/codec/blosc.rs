//! Blosc 1. Common buffers are decoded here block by block, all others by c-blosc. One thread decodes a chunk, as chunks are decoded
//! in parallel.
//!
//! c-blosc allocates aligned temporary memory for each buffer that it decodes. glibc before 2.38 cannot reuse such memory once something
//! small was allocated after it, so the heap grew by half a mebibyte for each chunk that was kept in memory: 600 MB with 2 GiB of
//! decoded chunks. Here each thread keeps one block of memory. The test `decodes_what_c_blosc_does` compares both decoders.

use std::cell::RefCell;
use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;

use lz4_sys::LZ4_decompress_safe;

use super::{Fault, shuffle, zstd};

thread_local! {
    /// A block before it is unshuffled.
    static PLANES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The decoded size of a buffer, if its header is consistent with its length.
fn decoded_size(input: &[u8]) -> Option<usize> {
    let mut size = 0_usize;
    // SAFETY: pointer and length are those of a slice; c-blosc does not read beyond the given length.
    let valid =
        unsafe { blosc_src::blosc_cbuffer_validate(input.as_ptr().cast::<c_void>(), input.len(), &raw mut size) };
    (valid == 0).then_some(size)
}

/// Decodes one blosc buffer into the front of `out`.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let size = decoded_size(input).ok_or("the header is damaged")?;
    let place = out.get_mut(..size).ok_or(Fault::Full)?;
    match Blocks::of(input, size) {
        Some(blocks) => blocks.decode(0..blocks.count(), place)?,
        None if by_library(input, place) == Some(size) => (),
        None => return Err(damaged()),
    }
    Ok(size)
}

/// Decodes with c-blosc; returns the number of bytes.
fn by_library(input: &[u8], out: &mut [u8]) -> Option<usize> {
    let (from, to) = (input.as_ptr().cast::<c_void>(), out.as_mut_ptr().cast::<c_void>());
    // SAFETY: `blosc_cbuffer_validate` has checked the header against the input's length, and c-blosc writes at most the given size to
    // `out`. The buffers are distinct borrows.
    let got = unsafe { blosc_src::blosc_decompress_ctx(from, to, out.len(), 1) };
    usize::try_from(got).ok()
}

/// Decodes only the blocks that contain `part` of `out`; false if these are all blocks, or if it fails.
pub fn decode_part(input: &[u8], part: Range<usize>, out: &mut [u8]) -> bool {
    if decoded_size(input) != Some(out.len()) {
        return false;
    }
    let Some(blocks) = Blocks::of(input, out.len()) else { return items_by_library(input, part, out) };
    let needed = part.start / blocks.block..part.end.div_ceil(blocks.block);
    // After an error the caller decodes the whole buffer, which reports it.
    needed.len() < blocks.count() && blocks.decode(needed, out).is_ok()
}

/// The four-byte number at an offset.
fn number(input: &[u8], at: usize) -> Option<usize> {
    let bytes = input.get(at..)?.first_chunk::<4>()?;
    usize::try_from(i32::from_le_bytes(*bytes)).ok()
}

fn damaged() -> Fault {
    "the stream is damaged".into()
}

/// The length of the header (c-blosc's README_CHUNK_FORMAT).
const HEADER: usize = 16;

/// A buffer that is decoded here: LZ4, Zstandard or not compressed, with or without byte shuffle.
struct Blocks<'a> {
    input: &'a [u8],
    /// The size of an element.
    element: usize,
    /// Decoded bytes of the buffer and of a block.
    size: usize,
    block: usize,
    shuffled: bool,
    /// Each block is one stream, instead of one for each byte of an element.
    is_whole: bool,
    packed: Packed,
}

/// The compression of the streams.
enum Packed {
    Copied,
    Lz4,
    Zstd,
}

impl<'a> Blocks<'a> {
    /// `size`: the decoded size. `None`: c-blosc has to decode it or report the damage.
    fn of(input: &'a [u8], size: usize) -> Option<Blocks<'a>> {
        let &[version, stream_version, flags, element, ..] = input else { return None };
        let (element, block) = (usize::from(element), number(input, 8)?);
        let packed = match flags >> 5 {
            _ if flags & 2 != 0 => Packed::Copied,
            1 => Packed::Lz4,
            4 => Packed::Zstd,
            _ => return None,
        };
        // 4: bit shuffle; 8: reserved.
        let known = version == 2 && stream_version == 1 && flags & (4 | 8) == 0;
        let sound = element > 0 && block > 0 && block <= size;
        let shuffled = flags & 1 != 0 && element > 1;
        (known && sound).then_some(Blocks { input, element, size, block, shuffled, is_whole: flags & 16 != 0, packed })
    }

    fn count(&self) -> usize {
        self.size.div_ceil(self.block)
    }

    /// Decodes some blocks into their places in `out`, which has the size of the decoded buffer.
    fn decode(&self, blocks: Range<usize>, out: &mut [u8]) -> Result<(), Fault> {
        if let Packed::Copied = self.packed {
            let range = blocks.start * self.block..(blocks.end * self.block).min(self.size);
            let whole = self.input.get(HEADER..).filter(|data| data.len() == self.size).ok_or_else(damaged)?;
            let (from, to) = (whole.get(range.clone()), out.get_mut(range));
            to.ok_or_else(damaged)?.copy_from_slice(from.ok_or_else(damaged)?);
            return Ok(());
        }
        PLANES.with_borrow_mut(|planes| {
            for number in blocks {
                let first = number * self.block;
                let place = out.get_mut(first..(first + self.block).min(self.size)).ok_or_else(damaged)?;
                if !self.shuffled {
                    self.decode_block(number, place)?;
                    continue;
                }
                if planes.len() < place.len() {
                    planes.try_reserve_exact(place.len() - planes.len()).map_err(|_| "no memory for a block")?;
                    planes.resize(place.len(), 0);
                }
                let planes = planes.get_mut(..place.len()).ok_or_else(damaged)?;
                self.decode_block(number, planes)?;
                shuffle::unshuffle(self.element, planes, place);
            }
            Ok(())
        })
    }

    /// Decodes the streams of a block, without unshuffling.
    fn decode_block(&self, block: usize, out: &mut [u8]) -> Result<(), Fault> {
        // As in c-blosc: a shorter last block is one stream, and so are blocks of few or wide elements.
        let splits =
            !self.is_whole && out.len() == self.block && self.element <= 16 && self.block / self.element >= 128;
        let length = if splits { out.len() / self.element } else { out.len() };
        // Streams that do not fill the block would leave bytes of another one.
        if !out.len().is_multiple_of(length) {
            return Err(damaged());
        }
        let mut at = number(self.input, HEADER + 4 * block).ok_or_else(damaged)?;
        for place in out.chunks_exact_mut(length) {
            let stored = number(self.input, at).ok_or_else(damaged)?;
            let stream = self.input.get(at + 4..at + 4 + stored).ok_or_else(damaged)?;
            if stored == length {
                place.copy_from_slice(stream);
            } else if self.unpack(stream, place)? != length {
                return Err(damaged());
            }
            at += 4 + stored;
        }
        Ok(())
    }

    fn unpack(&self, stream: &[u8], place: &mut [u8]) -> Result<usize, Fault> {
        if let Packed::Zstd = self.packed {
            return zstd::decode(stream, place).map_err(|_| damaged());
        }
        let (Ok(from), Ok(to)) = (c_int::try_from(stream.len()), c_int::try_from(place.len())) else {
            return Err(damaged());
        };
        // SAFETY: pointers and lengths are those of distinct slices; it writes at most `to` bytes.
        let got = unsafe { LZ4_decompress_safe(stream.as_ptr().cast(), place.as_mut_ptr().cast(), from, to) };
        usize::try_from(got).map_err(|_| damaged())
    }
}

/// `decode_part` with c-blosc.
fn items_by_library(input: &[u8], part: Range<usize>, out: &mut [u8]) -> bool {
    let (Some(&element), Some(block)) = (input.get(3), number(input, 8)) else { return false };
    let element = usize::from(element);
    if element == 0 || block == 0 {
        return false;
    }
    // Rounded to whole elements.
    let (first, end) = (part.start / element, part.end.div_ceil(element));
    let blocks = (end * element).div_ceil(block) - first * element / block;
    if blocks >= out.len().div_ceil(block) {
        return false;
    }
    let Some(place) = out.get_mut(first * element..end * element) else { return false };
    let (Ok(start), Ok(count)) = (c_int::try_from(first), c_int::try_from(end - first)) else { return false };
    // SAFETY: as for the whole buffer; `place` has room for these elements, which are within the decoded size.
    let got = unsafe {
        blosc_src::blosc_getitem(input.as_ptr().cast::<c_void>(), start, count, place.as_mut_ptr().cast::<c_void>())
    };
    usize::try_from(got) == Ok(place.len())
}

/// Compresses items of `element` bytes at level 5, in blocks of `block` bytes or a few times that; 0: c-blosc chooses. `None` for more
/// than 2 GiB, which blosc does not support.
pub fn encode(compressor: &CStr, element: usize, shuffle: bool, block: usize, data: &[u8]) -> Option<Vec<u8>> {
    compress(compressor, element, c_int::from(shuffle), block, data)
}

/// `encode` with c-blosc's number of a shuffle: 0 none, 1 of bytes, 2 of bits.
fn compress(compressor: &CStr, element: usize, shuffle: c_int, block: usize, data: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; data.len() + 1024];
    // SAFETY: pointers and lengths are those of slices.
    let len = unsafe {
        blosc_src::blosc_compress_ctx(
            5,
            shuffle,
            element,
            data.len(),
            data.as_ptr().cast(),
            out.as_mut_ptr().cast(),
            out.len(),
            compressor.as_ptr(),
            block,
            1,
        )
    };
    // 0 means that the data does not fit, a negative number another error.
    out.truncate(usize::try_from(len).ok().filter(|&len| len > 0)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as counts are, or noise.
    fn sample(len: usize, noise: bool) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u8
        };
        (0..len).map(|i| if noise || i % 4 == 0 { next() & if noise { 255 } else { 7 } } else { 0 }).collect()
    }

    #[test]
    fn decodes_what_c_blosc_does() {
        let mut here = 0;
        for compressor in [c"lz4", c"lz4hc", c"zstd", c"zlib", c"snappy", c"blosclz"] {
            for (element, shuffle) in
                [(1, 0), (1, 1), (2, 1), (3, 1), (4, 0), (4, 1), (8, 1), (8, 2), (17, 1), (100, 1)]
            {
                for (len, block) in [(0, 0), (1, 0), (3, 0), (500, 0), (4099, 512), (70_001, 4096), (300_000, 0)] {
                    for noise in [false, true] {
                        let data = sample(len, noise);
                        let stored = compress(compressor, element, shuffle, block, &data).unwrap();
                        here += usize::from(Blocks::of(&stored, len).is_some());
                        let what = (compressor, element, shuffle, len, block, noise);
                        let mut out = vec![255; len + 9];
                        assert_eq!(decode(&stored, &mut out), Ok(len), "{what:?}");
                        assert!(out[..len] == data && out[len..].iter().all(|&byte| byte == 255), "{what:?}");
                        if len > 0 {
                            assert_eq!(decode(&stored, &mut out[..len - 1]), Err(Fault::Full), "{what:?}");
                        }
                    }
                }
            }
        }
        assert!(here > 300, "{here}");
    }

    /// A block of 400 bytes whose elements have 3: its three streams have 399 bytes.
    #[test]
    fn streams_that_do_not_fill_their_block_are_damage() {
        for shuffled in [0, 1] {
            let mut stored = vec![2, 1, 1 << 5 | shuffled, 3];
            let number = |stored: &mut Vec<u8>, number: i32| stored.extend(number.to_le_bytes());
            for of_the_header in [400, 400, 20 + 3 * 137, 20] {
                number(&mut stored, of_the_header);
            }
            for stream in 0..3 {
                number(&mut stored, 133);
                stored.extend([stream; 133]);
            }
            let mut out = vec![0; 400];
            assert!(Blocks::of(&stored, 400).is_some());
            assert_ne!(by_library(&stored, &mut out), Some(400));
            assert_eq!(decode(&stored, &mut out), Err(damaged()));
        }
    }

    /// Damage is an error for both, or decodes to the same bytes.
    #[test]
    fn damage_is_what_c_blosc_says() {
        for (compressor, element, block) in [(c"lz4", 4, 512), (c"zstd", 8, 4096), (c"zstd", 2, 0), (c"lz4", 100, 0)] {
            let data = sample(9_000, false);
            let stored = compress(compressor, element, 1, block, &data).unwrap();
            for byte in (0..200.min(stored.len())).chain((200..stored.len()).step_by(7)) {
                for bit in [0, 3, 7] {
                    let mut bad = stored.clone();
                    bad[byte] ^= 1 << bit;
                    let (mut ours, mut theirs) = (vec![0; data.len()], vec![0; data.len()]);
                    let size = decoded_size(&bad).filter(|&size| size <= data.len());
                    let got = decode(&bad, &mut ours).ok();
                    let wanted = size.filter(|&size| by_library(&bad, &mut theirs[..size]) == Some(size));
                    assert_eq!(got, wanted, "{compressor:?} byte {byte} bit {bit}");
                    if let Some(size) = got {
                        assert!(ours[..size] == theirs[..size], "{compressor:?} byte {byte} bit {bit}");
                    }
                }
            }
        }
    }
}

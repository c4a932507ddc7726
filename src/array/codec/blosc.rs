//! Blosc 1, by c-blosc. One thread decodes a chunk, as chunks are decoded in parallel.

use std::ffi::{c_int, c_void};
use std::ops::Range;

use super::Fault;

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
    if size > out.len() {
        return Err(Fault::Full);
    }
    // SAFETY: `blosc_cbuffer_validate` has checked the header against the input's length, and c-blosc writes at most the given size to
    // `out`. The buffers are distinct borrows.
    let got = unsafe {
        blosc_src::blosc_decompress_ctx(
            input.as_ptr().cast::<c_void>(),
            out.as_mut_ptr().cast::<c_void>(),
            out.len(),
            1,
        )
    };
    match usize::try_from(got) {
        Ok(got) if got == size => Ok(got),
        _ => Err("the stream is damaged".into()),
    }
}

/// Decodes only the blocks that contain `part` of `out`; false if these are all blocks, or if it fails.
pub fn decode_part(input: &[u8], part: Range<usize>, out: &mut [u8]) -> bool {
    // Byte 3 is the size of the elements, bytes 8 to 11 that of the blocks (c-blosc's README_CHUNK_FORMAT).
    let (Some(&element), Some(block)) = (input.get(3), input.get(8..).and_then(|rest| rest.first_chunk::<4>())) else {
        return false;
    };
    let (element, block) = (usize::from(element), u32::from_le_bytes(*block) as usize);
    if decoded_size(input) != Some(out.len()) || element == 0 || block == 0 {
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
pub fn encode(
    compressor: &std::ffi::CStr,
    element: usize,
    shuffle: bool,
    block: usize,
    data: &[u8],
) -> Option<Vec<u8>> {
    let mut out = vec![0; data.len() + 1024];
    // SAFETY: pointers and lengths are those of slices.
    let len = unsafe {
        blosc_src::blosc_compress_ctx(
            5,
            c_int::from(shuffle),
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

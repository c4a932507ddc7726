//! Blosc 1, by c-blosc, one thread a chunk: the chunks are what runs in parallel.

use std::ffi::c_void;

/// Decodes one blosc buffer into the front of `out`.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<usize, String> {
    let mut size = 0_usize;
    // SAFETY: the pointer and length are those of a slice; c-blosc reads no further than the length it is told.
    let valid =
        unsafe { blosc_src::blosc_cbuffer_validate(input.as_ptr().cast::<c_void>(), input.len(), &raw mut size) };
    if valid != 0 {
        return Err("blosc: the header is damaged".to_owned());
    }
    if size > out.len() {
        return Err(format!("blosc: decodes to {size} bytes, more than the {} declared", out.len()));
    }
    // SAFETY: `blosc_cbuffer_validate` vouches that the header is consistent with the input's length, and c-blosc
    // writes no more than the given size of `out`. The buffers are distinct borrows.
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
        _ => Err("blosc: the stream is damaged".to_owned()),
    }
}

//! gzip and zlib streams, by libdeflate.
//!
//! libdeflate decodes whole buffers, at twice the speed of zlib (0.44 against 0.20 GB/s a core), but only the first member of a gzip file;
//! further members are found here.

use std::cell::RefCell;

use libdeflater::{DecompressionError, Decompressor};

use super::Fault;

thread_local! {
    static DEFLATE: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

fn fault(error: DecompressionError) -> Fault {
    match error {
        DecompressionError::BadData => "the deflate stream is damaged".into(),
        DecompressionError::InsufficientSpace => Fault::Full,
    }
}

/// A zlib stream (HDF5's deflate, numcodecs' zlib).
pub fn zlib(input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    DEFLATE.with_borrow_mut(|d| d.zlib_decompress(input, out).map_err(fault))
}

/// A gzip file of one or more members.
pub fn gzip(mut input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let mut filled = 0;
    loop {
        let room = out.get_mut(filled..).unwrap_or_default();
        let got = DEFLATE.with_borrow_mut(|d| d.gzip_decompress(input, room)).map_err(fault)?;
        let next = next_member(input, room.get(..got).unwrap_or_default());
        filled += got;
        match next {
            // A member without content is skipped; as the input shrinks, the loop ends.
            Some(rest) => input = rest,
            None => return Ok(filled),
        }
    }
}

/// The input after the first member. Its length is found by its trailer (CRC and length of its content) followed by the magic number of
/// the next member: 11 bytes, which do not match by chance.
fn next_member<'a>(input: &'a [u8], decoded: &[u8]) -> Option<&'a [u8]> {
    let mut seam = [0, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0x8b, 0x08];
    seam[..4].copy_from_slice(&libdeflater::crc32(decoded).to_le_bytes());
    seam[4..8].copy_from_slice(&((decoded.len() as u64 & 0xffff_ffff) as u32).to_le_bytes());
    // Usually there is one member, whose trailer ends the input.
    if input.ends_with(&seam[..8]) {
        return None;
    }
    let at = input.windows(seam.len()).position(|w| w == seam)?;
    input.get(at + 8..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_of_a_gzip_file_counts() {
        let mut c = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut file: Vec<u8> = Vec::new();
        let mut whole: Vec<u8> = Vec::new();
        for part in [&b"first part, first part"[..], b"", b"the second", &[0; 5000]] {
            let mut out = vec![0; c.gzip_compress_bound(part.len())];
            let n = c.gzip_compress(part, &mut out).unwrap();
            file.extend(&out[..n]);
            whole.extend(part);
        }
        let mut out = vec![1; whole.len()];
        assert_eq!(gzip(&file, &mut out), Ok(whole.len()));
        assert_eq!(out, whole);
        let mut short = vec![0; whole.len() - 1];
        assert!(gzip(&file, &mut short).is_err());
    }
}

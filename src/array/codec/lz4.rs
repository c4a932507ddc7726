//! LZ4 as numcodecs writes it: the size in four bytes, then one block.

use super::Fault;

/// Decodes into the front of `out`; returns the number of bytes written.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let (size, block) = input.split_first_chunk::<4>().ok_or("the header is cut off")?;
    let size = u32::from_le_bytes(*size) as usize;
    if i32::try_from(size).is_err() {
        return Err("the header is damaged".into());
    }
    let place = out.get_mut(..size).ok_or(Fault::Full)?;
    match lz4_flex::block::decompress_into(block, place) {
        Ok(got) if got == size => Ok(got),
        _ => Err("the stream is damaged".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_held() {
        let data: Vec<u8> = (0..5000_u32).map(|i| (i / 7) as u8).collect();
        let stored = lz4_flex::block::compress_prepend_size(&data);
        let mut out = vec![0; 6000];
        assert_eq!(decode(&stored, &mut out).unwrap(), 5000);
        assert!(out.starts_with(&data));
        assert!(matches!(decode(&stored, &mut out[..4999]), Err(Fault::Full)));
        for cut in [0, 3, 4, 100, stored.len() - 1] {
            assert!(decode(&stored[..cut], &mut out).is_err());
        }
        let mut lies = stored;
        lies[..4].copy_from_slice(&4000_u32.to_le_bytes());
        assert!(decode(&lies, &mut out).is_err());
    }
}

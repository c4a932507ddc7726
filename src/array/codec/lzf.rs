//! LZF, h5py's own filter (32000): literals and back references, without a header.
//!
//! Implemented here because it is 40 lines and writes to the caller's slice; the `lzf` crate grows a vector byte by byte.

use super::Fault;

/// Decodes `input` into the front of `out`.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let room = out.len();
    let more = || Fault::Full;
    let cut = || Fault::from("the stream ends early");
    let (mut at, mut filled) = (0, 0);
    while let Some(&control) = input.get(at) {
        at += 1;
        let control = usize::from(control);
        if control < 32 {
            // A run of literals.
            let len = control + 1;
            let literals = input.get(at..at + len).ok_or_else(cut)?;
            out.get_mut(filled..filled + len).ok_or_else(more)?.copy_from_slice(literals);
            at += len;
            filled += len;
        } else {
            // A reference to earlier output, which may overlap with what it writes.
            let mut len = control >> 5;
            if len == 7 {
                len += usize::from(*input.get(at).ok_or_else(cut)?);
                at += 1;
            }
            len += 2;
            let distance = ((control & 0x1f) << 8) + usize::from(*input.get(at).ok_or_else(cut)?) + 1;
            at += 1;
            let from = filled.checked_sub(distance).ok_or("a reference before the start")?;
            if filled + len > room {
                return Err(more());
            }
            if distance >= len {
                out.copy_within(from..from + len, filled);
            } else {
                for i in 0..len {
                    out[filled + i] = out[from + i];
                }
            }
            filled += len;
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_the_crate_encodes() {
        for n in [10_usize, 100, 5000, 70_000] {
            let data: Vec<u8> = (0..n).map(|i| ((i * i) >> 7) as u8 & 0x3f).collect();
            let Ok(packed) = ::lzf::compress(&data) else { continue };
            let mut out = vec![0; n];
            assert_eq!(decode(&packed, &mut out), Ok(n));
            assert_eq!(out, data);
        }
        assert!(decode(&[0x20, 0x05], &mut [0; 10]).is_err());
    }
}

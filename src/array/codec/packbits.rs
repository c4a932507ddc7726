//! Booleans as bits, as numcodecs packs them: one byte that counts the padding, then the bits, high ones first.

use super::Fault;

/// The number of bytes of this many packed booleans, with the byte that counts padding.
pub const fn packed(booleans: usize) -> usize {
    booleans.div_ceil(8).saturating_add(1)
}

/// Decodes into the front of `out`; returns the number of booleans.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let (&padding, bits) = input.split_first().ok_or("no byte is left")?;
    let count = bits.len().saturating_mul(8).checked_sub(usize::from(padding)).ok_or("more padding than bits")?;
    let place = out.get_mut(..count).ok_or(Fault::Full)?;
    for (booleans, byte) in place.chunks_mut(8).zip(bits) {
        for (at, boolean) in booleans.iter_mut().enumerate() {
            *boolean = byte >> (7 - at) & 1;
        }
    }
    Ok(count)
}

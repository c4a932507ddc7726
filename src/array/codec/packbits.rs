//! Booleans packed as bits, as in numcodecs: a byte with the number of padding bits, then the bits, most significant first.

use super::Fault;

/// The packed size of this many booleans, in bytes.
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

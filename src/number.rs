//! Sizes and offsets of stores as sizes in memory, and lengths as formats write them.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("sizes in memory must have 64 bits: offsets in stores do");

/// The same number: both types have 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits on all targets that compile")]
#[inline]
pub const fn as_usize(number: u64) -> usize {
    number as usize
}

/// A length in two bytes, little-endian. What is written bounds it: a longer one is the largest.
pub fn le16(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes()
}

/// A length in four bytes, little-endian. What is written bounds it: a longer one is the largest.
pub fn le32(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// A length as a signed number, as Arrow and HDF5 write it.
pub fn as_i64(len: impl TryInto<i64>) -> i64 {
    len.try_into().unwrap_or(i64::MAX)
}

/// A length in one byte. What is written bounds it: a longer one is the largest.
pub fn le8(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

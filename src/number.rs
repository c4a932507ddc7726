//! Conversions between integer types: 64-bit sizes and offsets of stores to `usize`, lengths to the integers of file formats.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("sizes in memory must have 64 bits: offsets in stores do");

/// Converts a size or offset of a store without loss.
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits on all targets that compile")]
#[inline]
pub const fn as_usize(number: u64) -> usize {
    number as usize
}

/// A length as a little-endian `u16`. Formats bound the lengths that they write; a longer one is clamped to the maximum.
pub fn le16(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes()
}

/// A length as a little-endian `u32`, clamped as in [`le16`].
pub fn le32(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// A length as an `i64`, as Arrow and HDF5 write it, clamped to the maximum.
pub fn as_i64(len: impl TryInto<i64>) -> i64 {
    len.try_into().unwrap_or(i64::MAX)
}

/// A length as a byte, clamped as in [`le16`].
pub fn le8(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

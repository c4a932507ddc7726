//! Sizes and offsets of stores as sizes in memory.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("sizes in memory must have 64 bits: offsets in stores do");

/// The same number: both types have 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits on all targets that compile")]
#[inline]
pub const fn as_usize(number: u64) -> usize {
    number as usize
}

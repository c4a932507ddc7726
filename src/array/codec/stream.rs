//! Runs streaming decoders.

use super::Fault;

/// The result of one step.
pub struct Step {
    pub read: u64,
    pub wrote: u64,
    /// Whether the stream has ended.
    pub ended: bool,
}

/// Steps until the stream ends (true) or nothing progresses (false). `input` is what is left of it, `filled` the number of bytes written
/// to `out`.
pub fn run(
    input: &mut &[u8],
    out: &mut [u8],
    filled: &mut usize,
    mut step: impl FnMut(&[u8], &mut [u8]) -> Result<Step, Fault>,
) -> Result<bool, Fault> {
    loop {
        let place = out.get_mut(*filled..).unwrap_or_default();
        let is_full = place.is_empty();
        // The end marker must be read even if the buffer is full; one more byte of output would mean that the stream is too long.
        let mut beyond = [0];
        let place = if is_full { &mut beyond[..] } else { place };
        let Step { read, wrote, ended } = step(input, place)?;
        *input = input.get(usize::try_from(read).unwrap_or(usize::MAX)..).unwrap_or_default();
        if is_full && wrote > 0 {
            return Err(Fault::Full);
        }
        *filled += usize::try_from(wrote).unwrap_or(usize::MAX);
        if ended || (read == 0 && wrote == 0) {
            return Ok(ended);
        }
    }
}

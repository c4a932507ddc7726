//! Decoders of libraries that take a stream in steps.

use super::Fault;

/// What one step did.
pub struct Step {
    pub read: u64,
    pub wrote: u64,
    /// The stream has ended.
    pub ended: bool,
}

/// Steps until the stream has ended (true) or nothing moves any more (false). `input` is what is left of it, `filled` how much
/// of `out` is written.
pub fn run(
    input: &mut &[u8],
    out: &mut [u8],
    filled: &mut usize,
    mut step: impl FnMut(&[u8], &mut [u8]) -> Result<Step, Fault>,
) -> Result<bool, Fault> {
    loop {
        let place = out.get_mut(*filled..).unwrap_or_default();
        let is_full = place.is_empty();
        // A full buffer still has to take the end of the stream: one byte more tells the two apart.
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

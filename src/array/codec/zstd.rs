//! Zstandard, by libzstd.

use std::cell::RefCell;

use zstd::bulk::Decompressor;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::get_frame_content_size;

use super::Fault;

/// The largest block of a frame; decoding can stop after any block.
const BLOCK: usize = 128 << 10;
/// The smallest window of decoders, and so of frames (RFC 8878, 3.1.1.1.2).
const SMALLEST_WINDOW: u32 = 10;

thread_local! {
    static WHOLE: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    static STREAM: RefCell<Option<Decoder<'static>>> = const { RefCell::new(None) };
}

/// Decodes all frames to the front of `out`.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    WHOLE.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().map_err(|e| e.to_string())?),
        };
        decompressor.decompress_to_buffer(input, out).map_err(|e| match e.to_string() {
            // libzstd's message for a destination that is too small; the crate does not expose error codes.
            text if text.contains("Destination buffer is too small") => Fault::Full,
            text => Fault::Bad(text),
        })
    })
}

/// Decodes the first `end` bytes of `out`; false if that is not possible, or not less work. The frame must be the only one, state the size
/// of `out`, and have no checksum, as that must be verified.
pub fn decode_prefix(input: &[u8], end: usize, out: &mut [u8]) -> bool {
    let is_one = get_frame_content_size(input).is_ok_and(|size| size == Some(out.len() as u64));
    if end.saturating_add(BLOCK) > out.len() || !is_one || has_checksum(input) {
        return false;
    }
    STREAM.with_borrow_mut(|slot| {
        let mut stream = || {
            let decoder = match slot {
                Some(decoder) => decoder,
                None => slot.insert(Decoder::new()?),
            };
            decoder.reinit()?;
            // Limits the window by the size of the chunk, whatever the frame states.
            let window = usize::BITS - out.len().leading_zeros();
            decoder.set_parameter(DParameter::WindowLogMax(window.max(SMALLEST_WINDOW)))?;
            let mut from = InBuffer::around(input);
            let mut to = OutBuffer::around(out.get_mut(..end).unwrap_or_default());
            while to.pos() < end {
                let before = (from.pos(), to.pos());
                decoder.run(&mut from, &mut to)?;
                if (from.pos(), to.pos()) == before {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok::<(), std::io::Error>(())
        };
        // After a failure the caller decodes the whole frame, and reports its error.
        stream().is_ok()
    })
}

/// Whether the frame ends in a checksum (RFC 8878, 3.1.1.1.1).
fn has_checksum(frame: &[u8]) -> bool {
    frame.get(4).is_none_or(|descriptor| descriptor & 4 != 0)
}

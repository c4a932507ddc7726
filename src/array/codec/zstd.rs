//! Zstandard, by libzstd.

use std::cell::RefCell;

use zstd::bulk::Decompressor;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::get_frame_content_size;

use super::Fault;

/// The largest block of a zstd frame: stopping early saves whole blocks only.
const BLOCK: usize = 128 << 10;
/// The smallest window of a decoder, and so of every frame (RFC 8878, 3.1.1.1.2).
const SMALLEST_WINDOW: u32 = 10;

thread_local! {
    static WHOLE: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    static STREAM: RefCell<Option<Decoder<'static>>> = const { RefCell::new(None) };
}

/// Decodes all frames into the front of `out`.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    WHOLE.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().map_err(|e| e.to_string())?),
        };
        decompressor.decompress_to_buffer(input, out).map_err(|e| match e.to_string() {
            // libzstd's words for a destination that is too small; the crate hands on no code.
            text if text.contains("Destination buffer is too small") => Fault::Full,
            text => Fault::Bad(text),
        })
    })
}

/// Decodes the first `end` bytes of `out`, if the frame lets that be less work: it is the only one, says that it has as many
/// bytes as `out`, and ends in no checksum, which must not go unseen.
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
            // No more memory than a chunk takes, whatever the frame says.
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
        // The caller then decodes the whole frame, and that error is reported.
        stream().is_ok()
    })
}

/// Whether a checksum of the data stands behind them (RFC 8878, 3.1.1.1.1).
fn has_checksum(frame: &[u8]) -> bool {
    frame.get(4).is_none_or(|descriptor| descriptor & 4 != 0)
}

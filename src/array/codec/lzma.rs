//! LZMA in the formats of Python's `lzma`: xz, the older `.lzma`, and raw streams, whose filters are in the metadata.

use liblzma::stream::{Action, CONCATENATED, Filters, LzmaOptions, Status, Stream};

use super::Fault;
use super::stream::{Step, run};

/// Memory limit of a decoder: above the 65 MiB of preset 9, far below what a damaged header can request.
const MEMORY: u64 = 256 << 20;

/// The container format of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lzma {
    Auto,
    Xz,
    Alone,
    /// Filters in the order of encoding.
    Raw(Vec<Filter>),
}

/// A filter of a raw stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Dictionary size; numbers of literal context, literal position and position bits.
    Lzma1(u32, [u32; 3]),
    Lzma2(u32),
    /// Distance in bytes, 1 to 256.
    Delta(u32),
    /// A branch converter, by liblzma's id.
    Branch(u64),
}

impl Lzma {
    fn stream(&self, room: usize) -> Result<Stream, String> {
        let stream = match self {
            Lzma::Auto => Stream::new_auto_decoder(MEMORY, CONCATENATED),
            Lzma::Xz => Stream::new_stream_decoder(MEMORY, CONCATENATED),
            Lzma::Alone => Stream::new_lzma_decoder(MEMORY),
            Lzma::Raw(filters) => Stream::new_raw_decoder(&chain(filters, room)?),
        };
        stream.map_err(|e| e.to_string())
    }

    /// Decodes into the front of `out`; returns the number of bytes written.
    pub fn decode(&self, mut input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
        let mut stream = self.stream(out.len())?;
        let mut filled = 0;
        let step = |input: &[u8], place: &mut [u8]| {
            let before = (stream.total_in(), stream.total_out());
            let action = if input.is_empty() { Action::Finish } else { Action::Run };
            let status = stream.process(input, place, action).map_err(|e| e.to_string())?;
            let (read, wrote) = (stream.total_in() - before.0, stream.total_out() - before.1);
            Ok(Step { read, wrote, ended: status == Status::StreamEnd })
        };
        let ended = run(&mut input, out, &mut filled, step)?;
        // A raw stream may lack an end marker.
        if ended || (input.is_empty() && matches!(self, Lzma::Raw(_))) {
            return Ok(filled);
        }
        Err("the stream ends early".into())
    }
}

/// liblzma's filter chain. A dictionary of `room` bytes suffices, as references cannot reach further back.
fn chain(filters: &[Filter], room: usize) -> Result<Filters, String> {
    let most = u32::try_from(room.max(4096)).unwrap_or(u32::MAX);
    let mut chain = Filters::new();
    for filter in filters {
        match filter {
            Filter::Lzma1(size, [lc, lp, pb]) => {
                let mut options = LzmaOptions::new_preset(6).map_err(|e| e.to_string())?;
                options.dict_size((*size).min(most).max(4096));
                options.literal_context_bits(*lc).literal_position_bits(*lp).position_bits(*pb);
                chain.lzma1(&options);
            }
            Filter::Lzma2(size) => {
                let mut options = LzmaOptions::new_preset(6).map_err(|e| e.to_string())?;
                options.dict_size((*size).min(most).max(4096));
                chain.lzma2(&options);
            }
            Filter::Delta(distance) => {
                let byte = u8::try_from(distance.wrapping_sub(1)).map_err(|_| "a delta distance out of range")?;
                chain.delta_properties(&[byte]).map_err(|e| e.to_string())?;
            }
            Filter::Branch(id) => {
                match id {
                    4 => chain.x86(),
                    5 => chain.powerpc(),
                    6 => chain.ia64(),
                    7 => chain.arm(),
                    8 => chain.arm_thumb(),
                    9 => chain.sparc(),
                    _ => return Err(format!("filter {id} of lzma is unknown")),
                };
            }
        }
    }
    Ok(chain)
}

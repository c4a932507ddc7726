//! The stages of decoding, one for each codec.

use std::ops::Range;
use std::sync::Arc;

use super::checksum::Sum;
use super::filter::Filter;
use super::lzma::Lzma;
use super::shard::Shard;
use super::transpose::Transpose;
use super::{blosc, bzip2, deflate, lz4, lzf, packbits, pcodec, shuffle, swap, zstd};

/// One step of decoding.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    Gzip,
    Zlib,
    Zstd,
    Blosc,
    Lz4,
    Lzf,
    Bzip2,
    Lzma(Arc<Lzma>),
    Pcodec,
    /// Byte shuffle, with the size of an element.
    Shuffle(usize),
    /// A 4-byte checksum after the data.
    Sum(Arc<Sum>),
    /// A 4-byte checksum before the data.
    LeadingSum(Arc<Sum>),
    /// Booleans packed as bits.
    Packbits,
    Filter(Arc<Filter>),
    Transpose(Arc<Transpose>),
    /// A swap of byte order, with the word size.
    Swap(usize),
    Shard(Arc<Shard>),
}

/// Why a stage fails.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// The output exceeds its slice.
    Full,
    Bad(String),
}

impl From<String> for Fault {
    fn from(cause: String) -> Fault {
        Fault::Bad(cause)
    }
}

impl From<&str> for Fault {
    fn from(cause: &str) -> Fault {
        Fault::Bad(cause.to_owned())
    }
}

impl Stage {
    /// A checksum after the data.
    pub fn sum(sum: Sum) -> Stage {
        Stage::Sum(Arc::new(sum))
    }

    /// The name for `info`.
    pub fn name(&self) -> &'static str {
        match self {
            Stage::Gzip | Stage::Zlib => "gzip",
            Stage::Zstd => "zstd",
            Stage::Blosc => "blosc",
            Stage::Lz4 => "lz4",
            Stage::Lzf => "lzf",
            Stage::Bzip2 => "bz2",
            Stage::Lzma(_) => "lzma",
            Stage::Pcodec => "pcodec",
            Stage::Shuffle(_) => "shuffle",
            Stage::Sum(sum) | Stage::LeadingSum(sum) => sum.name(),
            Stage::Packbits => "packbits",
            Stage::Filter(filter) => filter.name(),
            Stage::Transpose(_) => "transpose",
            Stage::Swap(_) => "big-endian",
            Stage::Shard(_) => "sharding",
        }
    }

    /// The encoded size of `decoded` bytes, if it does not depend on the data.
    pub fn encoded(&self, decoded: usize) -> Option<usize> {
        match self {
            Stage::Shuffle(_) | Stage::Transpose(_) | Stage::Swap(_) => Some(decoded),
            Stage::Sum(_) | Stage::LeadingSum(_) => decoded.checked_add(4),
            Stage::Packbits => Some(packbits::packed(decoded)),
            Stage::Filter(filter) => {
                let (stored, to) = filter.types();
                (decoded / to.size()).checked_mul(stored.size())
            }
            _ => None,
        }
    }

    /// For checksums: verifies and strips it. `None` for other stages.
    pub fn verify<'a>(&self, input: &'a [u8]) -> Option<Result<&'a [u8], Fault>> {
        let (sum, split) = match self {
            Stage::Sum(sum) => (sum, input.split_last_chunk::<4>()),
            Stage::LeadingSum(sum) => (sum, input.split_first_chunk::<4>().map(|(sum, data)| (data, sum))),
            _ => return None,
        };
        Some(match split {
            None => Err(format!("{} bytes are too few for a checksum", input.len()).into()),
            Some((data, stored)) if sum.matches(data, *stored) => Ok(data),
            Some(_) => Err("the checksum does not match".into()),
        })
    }

    /// Decodes `input` into the front of `out`; returns the number of bytes written.
    pub fn decode(&self, input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
        // For stages that keep the size: the slice must have room for `size` bytes.
        let place = |out: &'_ mut [u8], size: usize| -> Result<(), Fault> {
            if size > out.len() { Err(Fault::Full) } else { Ok(()) }
        };
        match self {
            Stage::Gzip => deflate::gzip(input, out),
            Stage::Zlib => deflate::zlib(input, out),
            Stage::Zstd => zstd::decode(input, out),
            Stage::Blosc => blosc::decode(input, out),
            Stage::Lz4 => lz4::decode(input, out),
            Stage::Lzf => lzf::decode(input, out),
            Stage::Bzip2 => bzip2::decode(input, out),
            Stage::Lzma(lzma) => lzma.decode(input, out),
            Stage::Pcodec => pcodec::decode(input, out),
            Stage::Packbits => packbits::decode(input, out),
            Stage::Shard(shard) => shard.decode(input, out),
            Stage::Shuffle(size) => {
                place(out, input.len())?;
                shuffle::unshuffle(*size, input, out.get_mut(..input.len()).unwrap_or_default());
                Ok(input.len())
            }
            Stage::Swap(size) => {
                place(out, input.len())?;
                let out = out.get_mut(..input.len()).unwrap_or_default();
                out.copy_from_slice(input);
                swap(out, *size);
                Ok(input.len())
            }
            Stage::Transpose(transpose) => {
                let whole = transpose.shape.iter().product::<usize>() * transpose.size;
                if input.len() != whole {
                    return Err(format!("{} bytes are transposed, {whole} are declared", input.len()).into());
                }
                place(out, whole)?;
                transpose.decode(input, out.get_mut(..whole).unwrap_or_default());
                Ok(whole)
            }
            Stage::Filter(filter) => {
                let (stored, to) = filter.types();
                let count = input.len() / stored.size();
                let size = count.saturating_mul(to.size());
                place(out, size)?;
                let input = input.get(..count * stored.size()).unwrap_or_default();
                filter.decode(input, out.get_mut(..size).unwrap_or_default())?;
                Ok(size)
            }
            Stage::Sum(_) | Stage::LeadingSum(_) => {
                let data = self.verify(input).unwrap_or(Ok(input))?;
                out.get_mut(..data.len()).ok_or(Fault::Full)?.copy_from_slice(data);
                Ok(data.len())
            }
        }
    }

    /// Decodes only `part` of what decodes to exactly `out`; false if that is not less work or would skip a checksum.
    pub fn decode_part(&self, input: &[u8], part: Range<usize>, out: &mut [u8]) -> bool {
        match self {
            Stage::Zstd => zstd::decode_prefix(input, part.end, out),
            Stage::Blosc => blosc::decode_part(input, part, out),
            _ => false,
        }
    }

    /// Describes a fault of this stage; `room`: the size of its output slice.
    pub fn words(&self, fault: Fault, room: usize) -> String {
        match fault {
            Fault::Full => format!("{}: decodes to more than the {room} bytes declared", self.name()),
            Fault::Bad(cause) => format!("{}: {cause}", self.name()),
        }
    }
}

//! pcodec, by the `pco` crate; the dtype is in the stream.

use pco::data_types::NumberType;
use pco::standalone::{FileDecompressor, simple_decompress_into};

use super::Fault;
use crate::array::catch_panic::catch_panic;

/// Decodes into the front of `out`; returns the number of bytes written.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    catch_panic(|| numbers(input, out)).map_err(Fault::Bad)?
}

fn numbers(input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let bad = |error: pco::errors::PcoError| Fault::Bad(format!("the stream is damaged: {error}"));
    let (file, rest) = FileDecompressor::new(input).map_err(bad)?;
    let Some(kind) = file.peek_number_type_or_termination(rest).map_err(bad)? else { return Ok(0) };
    macro_rules! numbers {
        ($number:ty) => {{
            const SIZE: usize = size_of::<$number>();
            let mut numbers = vec![<$number>::default(); out.len() / SIZE];
            let progress = simple_decompress_into(input, &mut numbers).map_err(bad)?;
            if !progress.finished {
                return Err(Fault::Full);
            }
            let decoded = numbers.get(..progress.n_processed).unwrap_or_default();
            for (place, number) in out.as_chunks_mut::<SIZE>().0.iter_mut().zip(decoded) {
                *place = number.to_le_bytes();
            }
            decoded.len() * SIZE
        }};
    }
    Ok(match kind {
        NumberType::U8 => numbers!(u8),
        NumberType::U16 => numbers!(u16),
        NumberType::U32 => numbers!(u32),
        NumberType::U64 => numbers!(u64),
        NumberType::I8 => numbers!(i8),
        NumberType::I16 => numbers!(i16),
        NumberType::I32 => numbers!(i32),
        NumberType::I64 => numbers!(i64),
        NumberType::F16 => numbers!(half::f16),
        NumberType::F32 => numbers!(f32),
        NumberType::F64 => numbers!(f64),
        _ => return Err("numbers of a type that is not known here".into()),
    })
}

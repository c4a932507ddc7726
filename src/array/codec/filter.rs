//! Inverts element filters, which numcodecs and zarr-python apply before compression.
//!
//! Arithmetic is that of numpy with the same dtypes, operation by operation, so that floats are rounded equally.

use half::f16;

use super::convert::{Real, astype};
use super::value_cast::ValueCast;
use crate::array::Dtype;
use crate::array::cast::{cast, integer, range};

/// One filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Differences of consecutive elements (numcodecs `delta`).
    Delta { stored: Dtype, to: Dtype },
    /// `(x - offset) * scale`, rounded (numcodecs `fixedscaleoffset`).
    FixedScaleOffset { stored: Dtype, to: Dtype, scale: f64, offset: f64 },
    /// Conversion to another dtype (numcodecs `astype`, `quantize`).
    AsType { name: &'static str, stored: Dtype, to: Dtype },
    /// `(x - offset) * scale` in the array's own dtype (zarr `scale_offset`).
    ScaleOffset { dtype: Dtype, scale: [u8; 8], offset: [u8; 8] },
    /// Conversion with stated rounding and range (zarr `cast_value`).
    ValueCast(ValueCast),
}

impl Filter {
    pub const fn name(&self) -> &'static str {
        match self {
            Filter::Delta { .. } => "delta",
            Filter::FixedScaleOffset { .. } => "fixedscaleoffset",
            Filter::AsType { name, .. } => name,
            Filter::ScaleOffset { .. } => "scale_offset",
            Filter::ValueCast(_) => "cast_value",
        }
    }

    /// The stored and the decoded dtype.
    pub const fn types(&self) -> (Dtype, Dtype) {
        match self {
            Filter::Delta { stored, to }
            | Filter::FixedScaleOffset { stored, to, .. }
            | Filter::AsType { stored, to, .. } => (*stored, *to),
            Filter::ScaleOffset { dtype, .. } => (*dtype, *dtype),
            Filter::ValueCast(cast) => (cast.stored, cast.to),
        }
    }

    /// Decodes `input` to `out`; both have the same number of elements.
    pub fn decode(&self, input: &[u8], out: &mut [u8]) -> Result<(), String> {
        match self {
            Filter::Delta { stored, to } => sums(*stored, *to, input, out),
            Filter::FixedScaleOffset { stored, to, scale, offset } => {
                let by = match stored {
                    Dtype::F16 | Dtype::F32 => *stored,
                    _ => Dtype::F64,
                };
                let scaled = |elements: &mut [u8]| match by {
                    Dtype::F16 => scale_floats::<f16, 2>(
                        elements,
                        f16::of(*scale),
                        f16::of(*offset),
                        f16::from_le_bytes,
                        f16::to_le_bytes,
                    ),
                    Dtype::F32 => scale_floats::<f32, 4>(
                        elements,
                        f32::of(*scale),
                        f32::of(*offset),
                        f32::from_le_bytes,
                        f32::to_le_bytes,
                    ),
                    _ => scale_floats::<f64, 8>(elements, *scale, *offset, f64::from_le_bytes, f64::to_le_bytes),
                };
                through(by, *stored, *to, input, out, scaled);
            }
            Filter::AsType { stored, to, .. } => astype(*stored, *to, input, out),
            Filter::ScaleOffset { dtype, scale, offset } => {
                out.copy_from_slice(input);
                scale_own(*dtype, [scale, offset], true, out)?;
            }
            Filter::ValueCast(cast) => cast.decode(input, out)?,
        }
        Ok(())
    }

    /// The fill value in the stored dtype, as zarr-python encodes it for chunks that were never written.
    pub fn stored_fill(&self, fill: &[u8]) -> Result<Vec<u8>, String> {
        let (stored, to) = self.types();
        let mut out = vec![0; stored.size()];
        match self {
            Filter::ScaleOffset { dtype, scale, offset } => {
                out.copy_from_slice(fill);
                scale_own(*dtype, [scale, offset], false, &mut out)?;
            }
            Filter::ValueCast(cast) => cast.encode(fill, &mut out)?,
            _ => astype(to, stored, fill, &mut out),
        }
        Ok(out)
    }
}

/// Converts to the dtype `by`, applies `work`, and converts to the target dtype.
fn through(by: Dtype, stored: Dtype, to: Dtype, input: &[u8], out: &mut [u8], work: impl FnOnce(&mut [u8])) {
    if to == by && stored == by {
        out.copy_from_slice(input);
        return work(out);
    }
    let mut wide = vec![0; input.len() / stored.size() * by.size()];
    cast(stored, by, input, &mut wide);
    work(&mut wide);
    astype(by, to, &wide, out);
}

fn scale_floats<T: Real, const N: usize>(
    elements: &mut [u8],
    scale: T,
    offset: T,
    read: impl Fn([u8; N]) -> T,
    write: impl Fn(T) -> [u8; N],
) {
    for element in elements.as_chunks_mut::<N>().0 {
        *element = write(read(*element).div(scale).add(offset));
    }
}

/// Cumulative sums in the dtype that numpy promotes to.
fn sums(stored: Dtype, to: Dtype, input: &[u8], out: &mut [u8]) {
    let by = stored.promote(to);
    macro_rules! sum {
        ($number:ty, $add:expr) => {
            |elements: &mut [u8]| {
                let mut sum: Option<$number> = None;
                for element in elements.as_chunks_mut::<{ size_of::<$number>() }>().0 {
                    let value = <$number>::from_le_bytes(*element);
                    let next = match sum {
                        Some(before) => $add(before, value),
                        None => value,
                    };
                    *element = next.to_le_bytes();
                    sum = Some(next);
                }
            }
        };
    }
    let work: &dyn Fn(&mut [u8]) = match by {
        Dtype::Bool => &sum!(u8, |a: u8, b: u8| a | b),
        Dtype::I8 | Dtype::U8 => &sum!(u8, u8::wrapping_add),
        Dtype::I16 | Dtype::U16 => &sum!(u16, u16::wrapping_add),
        Dtype::I32 | Dtype::U32 => &sum!(u32, u32::wrapping_add),
        Dtype::I64 | Dtype::U64 => &sum!(u64, u64::wrapping_add),
        Dtype::F16 => &sum!(f16, Real::add),
        Dtype::F32 => &sum!(f32, Real::add),
        Dtype::F64 => &sum!(f64, Real::add),
    };
    through(by, stored, to, input, out, work);
}

/// Applies `number` to every integer; results outside of the dtype's range are errors.
fn integers(dtype: Dtype, elements: &mut [u8], number: impl Fn(i128) -> Result<i128, String>) -> Result<(), String> {
    let (low, high) = range(dtype);
    for element in elements.chunks_exact_mut(dtype.size()) {
        let value = number(integer(dtype, element))?;
        if !(low..=high).contains(&value) {
            return Err(format!("{value} does not fit {dtype}"));
        }
        element.copy_from_slice(value.to_le_bytes().get(..dtype.size()).unwrap_or_default());
    }
    Ok(())
}

/// `(x - offset) * scale` in the array's own dtype, or its inverse (`x / scale + offset`) if `undo`.
fn scale_own(dtype: Dtype, [scale, offset]: [&[u8; 8]; 2], undo: bool, out: &mut [u8]) -> Result<(), String> {
    macro_rules! floats {
        ($number:ty) => {{
            const SIZE: usize = size_of::<$number>();
            let of = |bytes: &[u8; 8]| {
                bytes.first_chunk::<SIZE>().map_or(<$number>::of(0.0), |b| <$number>::from_le_bytes(*b))
            };
            let (scale, offset) = (of(scale), of(offset));
            if undo {
                scale_floats::<$number, SIZE>(out, scale, offset, <$number>::from_le_bytes, <$number>::to_le_bytes);
            } else {
                let minus = offset.mul(<$number>::of(-1.0));
                for element in out.as_chunks_mut::<SIZE>().0 {
                    *element = <$number>::from_le_bytes(*element).add(minus).mul(scale).to_le_bytes();
                }
            }
            Ok(())
        }};
    }
    match dtype {
        Dtype::F16 => floats!(f16),
        Dtype::F32 => floats!(f32),
        Dtype::F64 => floats!(f64),
        _ => {
            let own = |bytes: &[u8; 8]| integer(dtype, bytes.get(..dtype.size()).unwrap_or_default());
            let (scale, offset) = (own(scale), own(offset));
            integers(dtype, out, |value| match value.checked_rem(scale) {
                _ if !undo => Ok((value - offset) * scale),
                Some(0) => Ok(value / scale + offset),
                _ => Err(format!("{value} is no multiple of the scale {scale}")),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(filter: &Filter, input: &[u8], size: usize) -> Vec<u8> {
        let mut out = vec![0; size];
        filter.decode(input, &mut out).unwrap();
        out
    }

    #[test]
    fn sums_wrap_and_round_in_the_type_that_holds_both() {
        let delta = Filter::Delta { stored: Dtype::I8, to: Dtype::I16 };
        assert_eq!(run(&delta, &[100, 100, 100], 6), [100_i16, 200, 300].map(i16::to_le_bytes).concat());
        let delta = Filter::Delta { stored: Dtype::U8, to: Dtype::U8 };
        assert_eq!(run(&delta, &[200, 100, 255], 3), [200, 44, 43]);
        let input = [16_777_216.0_f32, 1.0, 1.0].map(f32::to_le_bytes).concat();
        let delta = Filter::Delta { stored: Dtype::F32, to: Dtype::F32 };
        assert_eq!(run(&delta, &input, 12), [16_777_216.0_f32; 3].map(f32::to_le_bytes).concat());
    }

    #[test]
    fn scales_divide_in_floats() {
        let filter = Filter::FixedScaleOffset { stored: Dtype::U8, to: Dtype::F32, scale: 10.0, offset: 1000.0 };
        assert_eq!(run(&filter, &[1], 4), ((0.1_f64 + 1000.0) as f32).to_le_bytes());
        let own = Filter::ScaleOffset {
            dtype: Dtype::I8,
            scale: [3, 0, 0, 0, 0, 0, 0, 0],
            offset: [100, 0, 0, 0, 0, 0, 0, 0],
        };
        assert_eq!(run(&own, &[9, 253], 2), [103, 99]);
        assert!(own.decode(&[10], &mut [0]).unwrap_err().contains("multiple"));
        assert!(own.decode(&[90], &mut [0]).unwrap_err().contains("fit"));
        assert_eq!(own.stored_fill(&[101]).unwrap(), [3]);
    }
}

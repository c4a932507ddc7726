//! Conversion of elements between dtypes; exact where the collection promoted them as numpy does.

pub mod fits;

use half::f16;

use super::Dtype;

/// Converts packed elements; `out` has room for as many elements as `input` has.
///
/// Integers widen exactly, and are rounded to nearest when converted to floats. Narrowing wraps, which callers must rule out (`fits`, or
/// promotion).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "callers rule out what does not fit"
)]
pub fn cast(from: Dtype, to: Dtype, input: &[u8], out: &mut [u8]) {
    macro_rules! to {
        ($source:ty, $read:expr) => {
            match to {
                Dtype::Bool => each(input, out, $read, |x: $source| [(x != <$source>::default()) as u8]),
                Dtype::I8 => each(input, out, $read, |x: $source| (x as i8).to_le_bytes()),
                Dtype::I16 => each(input, out, $read, |x: $source| (x as i16).to_le_bytes()),
                Dtype::I32 => each(input, out, $read, |x: $source| (x as i32).to_le_bytes()),
                Dtype::I64 => each(input, out, $read, |x: $source| (x as i64).to_le_bytes()),
                Dtype::U8 => each(input, out, $read, |x: $source| (x as u8).to_le_bytes()),
                Dtype::U16 => each(input, out, $read, |x: $source| (x as u16).to_le_bytes()),
                Dtype::U32 => each(input, out, $read, |x: $source| (x as u32).to_le_bytes()),
                Dtype::U64 => each(input, out, $read, |x: $source| (x as u64).to_le_bytes()),
                Dtype::F16 => each(input, out, $read, |x: $source| f16::from_f64(x as f64).to_le_bytes()),
                Dtype::F32 => each(input, out, $read, |x: $source| (x as f32).to_le_bytes()),
                Dtype::F64 => each(input, out, $read, |x: $source| (x as f64).to_le_bytes()),
            }
        };
    }
    if from == to {
        out.copy_from_slice(input);
        return;
    }
    match from {
        Dtype::Bool => to!(u8, |b: [u8; 1]| u8::from(b[0] != 0)),
        Dtype::U8 => to!(u8, u8::from_le_bytes),
        Dtype::I8 => to!(i8, i8::from_le_bytes),
        Dtype::I16 => to!(i16, i16::from_le_bytes),
        Dtype::I32 => to!(i32, i32::from_le_bytes),
        Dtype::I64 => to!(i64, i64::from_le_bytes),
        Dtype::U16 => to!(u16, u16::from_le_bytes),
        Dtype::U32 => to!(u32, u32::from_le_bytes),
        Dtype::U64 => to!(u64, u64::from_le_bytes),
        Dtype::F16 => to!(f32, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::F32 => to!(f32, f32::from_le_bytes),
        Dtype::F64 => to!(f64, f64::from_le_bytes),
    }
}

/// Converts packed elements one by one; simple enough for the compiler to vectorise.
fn each<T, const N: usize, const M: usize>(
    input: &[u8],
    out: &mut [u8],
    read: impl Fn([u8; N]) -> T,
    write: impl Fn(T) -> [u8; M],
) {
    debug_assert_eq!(input.len() / N, out.len() / M);
    for (from, to) in input.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<M>().0) {
        *to = write(read(*from));
    }
}

/// Whether all packed indices are below `bound`. Four times as fast as computing the maximum, as SSE2 has no unsigned maximum.
#[expect(clippy::cast_possible_truncation, reason = "compared with the largest number just before")]
pub fn all_below(dtype: Dtype, indices: &[u8], bound: u64) -> bool {
    macro_rules! all {
        ($number:ty) => {{
            if bound > u64::from(<$number>::MAX) {
                return true;
            }
            let bound = bound as $number;
            // In blocks, whose inner loop has no early exit and is vectorised.
            let beyond = |block: &[[u8; size_of::<$number>()]]| {
                block.iter().fold(false, |found, b| found | (<$number>::from_le_bytes(*b) >= bound))
            };
            !indices.as_chunks().0.chunks(4096).any(beyond)
        }};
    }
    match dtype.size() {
        1 => all!(u8),
        2 => all!(u16),
        4 => all!(u32),
        _ => all!(u64),
    }
}

/// The largest of packed column numbers, read as unsigned, so that negative ones are huge.
pub fn max_index(dtype: Dtype, indices: &[u8]) -> u64 {
    fn max<const N: usize, T: Ord + Default + Into<u64>>(indices: &[u8], read: impl Fn([u8; N]) -> T) -> u64 {
        indices.as_chunks::<N>().0.iter().map(|b| read(*b)).fold(T::default(), T::max).into()
    }
    match dtype.size() {
        1 => max(indices, u8::from_le_bytes),
        2 => max(indices, u16::from_le_bytes),
        4 => max(indices, u32::from_le_bytes),
        _ => max(indices, u64::from_le_bytes),
    }
}

/// Row bounds or column numbers as u64; negative ones wrap to huge ones.
pub fn to_u64s(dtype: Dtype, bytes: &[u8]) -> Vec<u64> {
    let mut wide = vec![0; bytes.len() / dtype.size() * 8];
    cast(dtype, Dtype::U64, bytes, &mut wide);
    wide.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect()
}

/// A number as f64; not for hot paths.
pub fn to_f64(dtype: Dtype, bytes: &[u8]) -> f64 {
    let mut out = [0; 8];
    cast(dtype, Dtype::F64, bytes, &mut out);
    f64::from_le_bytes(out)
}

/// An integer or boolean as i64; u64 above i64::MAX wraps.
pub fn to_i64(dtype: Dtype, bytes: &[u8]) -> i64 {
    let mut out = [0; 8];
    cast(dtype, Dtype::I64, bytes, &mut out);
    i64::from_le_bytes(out)
}

/// A number as text, as Python prints it: integers in decimal, booleans as `True`/`False`, floats with the fewest digits that read back
/// exactly.
pub fn to_text(dtype: Dtype, bytes: &[u8]) -> String {
    match dtype {
        Dtype::Bool => if bytes[0] != 0 { "True" } else { "False" }.to_owned(),
        Dtype::U64 => to_i64(dtype, bytes).cast_unsigned().to_string(),
        Dtype::F16 => float_text(&half_digits(to_f64(dtype, bytes))),
        Dtype::F32 => float_text(&format!("{:e}", bytes.first_chunk().map_or(f32::NAN, |b| f32::from_le_bytes(*b)))),
        Dtype::F64 => float_text(&format!("{:e}", to_f64(dtype, bytes))),
        _ => to_i64(dtype, bytes).to_string(),
    }
}

/// The fewest digits of a half-precision number that read back exactly; Rust has no formatting for these.
fn half_digits(value: f64) -> String {
    let same = |text: &String| text.parse::<f64>().is_ok_and(|read| f16::from_f64(read) == f16::from_f64(value));
    (0..5).map(|digits| format!("{value:.digits$e}")).find(same).unwrap_or_else(|| format!("{value:e}"))
}

/// `digits e exponent` as Python's `repr` lays it out: positional from 1e-4 to 1e16.
fn float_text(scientific: &str) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific.to_lowercase(); // nan, inf, -inf
    };
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = digits.chars().filter(|char| *char != '.').collect();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // No float has more than 17 digits, or an exponent below -400.
    let len = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    if !(-4..16).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let direction = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}e{direction}{:02}", exponent.abs());
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0)));
    }
    if exponent + 1 >= len {
        return format!("{sign}{digits}{}.0", "0".repeat(usize::try_from(exponent + 1 - len).unwrap_or(0)));
    }
    let (whole, fraction) = digits.split_at(usize::try_from(exponent + 1).unwrap_or(0));
    format!("{sign}{whole}.{fraction}")
}

/// An integer of any dtype.
pub fn integer(dtype: Dtype, bytes: &[u8]) -> i128 {
    let mut wide = [0; 8];
    cast(dtype, if dtype == Dtype::U64 { Dtype::U64 } else { Dtype::I64 }, bytes, &mut wide);
    if dtype == Dtype::U64 { i128::from(u64::from_le_bytes(wide)) } else { i128::from(i64::from_le_bytes(wide)) }
}

/// The smallest and the largest value of an integer dtype.
pub fn range(dtype: Dtype) -> (i128, i128) {
    let bits = 8 * dtype.size();
    match dtype {
        Dtype::Bool => (0, 1),
        _ if dtype.is_signed() => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        _ => (0, (1 << bits) - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widens_exactly() {
        for (from, value) in [(Dtype::I8, vec![0x80]), (Dtype::I16, vec![0, 0x80]), (Dtype::U32, vec![255; 4])] {
            let mut wide = [0; 8];
            cast(from, Dtype::I64, &value, &mut wide);
            let mut back = vec![0; from.size()];
            cast(Dtype::I64, from, &wide, &mut back);
            assert_eq!(back, value, "{from}");
        }
        assert_eq!(to_i64(Dtype::I8, &[0xff]), -1);
        assert_eq!(to_f64(Dtype::F16, &f16::from_f32(1.5).to_le_bytes()), 1.5);
    }

    #[test]
    fn text_is_as_python_prints_it() {
        for (value, text) in [
            (2.0, "2.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (123.456, "123.456"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(to_text(Dtype::F64, &value.to_le_bytes()), text);
        }
        assert_eq!(to_text(Dtype::F32, &0.1f32.to_le_bytes()), "0.1");
        assert_eq!(to_text(Dtype::F16, &f16::from_f32(0.1).to_le_bytes()), "0.1");
        assert_eq!(to_text(Dtype::F16, &f16::from_f32(65504.0).to_le_bytes()), "65500.0");
        assert_eq!(to_text(Dtype::U64, &u64::MAX.to_le_bytes()), u64::MAX.to_string());
        assert_eq!(to_text(Dtype::Bool, &[1]), "True");
    }

    #[test]
    fn a_negative_index_is_huge() {
        assert_eq!(max_index(Dtype::I32, &[5, 0, 0, 0, 255, 255, 255, 255]), u64::from(u32::MAX));
        assert_eq!(max_index(Dtype::U16, &[5, 0, 1, 1]), 257);
        assert_eq!(max_index(Dtype::I64, &[]), 0);
        let indices = [5, 0, 0, 0, 7, 0, 0, 0];
        assert!(all_below(Dtype::I32, &indices, 8) && !all_below(Dtype::I32, &indices, 7));
        assert!(!all_below(Dtype::I32, &[255; 4], 1 << 31) && !all_below(Dtype::I64, &[255; 8], 1 << 63));
        assert!(all_below(Dtype::U16, &[255; 2], 1 << 16) && all_below(Dtype::I32, &[], 0));
    }
}

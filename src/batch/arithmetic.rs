//! Arithmetic on the values of a row: scaling to a total, ln(1 + value).
//!
//! Results are the same on every machine: sums run in a fixed order, each product is rounded once, and the logarithm is our own, because
//! that of the C library differs between systems. It follows P. T. P. Tang (ACM Trans. Math. Softw. 16, 1990):

use half::f16;

use crate::array::Dtype;
use crate::array::cast::to_f64;
use crate::collection::element::Arithmetic;

/// Partial sums, which the compiler can vectorise.
const LANES: usize = 8;

/// The sum of a row's values, in f64.
pub fn total(dtype: Dtype, values: &[u8]) -> f64 {
    macro_rules! sum {
        ($number:ty, $widen:expr) => {{
            let widen: fn($number) -> f64 = $widen;
            let mut lanes = [0.0_f64; LANES];
            let (whole, rest) = values.as_chunks::<{ size_of::<$number>() }>().0.as_chunks::<LANES>();
            for eight in whole {
                for (lane, value) in lanes.iter_mut().zip(eight) {
                    *lane += widen(<$number>::from_le_bytes(*value));
                }
            }
            for (lane, value) in lanes.iter_mut().zip(rest) {
                *lane += widen(<$number>::from_le_bytes(*value));
            }
            lanes.iter().sum()
        }};
    }
    match dtype {
        Dtype::F32 => sum!(f32, f64::from),
        Dtype::F64 => sum!(f64, |value| value),
        Dtype::F16 => sum!(f16, f16::to_f64),
        Dtype::I32 => sum!(i32, f64::from),
        Dtype::U16 => sum!(u16, f64::from),
        _ => values.chunks_exact(dtype.size()).map(|value| to_f64(dtype, value)).sum(),
    }
}

/// Applies arithmetic to values of one row. `dtype` is f32 or f64; `total` is the sum of the whole stored row.
pub fn apply(arithmetic: &Arithmetic, dtype: Dtype, total: f64, values: &mut [u8]) {
    // A row whose total is 0 is not scaled.
    if let Some(target) = arithmetic.normalize.filter(|_| total != 0.0) {
        let scale = target / total;
        if dtype == Dtype::F64 {
            each(values, |value| (f64::from_le_bytes(value) * scale).to_le_bytes());
        } else {
            let scale = scale as f32;
            each(values, |value| (f32::from_le_bytes(value) * scale).to_le_bytes());
        }
    }
    if arithmetic.log1p {
        if dtype == Dtype::F64 {
            each(values, |value| log1p(f64::from_le_bytes(value)).to_le_bytes());
        } else {
            each(values, |value| (log1p_f32(f32::from_le_bytes(value))).to_le_bytes());
        }
    }
}

/// Changes packed values one by one; written so that the compiler unrolls and vectorises it.
fn each<const N: usize>(values: &mut [u8], change: impl Fn([u8; N]) -> [u8; N]) {
    values.as_chunks_mut::<N>().0.iter_mut().for_each(|value| *value = change(*value));
}

const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
const MANTISSA: u64 = 0x000f_ffff_ffff_ffff;

/// k and m with y = 2^k m and m from sqrt(1/2) to sqrt(2); y is positive and normal.
fn split(y: f64) -> (f64, f64) {
    let bits = y.to_bits().wrapping_add(0x3ff0_0000_0000_0000 - SQRT_HALF);
    // `biased` is below 2^52, so OR-ing it into 2^52's mantissa converts it to f64; SSE2 has no such conversion of 64-bit integers.
    let biased = bits >> 52;
    let k = f64::from_bits(0x4330_0000_0000_0000 | biased) - 4_503_599_627_370_496.0 - 1023.0;
    (k, f64::from_bits((bits & MANTISSA) + SQRT_HALF))
}

/// ln(1 + x), computed in f64 and rounded once: nearly always within half a unit in the last place.
fn log1p_f32(x: f32) -> f32 {
    let wide = f64::from(x);
    let y = 1.0 + wide;
    let (k, m) = split(y);
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let odd = 1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z * (1.0 / 13.0)))));
    let log = k * std::f64::consts::LN_2 + 2.0 * (s + s * z * odd);
    // 1 + x would lose the low bits of a tiny x.
    let tiny = wide * (1.0 - wide * (0.5 - wide * (1.0 / 3.0)));
    let value = if wide.abs() < 1e-5 { tiny } else { log };
    let edge = if y == 0.0 { f64::NEG_INFINITY } else { f64::NAN };
    let value = if y > 0.0 { value } else { edge };
    (if y == f64::INFINITY { y } else { value }) as f32
}

/// ln(1 + x) to about a unit in the last place.
fn log1p(x: f64) -> f64 {
    if x.is_nan() || x <= -1.0 || x == f64::INFINITY {
        return if x == -1.0 {
            f64::NEG_INFINITY
        } else if x == f64::INFINITY {
            x
        } else {
            f64::NAN
        };
    }
    if x.abs() < 1e-9 {
        return x * (1.0 - 0.5 * x);
    }
    let y = 1.0 + x;
    // The rounding error of y = 1 + x.
    let lost = if x.abs() < 1.0 { x - (y - 1.0) } else { 1.0 - (y - x) };
    let (k, m) = split(y);
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let odd = (1..=13).rev().fold(0.0, |sum, n| sum * z + 1.0 / f64::from(2 * n + 1));
    // ln m = 2 s + 2 s z odd = f - s f + 2 s z odd, where f is exact.
    let (high, low) = (6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10);
    k * high + (f - (s * f - (2.0 * s * z * odd + (k * low + lost / y))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn logarithms_are_those_of_the_library() {
        let mut x = 1e-30_f64;
        while x < 1e30 {
            for x in [x, -x].into_iter().filter(|&x| x > -1.0) {
                let (got, want) = (log1p(x), x.ln_1p());
                assert!((got - want).abs() <= 4e-16 * want.abs(), "{x:e}: {got:e}, not {want:e}");
                let (got, want) = (log1p_f32(x as f32), f64::from(x as f32).ln_1p());
                assert!((f64::from(got) - want).abs() <= 6.1e-8 * want.abs(), "{x:e}: {got:e}, not {want:e}");
            }
            x *= 1.0037;
        }
        for (x, want) in [(0.0, 0.0), (-0.0, -0.0), (f32::INFINITY, f32::INFINITY), (-1.0, f32::NEG_INFINITY)] {
            assert_eq!(log1p_f32(x).to_bits(), want.to_bits(), "{x}");
            assert_eq!(log1p(x.into()).to_bits(), f64::from(want).to_bits(), "{x}");
        }
        assert!(log1p_f32(-2.0).is_nan() && log1p_f32(f32::NAN).is_nan() && log1p_f32(f32::NEG_INFINITY).is_nan());
        assert!(log1p(-2.0).is_nan() && log1p(f64::NAN).is_nan() && log1p(f64::NEG_INFINITY).is_nan());
        assert_eq!(log1p_f32(f32::from_bits(1)).to_bits(), 1);
    }

    #[test]
    fn rows_are_scaled_to_their_total() {
        let row: Vec<f32> = (1..=19).map(|value| value as f32).collect();
        assert_eq!(total(Dtype::F32, &f32s(&row)), 190.0);
        assert_eq!(total(Dtype::U8, &[255, 1]), 256.0);
        let arithmetic = Arithmetic { normalize: Some(1e4), log1p: false };
        let mut values = f32s(&row);
        apply(&arithmetic, Dtype::F32, 190.0, &mut values);
        let scale = (1e4 / 190.0) as f32;
        assert_eq!(values, f32s(&row.iter().map(|value| value * scale).collect::<Vec<_>>()));
        let mut zeros = f32s(&[0.0, -0.0]);
        apply(&arithmetic, Dtype::F32, 0.0, &mut zeros);
        assert_eq!(zeros, f32s(&[0.0, -0.0]));
    }
}

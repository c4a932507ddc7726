//! Whether a cast preserves values; checked where the user, not numpy's promotion, chose the dtype.
//!
//! Rounding to a float dtype is allowed, as in `astype`. Everything else must be preserved: fractions and NaN cannot become integers, and
//! numbers beyond the range of the dtype are refused, infinity included.

use half::f16;

use super::range;
use crate::array::Dtype;

/// Whether the target dtype can hold every value, apart from rounding.
pub fn always_fits(from: Dtype, to: Dtype) -> bool {
    let is_integer_to_float = !from.is_float() && to.is_float() && to != Dtype::F16;
    from.promote(to) == to || is_integer_to_float
}

/// The index of the first packed element that a cast would not preserve.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the result is compared with the value")]
pub fn misfit(from: Dtype, to: Dtype, elements: &[u8]) -> Option<usize> {
    macro_rules! floats {
        ($number:ty, $widen:expr) => {{
            let elements = elements.as_chunks::<{ size_of::<$number>() }>().0;
            let widen: fn($number) -> f64 = $widen;
            let mut values = elements.iter().map(|b| widen(<$number>::from_le_bytes(*b)));
            match to {
                Dtype::F64 => None,
                Dtype::F32 => values.position(|value| value.is_finite() && (value as f32).is_infinite()),
                Dtype::F16 => values.position(|value| value.is_finite() && f16::from_f64(value).is_infinite()),
                _ => {
                    let (low, high) = range(to);
                    // Both bounds are 0 or powers of two, so they are exact as floats; the upper one is excluded.
                    let (low, end) = (low as f64, (high + 1) as f64);
                    // Via an integer, for which SSE2 has instructions; it has none for `trunc`.
                    let whole = |value: f64| if to == Dtype::U64 { value as u64 as f64 } else { value as i64 as f64 };
                    values.position(|value| !(low <= value && value < end && value == whole(value)))
                }
            }
        }};
    }
    macro_rules! integers {
        ($number:ty) => {{
            let elements = elements.as_chunks::<{ size_of::<$number>() }>().0;
            let (low, high) = if to.is_float() { (-65_519, 65_519) } else { range(to) };
            elements.iter().position(|b| !(low..=high).contains(&i128::from(<$number>::from_le_bytes(*b))))
        }};
    }
    if always_fits(from, to) {
        return None;
    }
    match from {
        Dtype::F16 => floats!(f16, f16::to_f64),
        Dtype::F32 => floats!(f32, f64::from),
        Dtype::F64 => floats!(f64, |value| value),
        Dtype::Bool | Dtype::U8 => integers!(u8),
        Dtype::I8 => integers!(i8),
        Dtype::I16 => integers!(i16),
        Dtype::I32 => integers!(i32),
        Dtype::I64 => integers!(i64),
        Dtype::U16 => integers!(u16),
        Dtype::U32 => integers!(u32),
        Dtype::U64 => integers!(u64),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cast;
    use super::*;

    fn of(to: Dtype, values: &[f64]) -> Vec<u8> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut out = vec![0; values.len() * to.size()];
        cast(Dtype::F64, to, &bytes, &mut out);
        out
    }

    #[test]
    fn the_first_value_that_would_change_is_found() {
        use Dtype::*;
        for (from, to, fit, not) in [
            (F32, I32, vec![0.0, -0.0, -2147483648.0, 2147483520.0], vec![1.5, 2147483648.0, f64::NAN, f64::INFINITY]),
            (F64, U8, vec![0.0, 255.0], vec![256.0, -1.0, 0.1]),
            (F64, F32, vec![0.1, 3.4e38, f64::INFINITY, f64::NAN], vec![3.5e38, -1e300]),
            (F32, F16, vec![0.1, 65504.0, f64::NEG_INFINITY], vec![65520.0, -1e6]),
            (I32, F16, vec![-65519.0, 65519.0], vec![65520.0]),
            (I64, I32, vec![-2147483648.0, 2147483647.0], vec![2147483648.0]),
            (I8, U16, vec![0.0, 127.0], vec![-1.0]),
            (U16, Bool, vec![0.0, 1.0], vec![2.0]),
            (F32, Bool, vec![0.0, 1.0], vec![0.5, 2.0]),
            (I64, F32, vec![16777217.0], vec![]),
        ] {
            assert_eq!(misfit(from, to, &of(from, &fit)), None, "{from} to {to}");
            for value in not {
                let values: Vec<f64> = fit.iter().copied().chain([value]).collect();
                assert_eq!(misfit(from, to, &of(from, &values)), Some(fit.len()), "{value} from {from} to {to}");
            }
        }
    }

    #[test]
    fn what_numpy_promotes_to_always_fits() {
        for a in Dtype::ALL {
            for b in Dtype::ALL {
                assert!(always_fits(a, a.promote(b)), "{a} {b}");
            }
        }
    }
}

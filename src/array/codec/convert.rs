//! Conversion as numpy's `astype` does it, including values that the target cannot hold.

use half::f16;

use crate::array::Dtype;
use crate::array::cast::cast;

/// Converts packed elements; `out` has room for as many as `input` has.
pub fn astype(from: Dtype, to: Dtype, input: &[u8], out: &mut [u8]) {
    if from.is_float() && !to.is_float() && to != Dtype::Bool {
        let wide = widened(from, Dtype::F64, input);
        let values = wide.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b));
        for (place, value) in out.chunks_exact_mut(to.size()).zip(values) {
            let bits = integer(to, value).to_le_bytes();
            place.copy_from_slice(bits.get(..place.len()).unwrap_or_default());
        }
    } else if !from.is_float() && to == Dtype::F16 {
        // numpy converts via float32, and so rounds twice.
        cast(Dtype::F32, to, &widened(from, Dtype::F32, input), out);
    } else {
        cast(from, to, input, out);
    }
}

fn widened(from: Dtype, to: Dtype, input: &[u8]) -> Vec<u8> {
    let mut wide = vec![0; input.len() / from.size() * to.size()];
    cast(from, to, input, &mut wide);
    wide
}

/// Converts a float as x86-64 does: the lowest integer if out of range; narrow types are truncated from 32 bits.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the ranges are compared before")]
fn integer(to: Dtype, value: f64) -> i64 {
    let signed = |low: f64, high: f64, lowest: i64| {
        if value > low && value < high { value as i64 } else { lowest }
    };
    match to {
        Dtype::I64 => signed(-9_223_372_036_854_777_856.0, 9_223_372_036_854_775_808.0, i64::MIN),
        Dtype::U32 => signed(-9_223_372_036_854_777_856.0, 9_223_372_036_854_775_808.0, i64::MIN),
        Dtype::U64 if value >= 9_223_372_036_854_775_808.0 => (value as u64).cast_signed(),
        Dtype::U64 => signed(-9_223_372_036_854_777_856.0, 9_223_372_036_854_775_808.0, i64::MIN),
        _ => signed(-2_147_483_649.0, 2_147_483_648.0, i64::from(i32::MIN)),
    }
}

/// Float arithmetic that rounds after every operation, as numpy's loops do.
pub trait Real: Copy {
    fn of(value: f64) -> Self;
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
}

macro_rules! real {
    ($number:ty) => {
        impl Real for $number {
            #[allow(clippy::cast_possible_truncation, reason = "a float is rounded, which is what is asked for")]
            fn of(value: f64) -> Self {
                value as $number
            }
            fn add(self, other: Self) -> Self {
                self + other
            }
            fn mul(self, other: Self) -> Self {
                self * other
            }
            fn div(self, other: Self) -> Self {
                self / other
            }
        }
    };
}

real!(f32);
real!(f64);

impl Real for f16 {
    fn of(value: f64) -> Self {
        f16::from_f64(value)
    }
    fn add(self, other: Self) -> Self {
        f16::from_f32(self.to_f32() + other.to_f32())
    }
    fn mul(self, other: Self) -> Self {
        f16::from_f32(self.to_f32() * other.to_f32())
    }
    fn div(self, other: Self) -> Self {
        f16::from_f32(self.to_f32() / other.to_f32())
    }
}

//! zarr's `cast_value`: conversion with stated rounding, range and exceptions, as zarr-python's backend does it.

use half::f16;

use crate::array::Dtype;
use crate::array::cast::{cast, integer, range, to_f64};

/// How to round values that the target cannot hold exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    NearestEven,
    NearestAway,
    TowardsZero,
    TowardsPositive,
    TowardsNegative,
}

/// What to do with values beyond the target's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    Error,
    Clamp,
    Wrap,
}

/// Exceptions: pairs of packed values, the second replacing the first.
pub type Map = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Debug, PartialEq)]
pub struct ValueCast {
    pub stored: Dtype,
    pub to: Dtype,
    pub rounding: Rounding,
    pub beyond: Beyond,
    /// Exceptions for writing and for reading.
    pub encode: Map,
    pub decode: Map,
}

impl ValueCast {
    /// Converts stored elements to the array's.
    pub fn decode(&self, input: &[u8], out: &mut [u8]) -> Result<(), String> {
        self.run(self.stored, self.to, &self.decode, input, out)
    }

    /// Converts the array's elements to stored ones.
    pub fn encode(&self, input: &[u8], out: &mut [u8]) -> Result<(), String> {
        self.run(self.to, self.stored, &self.encode, input, out)
    }

    fn run(&self, from: Dtype, to: Dtype, map: &Map, input: &[u8], out: &mut [u8]) -> Result<(), String> {
        for (element, place) in input.chunks_exact(from.size()).zip(out.chunks_exact_mut(to.size())) {
            let same = |key: &[u8]| {
                let (a, b) = (to_f64(from, key), to_f64(from, element));
                key == element || (from.is_float() && (a == b || (a.is_nan() && b.is_nan())))
            };
            match map.iter().find(|(key, _)| same(key)) {
                Some((_, value)) => place.copy_from_slice(value),
                None if to.is_float() => self.to_float(from, to, element, place)?,
                None => self.to_integer(from, to, element, place)?,
            }
        }
        Ok(())
    }

    fn to_integer(&self, from: Dtype, to: Dtype, element: &[u8], place: &mut [u8]) -> Result<(), String> {
        let number = if from.is_float() {
            let value = to_f64(from, element);
            if !value.is_finite() {
                return Err(format!("{value} has no place in {to}"));
            }
            let whole = match self.rounding {
                Rounding::NearestEven => value.round_ties_even(),
                Rounding::NearestAway => value.round(),
                Rounding::TowardsZero => value.trunc(),
                Rounding::TowardsPositive => value.ceil(),
                Rounding::TowardsNegative => value.floor(),
            };
            #[expect(
                clippy::cast_possible_truncation,
                reason = "what is beyond is the largest, and out of range below"
            )]
            let whole = whole as i128;
            whole
        } else {
            integer(from, element)
        };
        let (low, high) = range(to);
        let number = match self.beyond {
            _ if (low..=high).contains(&number) => number,
            Beyond::Error => return Err(format!("{number} does not fit {to}")),
            Beyond::Clamp => number.clamp(low, high),
            Beyond::Wrap => number,
        };
        place.copy_from_slice(number.to_le_bytes().get(..place.len()).unwrap_or_default());
        Ok(())
    }

    fn to_float(&self, from: Dtype, to: Dtype, element: &[u8], place: &mut [u8]) -> Result<(), String> {
        let value = to_f64(from, element);
        // For integers beyond 2^53 the nearest float is found from the integer itself.
        cast(from, to, element, place);
        let nearest = to_f64(to, place);
        let mut rounded = nearest;
        if self.rounding != Rounding::NearestEven && value.is_finite() && nearest != value {
            let (below, above) = if nearest < value {
                (nearest, to_f64(to, &neighbour(to, place, true)))
            } else {
                (to_f64(to, &neighbour(to, place, false)), nearest)
            };
            let toward_zero = if value > 0.0 { below } else { above };
            rounded = match self.rounding {
                Rounding::TowardsPositive => above,
                Rounding::TowardsNegative => below,
                Rounding::TowardsZero => toward_zero,
                _ if value - below == above - value => below + above - toward_zero,
                _ => nearest,
            };
            // Values from the power of two above the largest number on are not rounded towards zero.
            if nearest.is_infinite() && value.abs() >= one_beyond(to) {
                rounded = nearest;
            }
        }
        if rounded.is_infinite() && value.is_finite() && self.beyond != Beyond::Clamp {
            return Err(format!("{value} does not fit {to}"));
        }
        if rounded != nearest {
            cast(Dtype::F64, to, &rounded.to_le_bytes(), place);
        }
        Ok(())
    }
}

/// The power of two above a float type's largest number.
fn one_beyond(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F16 => 65_536.0,
        Dtype::F32 => 2.0_f64.powi(128),
        _ => f64::INFINITY,
    }
}

/// The next float in one direction.
fn neighbour(dtype: Dtype, bytes: &[u8], up: bool) -> [u8; 8] {
    let mut out = [0; 8];
    let mut put = |bytes: &[u8]| {
        for (place, byte) in out.iter_mut().zip(bytes) {
            *place = *byte;
        }
    };
    let value = to_f64(dtype, bytes);
    match dtype {
        Dtype::F16 => {
            let half = f16::from_f64(value);
            // As integers, halves of one sign are ordered by magnitude.
            let step = match (half.to_bits(), up) {
                (bits, up) if bits & 0x7fff == 0 => {
                    if up {
                        1
                    } else {
                        0x8001
                    }
                }
                (bits, up) if (bits & 0x8000 == 0) == up => bits + 1,
                (bits, _) => bits - 1,
            };
            put(&step.to_le_bytes());
        }
        Dtype::F32 => {
            #[expect(clippy::cast_possible_truncation, reason = "a float is rounded, which is what is asked for")]
            let single = value as f32;
            put(&if up { single.next_up() } else { single.next_down() }.to_le_bytes());
        }
        _ => put(&if up { value.next_up() } else { value.next_down() }.to_le_bytes()),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rounding: Rounding, beyond: Beyond, from: Dtype, to: Dtype, value: f64) -> Result<f64, String> {
        let mut input = vec![0; from.size()];
        cast(Dtype::F64, from, &value.to_le_bytes(), &mut input);
        let mut out = vec![0; to.size()];
        let cast = ValueCast { stored: from, to, rounding, beyond, encode: Map::new(), decode: Map::new() };
        cast.decode(&input, &mut out).map(|()| to_f64(to, &out))
    }

    /// Results of cast-value-rs 0.5.1.
    #[test]
    fn rounds_and_bounds_as_the_backend_of_zarr_python() {
        use Beyond::*;
        use Dtype::*;
        use Rounding::*;
        for (rounding, beyond, from, to, value, want) in [
            (NearestEven, Error, F32, U8, 2.5, Some(2.0)),
            (NearestAway, Error, F32, U8, 2.5, Some(3.0)),
            (TowardsNegative, Wrap, F32, U8, -2.5, Some(253.0)),
            (NearestEven, Clamp, F32, U8, 300.0, Some(255.0)),
            (NearestEven, Error, F32, U8, 255.5, None),
            (NearestEven, Clamp, F32, U8, f64::INFINITY, None),
            (NearestEven, Wrap, I16, U8, 300.0, Some(44.0)),
            (NearestEven, Error, I64, F32, 16_777_217.0, Some(16_777_216.0)),
            (NearestAway, Error, I64, F32, -16_777_217.0, Some(-16_777_218.0)),
            (TowardsPositive, Error, I64, F32, 16_777_217.0, Some(16_777_218.0)),
            (TowardsNegative, Error, I64, F32, -16_777_217.0, Some(-16_777_218.0)),
            (NearestEven, Error, I32, F16, 65_520.0, None),
            (NearestEven, Clamp, I32, F16, 65_520.0, Some(f64::INFINITY)),
            (TowardsZero, Error, I32, F16, 65_520.0, Some(65_504.0)),
            (TowardsZero, Clamp, I32, F16, 70_000.0, Some(f64::INFINITY)),
            (TowardsPositive, Error, F32, F16, 1e-9, Some(5.960_464_477_539_063e-8)),
            (TowardsZero, Error, F32, F16, 2049.5, Some(2048.0)),
        ] {
            let got = run(rounding, beyond, from, to, value);
            assert_eq!(got.clone().ok(), want, "{rounding:?} {beyond:?} {from} {to} {value}: {got:?}");
        }
    }
}

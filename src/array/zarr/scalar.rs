//! Scalar values in metadata, as in zarr-python: numbers, numbers as text, and the bits of a float in hexadecimal.

use serde_json::Value;

use crate::array::Dtype;
use crate::array::cast::cast;

/// A value as an element of a dtype; `None` if it is not valid.
pub fn bytes(dtype: Dtype, value: &Value) -> Option<Vec<u8>> {
    let mut out = vec![0; dtype.size()];
    let float = |value: f64, out: &mut [u8]| cast(Dtype::F64, dtype, &value.to_le_bytes(), out);
    match value {
        // In v2, null means no fill value, which is read as zeros.
        Value::Null => {}
        Value::Bool(truth) => cast(Dtype::Bool, dtype, &[u8::from(*truth)], &mut out),
        Value::Number(number) if dtype.is_float() => float(number.as_f64()?, &mut out),
        Value::Number(_) => out = integer(dtype, whole(value)?)?,
        Value::String(text) if dtype.is_float() => match text.strip_prefix("0x") {
            Some(digits) => float(bits(digits)?, &mut out),
            None => float(number(text)?, &mut out),
        },
        Value::String(text) => out = integer(dtype, text.trim().replace('_', "").parse().ok()?)?,
        _ => return None,
    }
    Some(out)
}

/// Parses a float as Python's `float()` does.
pub fn number(text: &str) -> Option<f64> {
    text.trim().replace('_', "").parse().ok()
}

fn integer(dtype: Dtype, value: i128) -> Option<Vec<u8>> {
    if dtype == Dtype::Bool {
        return Some(vec![u8::from(value != 0)]);
    }
    let (low, high) = crate::array::cast::range(dtype);
    if !(low..=high).contains(&value) {
        return None;
    }
    value.to_le_bytes().get(..dtype.size()).map(<[u8]>::to_vec)
}

#[expect(clippy::cast_possible_truncation, reason = "a whole number below 1e30")]
fn whole(value: &Value) -> Option<i128> {
    let exact = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    exact.or_else(|| {
        value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e30).map(|float| float as i128)
    })
}

/// The float with these 4, 8 or 16 hexadecimal digits.
fn bits(digits: &str) -> Option<f64> {
    let bits = u64::from_str_radix(digits, 16).ok()?;
    Some(match digits.len() {
        4 => half::f16::from_bits(u16::try_from(bits).ok()?).to_f64(),
        8 => f64::from(f32::from_bits(u32::try_from(bits).ok()?)),
        16 => f64::from_bits(bits),
        _ => return None,
    })
}

/// A size: an integer, which some writers store as `4.0` or `true`.
pub fn size(value: &Value) -> Option<u64> {
    match value {
        Value::Bool(truth) => Some(u64::from(*truth)),
        _ => whole(value).and_then(|number| u64::try_from(number).ok()),
    }
}

/// A list of sizes.
pub fn sizes(value: &Value) -> Option<Vec<u64>> {
    value.as_array()?.iter().map(size).collect()
}

/// Parses numpy's name of a dtype, such as `<f4` or `float32`; also returns whether it is big-endian.
pub fn dtype(name: &str) -> Option<(Dtype, bool)> {
    let (big, bare) = match name.as_bytes().first() {
        Some(b'>') => (true, name.get(1..)?),
        Some(b'<' | b'|' | b'=') => (false, name.get(1..)?),
        _ => (false, name),
    };
    let dtype = Dtype::from_name(bare).or_else(|| {
        Dtype::ALL
            .into_iter()
            .find(|dtype| dtype.npy().get(1..) == Some(bare) || (bare == "?" && *dtype == Dtype::Bool))
    });
    dtype.map(|dtype| (dtype, big && dtype.size() > 1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_as_zarr_python_reads_them() {
        let float = |value: f32| Some(value.to_le_bytes().to_vec());
        for (value, want) in [
            (json!(0), float(0.0)),
            (json!("0"), float(0.0)),
            (json!("1.5"), float(1.5)),
            (json!("-Infinity"), float(f32::NEG_INFINITY)),
            (json!("0x3fc00000"), float(1.5)),
            (json!("0x3ff8000000000000"), float(1.5)),
            (json!("0x3fc0"), float(1.9375)),
            (json!("x"), None),
            (json!([]), None),
        ] {
            assert_eq!(bytes(Dtype::F32, &value), want, "{value}");
        }
        assert!(bytes(Dtype::F64, &json!("NaN")).is_some_and(|b| f64::from_le_bytes(b.try_into().unwrap()).is_nan()));
        assert_eq!(bytes(Dtype::I8, &json!("-3")), Some(vec![253]));
        assert_eq!(bytes(Dtype::I8, &json!(3.0)), Some(vec![3]));
        assert_eq!(bytes(Dtype::U8, &json!(256)), None);
        assert_eq!(bytes(Dtype::Bool, &json!(true)), Some(vec![1]));
        assert_eq!(dtype(">f4"), Some((Dtype::F32, true)));
        assert_eq!(dtype("|b1"), Some((Dtype::Bool, false)));
        assert_eq!(dtype("int16"), Some((Dtype::I16, false)));
        assert_eq!(dtype("u1"), Some((Dtype::U8, false)));
        assert_eq!(size(&json!(4.0)), Some(4));
    }
}

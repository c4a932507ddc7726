//! Dense rows from sparse ones. Each row is zeroed just before its values are added, so that it is still in the L2 cache.

use half::f16;

use crate::array::Dtype;

use crate::array::cast::{all_below, max_index};

/// Writes one CSR row as `out.len() / dtype.size()` dense elements. Duplicate values of a column are summed, as
/// `scipy.sparse.csr_matrix.toarray` does.
///
/// # Errors
/// A column number outside the row.
pub fn expand(dtype: Dtype, values: &[u8], index_dtype: Dtype, indices: &[u8], out: &mut [u8]) -> Result<(), u64> {
    let columns = (out.len() / dtype.size()) as u64;
    if !all_below(index_dtype, indices, columns) {
        return Err(max_index(index_dtype, indices));
    }
    out.fill(0);
    match index_dtype.size() {
        1 => add(dtype, values, indices.iter().map(|&b| b as usize), out),
        2 => add(dtype, values, indices.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b) as usize), out),
        4 => add(dtype, values, indices.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b) as usize), out),
        _ => add(dtype, values, indices.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b) as usize), out),
    }
    Ok(())
}

/// Adds values to a zeroed row; all columns must lie within it.
pub fn add(dtype: Dtype, values: &[u8], indices: impl Iterator<Item = usize>, out: &mut [u8]) {
    macro_rules! add {
        ($number:ty, $plus:expr) => {{
            const N: usize = size_of::<$number>();
            let out = out.as_chunks_mut::<N>().0;
            let plus: fn($number, $number) -> $number = $plus;
            for (column, value) in indices.zip(values.as_chunks::<N>().0) {
                let place = &mut out[column];
                // The first value is copied, not added: 0.0 + -0.0 would lose its sign.
                *place = match *place == [0; N] {
                    true => *value,
                    false => plus(<$number>::from_le_bytes(*place), <$number>::from_le_bytes(*value)).to_le_bytes(),
                };
            }
        }};
    }
    match dtype {
        Dtype::Bool => add!(u8, |a, b| a | b),
        Dtype::I8 => add!(i8, i8::wrapping_add),
        Dtype::I16 => add!(i16, i16::wrapping_add),
        Dtype::I32 => add!(i32, i32::wrapping_add),
        Dtype::I64 => add!(i64, i64::wrapping_add),
        Dtype::U8 => add!(u8, u8::wrapping_add),
        Dtype::U16 => add!(u16, u16::wrapping_add),
        Dtype::U32 => add!(u32, u32::wrapping_add),
        Dtype::U64 => add!(u64, u64::wrapping_add),
        Dtype::F16 => add!(f16, |a, b| a + b),
        Dtype::F32 => add!(f32, |a, b| a + b),
        Dtype::F64 => add!(f64, |a, b| a + b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_adds_and_checks() {
        let values: Vec<u8> = [1.5f32, 2.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let indices: Vec<u8> = [3i32, 0, 3].iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = vec![0xaa; 16];
        assert_eq!(expand(Dtype::F32, &values, Dtype::I32, &indices, &mut out), Ok(()));
        let row: Vec<f32> = out.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_eq!(row, [2.0, 0.0, 0.0, 5.5]);
        assert_eq!(expand(Dtype::F32, &values, Dtype::I32, &indices, &mut out[..12]), Err(3));
    }
}

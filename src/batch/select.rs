//! Removes from one CSR row the columns that the collection leaves out, with their values.

use crate::array::Dtype;
use crate::array::cast::to_u64s;
use crate::collection::genes::DROPPED;

/// The retained values of a row and their new column numbers, in stored order.
#[derive(Default)]
pub struct RetainedValues {
    values: Vec<u8>,
    columns: Vec<u32>,
    len: usize,
    size: usize,
}

impl RetainedValues {
    pub fn values(&self) -> &[u8] {
        &self.values[..self.len * self.size]
    }

    pub fn columns(&self) -> &[u32] {
        &self.columns[..self.len]
    }

    /// Retains the values whose column is not dropped by `map`. `from` is the dtype of the stored column numbers, `size` the bytes of
    /// a value.
    ///
    /// # Errors
    /// A column number outside the map.
    pub fn select(&mut self, map: &[u32], from: Dtype, columns: &[u8], size: usize, values: &[u8]) -> Result<(), u64> {
        let count = columns.len() / from.size();
        // Buffers are as long as the stored row: every value is written, and the position advances only if it is retained.
        if self.columns.len() < count {
            self.columns.resize(count, 0);
        }
        if self.values.len() < count * size {
            self.values.resize(count * size, 0);
        }
        self.size = size;
        let wide;
        macro_rules! take {
            ($columns:expr) => {
                match size {
                    1 => take::<1>(map, $columns, values, &mut self.columns, &mut self.values),
                    2 => take::<2>(map, $columns, values, &mut self.columns, &mut self.values),
                    4 => take::<4>(map, $columns, values, &mut self.columns, &mut self.values),
                    _ => take::<8>(map, $columns, values, &mut self.columns, &mut self.values),
                }
            };
        }
        self.len = match from.size() {
            2 => take!(columns.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b).into())),
            4 => take!(columns.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b).into())),
            _ => {
                wide = to_u64s(from, columns);
                take!(wide.iter().copied())
            }
        }?;
        Ok(())
    }
}

/// Has no branch on whether a value is retained, as a processor cannot predict it.
fn take<const N: usize>(
    map: &[u32],
    columns: impl Iterator<Item = u64>,
    values: &[u8],
    to_columns: &mut [u32],
    to_values: &mut [u8],
) -> Result<usize, u64> {
    let to_values = to_values.as_chunks_mut::<N>().0;
    let mut retained = 0;
    for (column, value) in columns.zip(values.as_chunks::<N>().0) {
        let Some(&to) = usize::try_from(column).ok().and_then(|column| map.get(column)) else { return Err(column) };
        to_columns[retained] = to;
        to_values[retained] = *value;
        retained += usize::from(to != DROPPED);
    }
    Ok(retained)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_columns_stay_together() {
        let map = [2, DROPPED, 0];
        let columns: Vec<u8> = [2u16, 1, 0, 2].iter().flat_map(|c| c.to_le_bytes()).collect();
        let mut retained = RetainedValues::default();
        assert_eq!(retained.select(&map, Dtype::U16, &columns, 1, &[10, 11, 12, 13]), Ok(()));
        assert_eq!((retained.values(), retained.columns()), (&[10, 12, 13][..], &[0, 2, 0][..]));
        assert_eq!(retained.select(&map, Dtype::U16, &[3, 0], 1, &[9]), Err(3));
        assert_eq!(retained.select(&map, Dtype::I8, &[1, 2], 2, &[1, 2, 3, 4]), Ok(()));
        assert_eq!((retained.values(), retained.columns()), (&[3, 4][..], &[0][..]));
        assert_eq!(retained.select(&map, Dtype::I32, &[255; 4], 1, &[9]), Err(u32::MAX.into()));
    }
}

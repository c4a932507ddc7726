//! One CSR row without the columns that the collection leaves out: values and column numbers go together.

use crate::array::Dtype;
use crate::array::cast::to_u64s;

/// Why a row cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// A column number outside the matrix.
    Column(u64),
    /// Not as many values stay as were counted: the store is not what it was.
    Count,
}

/// Moves the values that stay to the front of `values` (elements of `size` bytes), and writes their new column numbers to
/// `out` (`index`). The stored order stays. `map` has the new number of each column, or `u32::MAX`.
///
/// # Errors
/// A column number outside the row; another count than `out` has room for.
pub fn select(
    map: &[u32],
    from: Dtype,
    columns: &[u8],
    size: usize,
    values: &mut [u8],
    index: Dtype,
    out: &mut [u8],
) -> Result<(), Misfit> {
    let width = index.size();
    let mut kept = 0;
    for (at, column) in to_u64s(from, columns).into_iter().enumerate() {
        let found = usize::try_from(column).ok().and_then(|column| map.get(column));
        let &to = found.ok_or(Misfit::Column(column))?;
        if to == u32::MAX {
            continue;
        }
        let place = out.get_mut(kept * width..(kept + 1) * width).ok_or(Misfit::Count)?;
        place.copy_from_slice(&u64::from(to).to_le_bytes()[..width]);
        values.copy_within(at * size..(at + 1) * size, kept * size);
        kept += 1;
    }
    if kept * width == out.len() { Ok(()) } else { Err(Misfit::Count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_columns_stay_together() {
        let map = [2, u32::MAX, 0];
        let columns: Vec<u8> = [2u16, 1, 0, 2].iter().flat_map(|c| c.to_le_bytes()).collect();
        let values = [10, 11, 12, 13];
        let run = |kept: usize, columns: &[u8]| {
            let (mut values, mut out) = (values, vec![0; 4 * kept]);
            select(&map, Dtype::U16, columns, 1, &mut values, Dtype::I32, &mut out)
                .map(|()| (values[..kept].to_vec(), out))
        };
        let (values, out) = run(3, &columns).unwrap();
        assert_eq!(values, [10, 12, 13]);
        assert_eq!(out, [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(run(2, &columns), Err(Misfit::Count));
        assert_eq!(run(4, &columns), Err(Misfit::Count));
        assert_eq!(run(3, &[3, 0]), Err(Misfit::Column(3)));
    }
}

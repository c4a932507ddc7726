//! How many values of each row an inner join keeps: sizes of files follow from it, so it is counted before any is served.
//!
//! The column numbers are read once, in windows of bounded memory; the counts stay in the index directory.

use rayon::prelude::*;

use crate::anndata::matrix::Matrix;
use crate::array::cast::cast;
use crate::array::{Array, ArrayError, Counters, Dtype};

use super::Store;
use super::genes::DROPPED;

/// Column numbers read at once: 8 to 16 bytes each.
const WINDOW: u64 = 4 << 20;

/// Values kept before each row, and in all. A column number outside the matrix counts as dropped: its row fails when it
/// is read, others do not.
///
/// # Errors
/// A chunk of the column numbers that cannot be read: then no size is known.
pub fn count(store: &Store, counters: &Counters) -> Result<Vec<u64>, ArrayError> {
    let (Matrix::Sparse { indices, indptr, .. }, Some(map)) = (&store.matrix, &store.columns.map) else {
        return Ok(Vec::new());
    };
    count_rows(indices, indptr, map, WINDOW, counters, &|_| {})
}

fn count_rows(
    indices: &Array,
    indptr: &[u64],
    map: &[u32],
    window: u64,
    counters: &Counters,
    progress: &dyn Fn(u64),
) -> Result<Vec<u64>, ArrayError> {
    let mut kept = vec![0; indptr.len()];
    let rows = indptr.len() - 1;
    let total = indptr[rows];
    let (mut start, mut row) = (0, 0);
    while start < total {
        let end = total.min(start + window);
        let bytes = indices.read_range(start, end - start, u64::MAX, counters)?;
        // The rows that have values in this window: one may go on in the next.
        let last = indptr.partition_point(|&bound| bound < end).max(row + 1).min(rows);
        kept[row + 1..=last].par_iter_mut().zip(indptr[row..=last].par_windows(2)).for_each(|(kept, bounds)| {
            let (from, to) = (bounds[0].clamp(start, end) - start, bounds[1].clamp(start, end) - start);
            let size = indices.dtype.size();
            *kept += stay(indices.dtype, &bytes[from as usize * size..to as usize * size], map);
        });
        row = if indptr[last] > end { last - 1 } else { last };
        progress(end - start);
        start = end;
    }
    let mut sum = 0;
    for count in &mut kept {
        sum += *count;
        *count = sum;
    }
    Ok(kept)
}

/// How many column numbers stay.
fn stay(dtype: Dtype, columns: &[u8], map: &[u32]) -> u64 {
    let stays = |column: u64| {
        usize::try_from(column).ok().and_then(|column| map.get(column)).is_some_and(|&to| to != DROPPED) as u64
    };
    if dtype == Dtype::I32 {
        return columns.as_chunks::<4>().0.iter().map(|b| stays(u32::from_le_bytes(*b).into())).sum();
    }
    let mut wide = vec![0; columns.len() / dtype.size() * 8];
    cast(dtype, Dtype::U64, columns, &mut wide);
    wide.as_chunks::<8>().0.iter().map(|b| stays(u64::from_le_bytes(*b))).sum()
}

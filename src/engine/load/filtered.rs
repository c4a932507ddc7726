//! Rows of stores that have genes which the collection leaves out: their values and column numbers are gathered into
//! scratch, then what stays is moved to its place, row by row.
//!
//! How many values stay was counted at the mount; a row that does not agree is an error, never a shifted image.

use rayon::prelude::*;

use crate::anndata::matrix::Matrix;
use crate::array::cast::cast;
use crate::array::gather::Piece;
use crate::array::{ArrayError, Dtype};
use crate::batch::scatter::{Align, Place, Scatter};
use crate::batch::select::{Misfit, select};
use crate::collection::Store;

use super::{Job, Load, ReadError, SCRATCH_VALUES, Targets, bad_column, misplaced};

/// One row: where it is stored and where it goes.
struct Row {
    start: u64,
    len: u64,
    values: Place,
    columns: Place,
}

impl Load<'_> {
    /// Fills the rows that `jobs` leaves out.
    pub(super) fn filtered(
        &self,
        (values, dtype): (&Targets, Dtype),
        (columns, index): (&Targets, Dtype),
    ) -> Result<(), ReadError> {
        for (number, store) in self.shared.collection.stores.iter().enumerate() {
            if store.kept.is_some() {
                let rows = self.rows_of(number, (values, dtype), (columns, index))?;
                let mut rest = rows.as_slice();
                while !rest.is_empty() {
                    let mut stored = 0;
                    let fits = |row: &&Row| {
                        stored += row.len;
                        stored <= SCRATCH_VALUES
                    };
                    let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
                    self.filter(store, now, dtype, index)?;
                    rest = later;
                }
            }
        }
        Ok(())
    }

    fn rows_of(
        &self,
        number: usize,
        (values, dtype): (&Targets, Dtype),
        (columns, index): (&Targets, Dtype),
    ) -> Result<Vec<Row>, ReadError> {
        let collection = &self.shared.collection;
        let mut rows = Vec::new();
        for (&(key, values), &(_, columns)) in values.iter().zip(columns) {
            let mut at = 0;
            for (&row, &length) in self.batch(key).rows.iter().zip(self.lengths(key)) {
                let (store, local) = collection.locate(row);
                let length = length as usize;
                if let Matrix::Sparse { indptr, .. } = &collection.stores[store].matrix
                    && store == number
                    && length > 0
                {
                    let (start, end) = (indptr[local as usize], indptr[local as usize + 1]);
                    let place = |target: Place, size: usize| target.part(at * size, length * size);
                    let values = place(values, dtype.size()).ok_or_else(misplaced)?;
                    let columns = place(columns, index.size()).ok_or_else(misplaced)?;
                    rows.push(Row { start, len: end - start, values, columns });
                }
                at += length;
            }
        }
        Ok(rows)
    }

    fn filter(&self, store: &Store, rows: &[Row], dtype: Dtype, index: Dtype) -> Result<(), ReadError> {
        let (Matrix::Sparse { data, indices, .. }, Some(map)) = (&store.matrix, &store.columns.map) else {
            return Err(misplaced());
        };
        let stored: usize = rows.iter().map(|row| row.len as usize).sum();
        let mut values = vec![0; stored * data.dtype.size()];
        let mut columns = vec![0; stored * indices.dtype.size()];
        let mut jobs = Vec::new();
        for (array, buffer) in [(data, &mut values), (indices, &mut columns)] {
            let (size, buffer, mut at) = (array.dtype.size(), Place::new(buffer), 0);
            let (mut pieces, mut places) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
            for row in rows {
                let bytes = row.len as usize * size;
                pieces.push(Piece { start: row.start, len: row.len });
                places.push(buffer.part(at, bytes).ok_or_else(misplaced)?);
                at += bytes;
            }
            // SAFETY: the rows follow one another in a buffer of this function that is not touched until `run` ends.
            let sink = unsafe { Scatter::new(array.dtype, array.dtype, Align::Same, places, u64::MAX) };
            jobs.push(Job { array, pieces, sink, missing: None });
        }
        self.run(&jobs)?;
        drop(jobs);
        let mut each = Vec::with_capacity(rows.len());
        let (mut values, mut columns) = (values.as_mut_slice(), columns.as_slice());
        for row in rows {
            let (of_row, others) = values.split_at_mut(row.len as usize * data.dtype.size());
            let (numbers, more) = columns.split_at(row.len as usize * indices.dtype.size());
            each.push((row, of_row, numbers));
            (values, columns) = (others, more);
        }
        each.into_par_iter().try_for_each(|(row, values, columns)| {
            // SAFETY: each row has its own places (`rows_of`), in buffers borrowed mutably by the caller of `filtered`.
            let (to_values, to_columns) = unsafe { (row.values.bytes(), row.columns.bytes()) };
            let size = data.dtype.size();
            select(map, indices.dtype, columns, size, values, index, to_columns).map_err(|misfit| match misfit {
                Misfit::Column(column) => bad_column(indices, column),
                Misfit::Count => ReadError::Array(ArrayError::Stale {
                    store: indices.store.to_string(),
                    cause: format!("{}: other column numbers than were counted", indices.element),
                }),
            })?;
            let kept = to_columns.len() / index.size();
            cast(data.dtype, dtype, &values[..kept * size], to_values);
            Ok::<(), ReadError>(())
        })?;
        (self.work.progress)();
        Ok(())
    }
}

//! Rows that must be decoded as a whole: with genes left out, as dense rows of a sparse matrix, or with arithmetic that cannot be done in
//! place.
//!
//! They are gathered to scratch buffers in stored order, a few chunks at a time, so that each chunk is decoded once for all batches; then
//! each row is converted to its destination. The number of retained values was counted at the mount; a row with a different number is an
//! error, and never shifts others.

use std::sync::PoisonError;

use rayon::prelude::*;

use crate::anndata::matrix::Matrix;
use crate::array::gather::ElementRange;
use crate::array::{Array, ArrayError, DestSlice, Dtype, grow};
use crate::batch::row::{Misfit, Recipe, RowScratch, RowTarget};
use crate::batch::scatter::{Align, Scatter};
use crate::batch::tokens::draw_key;
use crate::collection::Store;

use super::{GatherJob, Load, ReadError, Targets, bad_column, bad_value, misplaced};

/// Values in scratch buffers at a time, 8 to 16 bytes each, which do not count in the budget.
const SCRATCH_VALUES: u64 = 4 << 20;

/// A row, with its source and destination.
struct Row {
    /// First value of a sparse row, or the number of a dense one.
    start: u64,
    /// Stored values.
    len: u64,
    /// `None` if only tokens are requested.
    values: Option<DestSlice>,
    /// Set for CSR.
    columns: Option<DestSlice>,
    /// The key of random choices for its tokens.
    key: u64,
}

/// The dtypes to write.
#[derive(Clone, Copy)]
struct Written {
    values: Dtype,
    /// Set for CSR.
    columns: Option<Dtype>,
}

impl Load<'_> {
    /// Fills the rows of an element that `jobs` leaves out; as CSR if there are destinations for column numbers.
    pub(super) fn row_pass(&self, number: usize, values: &Targets, columns: Option<&Targets>) -> Result<(), ReadError> {
        let written = Written { values: values.to, columns: columns.map(|columns| columns.to) };
        for (at, store) in self.collection.stores.iter().enumerate() {
            if self.needs_row_pass(number, &store.elements[number], values.to, columns.is_none()) {
                let mut rows = self.rows_of(number, at, values, columns)?;
                rows.sort_unstable_by_key(|row| row.start);
                self.serve(number, store, &rows, written)?;
            }
        }
        Ok(())
    }

    /// The rows of a store in these batches.
    fn rows_of(
        &self,
        number: usize,
        at: usize,
        values: &Targets,
        columns: Option<&Targets>,
    ) -> Result<Vec<Row>, ReadError> {
        let collection = self.collection;
        let store = &collection.stores[at];
        let whole = self.element(number).n_vars();
        let has_tokens = self.element(number).tokens.is_some();
        let mut rows = Vec::new();
        // Tokens may be requested without values; other column numbers may not (see `parts`).
        let places = if values.places.is_empty() {
            columns.map_or(&values.places, |columns| &columns.places)
        } else {
            &values.places
        };
        for (i, &(key, _)) in places.iter().enumerate() {
            let mut column_target = columns.and_then(|columns| Some((columns.places.get(i)?.1, columns.to)));
            let target = values.places.get(i).map(|(_, target)| target);
            let (mut start, size) = (0, values.to.size());
            let mut start_columns = 0;
            for (row, length) in self.rows_and_lengths(number, key) {
                let length = if columns.is_some() { length } else { whole } as usize;
                let here = store.first_row <= row && row < store.first_row + store.rows;
                if here && length > 0 {
                    let local = (row - store.first_row) as usize;
                    let (begin, len) = match &store.elements[number].matrix {
                        Matrix::Sparse { indptr, .. } => (indptr[local], indptr.length(local)),
                        Matrix::Dense { array } => (local as u64, array.shape[1..].iter().product()),
                    };
                    let columns = match &mut column_target {
                        None => None,
                        Some((target, dtype)) => {
                            let bytes = length * dtype.size();
                            Some(target.part(start_columns, bytes).ok_or_else(misplaced)?)
                        }
                    };
                    let part = |target: &DestSlice| target.part(start, length * size).ok_or_else(misplaced);
                    let key = if has_tokens { draw_key(key.epoch, row) } else { 0 };
                    rows.push(Row { start: begin, len, values: target.map(part).transpose()?, columns, key });
                }
                start += length * size;
                start_columns += length * column_target.map_or(0, |(_, dtype)| dtype.size());
            }
        }
        Ok(rows)
    }

    /// Converts rows in stored order, as many at a time as fit in scratch buffers, up to the end of a chunk.
    fn serve(&self, number: usize, store: &Store, rows: &[Row], written: Written) -> Result<(), ReadError> {
        let stored = &store.elements[number];
        let (array, is_sparse) = match &stored.matrix {
            Matrix::Sparse { data, .. } => (data, true),
            Matrix::Dense { array } => (array, false),
        };
        let chunk = if array.source.is_encoded() { array.chunk_shape[0].max(1) } else { 1 };
        let end = |row: &Row| row.start + if is_sparse { row.len } else { 1 };
        let (mut first, mut values) = (0, 0);
        let kept = || self.loader.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = kept().pop().unwrap_or_default();
        for (at, row) in rows.iter().enumerate() {
            values += row.len;
            let next = rows.get(at + 1);
            let same_chunk = next.is_some_and(|next| next.start / chunk == end(row).saturating_sub(1) / chunk);
            // Bounded, as a chunk may be the whole matrix.
            let full = values >= SCRATCH_VALUES && (!same_chunk || values >= 4 * SCRATCH_VALUES);
            if full || next.is_none() {
                self.serve_some(number, store, &rows[first..=at], written, &mut buffers)?;
                (first, values) = (at + 1, 0);
            }
        }
        if buffers.iter().all(|buffer| buffer.len() as u64 <= 16 * SCRATCH_VALUES) {
            kept().push(buffers);
        }
        Ok(())
    }

    fn serve_some(
        &self,
        number: usize,
        store: &Store,
        rows: &[Row],
        written: Written,
        [values, columns]: &mut [Vec<u8>; 2],
    ) -> Result<(), ReadError> {
        let (element, stored) = (self.element(number), &store.elements[number]);
        let (data, indices) = match &stored.matrix {
            Matrix::Sparse { data, indices, .. } => (data, Some(indices)),
            Matrix::Dense { array } => (array, None),
        };
        let mut jobs = vec![gathered(data, rows, values)?];
        if let Some(indices) = indices {
            jobs.push(gathered(indices, rows, columns)?);
        }
        self.run(&jobs)?;
        drop(jobs);
        let (size, width) = (data.dtype.size(), indices.map_or(0, |indices| indices.dtype.size()));
        let mut each = Vec::with_capacity(rows.len());
        let mut start = 0;
        for row in rows {
            let end = start + row.len as usize;
            each.push((row, &values[start * size..end * size], &columns[start * width..end * width]));
            start = end;
        }
        let recipe = Recipe {
            from: data.dtype,
            index: indices.map(|indices| indices.dtype),
            map: stored.columns.map.as_deref(),
            columns: stored.matrix.row_shape().iter().product(),
            arithmetic: element.arithmetic,
            tokens: element.tokens.as_deref(),
            computed: element.computed,
            served: element.kind.dtype(),
        };
        let missing = if stored.columns.missing > 0 { element.lacking(written.values) } else { Vec::new() };
        self.pool.install(|| {
            each.into_par_iter().with_min_len(MIN_ROWS).try_for_each_init(
                RowScratch::default,
                |scratch, (row, values, columns)| {
                    // SAFETY: each row has its own destinations (`rows_of`), in buffers that the caller of `matrices` has borrowed mutably.
                    let out = match (row.columns, written.columns) {
                        (Some(place), Some(index)) => {
                            // SAFETY: as above.
                            let (values, columns) =
                                unsafe { (row.values.map(|values| values.bytes()).unwrap_or_default(), place.bytes()) };
                            RowTarget::Csr { key: row.key, values, to: written.values, columns, index }
                        }
                        _ => RowTarget::Dense {
                            // SAFETY: as above.
                            row: unsafe { row.values.map(|values| values.bytes()).unwrap_or_default() },
                            to: written.values,
                            missing: &missing,
                        },
                    };
                    recipe.serve(columns, values, out, scratch).map_err(|misfit| match misfit {
                        Misfit::Column(column) => bad_column(indices.unwrap_or(data), column),
                        Misfit::Value(value) => bad_value(data, element.kind.dtype(), &value),
                        Misfit::Count => ReadError::Array(ArrayError::Stale {
                            store: data.store.to_string(),
                            cause: format!("{}: other column numbers than were counted", element.name),
                        }),
                    })
                },
            )
        })?;
        (self.work.progress)();
        Ok(())
    }
}

/// Minimum rows for one thread, as they share its buffers.
const MIN_ROWS: usize = 16;

/// A job that gathers rows to a buffer, as stored.
fn gathered<'a>(array: &'a Array, rows: &[Row], buffer: &mut Vec<u8>) -> Result<GatherJob<'a>, ReadError> {
    let size = array.dtype.size();
    let bytes = rows.iter().map(|row| row.len as usize).sum::<usize>() * size;
    grow(buffer, bytes).map_err(|_| ReadError::NoMemory(bytes as u64))?;
    let is_sparse = array.shape.len() == 1;
    let buffer = DestSlice::new(buffer);
    let mut pieces: Vec<ElementRange> = Vec::with_capacity(rows.len());
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(rows.len());
    let mut at = 0;
    for row in rows {
        let len = row.len as usize * size;
        match (pieces.last_mut(), places.last_mut()) {
            // Rows of a block are adjacent.
            (Some(last), Some((_, bytes))) if is_sparse && last.start + last.len == row.start => {
                last.len += row.len;
                *bytes += len;
            }
            _ => {
                pieces.push(ElementRange { start: row.start, len: row.len });
                places.push((at, len));
            }
        }
        at += len;
    }
    let places: Option<Vec<DestSlice>> = places.into_iter().map(|(at, len)| buffer.part(at, len)).collect();
    // SAFETY: rows are consecutive in a buffer that its owner does not access before the job has run.
    let sink = unsafe { Scatter::new(array.dtype, array.dtype, Align::Same, places.ok_or_else(misplaced)?, u64::MAX) };
    Ok(GatherJob { array, pieces, sink, missing: None })
}

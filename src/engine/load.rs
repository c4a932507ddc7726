//! Loads batches of one fetch: every chunk decoded once, every row copied straight into its image.

mod filtered;

use rayon::prelude::*;

use crate::anndata::matrix::Matrix;
use crate::array::cast::cast;
use crate::array::gather::{Piece, Work, gather};
use crate::array::{Array, ArrayError, Dtype};
use crate::batch::dense::expand;
use crate::batch::scatter::{Align, Place, Scatter};
use crate::batch::{Batch, Field, Repr, Span, fill::fill};
use crate::collection::MatrixKind;

use super::budget::Image;
use super::fetch::Fetch;
use super::flight::Item;
use super::{Key, ReadError, Shared};

/// What loading some batches of a fetch needs to know.
struct Load<'a> {
    shared: &'a Shared,
    fetch: &'a Fetch,
    items: &'a [Item],
    work: Work<'a>,
}

/// Fills the images of `items`, which are batches of `fetch` in one format. What an image held before does not matter.
///
/// # Errors
/// A damaged or stale store: then no image may be served.
pub fn load(
    shared: &Shared,
    fetch: &Fetch,
    items: &[Item],
    images: &mut [Image],
    advance: &(dyn Fn() + Sync),
) -> Result<(), ReadError> {
    let work = Work { counters: &shared.counters, progress: advance, cache: shared.cache.as_ref() };
    let load = Load { shared, fetch, items, work };
    let stores = load.stores();
    load.check_unchanged(&stores)?;
    shared.threads.install(|| {
        load.matrix(images)?;
        items.par_iter().zip(&mut *images).try_for_each(|(item, image)| load.rest(item, image.bytes_mut()))
    })?;
    shared.collection.settle();
    load.check_unchanged(&stores)
}

/// Which numbers of a sparse matrix; a dense one has only values.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Values,
    Columns,
}

/// Pieces of one array, gathered as one job.
struct Job<'a> {
    array: &'a Array,
    pieces: Vec<Piece>,
    sink: Scatter,
    /// Fills every place first: what rows of a store lack.
    missing: Option<Vec<u8>>,
}

/// Where one part of each batch goes.
type Targets = [(Key, Place)];

impl<'a> Load<'a> {
    fn batch(&self, key: Key) -> Batch<'a> {
        self.fetch.batch(&self.shared.collection.table, key, self.place(key))
    }

    /// The batch's place in the fetch.
    fn place(&self, key: Key) -> usize {
        self.shared.plan(key.view).fetch_of(key.batch).1
    }

    fn lengths(&self, key: Key) -> &'a [u64] {
        self.fetch.lengths(self.place(key))
    }

    /// The stores that have a row in these batches.
    fn stores(&self) -> Vec<usize> {
        let collection = &self.shared.collection;
        let mut touched = vec![false; collection.stores.len()];
        for row in self.items.iter().flat_map(|item| self.batch(item.key).rows) {
            touched[collection.locate(*row).0] = true;
        }
        (0..touched.len()).filter(|&store| touched[store]).collect()
    }

    fn check_unchanged(&self, stores: &[usize]) -> Result<(), ReadError> {
        let all = &self.shared.collection.stores;
        Ok(stores.iter().try_for_each(|&store| all[store].container.check_unchanged())?)
    }

    /// Fills the fields that come from the matrix.
    fn matrix(&self, images: &mut [Image]) -> Result<(), ReadError> {
        let has = |field| self.items.first().is_some_and(|item| item.layout.span(field).is_some());
        match &self.shared.collection.table.matrix {
            MatrixKind::Sparse { .. } if has(Field::Dense) => self.expand(images),
            _ => {
                let images: Vec<Place> = images.iter_mut().map(|image| Place::new(image.bytes_mut())).collect();
                let (values, dtype) = self.targets(Field::Data, &images)?;
                let (columns, index) = self.targets(Field::Indices, &images)?;
                let (dense, dense_dtype) = self.targets(Field::Dense, &images)?;
                let mut jobs = self.jobs(&values, Part::Values, dtype)?;
                jobs.extend(self.jobs(&columns, Part::Columns, index)?);
                jobs.extend(self.jobs(&dense, Part::Values, dense_dtype)?);
                self.run(&jobs)?;
                self.filtered((&values, dtype), (&columns, index))
            }
        }
    }

    /// Where a field of each batch goes; none where the format does not have it.
    fn targets(&self, field: Field, images: &[Place]) -> Result<(Vec<(Key, Place)>, Dtype), ReadError> {
        let mut to = Dtype::F32;
        let mut targets = Vec::with_capacity(images.len());
        for (item, image) in self.items.iter().zip(images) {
            let Some(Span { repr: Repr::Number(dtype), start, len, .. }) = item.layout.span(field) else { continue };
            to = *dtype;
            targets.push((item.key, image.part(*start as usize, *len as usize).ok_or_else(misplaced)?));
        }
        Ok((targets, to))
    }

    /// One job a store: the rows of each batch, one after the other, to the batch's target. Stores that lose values on the
    /// way are for `filtered`.
    fn jobs(&self, targets: &Targets, part: Part, to: Dtype) -> Result<Vec<Job<'a>>, ReadError> {
        let collection = &self.shared.collection;
        let mut reads: Vec<(Vec<Piece>, Vec<Place>)> = collection.stores.iter().map(|_| Default::default()).collect();
        for &(key, target) in targets {
            let mut at = 0;
            for (&row, &length) in self.batch(key).rows.iter().zip(self.lengths(key)) {
                let bytes = length as usize * to.size();
                if bytes > 0 {
                    let (number, local) = collection.locate(row);
                    let store = &collection.stores[number];
                    let start = match &store.matrix {
                        Matrix::Sparse { indptr, .. } => indptr[local as usize],
                        Matrix::Dense { .. } => local,
                    };
                    if store.kept.is_none() {
                        let (pieces, places) = &mut reads[number];
                        pieces.push(Piece { start, len: length });
                        places.push(target.part(at, bytes).ok_or_else(misplaced)?);
                    }
                }
                at += bytes;
            }
        }
        let job = |(store, (pieces, places)): (usize, (Vec<Piece>, Vec<Place>))| {
            let store = &collection.stores[store];
            let array = match &store.matrix {
                Matrix::Sparse { indices, .. } if part == Part::Columns => indices,
                Matrix::Sparse { data: array, .. } | Matrix::Dense { array } => array,
            };
            let is_dense = !store.matrix.is_sparse();
            let align = match &store.columns.map {
                Some(map) if part == Part::Columns => Align::Numbers(map.clone()),
                Some(map) if is_dense => Align::Elements(map.clone()),
                _ => Align::Same,
            };
            let bound = match &store.columns.map {
                _ if part != Part::Columns => u64::MAX,
                Some(map) => map.len() as u64,
                None => collection.table.n_vars(),
            };
            let missing = (is_dense && store.columns.missing > 0).then(|| not_a_number(to));
            // SAFETY: each row of each batch has its own run of its own target, and the buffers behind the targets are
            // borrowed mutably by whoever runs the jobs until they have ended. Names of aligned genes are unique, so no
            // two columns go to one.
            let sink = unsafe { Scatter::new(array.dtype, to, align, places, bound) };
            Job { array, pieces, sink, missing }
        };
        Ok(reads.into_iter().enumerate().filter(|(_, (pieces, _))| !pieces.is_empty()).map(job).collect())
    }

    /// Gathers all jobs at once, so that no array waits for the last chunk of another.
    fn run(&self, jobs: &[Job<'_>]) -> Result<(), ReadError> {
        jobs.par_iter().try_for_each(|job| {
            if let Some(element) = &job.missing {
                (0..job.pieces.len()).into_par_iter().for_each(|piece| job.sink.clear(piece, element));
            }
            gather(job.array, &job.pieces, &job.sink, &self.work)?;
            match job.sink.out_of_bound() {
                None => Ok(()),
                Some(column) => Err(bad_column(job.array, column)),
            }
        })
    }

    /// Sparse rows as dense ones: values and column numbers of a few batches at a time into scratch, then row by row.
    fn expand(&self, images: &mut [Image]) -> Result<(), ReadError> {
        let table = &self.shared.collection.table;
        let dtype = table.matrix.dtype();
        let row_bytes = table.n_vars() as usize * dtype.size();
        if row_bytes == 0 {
            return Ok(());
        }
        let (mut items, mut images) = (self.items, images);
        while !items.is_empty() {
            let mut nnz = 0;
            let fits = |item: &&Item| {
                nnz += self.batch(item.key).nnz;
                nnz <= SCRATCH_VALUES
            };
            let count = items.iter().take_while(fits).count().max(1);
            let (now, later) = items.split_at(count);
            let (now_images, later_images) = images.split_at_mut(count);
            self.expand_some(now, now_images, dtype, row_bytes)?;
            (items, images) = (later, later_images);
        }
        Ok(())
    }

    fn expand_some(
        &self,
        items: &[Item],
        images: &mut [Image],
        dtype: Dtype,
        row_bytes: usize,
    ) -> Result<(), ReadError> {
        let collection = &self.shared.collection;
        let index = if collection.table.n_vars() > i32::MAX as u64 { Dtype::I64 } else { Dtype::I32 };
        let sizes: Vec<usize> = items.iter().map(|item| self.batch(item.key).nnz as usize).collect();
        let nnz: usize = sizes.iter().sum();
        let (mut values, mut columns) = (vec![0; nnz * dtype.size()], vec![0; nnz * index.size()]);
        let targets = |to: Dtype, buffer: &mut [u8]| -> Result<Vec<(Key, Place)>, ReadError> {
            let buffer = Place::new(buffer);
            let mut at = 0;
            let mut targets = Vec::new();
            for (item, size) in items.iter().zip(&sizes) {
                let bytes = size * to.size();
                targets.push((item.key, buffer.part(at, bytes).ok_or_else(misplaced)?));
                at += bytes;
            }
            Ok(targets)
        };
        let (value_targets, column_targets) = (targets(dtype, &mut values)?, targets(index, &mut columns)?);
        let mut jobs = self.jobs(&value_targets, Part::Values, dtype)?;
        jobs.extend(self.jobs(&column_targets, Part::Columns, index)?);
        self.run(&jobs)?;
        self.filtered((&value_targets, dtype), (&column_targets, index))?;
        let starts = sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end - size)
        });
        let each: Vec<_> = items.iter().zip(images).zip(starts).collect();
        each.into_par_iter().try_for_each(|((item, image), mut start)| {
            let Some(span) = item.layout.span(Field::Dense) else { return Ok(()) };
            let out = part(image.bytes_mut(), span);
            let rows = self.batch(item.key).rows.iter().zip(self.lengths(item.key));
            for ((&row, &length), out) in rows.zip(out.chunks_exact_mut(row_bytes)) {
                let end = start + length as usize;
                let values = &values[start * dtype.size()..end * dtype.size()];
                let columns = &columns[start * index.size()..end * index.size()];
                expand(dtype, values, index, columns, out).map_err(|column| self.bad_row(row, column))?;
                start = end;
            }
            (self.work.progress)();
            Ok(())
        })
    }

    /// Fills the small fields, then lets the format write all that is not data.
    fn rest(&self, item: &Item, image: &mut [u8]) -> Result<(), ReadError> {
        let batch = self.batch(item.key);
        let lengths = self.lengths(item.key);
        for span in &item.layout.spans {
            let bytes = part(image, span);
            fill(&batch, lengths, span, bytes);
        }
        let writer = self.shared.writers.get(item.key.extension);
        writer.map_err(|reason| ReadError::Internal(reason.to_owned()))?.finish(&batch, &item.layout, image);
        (self.work.progress)();
        Ok(())
    }

    /// A row with a column number outside the matrix.
    fn bad_row(&self, row: u64, column: u64) -> ReadError {
        let (store, _) = self.shared.collection.locate(row);
        match &self.shared.collection.stores[store].matrix {
            Matrix::Sparse { indices: array, .. } | Matrix::Dense { array } => bad_column(array, column),
        }
    }
}

/// Values that are gathered as CSR before they are expanded: 8 to 16 bytes each, besides the budget.
const SCRATCH_VALUES: u64 = 4 << 20;

fn part<'a>(image: &'a mut [u8], span: &Span) -> &'a mut [u8] {
    &mut image[span.start as usize..][..span.len as usize]
}

/// As numpy's NaN. Only floats lack genes: see `Store::dtype`.
fn not_a_number(dtype: Dtype) -> Vec<u8> {
    let mut out = vec![0; dtype.size()];
    cast(Dtype::F64, dtype, &f64::NAN.to_le_bytes(), &mut out);
    out
}

fn misplaced() -> ReadError {
    ReadError::Internal("a row does not fit its layout; please report it".to_owned())
}

fn bad_column(array: &Array, column: u64) -> ReadError {
    ReadError::Array(ArrayError::Element {
        store: array.store.to_string(),
        element: array.element.to_string(),
        cause: format!("column number {} is outside the matrix", column as i64),
    })
}

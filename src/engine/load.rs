//! Loads batches of one fetch: every chunk decoded once, every row copied straight into its image.

use rayon::prelude::*;

use crate::anndata::matrix::Matrix;
use crate::array::cast::max_index;
use crate::array::gather::{Piece, Sink, Work, gather};
use crate::array::{Array, ArrayError, Dtype};
use crate::batch::dense::expand;
use crate::batch::scatter::{Place, Scatter};
use crate::batch::{Field, Layout, Repr, fill::fill};
use crate::collection::MatrixKind;

use super::budget::Image;
use super::fetch::Fetch;
use super::{Key, ReadError, Shared};

/// Bytes of the budget that loading a batch takes.
pub fn need(shared: &Shared, fetch: &Fetch, key: &Key) -> u64 {
    let place = shared.plan.fetch_of(key.batch).1;
    shared.writer(key.extension).layout(&fetch.batch(&shared.collection.table, *key, place)).size
}

/// Reads of one store's array: the pieces and where each goes.
#[derive(Default)]
struct Reads {
    pieces: Vec<Piece>,
    places: Vec<Place>,
}

/// One array of a store, gathered as one job.
struct Job<'a> {
    array: &'a Array,
    pieces: Vec<Piece>,
    sink: Scatter,
}

/// Fills the images of `keys`, which are batches of `fetch`. What an image held before does not matter.
///
/// # Errors
/// A damaged or stale store: then no image may be served.
pub fn load(
    shared: &Shared,
    fetch: &Fetch,
    keys: &[Key],
    images: &mut [Image],
    advance: &(dyn Fn() + Sync),
) -> Result<(), ReadError> {
    let table = &shared.collection.table;
    let writer = shared.writer(keys[0].extension);
    let places: Vec<usize> = keys.iter().map(|key| shared.plan.fetch_of(key.batch).1).collect();
    let layouts: Vec<Layout> = keys
        .iter()
        .zip(&places)
        .map(|(key, &place)| writer.layout(&fetch.batch(table, *key, place)))
        .collect();
    let touched = stores_of(shared, fetch, keys, &places);
    unchanged(shared, &touched)?;
    let work = Work { counters: &shared.counters, progress: advance };
    shared.threads.install(|| -> Result<(), ReadError> {
        let dense = layouts[0].span(Field::Dense).is_some();
        if dense && matches!(table.matrix, MatrixKind::Sparse { .. }) {
            expand_rows(shared, fetch, keys, &places, &layouts, images, &work)?;
        } else if dense || layouts[0].span(Field::Data).is_some() {
            copy_rows(shared, fetch, keys, &places, &layouts, images, &work)?;
        }
        keys.par_iter().zip(&places).zip(&layouts).zip(&mut *images).try_for_each(
            |(((key, &place), layout), image)| {
                let batch = fetch.batch(table, *key, place);
                let lengths = fetch.lengths(place);
                let image = image.bytes_mut();
                if let Some(span) = layout.span(Field::Indices) {
                    check_indices(shared, &batch.rows, lengths, span.repr, part(image, span.start, span.len))?;
                }
                for span in &layout.spans {
                    fill(&batch, lengths, span, part(image, span.start, span.len));
                }
                writer.finish(&batch, layout, image);
                advance();
                Ok::<(), ReadError>(())
            },
        )
    })?;
    unchanged(shared, &touched)
}

/// The stores that have a row in these batches.
fn stores_of(shared: &Shared, fetch: &Fetch, keys: &[Key], places: &[usize]) -> Vec<usize> {
    let table = &shared.collection.table;
    let mut touched = vec![false; shared.collection.stores.len()];
    for (key, &place) in keys.iter().zip(places) {
        for &row in fetch.batch(table, *key, place).rows {
            touched[shared.collection.locate(row).0] = true;
        }
    }
    (0..touched.len()).filter(|&store| touched[store]).collect()
}

fn unchanged(shared: &Shared, stores: &[usize]) -> Result<(), ReadError> {
    Ok(stores.iter().try_for_each(|&store| shared.collection.stores[store].container.check_unchanged())?)
}

fn part(image: &mut [u8], start: u64, len: u64) -> &mut [u8] {
    &mut image[start as usize..][..len as usize]
}

/// Rows as they are stored: CSR into CSR, dense into dense.
fn copy_rows(
    shared: &Shared,
    fetch: &Fetch,
    keys: &[Key],
    places: &[usize],
    layouts: &[Layout],
    images: &mut [Image],
    work: &Work<'_>,
) -> Result<(), ReadError> {
    let collection = &shared.collection;
    let fields: &[Field] = match collection.table.matrix {
        MatrixKind::Sparse { .. } => &[Field::Data, Field::Indices],
        MatrixKind::Dense { .. } => &[Field::Dense],
    };
    let images: Vec<Place> = images.iter_mut().map(|image| Place::new(image.bytes_mut())).collect();
    let mut jobs = Vec::new();
    for &field in fields {
        let mut reads: Vec<Reads> = collection.stores.iter().map(|_| Reads::default()).collect();
        let mut to = Dtype::F32;
        for (((key, &place), layout), image) in keys.iter().zip(places).zip(layouts).zip(&images) {
            let Some(span) = layout.span(field) else { continue };
            let Repr::Number(dtype) = span.repr else { continue };
            to = dtype;
            let mut at = span.start as usize;
            let batch = fetch.batch(&collection.table, *key, place);
            for (&row, &length) in batch.rows.iter().zip(fetch.lengths(place)) {
                let (store, local) = collection.locate(row);
                let start = match &collection.stores[store].matrix {
                    Matrix::Sparse { indptr, .. } => indptr[local as usize],
                    Matrix::Dense { .. } => local,
                };
                let bytes = length as usize * dtype.size();
                let Some(target) = image.part(at, bytes) else {
                    return Err(ReadError::Internal(format!("row {row} does not fit its layout")));
                };
                if length > 0 {
                    reads[store].pieces.push(Piece { start, len: length });
                    reads[store].places.push(target);
                }
                at += bytes;
            }
        }
        for (store, reads) in collection.stores.iter().zip(reads) {
            if !reads.pieces.is_empty() {
                let array = match (&store.matrix, field) {
                    (Matrix::Sparse { indices, .. }, Field::Indices) => indices,
                    (Matrix::Sparse { data, .. }, _) => data,
                    (Matrix::Dense { array }, _) => array,
                };
                let bound = if field == Field::Indices { collection.table.n_vars() } else { u64::MAX };
                // SAFETY: each row of each batch has its own run of its own image, and `images` is borrowed mutably
                // until the gathers below have ended.
                let sink = unsafe { Scatter::new(array.dtype, to, reads.places, bound) };
                jobs.push(Job { array, pieces: reads.pieces, sink });
            }
        }
    }
    run(&jobs, work)
}

/// Gathers all jobs at once, so that no array waits for the last chunk of another.
fn run(jobs: &[Job<'_>], work: &Work<'_>) -> Result<(), ReadError> {
    jobs.par_iter().try_for_each(|job| -> Result<(), ReadError> {
        gather(job.array, &job.pieces, &job.sink as &dyn Sink, work)?;
        match job.sink.out_of_bound() {
            None => Ok(()),
            Some(worst) => Err(bad_column(job.array, worst).into()),
        }
    })
}

fn bad_column(array: &Array, column: u64) -> ArrayError {
    ArrayError::Element {
        store: array.store.to_string(),
        element: array.element.to_string(),
        cause: format!("column number {} is outside the matrix", column as i64),
    }
}

/// Every column number of an image lies within the matrix; the message names the store of the first that does not.
fn check_indices(shared: &Shared, rows: &[u64], lengths: &[u64], repr: Repr, indices: &[u8]) -> Result<(), ReadError> {
    let (Repr::Number(dtype), columns) = (repr, shared.collection.table.n_vars()) else { return Ok(()) };
    if indices.is_empty() || max_index(dtype, indices) < columns {
        return Ok(());
    }
    let mut at = 0;
    for (&row, &length) in rows.iter().zip(lengths) {
        let bytes = length as usize * dtype.size();
        let worst = max_index(dtype, &indices[at..at + bytes]);
        if worst >= columns {
            let (store, _) = shared.collection.locate(row);
            if let Matrix::Sparse { indices, .. } = &shared.collection.stores[store].matrix {
                return Err(bad_column(indices, worst).into());
            }
        }
        at += bytes;
    }
    Ok(())
}

/// Sparse rows as dense ones: values and column numbers of a few batches at a time into scratch, then row by row.
fn expand_rows(
    shared: &Shared,
    fetch: &Fetch,
    keys: &[Key],
    places: &[usize],
    layouts: &[Layout],
    images: &mut [Image],
    work: &Work<'_>,
) -> Result<(), ReadError> {
    let collection = &shared.collection;
    let dtype = collection.table.matrix.dtype();
    let index_dtype = if collection.table.n_vars() > i32::MAX as u64 { Dtype::I64 } else { Dtype::I32 };
    let sizes: Vec<u64> = keys
        .iter()
        .zip(places)
        .map(|(key, &place)| fetch.batch(&collection.table, *key, place).nnz)
        .collect();
    let mut from = 0;
    while from < keys.len() {
        let mut to = from + 1;
        let mut nnz = sizes[from];
        while to < keys.len() && (nnz + sizes[to]) * 12 <= SCRATCH_BYTES {
            nnz += sizes[to];
            to += 1;
        }
        let mut values = vec![0u8; nnz as usize * dtype.size()];
        let mut indices = vec![0u8; nnz as usize * index_dtype.size()];
        gather_csr(shared, fetch, &keys[from..to], &places[from..to], (dtype, &mut values), (index_dtype, &mut indices), work)?;
        let mut starts = Vec::with_capacity(to - from);
        let mut start = 0;
        for size in &sizes[from..to] {
            starts.push(start);
            start += *size as usize;
        }
        images[from..to].par_iter_mut().zip(&layouts[from..to]).zip(&places[from..to]).zip(starts).try_for_each(
            |(((image, layout), &place), mut start)| {
                let Some(span) = layout.span(Field::Dense) else { return Ok(()) };
                let row_bytes = collection.table.n_vars() as usize * dtype.size();
                let out = part(image.bytes_mut(), span.start, span.len);
                if row_bytes == 0 {
                    return Ok(());
                }
                let rows = fetch.batch(&collection.table, keys[from], place).rows;
                for ((&length, &row), out) in fetch.lengths(place).iter().zip(rows).zip(out.chunks_exact_mut(row_bytes)) {
                    let end = start + length as usize;
                    let values = &values[start * dtype.size()..end * dtype.size()];
                    let indices = &indices[start * index_dtype.size()..end * index_dtype.size()];
                    if let Err(worst) = expand(dtype, values, index_dtype, indices, out) {
                        let (store, _) = collection.locate(row);
                        return match &collection.stores[store].matrix {
                            Matrix::Sparse { indices, .. } => Err(bad_column(indices, worst).into()),
                            Matrix::Dense { .. } => Ok(()),
                        };
                    }
                    start = end;
                }
                (work.progress)();
                Ok::<(), ReadError>(())
            },
        )?;
        from = to;
    }
    Ok(())
}

/// Scratch for values and column numbers before they are expanded.
const SCRATCH_BYTES: u64 = 32 << 20;

/// Values and column numbers of some batches, one row after the other.
fn gather_csr(
    shared: &Shared,
    fetch: &Fetch,
    keys: &[Key],
    places: &[usize],
    values: (Dtype, &mut Vec<u8>),
    indices: (Dtype, &mut Vec<u8>),
    work: &Work<'_>,
) -> Result<(), ReadError> {
    let collection = &shared.collection;
    let buffers = [(values.0, Place::new(values.1)), (indices.0, Place::new(indices.1))];
    let mut jobs = Vec::new();
    for (which, (to, buffer)) in buffers.into_iter().enumerate() {
        let mut reads: Vec<Reads> = collection.stores.iter().map(|_| Reads::default()).collect();
        let mut at = 0;
        for (key, &place) in keys.iter().zip(places) {
            let batch = fetch.batch(&collection.table, *key, place);
            for (&row, &length) in batch.rows.iter().zip(fetch.lengths(place)) {
                let (store, local) = collection.locate(row);
                let Matrix::Sparse { indptr, .. } = &collection.stores[store].matrix else { continue };
                let bytes = length as usize * to.size();
                let Some(target) = buffer.part(at, bytes) else {
                    return Err(ReadError::Internal(format!("row {row} does not fit its scratch")));
                };
                if length > 0 {
                    reads[store].pieces.push(Piece { start: indptr[local as usize], len: length });
                    reads[store].places.push(target);
                }
                at += bytes;
            }
        }
        for (store, reads) in collection.stores.iter().zip(reads) {
            let Matrix::Sparse { data, indices, .. } = &store.matrix else { continue };
            if !reads.pieces.is_empty() {
                let (array, bound) = if which == 0 { (data, u64::MAX) } else { (indices, collection.table.n_vars()) };
                // SAFETY: rows have disjoint runs of the two buffers, which are borrowed until the gathers have ended.
                let sink = unsafe { Scatter::new(array.dtype, to, reads.places, bound) };
                jobs.push(Job { array, pieces: reads.pieces, sink });
            }
        }
    }
    run(&jobs, work)
}

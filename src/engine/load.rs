//! Loads batches of one fetch: every chunk decoded once, every row copied straight into its image.

mod rows;

use rayon::prelude::*;

use crate::anndata::matrix::Matrix;
use crate::array::gather::{ElementRange, GatherContext, Sink, gather, gather_deep};
use crate::array::{Array, ArrayError, DestSlice, Dtype};
use crate::batch::arithmetic::{apply, total};
use crate::batch::scatter::{Align, Scatter};
use crate::batch::{Batch, Field, Repr, Span, fill::fill};
use crate::collection::element::{Element, Stored};
use crate::collection::genes::DROPPED;
use crate::collection::{Collection, Table};

use super::budget::Image;
use super::fetch::Fetch;
use super::loader::{FetchLoader, Item};
use super::store_loader::StoreLoader;
use super::{ImageKey, ImageKind, ReadError};

/// The context of loading batches of a fetch, or of one of their companions.
struct Load<'a> {
    loader: &'a StoreLoader,
    /// 0: the batches' own rows, n: those of the n-th companion.
    companion: usize,
    /// The stores of these rows.
    collection: &'a Collection,
    fetch: &'a Fetch,
    items: &'a [Item],
    work: GatherContext<'a>,
    /// The pool that decodes.
    pool: &'a rayon::ThreadPool,
}

/// Fills the images of `items`, which are batches of `fetch` in one format; the previous content of images does not matter.
/// `in_background`: with one thread less.
///
/// # Errors
/// A damaged or stale store; no image may then be served.
pub fn load(
    loader: &StoreLoader,
    fetch: &Fetch,
    items: &[Item],
    images: &mut [Image],
    in_background: bool,
    advance: &(dyn Fn() + Sync),
) -> Result<(), ReadError> {
    let work = GatherContext { counters: &loader.counters, progress: advance, cache: loader.cache.as_ref(), io: None };
    let pool = if in_background { &loader.background_pool } else { &loader.threads };
    let collection = &loader.collection;
    let stores_of = |companion: usize| match companion.checked_sub(1) {
        None => collection,
        Some(number) => collection.of_companion(number),
    };
    let of = |companion| Load { loader, companion, collection: stores_of(companion), fetch, items, work, pool };
    let loads: Vec<Load<'_>> = (0..=collection.table.companions.len()).map(of).collect();
    let stores: Vec<Vec<usize>> = loads.iter().map(Load::stores).collect();
    let check_unchanged = || loads.iter().zip(&stores).try_for_each(|(load, stores)| load.check_unchanged(stores));
    check_unchanged()?;
    let no_memory = |cause| ReadError::Internal(format!("no memory for a batch: {cause}; lower --memory"));
    pool.install(|| images.par_iter_mut().try_for_each(|image| image.prepare().map_err(no_memory)))?;
    // Not on a thread of the pool, where another load decodes while this one waits for slow storage.
    matrices(&loads, images)?;
    pool.install(|| {
        items.par_iter().zip(&mut *images).try_for_each(|(item, image)| rest(&loads, item, image.bytes_mut()))
    })?;
    loader.collection.release_pages();
    check_unchanged()
}

/// Fills the fields of matrices.
fn matrices(loads: &[Load<'_>], images: &mut [Image]) -> Result<(), ReadError> {
    let images: Vec<DestSlice> = images.iter_mut().map(|image| DestSlice::new(image.bytes_mut())).collect();
    let (mut jobs, mut whole) = (Vec::new(), Vec::new());
    for load in loads {
        for number in 0..load.table().elements.len() {
            let targets = load.jobs_of_element(number, &images, &mut jobs)?;
            whole.push((load, number, targets));
        }
    }
    if let Some(first) = loads.first() {
        first.run(&merged(jobs))?;
    }
    whole.into_iter().try_for_each(|(load, number, ElementTargets { values, columns, dense })| {
        if dense.places.is_empty() {
            load.row_pass(number, &values, Some(&columns))
        } else {
            load.row_pass(number, &dense, None)
        }
    })
}

/// Merges jobs on the same array, so that a chunk that rows and their controls share is decoded once.
fn merged(jobs: Vec<GatherJob<'_>>) -> Vec<GatherJob<'_>> {
    let mut all: Vec<GatherJob<'_>> = Vec::with_capacity(jobs.len());
    for job in jobs {
        let alike = |other: &&mut GatherJob<'_>| {
            std::ptr::eq(other.array, job.array) && other.missing == job.missing && other.sink.is_alike(&job.sink)
        };
        match all.iter_mut().find(alike) {
            Some(other) => {
                other.pieces.extend(job.pieces);
                other.sink.append(job.sink);
            }
            None => all.push(job),
        }
    }
    all
}

/// Fills the small fields, then lets the format write everything else.
fn rest(loads: &[Load<'_>], item: &Item, image: &mut [u8]) -> Result<(), ReadError> {
    let Some(own) = loads.first() else { return Ok(()) };
    for span in &item.layout.spans {
        let Some(load) = loads.get(span.companion) else { continue };
        let bytes = part(image, span);
        load.compute(item.key, span, bytes);
        fill(&load.batch(item.key), span, bytes);
    }
    if let ImageKind::File(extension) = item.key.kind {
        let writer = own.loader.writers.get(extension);
        let batch = own.batch(item.key);
        writer.map_err(|reason| ReadError::Internal(reason.to_owned()))?.finish(&batch, &item.layout, image);
    }
    (own.work.progress)();
    Ok(())
}

/// An array of a sparse matrix; a dense one has only values.
#[derive(Clone, Copy, PartialEq)]
enum SparsePart {
    Values,
    Columns,
}

/// Element ranges of one array, gathered as one job.
struct GatherJob<'a> {
    array: &'a Array,
    pieces: Vec<ElementRange>,
    sink: Scatter,
    /// A value to fill destinations with first, for columns that the store lacks.
    missing: Option<Vec<u8>>,
}

impl GatherJob<'_> {
    /// Fails if gathered values must not be served.
    fn check(&self) -> Result<(), ReadError> {
        match (self.sink.out_of_bound(), self.sink.misfit()) {
            (None, None) => Ok(()),
            (Some(column), _) => Err(bad_column(self.array, column)),
            (None, Some(value)) => Err(bad_value(self.array, self.sink.to(), value)),
        }
    }
}

/// The destinations of one field in each batch, and its dtype.
struct Targets {
    places: Vec<(ImageKey, DestSlice)>,
    to: Dtype,
}

/// The destinations of an element's fields.
struct ElementTargets {
    values: Targets,
    columns: Targets,
    dense: Targets,
}

impl<'a> Load<'a> {
    /// The batch of these rows.
    fn batch(&self, key: ImageKey) -> Batch<'a> {
        self.fetch.batch(&self.loader.collection.table, key, self.place(key)).companion(self.companion)
    }

    /// The table of these rows.
    fn table(&self) -> &'a Table {
        let table = &self.loader.collection.table;
        let beside = self.companion.checked_sub(1).and_then(|before| table.companions.get(before));
        beside.map_or(table, |companion| &companion.table)
    }

    /// The batch's position in the fetch.
    fn place(&self, key: ImageKey) -> usize {
        self.loader.plan(key.view).fetch_of(key.batch).1
    }

    fn lengths(&self, element: usize, key: ImageKey) -> &'a [u64] {
        self.batch(key).lengths(element)
    }

    fn element(&self, element: usize) -> &'a Element {
        &self.table().elements[element]
    }

    /// The stores with rows in these batches.
    fn stores(&self) -> Vec<usize> {
        let collection = self.collection;
        let mut touched = vec![false; collection.stores.len()];
        for row in self.items.iter().flat_map(|item| self.batch(item.key).rows) {
            touched[collection.locate(*row).0] = true;
        }
        (0..touched.len()).filter(|&store| touched[store]).collect()
    }

    fn check_unchanged(&self, stores: &[usize]) -> Result<(), ReadError> {
        let all = &self.collection.stores;
        Ok(stores.iter().try_for_each(|&store| all[store].container.check_unchanged())?)
    }

    /// Adds the jobs of an element.
    fn jobs_of_element(
        &self,
        number: usize,
        images: &[DestSlice],
        jobs: &mut Vec<GatherJob<'a>>,
    ) -> Result<ElementTargets, ReadError> {
        let values = self.targets(Field::Data(number), images)?;
        let columns = self.targets(Field::Indices(number), images)?;
        let dense = self.targets(Field::Dense(number), images)?;
        for (targets, part) in
            [(&values, SparsePart::Values), (&columns, SparsePart::Columns), (&dense, SparsePart::Values)]
        {
            // If only column numbers are requested, rows need no pass (see `parts`).
            let alone = values.places.is_empty();
            let to = match part {
                SparsePart::Columns if alone => self.element(number).kind.dtype(),
                SparsePart::Columns => values.to,
                SparsePart::Values => targets.to,
            };
            jobs.extend(self.jobs(number, targets, part, to)?);
        }
        Ok(ElementTargets { values, columns, dense })
    }

    /// The destinations of a field in each batch; empty if the format lacks it.
    fn targets(&self, field: Field, images: &[DestSlice]) -> Result<Targets, ReadError> {
        let mut targets = Targets { places: Vec::with_capacity(images.len()), to: Dtype::F32 };
        for (item, image) in self.items.iter().zip(images) {
            let Some(Span { repr: Repr::Number(dtype), start, len, .. }) = item.layout.span(self.companion, field)
            else {
                continue;
            };
            targets.to = *dtype;
            targets.places.push((item.key, image.part(*start as usize, *len as usize).ok_or_else(misplaced)?));
        }
        Ok(targets)
    }

    /// Whether rows must be decoded as a whole first; see [`Stored::needs_row_pass`].
    fn needs_row_pass(&self, number: usize, stored: &Stored, to: Dtype, dense: bool) -> bool {
        stored.needs_row_pass(self.element(number), to, dense)
    }

    /// The rows of a batch, each with its number of served values.
    fn rows_and_lengths(&self, number: usize, key: ImageKey) -> impl Iterator<Item = (u64, u64)> + 'a {
        let (element, lengths) = (self.element(number), self.lengths(number, key));
        let dense = (!element.is_sparse()).then(|| element.n_vars());
        let length = move |at: usize| dense.or_else(|| lengths.get(at).copied()).unwrap_or_default();
        self.batch(key).rows.iter().enumerate().map(move |(at, &row)| (row, length(at)))
    }

    /// Jobs by store, with the rows of all batches. Rows that must be decoded as a whole, with values written as `values`, are left to
    /// `row_pass`.
    fn jobs(
        &self,
        number: usize,
        targets: &Targets,
        part: SparsePart,
        values: Dtype,
    ) -> Result<Vec<GatherJob<'a>>, ReadError> {
        let (collection, element, to) = (self.collection, self.element(number), targets.to);
        let dense = part == SparsePart::Values
            && self.items.iter().any(|item| item.layout.span(self.companion, Field::Dense(number)).is_some());
        let whole: Vec<bool> = collection
            .stores
            .iter()
            .map(|store| self.needs_row_pass(number, &store.elements[number], values, dense))
            .collect();
        let mut reads: Vec<(Vec<ElementRange>, Vec<DestSlice>)> =
            collection.stores.iter().map(|_| Default::default()).collect();
        for &(key, target) in &targets.places {
            let mut at = 0;
            for (row, length) in self.rows_and_lengths(number, key) {
                let bytes = length as usize * to.size();
                if bytes > 0 {
                    let (store, local) = collection.locate(row);
                    if !whole[store] {
                        let start = match &collection.stores[store].elements[number].matrix {
                            Matrix::Sparse { indptr, .. } => indptr[local as usize],
                            Matrix::Dense { .. } => local,
                        };
                        let (pieces, places) = &mut reads[store];
                        pieces.push(ElementRange { start, len: length });
                        places.push(target.part(at, bytes).ok_or_else(misplaced)?);
                    }
                }
                at += bytes;
            }
        }
        let job = |(store, (pieces, places)): (usize, (Vec<ElementRange>, Vec<DestSlice>))| {
            let Stored { matrix, columns, .. } = &collection.stores[store].elements[number];
            let array = match matrix {
                Matrix::Sparse { indices, .. } if part == SparsePart::Columns => indices,
                Matrix::Sparse { data: array, .. } | Matrix::Dense { array } => array,
            };
            let is_dense = !matrix.is_sparse();
            let align = match &columns.map {
                Some(map) if part == SparsePart::Columns => Align::Numbers(map.clone()),
                Some(map) if is_dense => {
                    Align::Elements((0..).zip(map.iter().copied()).filter(|&(_, to)| to != DROPPED).collect())
                }
                _ => Align::Same,
            };
            let bound = match &columns.map {
                _ if part != SparsePart::Columns => u64::MAX,
                Some(map) => map.len() as u64,
                None => element.n_vars(),
            };
            let missing = (is_dense && columns.missing > 0).then(|| element.lacking(to));
            // SAFETY: each row of each batch has its own range of its own destination, and the caller has borrowed the buffers mutably
            // until
            // the jobs end. Names of aligned genes are unique, so no two columns have the same position.
            let sink = unsafe { Scatter::new(array.dtype, to, align, places, bound) };
            GatherJob { array, pieces, sink, missing }
        };
        Ok(reads.into_iter().enumerate().filter(|(_, (pieces, _))| !pieces.is_empty()).map(job).collect())
    }

    /// Gathers all jobs concurrently, so that no array waits for the last chunk of another.
    fn run(&self, jobs: &[GatherJob<'_>]) -> Result<(), ReadError> {
        let depths: Vec<usize> = jobs.iter().map(|job| self.loader.io.depth(job.array)).collect();
        self.pool.install(|| {
            jobs.par_iter().zip(&depths).try_for_each(|(job, &depth)| {
                if let Some(element) = &job.missing {
                    (0..job.pieces.len()).into_par_iter().for_each(|piece| job.sink.clear(piece, element));
                }
                if depth > 1 {
                    return Ok(());
                }
                gather(job.array, &job.pieces, &job.sink, &self.work)?;
                job.check()
            })
        })?;
        let deep: Vec<&GatherJob<'_>> =
            jobs.iter().zip(&depths).filter(|(_, depth)| **depth > 1).map(|(job, _)| job).collect();
        if let Some(&depth) = depths.iter().max().filter(|_| !deep.is_empty()) {
            let parts: Vec<(&Array, &[ElementRange], &dyn Sink)> =
                deep.iter().map(|job| (job.array, job.pieces.as_slice(), &job.sink as &dyn Sink)).collect();
            gather_deep(&parts, depth, &self.loader.io, &self.work)?;
        }
        deep.into_iter().try_for_each(GatherJob::check)
    }

    /// Applies arithmetic to a field in place. Its dtype must be that of the computation.
    fn compute(&self, key: ImageKey, span: &Span, mut bytes: &mut [u8]) {
        let (number, dense) = match span.field {
            Field::Data(element) => (element, false),
            Field::Dense(element) => (element, true),
            _ => return,
        };
        let (element, collection) = (self.element(number), self.collection);
        let Repr::Number(to) = span.repr else { return };
        if element.arithmetic.is_none() || (dense && element.is_sparse()) {
            return;
        }
        for (row, length) in self.rows_and_lengths(number, key) {
            let values;
            (values, bytes) = bytes.split_at_mut(length as usize * to.size());
            let stored = &collection.stores[collection.locate(row).0].elements[number];
            if !self.needs_row_pass(number, stored, to, dense) {
                let sum = if element.arithmetic.normalize.is_some() { total(to, values) } else { 0.0 };
                apply(&element.arithmetic, to, sum, values);
            }
        }
    }
}

fn part<'a>(image: &'a mut [u8], span: &Span) -> &'a mut [u8] {
    &mut image[span.start as usize..][..span.len as usize]
}

fn misplaced() -> ReadError {
    ReadError::Internal("a row does not fit its layout; please report it".to_owned())
}

fn bad_value(array: &Array, dtype: Dtype, value: &str) -> ReadError {
    ReadError::Value {
        store: array.store.to_string(),
        element: array.element.to_string(),
        value: value.to_owned(),
        dtype: dtype.name(),
    }
}

fn bad_column(array: &Array, column: u64) -> ReadError {
    ReadError::Array(ArrayError::Element {
        store: array.store.to_string(),
        element: array.element.to_string(),
        cause: format!("column number {} is outside the matrix", column as i64),
    })
}

//! Makes the row index: row bounds and obs columns of a large store in one mapped Arrow file.
//!
//! Its content was checked when it was written: row bounds never decrease and end with the values, codes are within their categories. So a
//! mount that finds it checks nothing. It is made in windows, on all cores, in bounded memory. If a later mount needs more columns, these
//! are added, and the others are copied. A column that cannot be read is left out; a mount that needs it reads it from the store and reports the
//! error. Stores with fewer than `LEAST_ROWS` rows have no row index: reading them takes no longer than finding a file.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::index::{Building, Index, IndexDir, IndexPart, IndexRequest, build, combined, failed, key, open};
use crate::anndata::dataframe::DataFrame;
use crate::anndata::mapping::Mapping;
use crate::anndata::names::Frame;
use crate::anndata::progress::Progress;
use crate::anndata::row_index::{ArrayContent, ColumnSource, LEAST_ROWS, RowIndex};
use crate::anndata::shared::Shared;
use crate::anndata::{layout, sparse};
use crate::array::{Array, ArrayError, Container, Counters, Dtype, NodeKind};

impl RowIndex {
    /// The row index of a store, with the row bounds of matrix `x` and obs columns (`None`: all but text); built if it is missing or
    /// incomplete. It cannot fail: what it lacks is read from the store.
    pub fn open(
        store: &dyn Container,
        x: &str,
        names: Option<&[String]>,
        directory: &IndexDir,
        counters: &Counters,
    ) -> RowIndex {
        // Mapped numbers are little-endian.
        let Some(rows) = rows_of(store).filter(|&rows| rows >= LEAST_ROWS && cfg!(target_endian = "little")) else {
            return RowIndex::default();
        };
        let mut failed = HashSet::new();
        loop {
            let mut wanted = wanted(store, x, names, rows);
            wanted.retain(|source| !failed.contains(&source.element));
            if wanted.is_empty() {
                return RowIndex::default();
            }
            match directory.rows(store, x, rows, &wanted, counters) {
                Ok(index) => return mapped(&index),
                Err(BuildFailure::Column(element)) => failed.insert(element),
                Err(BuildFailure::Index(error)) => {
                    tracing::warn!("{error}; until then its row bounds and obs columns take memory");
                    return RowIndex::default();
                }
            };
        }
    }
}

fn mapped(index: &Index) -> RowIndex {
    let Ok(mapping) = Mapping::new(&index.file) else { return RowIndex::default() };
    let buffer = |(part, &start): (&IndexPart, &u64)| {
        Some((part.name.to_string(), (part.dtype, Shared::mapped(&mapping, start, part.bytes()?)?)))
    };
    let held = index.parts.iter().zip(&index.starts).filter_map(buffer).collect();
    RowIndex::of(held, mapping)
}

/// The number of rows of obs. Errors are ignored here: others report them.
fn rows_of(store: &dyn Container) -> Option<u64> {
    DataFrame::open(store, Frame::Obs).ok().map(|obs| obs.rows)
}

/// The arrays that the index is to hold, as far as they exist.
fn wanted(store: &dyn Container, x: &str, names: Option<&[String]>, rows: u64) -> Vec<ColumnSource> {
    let mut wanted: Vec<ColumnSource> = bounds(store, x, rows).ok().flatten().into_iter().collect();
    if let Ok(obs) = DataFrame::open(store, Frame::Obs) {
        for name in names.unwrap_or(&obs.columns) {
            let sources = obs.sources(name).unwrap_or_default();
            // A column may be named twice.
            wanted.extend(sources.into_iter().filter(|source| source.array.shape == [rows]));
        }
    }
    let mut known = HashSet::new();
    wanted.retain(|source| known.insert(source.element.clone()));
    wanted
}

/// The row bounds of a matrix stored by row.
fn bounds(store: &dyn Container, x: &str, rows: u64) -> Result<Option<ColumnSource>, ArrayError> {
    let x = layout::located(store, x)?;
    if store.kind(&x)? != Some(NodeKind::Group) || sparse::encoding(store, &x)? != "csr_matrix" {
        return Ok(None);
    }
    let (element, stored) = (format!("{x}/indptr"), store.shape(&format!("{x}/data"))?);
    let array = store.array(&element)?;
    let whole = !array.dtype.is_float() && array.dtype != Dtype::Bool;
    Ok(match stored.as_slice() {
        &[stored] if whole && array.shape == [rows + 1] => {
            Some(ColumnSource { element, array, content: ArrayContent::Bounds { stored } })
        }
        _ => None,
    })
}

/// Why an index was not built.
enum BuildFailure {
    /// This column cannot be read.
    Column(String),
    Index(ArrayError),
}

impl IndexDir {
    /// Opens the row index of a store; builds or extends it if it is incomplete.
    fn rows(
        &self,
        store: &dyn Container,
        x: &str,
        rows: u64,
        wanted: &[ColumnSource],
        counters: &Counters,
    ) -> Result<Index, BuildFailure> {
        let bounds = wanted.iter().filter(|source| matches!(source.content, ArrayContent::Bounds { .. }));
        let sources = bounds.map(|source| source.element.clone()).chain([Frame::Obs.path().to_owned()]).collect();
        let parts: Vec<IndexPart> = wanted.iter().map(ColumnSource::part).collect();
        let entry = IndexRequest {
            store,
            element: x,
            sources,
            kind: "arrow",
            more: String::new(),
            parts: parts.clone(),
            rows: Some(rows),
        };
        let key = key::IndexKey::of(&entry).map_err(BuildFailure::Index)?;
        let directory = self.path(&entry).map_err(BuildFailure::Index)?;
        let path = directory.join(&key.name);
        let complete = |index: &Index| parts.iter().all(|part| index.parts.contains(part));
        if let Some(index) = open(&path, &entry, &key).filter(complete) {
            return Ok(index);
        }
        let (old, unread) = (RefCell::new(None), Mutex::new(None));
        let needed = || {
            // Another process may have built it first, possibly with other columns.
            let found = open(&path, &entry, &key);
            if found.as_ref().is_some_and(complete) {
                return None;
            }
            let mut all = found.as_ref().map(|found| found.parts.clone()).unwrap_or_default();
            all.retain(|old| !parts.iter().any(|part| part.name == old.name));
            all.extend(parts.iter().cloned());
            *old.borrow_mut() = found;
            Some(all)
        };
        let written = build::build(directory, &path, &entry, &key, needed, |building| {
            let old = old.take().map(|old| old.arrays().into_iter().zip(old.parts).collect()).unwrap_or_default();
            fill(building, wanted, old, &unread, counters)
        });
        if let Some(element) = unread.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(BuildFailure::Column(element));
        }
        written.map_err(BuildFailure::Index)?;
        open(&path, &entry, &key)
            .filter(complete)
            .ok_or_else(|| BuildFailure::Index(failed(directory, &entry, &"the index just written is not there")))
    }
}

/// Writes all parts window by window, with a thread for each core.
fn fill(
    building: &mut Building<'_>,
    wanted: &[ColumnSource],
    old: Vec<(Array, IndexPart)>,
    failed: &Mutex<Option<String>>,
    counters: &Counters,
) -> Result<(), ArrayError> {
    // Columns that other mounts needed are copied from the old file.
    let old = old.into_iter().map(|(array, part)| ColumnSource {
        element: part.name.into_owned(),
        array,
        content: ArrayContent::Plain,
    });
    let old: Vec<ColumnSource> = old.collect();
    let source = |part: &IndexPart| wanted.iter().chain(&old).find(|source| source.element == part.name);
    let sources: Option<Vec<&ColumnSource>> = building.parts().iter().map(source).collect();
    let sources = sources.ok_or_else(|| building.failed(&"a column is gone"))?;
    let tasks: Vec<(usize, u64, u64)> = sources
        .iter()
        .enumerate()
        .flat_map(|(number, source)| source.windows().map(move |(start, len)| (number, start, len)))
        .collect();
    let bar = Progress::new(
        format!("{}: indexing rows", sources.first().map_or("", |source| &source.array.store)),
        tasks.iter().map(|task| task.2).sum(),
    );
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sums: Vec<Mutex<Option<crc32fast::Hasher>>> = tasks.iter().map(|_| Mutex::new(None)).collect();
    let shared: &Building<'_> = building;
    let work = || -> Result<(), ArrayError> {
        while !stop.load(Ordering::Relaxed) {
            let task = next.fetch_add(1, Ordering::Relaxed);
            let (Some(&(number, start, len)), Some(sum)) = (tasks.get(task), sums.get(task)) else { break };
            let source = sources[number];
            let bytes = source.read(start, len, counters).inspect_err(|_| {
                stop.store(true, Ordering::Relaxed);
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(source.element.clone());
            })?;
            let put = shared.put(number, start, &bytes).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            *sum.lock().unwrap_or_else(PoisonError::into_inner) = Some(put);
            bar.add(len);
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(16));
    let panicked = || Err(shared.failed(&"a thread panicked; please report it"));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| panicked()))
    })?;
    let mut all = vec![Vec::new(); sources.len()];
    for (task, sum) in tasks.iter().zip(sums) {
        all[task.0].extend(sum.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    for (number, sums) in all.iter().enumerate() {
        building.seal(number, combined(sums));
    }
    Ok(())
}

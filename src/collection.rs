//! Many stores, one table of rows 0..n, in the order given.
//!
//! Everything that depends on content alone is determined here once: global row numbers, genes, categories and their codes, dtypes. So
//! the bytes of a batch are the same on every host that mounts the same stores.

// Numbers from a store are converted by checked conversions, or by `number`.
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap))]

mod columns;
pub mod companion;
pub mod element;
pub mod genes;
pub mod tokens;
mod var;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::anndata;
use crate::anndata::bytes::Lengths;
use crate::anndata::column::{Column, Values};
use crate::anndata::dataframe::DataFrame;
use crate::anndata::index::IndexDir;
use crate::anndata::names::{Frame, MatrixName};
use crate::anndata::row_index::RowIndex;
use crate::array::{ArrayError, Container, Counters, Dtype};
use crate::number::as_usize;
use crate::storage::in_flight;
use companion::Beside;
pub use companion::Companion;
use element::{Arithmetic, Element, MatrixKind, Stored};
use genes::matching::Matching;
use genes::{Genes, Join};
use tokens::TokenSpec;

/// Why stores cannot be served as one collection.
#[derive(Debug, thiserror::Error)]
pub enum CollectionError {
    #[error(transparent)]
    Store(#[from] ArrayError),
    /// Two stores do not fit together, or hold nothing to serve.
    #[error("{store}: {cause}")]
    Mismatch { store: String, cause: String },
    /// An option names something that no store has.
    #[error("{0}")]
    Option(String),
    /// An option names `wanted`, which is not among the `known` names.
    #[error("{cause}")]
    Unknown { cause: String, wanted: String, known: Arc<Vec<String>> },
}

/// All that batches are made of, except matrix values: determined at the mount, equal on every host.
#[derive(Clone, Debug)]
pub struct Table {
    pub n_rows: u64,
    /// The matrices: X, then those of `--with`. Never empty.
    pub elements: Vec<Element>,
    /// obs columns, each of `n_rows` values, in served order.
    pub columns: Arc<Vec<Column>>,
    /// The requested dtype of column numbers; `None`: i32, or i64 where i32 is too narrow.
    pub index_dtype: Option<Dtype>,
    /// Tables whose rows are served in step with the rows of this one.
    pub companions: Vec<Companion>,
    /// The name of this modality, if there are several.
    pub modality: Option<String>,
}

impl Table {
    /// The matrix named by `--x`.
    pub fn x(&self) -> &Element {
        &self.elements[0]
    }
}

/// One store of a collection.
pub struct Store {
    pub path: PathBuf,
    pub container: Box<dyn Container>,
    /// Global number of its first row.
    pub first_row: u64,
    pub rows: u64,
    /// The store's part of each element of the table.
    pub elements: Vec<Stored>,
}

impl Store {
    /// The store's part of X.
    pub fn x(&self) -> &Stored {
        &self.elements[0]
    }

    /// The store's row bounds and obs columns that are mapped from the index directory.
    pub fn row_index(&self) -> &RowIndex {
        &self.x().row_index
    }
}

/// Which parts of the stores to serve, and how.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Selection {
    pub x: MatrixName,
    /// Further elements to serve.
    pub with: Vec<MatrixName>,
    /// obs columns to serve, by name; `None`: every categorical, boolean and numeric one.
    pub obs: Option<Vec<String>>,
    /// Further obs columns to read: views and strategies need them.
    pub also: Vec<String>,
    pub join: Join,
    /// Which gene names count as equal.
    pub matching: Matching,
    /// Genes of X and layers; `None`: all.
    pub genes: Option<Genes>,
    /// With named genes: those that a store lacks are zeros, if it has at least this share of the genes; `None`: they are an error.
    pub absent_zero: Option<f64>,
    /// The column of var with the names of genes; `None`: its index.
    pub genes_column: Option<String>,
    /// Serve all matrices as dense rows, even if stored sparse.
    pub dense: bool,
    /// Arithmetic on the values of X.
    pub arithmetic: Arithmetic,
    /// Serve X as tokens.
    #[serde(skip)]
    pub tokens: Option<Arc<TokenSpec>>,
    /// The served dtype of X; `None`: as stored, or as computed.
    pub dtype: Option<Dtype>,
    pub index_dtype: Option<Dtype>,
    /// Where derived arrays are stored.
    #[serde(skip)]
    pub index: IndexDir,
    /// Set in the probe (`session::probe`), which opens single stores of the mount. It opens arrays without reading them, derives and
    /// unites nothing, and makes no checks that concern all stores together; the result cannot be served.
    #[serde(skip)]
    pub looks: bool,
}

impl Selection {
    /// One element as it is stored, without obs columns.
    pub fn of(x: MatrixName, index: IndexDir) -> Selection {
        Selection {
            x,
            with: Vec::new(),
            obs: None,
            also: Vec::new(),
            join: Join::Exact,
            matching: Matching::Exact,
            genes: None,
            absent_zero: None,
            genes_column: None,
            dense: false,
            arithmetic: Arithmetic::default(),
            tokens: None,
            dtype: None,
            index_dtype: None,
            index,
            looks: false,
        }
    }

    /// The obs columns to read, by name; `None`: all except text.
    fn obs_wanted(&self) -> Option<Vec<String>> {
        self.obs.as_ref().map(|obs| obs.iter().chain(&self.also).cloned().collect())
    }
}

/// Properties of the stored matrices that automatic sizes follow from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StorageProfile {
    /// Mean bytes of one decoded row.
    pub row_bytes: f64,
    /// Mean rows in one encoded chunk; `None` where any byte range can be read on its own.
    pub chunk_rows: Option<f64>,
    /// Rows of a chunk of a dense matrix. Blocks of any other size would decode chunks that they need in part only.
    pub dense_chunk_rows: Option<u64>,
    /// For remote stores: bytes of a row that one request brings; a sparse row lies in two arrays, and takes two requests.
    pub request_row_bytes: Option<f64>,
}

/// Stores as one table of rows.
pub struct Collection {
    pub table: Table,
    pub stores: Vec<Store>,
    /// obs columns that are not served by default, each with the reason.
    pub left_out: Vec<(String, String)>,
    /// obs columns that differ between stores, each with the rules applied (docs/columns.md).
    pub joined: Vec<(String, String)>,
    looks: bool,
}

impl std::fmt::Debug for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection").field("stores", &self.stores.len()).finish_non_exhaustive()
    }
}

impl Collection {
    /// Opens stores: reads metadata, row bounds, gene names and the selected obs columns, but no matrix data.
    ///
    /// # Errors
    /// A store cannot be read; matrices or genes of stores differ; there are no rows; no store has the selected genes.
    pub fn open(paths: &[PathBuf], selection: &Selection, counters: &Counters) -> Result<Collection, CollectionError> {
        let opened = each(paths, |path| anndata::stores(path))?;
        Collection::of(opened.into_iter().flatten().collect(), selection, counters)
    }

    /// Makes a collection of opened stores, each with its path.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn of(
        opened: Vec<(PathBuf, Box<dyn Container>)>,
        selection: &Selection,
        counters: &Counters,
    ) -> Result<Collection, CollectionError> {
        let store = |(path, container)| Store { path, container, first_row: 0, rows: 0, elements: Vec::new() };
        let mut stores: Vec<Store> = opened.into_iter().map(store).collect();
        if stores.is_empty() {
            return Err(CollectionError::Option("no store was named".to_owned()));
        }
        let x = element::open(&mut stores, &selection.x, true, selection, counters)?;
        let mut first_row = 0u64;
        let obs = each(&stores, |store| DataFrame::open(&*store.container, Frame::Obs).map(|obs| obs.rows))?;
        for (store, obs) in stores.iter_mut().zip(obs) {
            let rows = store.x().matrix.rows();
            if obs != rows {
                let cause = format!("{} has {rows} rows, but obs has {obs}", selection.x);
                return Err(mismatch(&*store.container, cause));
            }
            (store.rows, store.first_row) = (rows, first_row);
            first_row = first_row.checked_add(rows).ok_or_else(|| CollectionError::Option("too many rows".into()))?;
        }
        if first_row == 0 && !selection.looks {
            return Err(mismatch(&*stores[0].container, "no rows: there is nothing to serve".to_owned()));
        }
        let mut elements = vec![x];
        for name in &selection.with {
            elements.push(element::open(&mut stores, name, false, selection, counters)?);
        }
        let columns::ObsColumns { columns, left_out, joined } = columns::read(&stores, selection, counters)?;
        let (columns, index_dtype) = (columns.into(), selection.index_dtype);
        let table = Table { n_rows: first_row, elements, columns, index_dtype, companions: Vec::new(), modality: None };
        Ok(Collection { table, stores, left_out, joined, looks: selection.looks })
    }

    /// Frees what is needed only while stores are opened; afterwards each store takes one descriptor.
    pub fn settle(&self) {
        self.all_stores().for_each(|store| store.container.settle());
    }

    /// Rows of each store, in order.
    pub fn store_rows(&self) -> Vec<u64> {
        self.stores.iter().map(|store| store.rows).collect()
    }

    /// The store of a global row, and the row's number there.
    pub fn locate(&self, row: u64) -> (usize, u64) {
        let store = self.stores.partition_point(|store| store.first_row + store.rows <= row);
        (store, row - self.stores[store].first_row)
    }

    /// The number of served values of a row in an element: nnz, or the length of a dense row.
    pub fn row_length(&self, element: usize, row: u64) -> u64 {
        match &self.table.elements[element].kind {
            MatrixKind::Sparse { .. } => {
                let (store, row) = self.locate(row);
                self.stores[store].elements[element].row_length(row)
            }
            MatrixKind::Dense { .. } => self.table.elements[element].n_vars(),
        }
    }

    /// The lengths of these rows in served order, which are looked up in stored order, so that rows of a block are neighbours.
    pub fn row_lengths(&self, element: usize, rows: &[u64]) -> Vec<u64> {
        if !self.stores.iter().any(|store| store.elements[element].is_mapped()) {
            return rows.iter().map(|&row| self.row_length(element, row)).collect();
        }
        let mut order: Vec<(u64, usize)> = rows.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let mut lengths = vec![0; rows.len()];
        for run in order.chunk_by(|a, b| self.locate(a.0).0 == self.locate(b.0).0) {
            let Some(&(first, _)) = run.first() else { continue };
            let store = &self.stores[self.locate(first).0];
            let is_sparse = self.table.elements[element].is_sparse();
            let mut of = store.elements[element].bounds().filter(|_| is_sparse).map(Lengths::new);
            for &(row, place) in run {
                lengths[place] = match &mut of {
                    Some(of) => of.of(as_usize(row - store.first_row)),
                    None => self.table.elements[element].n_vars(),
                };
            }
        }
        lengths
    }

    /// Served values in runs of rows in one element, from the bounds of the runs alone; 0 for a dense element.
    pub fn values_of_runs(&self, element: usize, runs: &[Range<u64>]) -> u64 {
        if !self.table.elements[element].is_sparse() {
            return 0;
        }
        let mut sum = 0;
        for run in runs {
            let mut start = run.start;
            while start < run.end {
                let store = &self.stores[self.locate(start).0];
                let end = run.end.min(store.first_row + store.rows);
                if let Some(bounds) = store.elements[element].bounds() {
                    let at = |row: u64| bounds[as_usize(row - store.first_row)];
                    sum += at(end).saturating_sub(at(start));
                }
                start = end;
            }
        }
        sum
    }

    /// Releases mapped pages if many are resident: they stay in the page cache, and cost a minor fault when touched again. Called after
    /// each load, because a load touches a page for each block and column.
    pub fn release_pages(&self) {
        let parts = || self.all_stores().flat_map(|store| &store.elements);
        if !parts().any(Stored::is_mapped) || resident_files().is_none_or(|bytes| bytes <= MOST_RESIDENT) {
            return;
        }
        parts().flat_map(Stored::mappings).for_each(|mapping| mapping.release());
    }

    /// Names of the obs columns of all stores, served or not, in order of first appearance.
    pub fn obs_columns(&self) -> Result<Vec<String>, CollectionError> {
        columns::names(&self.stores)
    }

    /// Reads an obs column over all stores: any type, served or not.
    pub fn obs_column(&self, name: &str, counters: &Counters) -> Result<Values, CollectionError> {
        columns::read_one(&self.stores, name, self.looks, counters)
    }

    /// Reads the names of a store's rows.
    pub fn row_names(&self, store: usize, counters: &Counters) -> Result<Vec<String>, CollectionError> {
        let store = &self.stores[store];
        let names = DataFrame::open(&*store.container, Frame::Obs)?.names(counters)?;
        if names.len() as u64 != store.rows {
            let cause = format!("obs names {} rows, but there are {}", names.len(), store.rows);
            return Err(mismatch(&*store.container, cause));
        }
        Ok(names)
    }

    /// The properties that automatic block size and fetch factor follow from.
    pub fn storage_profile(&self) -> StorageProfile {
        let mut storage_profile =
            StorageProfile { row_bytes: 0.0, chunk_rows: None, dense_chunk_rows: None, request_row_bytes: None };
        for (number, element) in self.table.elements.iter().enumerate() {
            let parts = || self.stores.iter().map(|store| (store, &store.elements[number]));
            let served: u64 = parts().map(|(store, part)| part.served(store.rows, element)).sum();
            let value = element.kind.dtype().size() as u64;
            let is_sparse = element.is_sparse();
            let per_value = if is_sparse { value + 4 } else { value };
            storage_profile.row_bytes += served as f64 * per_value as f64 / self.table.n_rows as f64;
            // Rows of obsm are short: their chunks cost little compared with those of genes.
            if number > 0 && element.name.is_obsm() {
                continue;
            }
            for (store, part) in parts() {
                // An empty row counts as one value, so that sizes are never 0.
                let per_row = (part.matrix.stored() as f64 / store.rows.max(1) as f64).max(1.0);
                let is_sparse = part.matrix.is_sparse();
                for array in part.matrix.arrays().into_iter().filter(|array| array.source.is_encoded()) {
                    let chunk_rows = if is_sparse {
                        array.chunk_elements().min(array.shape[0]) as f64 / per_row
                    } else {
                        array.chunk_shape[0].min(array.shape[0]) as f64
                    };
                    storage_profile.chunk_rows = Some(storage_profile.chunk_rows.unwrap_or(0.0).max(chunk_rows));
                    if number == 0 && !is_sparse {
                        let chunk_rows = array.chunk_shape[0].min(array.shape[0]);
                        storage_profile.dense_chunk_rows =
                            Some(storage_profile.dense_chunk_rows.unwrap_or(0).max(chunk_rows));
                    }
                }
            }
        }
        if self.is_remote() {
            let arrays = if self.table.x().is_sparse() { 2.0 } else { 1.0 };
            storage_profile.request_row_bytes = Some(storage_profile.row_bytes / arrays);
        }
        // The rows of companions are in memory together with those of the batch.
        let own = storage_profile.row_bytes;
        storage_profile.row_bytes += self.table.companions.iter().fold(0.0, |sum, companion| match &companion.rows {
            Beside::Each(each) | Beside::Neighbours { each, .. } => sum + *each as f64 * own,
            Beside::Joined(modality) => sum + modality.storage_profile().row_bytes,
        });
        storage_profile
    }

    /// Whether any store lies behind a network.
    pub fn is_remote(&self) -> bool {
        self.all_stores().any(|store| crate::storage::name::is_remote(store.container.path()))
    }
}

/// Calls a function for each store, in parallel, as each waits for its storage; results are in order.
///
/// # Errors
/// The error of the first store that has one.
fn each<'t, T: Sync, R: Send, E: Send>(
    items: &'t [T],
    ask: impl Fn(&'t T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    const DEPTH: usize = 16;
    let answers: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    in_flight::for_each(DEPTH, items.len(), |number| {
        if let (Some(item), Some(place)) = (items.get(number), answers.get(number)) {
            let answer = ask(item)?;
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        }
        Ok(())
    })?;
    Ok(answers.into_iter().filter_map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}

/// Resident bytes of mapped files above which pages are released.
const MOST_RESIDENT: u64 = 128 << 20;

/// Resident bytes of mapped files, including the executable. Images in tmpfs are shared memory and not counted, as their pages could not
/// be released.
fn resident_files() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("RssFile:"))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

fn mismatch(store: &dyn Container, cause: String) -> CollectionError {
    CollectionError::Mismatch { store: store.name().to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files in tmpfs are images, and do not count: only pages of disk files can be released.
    #[test]
    fn images_are_no_resident_files() {
        let before = resident_files().expect("a status");
        assert!(before > 0, "the program itself is one");
        let file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
        file.set_len(64 << 20).expect("room");
        // SAFETY: no other process has the file.
        let mut map = unsafe { memmap2::MmapMut::map_mut(&file).expect("maps") };
        map.fill(1);
        let after = resident_files().expect("a status");
        assert!(after < before + (32 << 20), "{before} before, {after} after 64 MiB of image");
    }
}

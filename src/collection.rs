//! Many stores, one table of rows 0..n, in the order given.
//!
//! What depends on the content alone is fixed here once: global row numbers, genes, categories and their codes,
//! dtypes. So a batch's bytes are the same on every host that mounts the same stores.

mod columns;
pub mod genes;
mod kept;

use std::path::PathBuf;
use std::sync::Arc;

use crate::anndata;
use crate::anndata::bytes::{Bounds, Lengths};
use crate::anndata::column::{Column, Values};
use crate::anndata::dataframe::DataFrame;
use crate::anndata::index::IndexDir;
use crate::anndata::index::rows::RowIndex;
use crate::anndata::matrix::Matrix;
use crate::array::{ArrayError, Container, Counters, Dtype};
use genes::{Columns, Join};

/// Why stores cannot be served as one collection.
#[derive(Debug, thiserror::Error)]
pub enum CollectionError {
    #[error(transparent)]
    Store(#[from] ArrayError),
    /// Two stores do not fit together, or hold nothing to serve.
    #[error("{store}: {cause}")]
    Mismatch { store: String, cause: String },
    /// An option names what no store has.
    #[error("{0}")]
    Option(String),
}

/// What X (or the element chosen with `--x`) is.
#[derive(Clone, Debug, PartialEq)]
pub enum MatrixKind {
    /// CSR with values of `dtype`.
    Sparse { dtype: Dtype },
    /// Dense rows of shape `row` (`[n_vars]` for a matrix).
    Dense { dtype: Dtype, row: Vec<u64> },
}

impl MatrixKind {
    /// The dtype of the values.
    pub fn dtype(&self) -> Dtype {
        match self {
            MatrixKind::Sparse { dtype } | MatrixKind::Dense { dtype, .. } => *dtype,
        }
    }
}

/// All that a batch is made of but the matrix values: fixed at the mount, equal on every host.
#[derive(Clone, Debug)]
pub struct Table {
    pub n_rows: u64,
    pub matrix: MatrixKind,
    /// Names of the columns of X: genes.
    pub genes: Vec<String>,
    /// obs columns, each of `n_rows` values, in served order.
    pub columns: Vec<Column>,
}

impl Table {
    /// Columns of a sparse X, or elements of a dense row.
    pub fn n_vars(&self) -> u64 {
        match &self.matrix {
            MatrixKind::Sparse { .. } => self.genes.len() as u64,
            MatrixKind::Dense { row, .. } => row.iter().product(),
        }
    }
}

/// One store of a collection.
pub struct Store {
    pub path: PathBuf,
    pub container: Container,
    pub matrix: Matrix,
    /// Global number of its first row.
    pub first_row: u64,
    pub rows: u64,
    /// Where its columns go in the collection.
    pub columns: Columns,
    /// Values before each row that are served, and in all; `None` where all stored ones are.
    pub kept: Option<Bounds>,
    /// Row bounds and obs columns that are mapped.
    pub held: RowIndex,
}

impl Store {
    /// Values of a row of a sparse matrix that are served.
    pub fn row_length(&self, row: u64) -> u64 {
        self.served().map_or(0, |bounds| bounds.length(row as usize))
    }

    /// Where each served row begins, in a sparse matrix.
    fn served(&self) -> Option<&Bounds> {
        self.kept.as_ref().or_else(|| self.bounds())
    }

    fn is_mapped(&self) -> bool {
        self.held.mapping().is_some() || self.bounds().is_some_and(|bounds| bounds.mapping().is_some())
    }

    /// Where each stored row begins, in a sparse matrix.
    fn bounds(&self) -> Option<&Bounds> {
        match &self.matrix {
            Matrix::Sparse { indptr, .. } => Some(indptr),
            Matrix::Dense { .. } => None,
        }
    }

    /// The dtype of its values in the collection: what it lacks is NaN in dense rows, which integers cannot hold.
    fn dtype(&self) -> Dtype {
        let dtype = self.matrix.dtype();
        if self.matrix.is_sparse() || self.columns.missing == 0 || dtype.is_float() { dtype } else { Dtype::F64 }
    }
}

/// What to serve of the stores.
#[derive(Clone, Debug)]
pub struct Selection {
    /// `X`, `raw/X`, `layers/NAME` or `obsm/NAME`.
    pub x: String,
    /// obs columns by name; `None`: every categorical, boolean and numeric one.
    pub obs: Option<Vec<String>>,
    /// obs columns that will be asked for besides.
    pub also: Vec<String>,
    pub join: Join,
    /// Where derived arrays are kept.
    pub index: IndexDir,
}

/// What a collection looks like to the reader of its blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grain {
    /// Mean bytes of one decoded row.
    pub row_bytes: f64,
    /// Mean rows in one encoded chunk; `None` where any run of bytes can be read alone.
    pub chunk_rows: Option<f64>,
    /// Rows of a chunk of a dense matrix: a block of another size would pay for chunks it does not need.
    pub dense_chunk_rows: Option<u64>,
}

/// Stores as one table of rows.
pub struct Collection {
    pub table: Table,
    pub stores: Vec<Store>,
    /// The matrix element served.
    pub x: String,
    /// obs columns that are not served by default, each with the reason.
    pub left_out: Vec<(String, String)>,
    /// obs columns that differ between stores, each with what was done (docs/columns.md).
    pub joined: Vec<(String, String)>,
}

impl Collection {
    /// Opens stores: reads metadata, row bounds, gene names and the chosen obs columns, and no matrix data.
    ///
    /// # Errors
    /// A store that cannot be read; stores whose matrices or genes differ; no rows at all.
    pub fn open(paths: &[PathBuf], selection: &Selection, counters: &Counters) -> Result<Collection, CollectionError> {
        let mut stores: Vec<Store> = Vec::with_capacity(paths.len());
        let mut genes: Vec<genes::Named> = Vec::with_capacity(paths.len());
        let mut first_row = 0u64;
        let opened =
            paths.iter().map(|path| anndata::stores(path)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        for (path, container) in opened {
            let names =
                selection.obs.as_ref().map(|obs| obs.iter().chain(&selection.also).cloned().collect::<Vec<_>>());
            let held = RowIndex::open(&container, &selection.x, names.as_deref(), &selection.index, counters);
            let matrix = Matrix::open_by_row(&container, &selection.x, &selection.index, &held, counters)?;
            let rows = matrix.rows();
            let obs = DataFrame::open(&container, "obs")?;
            if obs.rows != rows {
                let cause = format!("{} has {rows} rows, but obs has {}", selection.x, obs.rows);
                return Err(mismatch(&container, cause));
            }
            drop(obs);
            let names = gene_names(&container, &selection.x, &matrix, counters)?;
            let known = genes.iter().find(|(_, known)| **known == names).map(|(_, known)| known.clone());
            genes.push((container.name().to_owned(), known.unwrap_or_else(|| Arc::new(names))));
            if let Some(first) = stores.first() {
                same_kind(&container, first, &matrix)?;
            }
            let columns = Columns::default();
            stores.push(Store { path, container, matrix, first_row, rows, columns, kept: None, held });
            first_row = first_row.checked_add(rows).ok_or_else(|| CollectionError::Option("too many rows".into()))?;
        }
        let (genes, columns) = genes::align(&genes, selection.join)
            .map_err(|(store, cause)| CollectionError::Mismatch { store, cause })?;
        if selection.join == Join::Inner
            && genes.is_empty()
            && stores.first().is_some_and(|first| first.matrix.row_shape() != [0])
        {
            return Err(CollectionError::Option("--join inner: no gene is in all stores".to_owned()));
        }
        for (store, columns) in stores.iter_mut().zip(columns) {
            store.columns = columns;
            if store.matrix.is_sparse() && store.columns.extra > 0 {
                store.kept = Some(kept::count(store, &selection.x, &selection.index, counters)?);
            }
        }
        let Some(first) = stores.first() else {
            return Err(CollectionError::Option("no store was named".to_owned()));
        };
        if first_row == 0 {
            return Err(mismatch(&first.container, "no rows: there is nothing to serve".to_owned()));
        }
        let dtype = stores.iter().map(Store::dtype).reduce(Dtype::promote).unwrap_or(Dtype::F32);
        let matrix = if first.matrix.is_sparse() {
            MatrixKind::Sparse { dtype }
        } else {
            let mut row = first.matrix.row_shape();
            if row.len() == 1 {
                row = vec![genes.len() as u64];
            }
            MatrixKind::Dense { dtype, row }
        };
        let columns::Read { columns, left_out, joined } = columns::read(&stores, selection.obs.as_deref(), counters)?;
        let table = Table { n_rows: first_row, matrix, genes: genes.to_vec(), columns };
        Ok(Collection { table, stores, x: selection.x.clone(), left_out, joined })
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

    /// Stored values of a row: its nnz, or the length of a dense row.
    pub fn row_length(&self, row: u64) -> u64 {
        let (store, row) = self.locate(row);
        match &self.table.matrix {
            MatrixKind::Sparse { .. } => self.stores[store].row_length(row),
            MatrixKind::Dense { .. } => self.table.n_vars(),
        }
    }

    /// Stored values of each of these rows. In the order of the index file where there is one: rows of one block are
    /// found together.
    pub fn row_lengths(&self, rows: &[u64]) -> Vec<u64> {
        if !self.stores.iter().any(Store::is_mapped) {
            return rows.iter().map(|&row| self.row_length(row)).collect();
        }
        let mut order: Vec<(u64, usize)> = rows.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let mut lengths = vec![0; rows.len()];
        for run in order.chunk_by(|a, b| self.locate(a.0).0 == self.locate(b.0).0) {
            let Some(&(first, _)) = run.first() else { continue };
            let store = &self.stores[self.locate(first).0];
            let mut of = store.served().map(Lengths::new);
            for &(row, place) in run {
                lengths[place] = match &mut of {
                    Some(of) => of.of((row - store.first_row) as usize),
                    None => self.table.n_vars(),
                };
            }
        }
        lengths
    }

    /// Hands mapped pages back where many have become resident: they stay in the page cache, and cost a minor fault each
    /// when they are touched again. Called after a load: it touches a place for each block and column.
    pub fn settle(&self) {
        if !self.stores.iter().any(Store::is_mapped) {
            return;
        }
        if resident_files().is_none_or(|bytes| bytes <= MOST_RESIDENT) {
            return;
        }
        for store in &self.stores {
            let bounds = [store.kept.as_ref(), store.bounds()].into_iter().flatten().filter_map(Bounds::mapping);
            store.held.mapping().into_iter().chain(bounds).for_each(|mapping| mapping.release());
        }
    }

    /// Names of all obs columns of any store, served or not, in order of first appearance.
    pub fn obs_columns(&self) -> Result<Vec<String>, CollectionError> {
        columns::names(&self.stores)
    }

    /// An obs column over all stores, read now: served or not, text too.
    pub fn obs_column(&self, name: &str, counters: &Counters) -> Result<Values, CollectionError> {
        columns::read_one(&self.stores, name, counters)
    }

    /// The names of a store's rows.
    pub fn row_names(&self, store: usize, counters: &Counters) -> Result<Vec<String>, CollectionError> {
        let store = &self.stores[store];
        let names = DataFrame::open(&store.container, "obs")?.names(counters)?;
        if names.len() as u64 != store.rows {
            let cause = format!("obs names {} rows, but there are {}", names.len(), store.rows);
            return Err(mismatch(&store.container, cause));
        }
        Ok(names)
    }

    /// What the automatic block size and fetch factor follow from.
    pub fn grain(&self) -> Grain {
        let rows = self.table.n_rows as f64;
        let served = |store: &Store| match &store.kept {
            Some(kept) => kept.last().copied().unwrap_or_default(),
            None if store.matrix.is_sparse() => store.matrix.stored(),
            None => store.rows.saturating_mul(self.table.n_vars()),
        };
        let stored: u64 = self.stores.iter().map(served).sum();
        let value = self.table.matrix.dtype().size() as u64;
        let sparse = matches!(self.table.matrix, MatrixKind::Sparse { .. });
        let per_value = if sparse { value + 4 } else { value };
        let mut grain =
            Grain { row_bytes: stored as f64 * per_value as f64 / rows, chunk_rows: None, dense_chunk_rows: None };
        for store in &self.stores {
            // Rows without values count as one value: a block of them costs no more.
            let per_row = (store.matrix.stored() as f64 / store.rows.max(1) as f64).max(1.0);
            for array in store.matrix.arrays().into_iter().filter(|array| array.source.is_encoded()) {
                let chunk_rows = if sparse {
                    array.chunk_elements().min(array.shape[0]) as f64 / per_row
                } else {
                    array.chunk_shape[0].min(array.shape[0]) as f64
                };
                grain.chunk_rows = Some(grain.chunk_rows.unwrap_or(0.0).max(chunk_rows));
                if !sparse {
                    grain.dense_chunk_rows = Some(grain.dense_chunk_rows.unwrap_or(0).max(chunk_rows as u64));
                }
            }
        }
        grain
    }
}

/// Bytes of files that may be resident before they are handed back.
const MOST_RESIDENT: u64 = 128 << 20;

/// Bytes of mapped files, the program's own included, that are resident now.
fn resident_files() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(2)?.parse().ok()?;
    // SAFETY: sysconf touches no memory.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    Some(pages * page)
}

fn mismatch(store: &Container, cause: String) -> CollectionError {
    CollectionError::Mismatch { store: store.name().to_owned(), cause }
}

/// Columns of an obsm matrix: the most that are named by number.
const MOST_NUMBERED: u64 = 1 << 26;

/// Names of the matrix's columns: genes for X and layers, raw's genes for raw/X, numbers for obsm.
fn gene_names(
    store: &Container,
    x: &str,
    matrix: &Matrix,
    counters: &Counters,
) -> Result<Vec<String>, CollectionError> {
    let row = matrix.row_shape();
    if x.starts_with("obsm/") {
        // Named one by one: a shape that lies would fill the memory with names.
        if row[0] > MOST_NUMBERED {
            return Err(mismatch(store, format!("{x} has {} columns; at most {MOST_NUMBERED} are served", row[0])));
        }
        return Ok((0..row[0]).map(|column| column.to_string()).collect());
    }
    let var = if x.starts_with("raw/") { "raw/var" } else { "var" };
    let names = DataFrame::open(store, var)?.names(counters)?;
    if names.len() as u64 != row[0] {
        return Err(mismatch(store, format!("{x} has {} columns, but {var} names {}", row[0], names.len())));
    }
    Ok(names)
}

/// Both sparse or both dense, and images of one shape. How many genes there are is for the alignment to judge.
fn same_kind(store: &Container, first: &Store, matrix: &Matrix) -> Result<(), CollectionError> {
    let (a, b) = (&first.matrix, matrix);
    if a.is_sparse() != b.is_sparse() {
        let kind = |matrix: &Matrix| if matrix.is_sparse() { "sparse" } else { "dense" };
        let cause = format!("its matrix is {}, but that of {} is {}", kind(b), first.container.name(), kind(a));
        return Err(mismatch(store, format!("{cause}; mount them apart")));
    }
    let (a, b) = (a.row_shape(), b.row_shape());
    if a != b && (a.len() > 1 || b.len() > 1) {
        let cause = format!("its rows have shape {b:?}, but those of {} {a:?}", first.container.name());
        return Err(mismatch(store, format!("{cause}; mount them apart")));
    }
    Ok(())
}

//! Many stores, one table of rows 0..n, in the order given.
//!
//! What depends on the content alone is fixed here once: global row numbers, genes, categories and their codes,
//! dtypes. So a batch's bytes are the same on every host that mounts the same stores.

mod columns;

use std::path::{Path, PathBuf};

use crate::anndata;
use crate::anndata::column::Column;
use crate::anndata::dataframe::DataFrame;
use crate::anndata::matrix::Matrix;
use crate::array::{ArrayError, Container, Counters, Dtype};

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
}

/// What to serve of the stores.
#[derive(Clone, Debug)]
pub struct Selection {
    /// `X`, `raw/X`, `layers/NAME` or `obsm/NAME`.
    pub x: String,
    /// obs columns by name; `None`: every categorical, boolean and numeric one.
    pub obs: Option<Vec<String>>,
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
}

impl Collection {
    /// Opens stores: reads metadata, row bounds, gene names and the chosen obs columns, and no matrix data.
    ///
    /// # Errors
    /// A store that cannot be read; stores whose matrices or genes differ; no rows at all.
    pub fn open(paths: &[PathBuf], selection: &Selection, counters: &Counters) -> Result<Collection, CollectionError> {
        let mut stores: Vec<Store> = Vec::with_capacity(paths.len());
        let mut genes: Option<Vec<String>> = None;
        let mut first_row = 0u64;
        let opened =
            paths.iter().map(|path| anndata::stores(path)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        let (paths, opened): (Vec<PathBuf>, Vec<Container>) = opened.unzip();
        for (path, container) in paths.iter().zip(opened) {
            let matrix = Matrix::open(&container, &selection.x, counters)?;
            let rows = matrix.rows();
            let obs = DataFrame::open(&container, "obs")?;
            if obs.rows != rows {
                let cause = format!("{} has {rows} rows, but obs has {}", selection.x, obs.rows);
                return Err(mismatch(&container, cause));
            }
            let names = gene_names(&container, &selection.x, &matrix, counters)?;
            match &genes {
                None => genes = Some(names),
                Some(first) => same_genes(&container, &paths, first, &names)?,
            }
            if let Some(first) = stores.first() {
                same_shape(&container, first, &matrix)?;
            }
            drop(obs);
            stores.push(Store { path: path.clone(), container, matrix, first_row, rows });
            first_row = first_row.checked_add(rows).ok_or_else(|| CollectionError::Option("too many rows".into()))?;
        }
        let Some(first) = stores.first() else {
            return Err(CollectionError::Option("no store was named".to_owned()));
        };
        if first_row == 0 {
            return Err(mismatch(&first.container, "no rows: there is nothing to serve".to_owned()));
        }
        let dtype =
            stores.iter().skip(1).fold(first.matrix.dtype(), |dtype, store| dtype.promote(store.matrix.dtype()));
        let matrix = if first.matrix.is_sparse() {
            MatrixKind::Sparse { dtype }
        } else {
            MatrixKind::Dense { dtype, row: first.matrix.row_shape() }
        };
        let (columns, left_out) = columns::read(&stores, selection.obs.as_deref(), counters)?;
        let table = Table { n_rows: first_row, matrix, genes: genes.unwrap_or_default(), columns };
        Ok(Collection { table, stores, x: selection.x.clone(), left_out })
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
        match &self.stores[store].matrix {
            Matrix::Sparse { indptr, .. } => indptr[row as usize + 1] - indptr[row as usize],
            Matrix::Dense { .. } => self.table.n_vars(),
        }
    }

    /// What the automatic block size and fetch factor follow from.
    pub fn grain(&self) -> Grain {
        let rows = self.table.n_rows as f64;
        let stored: u64 = self.stores.iter().map(|store| store.matrix.stored()).sum();
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

fn same_genes(store: &Container, paths: &[PathBuf], first: &[String], names: &[String]) -> Result<(), CollectionError> {
    if first == names {
        return Ok(());
    }
    let path: &Path = &paths[0];
    let known: std::collections::HashSet<&String> = first.iter().collect();
    let here: std::collections::HashSet<&String> = names.iter().collect();
    let missing = first.iter().filter(|name| !here.contains(name)).collect::<Vec<_>>();
    let more = names.iter().filter(|name| !known.contains(name)).collect::<Vec<_>>();
    let cause = if missing.is_empty() && more.is_empty() {
        let at = first.iter().zip(names).position(|(a, b)| a != b).unwrap_or(first.len().min(names.len()));
        let (a, b) = (first.get(at).map_or("-", String::as_str), names.get(at).map_or("-", String::as_str));
        format!("its genes are those of {} in another order (number {at} is {b}, not {a})", path.display())
    } else {
        let some = |names: &[&String]| match names {
            [] => String::new(),
            names => format!(" (such as {})", names[0]),
        };
        format!(
            "its genes are not those of {}: {} are missing{}, {} are new{}",
            path.display(),
            missing.len(),
            some(&missing),
            more.len(),
            some(&more),
        )
    };
    Err(mismatch(store, format!("{cause}; mount stores with the same genes in the same order")))
}

fn same_shape(store: &Container, first: &Store, matrix: &Matrix) -> Result<(), CollectionError> {
    let (a, b) = (&first.matrix, matrix);
    if a.is_sparse() != b.is_sparse() {
        let kind = |matrix: &Matrix| if matrix.is_sparse() { "sparse" } else { "dense" };
        let cause = format!("its matrix is {}, but that of {} is {}", kind(b), first.container.name(), kind(a));
        return Err(mismatch(store, format!("{cause}; mount them apart")));
    }
    if a.row_shape() != b.row_shape() {
        let cause = format!(
            "its rows have shape {:?}, but those of {} {:?}",
            b.row_shape(),
            first.container.name(),
            a.row_shape()
        );
        return Err(mismatch(store, cause));
    }
    Ok(())
}

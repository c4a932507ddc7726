//! One matrix of the collection: X, or a further element that is served beside it, and each store's part of it.
//!
//! X and the others are the same thing here, so that every rule (alignment of genes, promotion of dtypes, row counts)
//! holds for all of them; what options ask of X alone (arithmetic, dtype) is a property of its element.

use std::sync::Arc;

use crate::anndata::bytes::Bounds;
use crate::anndata::column::Column;
use crate::anndata::dataframe::DataFrame;
use crate::anndata::index::Mapping;
use crate::anndata::index::rows::RowIndex;
use crate::anndata::matrix::Matrix;
use crate::array::{ArrayError, Container, Counters, Dtype};

use super::genes::{self, ColumnMap, Join};
use super::var;
use super::{CollectionError, Selection, Store, mismatch, retained_bounds};

/// How a matrix is served.
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

/// What is done to the values of each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Arithmetic {
    /// Each row is scaled to this total, taken over all values stored for it, those of genes left out too.
    pub normalize: Option<f64>,
    /// Then each value becomes ln(1 + value).
    pub log1p: bool,
}

impl Arithmetic {
    pub fn is_none(&self) -> bool {
        self.normalize.is_none() && !self.log1p
    }

    /// The dtype that values of `stored` are computed in, for `asked`: float32, or float64 where either is.
    pub fn dtype(stored: Dtype, asked: Option<Dtype>) -> Dtype {
        if stored == Dtype::F64 || asked == Some(Dtype::F64) { Dtype::F64 } else { Dtype::F32 }
    }
}

/// One matrix as it is served.
#[derive(Clone, Debug)]
pub struct Element {
    /// `X`, `raw/X`, `layers/NAME` or `obsm/NAME`.
    pub name: String,
    pub kind: MatrixKind,
    /// Names of its columns.
    pub genes: Arc<Vec<String>>,
    /// Columns of var, by gene; of X alone.
    pub var: Arc<Vec<Column>>,
    pub arithmetic: Arithmetic,
    /// What arithmetic is done in; the served dtype where there is none.
    pub computed: Dtype,
}

impl Element {
    /// An element that is served as it is stored.
    pub fn plain(name: &str, kind: MatrixKind, genes: Arc<Vec<String>>) -> Element {
        let computed = kind.dtype();
        Element {
            name: name.to_owned(),
            kind,
            genes,
            var: Default::default(),
            arithmetic: Arithmetic::default(),
            computed,
        }
    }

    pub fn is_sparse(&self) -> bool {
        matches!(self.kind, MatrixKind::Sparse { .. })
    }

    pub fn is_obsm(&self) -> bool {
        self.name.starts_with("obsm/")
    }

    /// Columns of a sparse matrix, or elements of a dense row.
    pub fn n_vars(&self) -> u64 {
        match &self.kind {
            MatrixKind::Sparse { .. } => self.genes.len() as u64,
            MatrixKind::Dense { row, .. } => row.iter().product(),
        }
    }
}

/// One store's part of an element.
pub struct Stored {
    pub matrix: Matrix,
    /// Where its columns go in the collection.
    pub columns: ColumnMap,
    /// Values before each row that are served, and in all; `None` where all stored ones are.
    pub retained_bounds: Option<Bounds>,
    /// Its row bounds, and with X obs columns, that are mapped.
    pub row_index: RowIndex,
}

impl Stored {
    /// Values of a row of a sparse matrix that are served.
    pub fn row_length(&self, row: u64) -> u64 {
        self.bounds().map_or(0, |bounds| bounds.length(row as usize))
    }

    /// Where each served row begins, in a sparse matrix.
    pub fn bounds(&self) -> Option<&Bounds> {
        self.retained_bounds.as_ref().or_else(|| self.stored_bounds())
    }

    fn stored_bounds(&self) -> Option<&Bounds> {
        match &self.matrix {
            Matrix::Sparse { indptr, .. } => Some(indptr),
            Matrix::Dense { .. } => None,
        }
    }

    /// Files of the index directory that it is read from.
    pub fn mappings(&self) -> impl Iterator<Item = &Arc<Mapping>> {
        let bounds =
            [self.retained_bounds.as_ref(), self.stored_bounds()].into_iter().flatten().filter_map(Bounds::mapping);
        self.row_index.mapping().into_iter().chain(bounds)
    }

    pub fn is_mapped(&self) -> bool {
        self.mappings().next().is_some()
    }

    /// Values of all rows that are served.
    pub fn served(&self, rows: u64, element: &Element) -> u64 {
        match &self.retained_bounds {
            Some(retained_bounds) => retained_bounds.last().copied().unwrap_or_default(),
            None if self.matrix.is_sparse() => self.matrix.stored(),
            None => rows.saturating_mul(element.n_vars()),
        }
    }

    /// Whether rows must be seen whole before they are placed: some of their values go, or depend on others, or take more than
    /// one step to their dtype. `to`: as what values are written; `dense`: as dense rows.
    pub fn needs_row_pass(&self, element: &Element, to: Dtype, dense: bool) -> bool {
        let steps = to != element.kind.dtype() && self.matrix.dtype() != element.kind.dtype();
        // Arithmetic is done in the image where it can be.
        let computes = !element.arithmetic.is_none()
            && (to != element.computed || (!element.is_sparse() && self.columns.map.is_some()));
        self.retained_bounds.is_some() || (dense && element.is_sparse()) || steps || computes
    }

    /// The dtype of its values in the collection: what it lacks is NaN in dense rows, which integers cannot hold.
    fn dtype(&self) -> Dtype {
        let dtype = self.matrix.dtype();
        if self.matrix.is_sparse() || self.columns.missing == 0 || dtype.is_float() { dtype } else { Dtype::F64 }
    }
}

/// Opens an element in every store and adds each store's part of it. `is_x`: what options ask of X is for this one.
pub fn open(
    stores: &mut [Store],
    name: &str,
    is_x: bool,
    selection: &Selection,
    counters: &Counters,
) -> Result<Element, CollectionError> {
    let mut matrices: Vec<(Matrix, RowIndex)> = Vec::with_capacity(stores.len());
    let mut names: Vec<genes::Named> = Vec::with_capacity(stores.len());
    // obs columns are held with X.
    let obs = if is_x { selection.obs_wanted() } else { Some(Vec::new()) };
    for store in &*stores {
        selection.visits(store.container.name());
        let (matrix, row_index) = matrix(&*store.container, name, obs.as_deref(), selection, counters)?;
        if !is_x && matrix.rows() != store.rows {
            let cause = format!("{name} has {} rows, but obs has {}", matrix.rows(), store.rows);
            return Err(mismatch(&*store.container, cause));
        }
        if let Some((first, _)) = matrices.first() {
            same_kind(&*store.container, name, stores[0].container.name(), first, &matrix)?;
        }
        let here = gene_names(&*store.container, name, &matrix, counters)?;
        let known = names.iter().find(|(_, known)| **known == here).map(|(_, known)| known.clone());
        names.push((store.container.name().to_owned(), known.unwrap_or_else(|| Arc::new(here))));
        matrices.push((matrix, row_index));
    }
    let (mut genes, mut columns) =
        genes::align(&names, selection.join).map_err(|(store, cause)| CollectionError::Mismatch { store, cause })?;
    let is_empty = matrices.first().is_some_and(|(first, _)| first.row_shape() == [0]);
    if selection.join == Join::Inner && genes.is_empty() && !is_empty {
        return Err(CollectionError::Option("--join inner: no gene is in all stores".to_owned()));
    }
    // raw has genes of its own, and the columns of obsm are no genes.
    let has_genes = name == "X" || name.starts_with("layers/") || (is_x && name == "raw/X");
    match &selection.genes {
        Some(chosen) if has_genes => {
            let first = stores.first().map(|store| &*store.container);
            (genes, columns) = genes::choose(chosen, first, var_of(name), &genes, columns, counters)?;
        }
        Some(_) if is_x => {
            return Err(CollectionError::Option(format!("--genes: the columns of {name} are no genes")));
        }
        _ => {}
    }
    let var = match (stores.first(), columns.first()) {
        (Some(first), Some(map)) if is_x && has_genes => {
            var::columns(&*first.container, var_of(name), map, genes.len(), counters)
        }
        _ => Vec::new(),
    };
    let var = Arc::new(var);
    let mut dtype: Option<Dtype> = None;
    let mut row = matrices.first().map(|(first, _)| first.row_shape()).unwrap_or_default();
    let is_sparse = matrices.first().is_some_and(|(first, _)| first.is_sparse());
    for ((store, (matrix, row_index)), columns) in stores.iter_mut().zip(matrices).zip(columns) {
        let mut part = Stored { matrix, columns, retained_bounds: None, row_index };
        if is_sparse && part.columns.extra > 0 && selection.visit.is_none() {
            part.retained_bounds =
                Some(retained_bounds::count(&*store.container, &part, name, &selection.index, counters)?);
        }
        dtype = Some(dtype.map_or(part.dtype(), |dtype| dtype.promote(part.dtype())));
        store.elements.push(part);
    }
    let stored = dtype.unwrap_or(Dtype::F32);
    let (arithmetic, asked) =
        if is_x { (selection.arithmetic, selection.dtype) } else { (Arithmetic::default(), None) };
    let computed = if arithmetic.is_none() { asked.unwrap_or(stored) } else { Arithmetic::dtype(stored, asked) };
    let dtype = asked.unwrap_or(computed);
    let kind = if is_sparse {
        fits_index(name, genes.len() as u64, selection.index_dtype)?;
        MatrixKind::Sparse { dtype }
    } else {
        if row.len() == 1 {
            row = vec![genes.len() as u64];
        }
        MatrixKind::Dense { dtype, row }
    };
    Ok(Element { name: name.to_owned(), kind, genes, var, arithmetic, computed })
}

/// The matrix of one store, and its row index. The probe gets neither a transpose nor row bounds of a large matrix: the
/// mount makes and reads these without the library.
fn matrix(
    store: &dyn Container,
    name: &str,
    obs: Option<&[String]>,
    selection: &Selection,
    counters: &Counters,
) -> Result<(Matrix, RowIndex), ArrayError> {
    if selection.visit.is_some() {
        let matrix = match Matrix::open_by_column(store, name, counters)? {
            // Its shape is that of the transpose, which is what the mount makes of it.
            Some(Matrix::Sparse { data, indices, indptr, rows, columns }) => {
                Matrix::Sparse { data, indices, indptr, rows: columns, columns: rows }
            }
            Some(dense) => dense,
            None => Matrix::look(store, name, counters)?,
        };
        return Ok((matrix, RowIndex::looking()));
    }
    let row_index = RowIndex::open(store, name, obs, &selection.index, counters);
    let matrix = Matrix::open_by_row(store, name, &selection.index, &row_index, counters)?;
    Ok((matrix, row_index))
}

/// Column numbers below `columns` in the dtype that was asked for.
fn fits_index(name: &str, columns: u64, asked: Option<Dtype>) -> Result<(), CollectionError> {
    let most = match asked {
        Some(Dtype::U16) => 1 << 16,
        Some(Dtype::I32) => 1 << 31,
        _ => return Ok(()),
    };
    if columns <= most {
        return Ok(());
    }
    let dtype = asked.map_or("", Dtype::name);
    Err(CollectionError::Option(format!(
        "--index-dtype: {name} has {columns} columns, and {dtype} does not hold column number {}; {most} are the most",
        columns - 1
    )))
}

/// The dataframe that names the matrix's columns.
fn var_of(name: &str) -> &'static str {
    if name.starts_with("raw/") { "raw/var" } else { "var" }
}

/// Columns of an obsm matrix: the most that are named by number.
const MOST_NUMBERED: u64 = 1 << 26;

/// Names of the matrix's columns: genes for X and layers, raw's genes for raw/X, numbers for obsm.
fn gene_names(
    store: &dyn Container,
    name: &str,
    matrix: &Matrix,
    counters: &Counters,
) -> Result<Vec<String>, CollectionError> {
    let row = matrix.row_shape();
    if name.starts_with("obsm/") {
        // Named one by one: a shape that lies would fill the memory with names.
        if row[0] > MOST_NUMBERED {
            return Err(mismatch(store, format!("{name} has {} columns; at most {MOST_NUMBERED} are served", row[0])));
        }
        return Ok((0..row[0]).map(|column| column.to_string()).collect());
    }
    let var = var_of(name);
    let names = DataFrame::open(store, var)?.names(counters)?;
    if names.len() as u64 != row[0] {
        return Err(mismatch(store, format!("{name} has {} columns, but {var} names {}", row[0], names.len())));
    }
    Ok(names)
}

/// Both sparse or both dense, and images or embeddings of one shape. How many genes there are is for the alignment to
/// judge.
fn same_kind(
    store: &dyn Container,
    name: &str,
    first_store: &str,
    first: &Matrix,
    matrix: &Matrix,
) -> Result<(), CollectionError> {
    let without = if name == "X" { "mount them apart" } else { "mount them apart, or leave it out" };
    if first.is_sparse() != matrix.is_sparse() {
        let kind = |matrix: &Matrix| if matrix.is_sparse() { "sparse" } else { "dense" };
        let cause = format!("its {name} is {}, but that of {first_store} is {}", kind(matrix), kind(first));
        return Err(mismatch(store, format!("{cause}; {without}")));
    }
    let (a, b) = (first.row_shape(), matrix.row_shape());
    if a != b && (a.len() > 1 || b.len() > 1 || name.starts_with("obsm/")) {
        let cause = format!("rows of its {name} have shape {b:?}, but those of {first_store} {a:?}");
        return Err(mismatch(store, format!("{cause}; {without}")));
    }
    Ok(())
}

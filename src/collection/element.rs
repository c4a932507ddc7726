//! An element of the collection (X, or a further matrix), and each store's part of it.
//!
//! X and the others have the same type, so that every rule (alignment of genes, promotion of dtypes, row counts) holds for all of them;
//! what options change for X alone (arithmetic, dtype) are properties of its element.

mod open;
mod retained_bounds;

use std::sync::Arc;

use crate::anndata::bytes::Bounds;
use crate::anndata::column::Column;
use crate::anndata::mapping::Mapping;
use crate::anndata::matrix::Matrix;
use crate::anndata::names::MatrixName;
use crate::anndata::row_index::RowIndex;
use crate::array::Dtype;
use crate::array::cast::cast;
use crate::number::as_usize;

use super::genes::ColumnMap;
use super::tokens::Tokens;
pub use open::open;

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

/// Arithmetic on the values of each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Arithmetic {
    /// Scale each row to this total; the sum is over all stored values, including those of genes that are left out.
    pub normalize: Option<f64>,
    /// Then replace each value by ln(1 + value).
    pub log1p: bool,
}

impl Arithmetic {
    pub fn is_none(&self) -> bool {
        self.normalize.is_none() && !self.log1p
    }

    /// The dtype of the computation: float64 if the stored or the requested dtype is, else float32.
    pub fn dtype(stored: Dtype, asked: Option<Dtype>) -> Dtype {
        if stored == Dtype::F64 || asked == Some(Dtype::F64) { Dtype::F64 } else { Dtype::F32 }
    }
}

/// A matrix as it is served.
#[derive(Clone, Debug)]
pub struct Element {
    pub name: MatrixName,
    pub kind: MatrixKind,
    /// Names of its columns.
    pub genes: Arc<Vec<String>>,
    /// Columns of var, in the order of genes; for X only.
    pub var: Arc<Vec<Column>>,
    pub arithmetic: Arithmetic,
    /// If set, rows are tokens: column numbers are tokens, and values what goes with them.
    pub tokens: Option<Arc<Tokens>>,
    /// The dtype of the computation; without arithmetic, the served dtype.
    pub computed: Dtype,
    /// Whether dense rows have 0 instead of NaN for genes that a store lacks.
    pub absent_is_zero: bool,
    /// Requested genes that no store has.
    pub absent: Vec<String>,
}

impl Element {
    /// An element that is served as it is stored.
    pub fn plain(name: MatrixName, kind: MatrixKind, genes: Arc<Vec<String>>) -> Element {
        let computed = kind.dtype();
        Element {
            name,
            kind,
            genes,
            var: Default::default(),
            arithmetic: Arithmetic::default(),
            tokens: None,
            computed,
            absent_is_zero: false,
            absent: Vec::new(),
        }
    }

    /// The value of a dense row for a gene that its store lacks.
    pub fn lacking(&self, dtype: Dtype) -> Vec<u8> {
        let mut element = vec![0; dtype.size()];
        // Other dtypes than floats lack genes only if absent ones are zero: see `Stored::dtype`.
        if !self.absent_is_zero {
            cast(Dtype::F64, dtype, &f64::NAN.to_le_bytes(), &mut element);
        }
        element
    }

    pub fn is_sparse(&self) -> bool {
        matches!(self.kind, MatrixKind::Sparse { .. })
    }

    /// Columns of a sparse matrix, or size of the token vocabulary; elements of a dense row.
    pub fn n_vars(&self) -> u64 {
        match (&self.kind, &self.tokens) {
            (MatrixKind::Sparse { .. }, Some(tokens)) => tokens.vocabulary(),
            (MatrixKind::Sparse { .. }, None) => self.genes.len() as u64,
            (MatrixKind::Dense { row, .. }, _) => row.iter().product(),
        }
    }
}

/// One store's part of an element.
pub struct Stored {
    pub matrix: Matrix,
    /// Maps the columns of the store to those of the collection.
    pub columns: ColumnMap,
    /// Bounds of the served values of each row; `None` where all stored values are served.
    pub retained_bounds: Option<Bounds>,
    /// Its row bounds, and for X obs columns, that are mapped from the index directory.
    pub row_index: RowIndex,
}

impl Stored {
    /// The number of served values of a row of a sparse matrix.
    pub fn row_length(&self, row: u64) -> u64 {
        self.bounds().map_or(0, |bounds| bounds.length(as_usize(row)))
    }

    /// Bounds of the served values of each row of a sparse matrix.
    pub fn bounds(&self) -> Option<&Bounds> {
        self.retained_bounds.as_ref().or_else(|| self.stored_bounds())
    }

    fn stored_bounds(&self) -> Option<&Bounds> {
        match &self.matrix {
            Matrix::Sparse { indptr, .. } => Some(indptr),
            Matrix::Dense { .. } => None,
        }
    }

    /// The files of the index directory that it is mapped from.
    pub fn mappings(&self) -> impl Iterator<Item = &Arc<Mapping>> {
        let bounds =
            [self.retained_bounds.as_ref(), self.stored_bounds()].into_iter().flatten().filter_map(Bounds::mapping);
        self.row_index.mapping().into_iter().chain(bounds)
    }

    pub fn is_mapped(&self) -> bool {
        self.mappings().next().is_some()
    }

    /// The number of served values of all rows.
    pub fn served(&self, rows: u64, element: &Element) -> u64 {
        match &self.retained_bounds {
            _ if !element.is_sparse() => rows.saturating_mul(element.n_vars()),
            Some(retained_bounds) => retained_bounds.last().copied().unwrap_or_default(),
            None if self.matrix.is_sparse() => self.matrix.stored(),
            None => rows.saturating_mul(element.n_vars()),
        }
    }

    /// Whether rows must be decoded as a whole before they are written (`batch::row`): some values are left out, or depend on others, or
    /// take more than one conversion. `to`: the dtype to write; `dense`: whether to write dense rows.
    pub fn needs_row_pass(&self, element: &Element, to: Dtype, dense: bool) -> bool {
        let steps = to != element.kind.dtype() && self.matrix.dtype() != element.kind.dtype();
        // Otherwise arithmetic can be done in place, in the image.
        let computes = !element.arithmetic.is_none()
            && (to != element.computed || (!element.is_sparse() && self.columns.map.is_some()));
        self.retained_bounds.is_some() || (dense && self.matrix.is_sparse()) || steps || computes
    }

    /// The dtype that the store's values need: a float where dense rows have NaN for genes that the store lacks.
    pub fn dtype(&self, absent_is_zero: bool) -> Dtype {
        let dtype = self.matrix.dtype();
        let holds = absent_is_zero || self.matrix.is_sparse() || self.columns.missing == 0;
        if holds || dtype.is_float() { dtype } else { Dtype::F64 }
    }
}

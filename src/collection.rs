//! Many stores, one table of rows 0..n.

use crate::anndata::column::Column;
use crate::array::Dtype;

/// What X (or the element chosen with `--x`) is.
#[derive(Clone, Debug, PartialEq)]
pub enum MatrixKind {
    /// CSR with values of `dtype`.
    Sparse { dtype: Dtype },
    /// Dense rows of shape `row` (`[n_vars]` for a matrix).
    Dense { dtype: Dtype, row: Vec<u64> },
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

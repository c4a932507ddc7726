//! A matrix of a store, with CSR or dense rows.
//!
//! Opening checks what is cheap: shapes, lengths, row bounds. Column numbers are checked when they are served.

use crate::array::cast::cast;
use crate::array::cost::ReadCost;
use crate::array::{Array, ArrayError, Container, Dtype, constant};
use crate::number::as_usize;

use super::bytes::Bounds;
use super::{layout, matrices};

/// Rows of numbers.
pub enum Matrix {
    /// Compressed sparse rows.
    Sparse {
        data: Array,
        indices: Array,
        /// The start of each row in `data` and `indices`, and the end: rows + 1 numbers, never decreasing.
        indptr: Bounds,
        rows: u64,
        columns: u64,
    },
    /// Dense rows; the shape is [rows, ...].
    Dense { array: Array },
}

impl Matrix {
    /// Whether a store has such an element, of any kind.
    pub fn is_there(store: &dyn Container, element: &str) -> Result<bool, ArrayError> {
        let located = layout::located(store, element)?;
        Ok(layout::is_there(store, &located)? || matrices(store)?.iter().any(|there| there.path() == element))
    }

    /// A substitute for a matrix that a store lacks: rows without values, or of NaN. `columns` is the shape of a row; `dtype` must be
    /// a float if it is dense.
    pub fn absent(
        store: &dyn Container,
        element: &str,
        sparse: bool,
        dtype: Dtype,
        rows: u64,
        columns: &[u64],
    ) -> Matrix {
        let name = store.name();
        if sparse {
            let nothing = |dtype| constant::in_memory(name, element, dtype, vec![0], Vec::new());
            let bounds = vec![0; usize::try_from(rows).unwrap_or(usize::MAX).saturating_add(1)];
            return Matrix::Sparse {
                data: nothing(dtype),
                indices: nothing(Dtype::I32),
                indptr: bounds.into(),
                rows,
                columns: columns.iter().product(),
            };
        }
        let mut nan = vec![0; dtype.size()];
        cast(Dtype::F64, dtype, &f64::NAN.to_le_bytes(), &mut nan);
        let shape = std::iter::once(rows).chain(columns.iter().copied()).collect();
        Matrix::Dense { array: constant::filled(name, element, dtype, shape, nan) }
    }

    pub fn rows(&self) -> u64 {
        match self {
            Matrix::Sparse { rows, .. } => *rows,
            Matrix::Dense { array } => array.shape[0],
        }
    }

    /// Shape of one row: `[columns]` for a sparse or 2-D matrix.
    pub fn row_shape(&self) -> Vec<u64> {
        match self {
            Matrix::Sparse { columns, .. } => vec![*columns],
            Matrix::Dense { array } => array.shape[1..].to_vec(),
        }
    }

    pub fn dtype(&self) -> Dtype {
        match self {
            Matrix::Sparse { data, .. } => data.dtype,
            Matrix::Dense { array } => array.dtype,
        }
    }

    pub fn is_sparse(&self) -> bool {
        matches!(self, Matrix::Sparse { .. })
    }

    /// Stored values: nnz, or all elements of a dense matrix.
    pub fn stored(&self) -> u64 {
        match self {
            Matrix::Sparse { data, .. } => data.shape[0],
            Matrix::Dense { array } => array.shape.iter().product(),
        }
    }

    /// Adds the cost of reading rows, given in ascending order.
    pub fn add_cost(&self, rows: impl Iterator<Item = u64>, cost: &mut ReadCost) {
        match self {
            Matrix::Sparse { indptr, .. } => {
                let runs: Vec<(u64, u64)> =
                    rows.map(|row| (indptr[as_usize(row)], indptr[as_usize(row) + 1])).collect();
                self.arrays().into_iter().for_each(|array| cost.runs(array, &runs));
            }
            Matrix::Dense { array } => cost.rows(array, rows),
        }
    }

    /// The arrays to read rows from.
    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            Matrix::Sparse { data, indices, .. } => vec![data, indices],
            Matrix::Dense { array } => vec![array],
        }
    }
}

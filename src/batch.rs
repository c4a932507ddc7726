//! A batch: which rows it holds, and where each field's bytes go in an image.
//!
//! Layout first, scatter second: row lengths alone give the exact place of every field, so decoded rows are copied
//! straight into the bytes that are served.

pub mod dense;
pub mod fill;
pub mod scatter;
pub mod select;

use crate::array::Dtype;
use crate::collection::{MatrixKind, Table};

/// One batch before its data is read.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    pub table: &'a Table,
    /// Global row numbers, in served order.
    pub rows: &'a [u64],
    /// Stored values of these rows (sparse X), from the row lengths alone.
    pub nnz: u64,
    pub epoch: u64,
    /// Number of the batch in its epoch.
    pub index: u64,
}

impl Batch<'_> {
    /// The dtype of `indices` and `indptr`: i32, and i64 only where a number would not fit.
    pub fn index_dtype(&self) -> Dtype {
        if self.nnz.max(self.table.n_vars()) > i32::MAX as u64 { Dtype::I64 } else { Dtype::I32 }
    }

    /// Shape of X: rows, then the shape of one row.
    pub fn shape(&self) -> Vec<u64> {
        let rows = self.rows.len() as u64;
        match &self.table.matrix {
            MatrixKind::Sparse { .. } => vec![rows, self.table.n_vars()],
            MatrixKind::Dense { row, .. } => std::iter::once(rows).chain(row.iter().copied()).collect(),
        }
    }
}

/// A part of a batch that is filled from the collection, not written by the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Values of a sparse X.
    Data,
    /// Column numbers of a sparse X.
    Indices,
    /// Row bounds of a sparse X: `rows + 1` numbers.
    Indptr,
    /// X as dense rows.
    Dense,
    /// Global row numbers, i64.
    Row,
    /// Global row numbers as decimal text, zero bytes after it.
    RowName,
    /// obs column by its place in `Table::columns`: codes, numbers or text.
    Column(usize),
    /// The mask of a nullable obs column.
    Mask(usize),
}

/// How a field's elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repr {
    /// Numbers, converted from the collection's dtype where it differs.
    Number(Dtype),
    /// Text of so many code points of 4 bytes each, little-endian (numpy `<U`), zeros after it.
    Ucs4(usize),
    /// Text of so many bytes of UTF-8, zeros after it.
    Utf8(usize),
}

impl Repr {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Repr::Number(dtype) => dtype.size(),
            Repr::Ucs4(chars) => 4 * chars,
            Repr::Utf8(bytes) => bytes,
        }
    }
}

/// Where a field lies in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub field: Field,
    pub repr: Repr,
    /// First byte in the image.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// The exact layout of one image, known before any data is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Bytes of the whole file.
    pub size: u64,
    pub spans: Vec<Span>,
}

impl Layout {
    /// The span of a field, if the format has it.
    pub fn span(&self, field: Field) -> Option<&Span> {
        self.spans.iter().find(|span| span.field == field)
    }
}

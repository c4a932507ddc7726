//! A batch: which rows it holds, and where each field's bytes go in an image.
//!
//! Layout first, scatter second: row lengths alone give the exact place of every field, so decoded rows are copied
//! straight into the bytes that are served.

pub mod arithmetic;
pub mod dense;
pub mod fetch;
pub mod fill;
pub mod row;
pub mod scatter;
pub mod select;
pub mod tokens;

use crate::array::Dtype;
use crate::collection::Table;
use crate::collection::element::{Element, MatrixKind};

pub use fetch::FetchShape;

/// One batch before its data is read: what layouts follow from.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    pub table: &'a Table,
    /// Global row numbers, in served order.
    pub rows: &'a [u64],
    /// Which rows only fill a set up ([`Batch::number`]); empty where none does.
    pub padding: &'a [bool],
    /// Values of these rows in each element of the table (0 for dense ones), from the row lengths alone.
    pub nnz: &'a [u64],
    /// Values of each single row in each element.
    pub lengths: Lengths<'a>,
    pub epoch: u64,
    /// Number of the batch in its epoch.
    pub index: u64,
    /// The rows of the fetch in the table's companions, and the batch's place there.
    pub companions: &'a [FetchShape],
    pub place: usize,
    /// Of a modality: whose rows these are.
    pub joined: Joined<'a>,
    /// Of neighbours: the edges of the batch that they stand beside.
    pub edges: Edges<'a>,
}

/// Edges among the rows of a batch and those beside them, by their places.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edges<'a> {
    pub from: &'a [i64],
    pub to: &'a [i64],
    pub weights: &'a [u8],
}

/// Which rows of a batch have one in a modality.
#[derive(Clone, Copy, Debug, Default)]
pub struct Joined<'a> {
    /// One for each row of the batch that the modality stands beside; empty: all have.
    pub has: &'a [bool],
    /// What the modality's rows are called; empty: their own numbers.
    pub names: &'a [i64],
}

/// Values of each row of a batch, element by element.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lengths<'a> {
    /// For each element the values of every row of a whole fetch, in served order; an empty list for a dense element.
    pub of_fetch: &'a [Vec<u64>],
    /// Where the batch begins among these rows, and where it ends.
    pub start: usize,
    pub end: usize,
}

impl<'a> Batch<'a> {
    /// Batch 0 of epoch 0 of a table, without rows.
    pub fn new(table: &'a Table) -> Batch<'a> {
        let (lengths, joined, edges) = (Lengths::default(), Joined::default(), Edges::default());
        Batch {
            table,
            rows: &[],
            padding: &[],
            nnz: &[],
            lengths,
            epoch: 0,
            index: 0,
            companions: &[],
            place: 0,
            joined,
            edges,
        }
    }

    /// What stands beside the rows: 0 are the rows themselves, 1 the first of the table's companions. Without rows if there is
    /// no such companion.
    pub fn companion(&self, number: usize) -> Batch<'a> {
        let Some(before) = number.checked_sub(1) else { return *self };
        match (self.table.companions.get(before), self.companions.get(before)) {
            (Some(companion), Some(shape)) => {
                Batch { epoch: self.epoch, index: self.index, ..shape.batch(&companion.table, self.place) }
            }
            (Some(companion), None) => Batch { epoch: self.epoch, index: self.index, ..Batch::new(&companion.table) },
            (None, _) => Batch { rows: &[], ..*self },
        }
    }

    /// The row number that is served for a place of the batch: the global one, or -1 where a row only fills a set up.
    pub fn number(&self, at: usize) -> i64 {
        if self.padding.get(at).is_some_and(|&filling| filling) { -1 } else { self.rows[at] as i64 }
    }

    /// The same of all places.
    pub fn numbers(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.rows.len()).map(|at| self.number(at))
    }

    /// What each row is called: its number, or in a modality that of the row that it stands beside.
    pub fn names(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.rows.len()).map(|at| self.joined.names.get(at).copied().unwrap_or_else(|| self.number(at)))
    }

    /// The number of values of each row of the batch in a sparse element, in served order; empty for a dense element.
    pub fn lengths(&self, element: usize) -> &'a [u64] {
        let Lengths { of_fetch, start, end } = self.lengths;
        of_fetch.get(element).and_then(|lengths| lengths.get(start..end)).unwrap_or_default()
    }

    /// An element of the table.
    pub fn element(&self, element: usize) -> &Element {
        &self.table.elements[element]
    }

    /// The dtype of `indices`: the one asked for, else i32, and i64 only where a number would not fit.
    pub fn index_dtype(&self, element: usize) -> Dtype {
        self.table.index_dtype.unwrap_or_else(|| self.fitting(element))
    }

    /// The dtype of `indptr`: that of `indices`, but wide enough, as scipy has it.
    pub fn bounds_dtype(&self, element: usize) -> Dtype {
        if self.table.index_dtype == Some(Dtype::I64) { Dtype::I64 } else { self.fitting(element) }
    }

    fn fitting(&self, element: usize) -> Dtype {
        let most = self.nnz.get(element).copied().unwrap_or(0).max(self.element(element).n_vars());
        if most > i32::MAX as u64 { Dtype::I64 } else { Dtype::I32 }
    }

    /// Shape of an element: rows, then the shape of one row.
    pub fn shape(&self, element: usize) -> Vec<u64> {
        let rows = self.rows.len() as u64;
        let element = self.element(element);
        match &element.kind {
            MatrixKind::Sparse { .. } => vec![rows, element.n_vars()],
            MatrixKind::Dense { row, .. } => std::iter::once(rows).chain(row.iter().copied()).collect(),
        }
    }
}

/// A part of a batch that is filled from the collection, not written by the format. Matrices by their place in
/// `Table::elements`: 0 is X.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Values of a sparse matrix.
    Data(usize),
    /// Column numbers of a sparse matrix.
    Indices(usize),
    /// Row bounds of a sparse matrix: `rows + 1` numbers.
    Indptr(usize),
    /// A matrix as dense rows.
    Dense(usize),
    /// How many values each row of a sparse matrix has.
    Length(usize),
    /// Global row numbers, i64.
    Row,
    /// What rows are called ([`Batch::names`]) as decimal text, zero bytes after it.
    RowName,
    /// Of a modality: whether each row of the batch that it stands beside has a row of it.
    Has,
    /// Of a modality: which of its rows in the batch each row has, from 1 on; 0: none.
    Place,
    /// Of neighbours: where each edge comes from, then where each leads to.
    EdgeIndex,
    /// Of neighbours: the weight of each edge, in its own dtype.
    EdgeWeight,
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
    /// Text of a fixed number of code points of 4 bytes each, little-endian (numpy `<U`), zeros after it.
    Ucs4(usize),
    /// Text of a fixed number of bytes of UTF-8, zeros after it.
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
    /// Whose field: 0 is the batch's, 1 its first companion's ([`Batch::companion`]).
    pub companion: usize,
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
    /// The span of a field of the batch (0) or a companion, if the format has it.
    pub fn span(&self, companion: usize, field: Field) -> Option<&Span> {
        self.spans.iter().find(|span| (span.companion, span.field) == (companion, field))
    }
}

//! A batch: which rows it holds, and where each field's bytes go in an image.
//!
//! Layout first, scatter second: row lengths alone give the exact offset of every field, so decoded rows are copied straight into the
//! bytes that are served.

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

/// One batch before its data is read: the input of [`Layout`]s.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    pub table: &'a Table,
    /// Global row numbers, in served order.
    pub rows: &'a [u64],
    /// Which rows only pad a set ([`Batch::number`]); empty where none does.
    pub padding: &'a [bool],
    /// Values of the batch in each element of the table, from the row lengths alone; 0 for dense elements.
    pub nnz: &'a [u64],
    /// Values of each row in each element.
    pub lengths: Lengths<'a>,
    pub epoch: u64,
    /// Number of the batch in its epoch.
    pub index: u64,
    /// The rows of the fetch in each of the table's companions, and the batch's place in the fetch.
    pub companions: &'a [FetchShape],
    pub place: usize,
    /// For a modality: which rows of the batch have a row in it.
    pub joined: Joined<'a>,
    /// For neighbours: edges between rows of the batch and their neighbours.
    pub edges: Edges<'a>,
}

/// Edges between rows of a batch and its neighbours, by their positions there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edges<'a> {
    pub from: &'a [i64],
    pub to: &'a [i64],
    pub weights: &'a [u8],
}

/// For a modality: which rows of the batch it belongs to have a row in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Joined<'a> {
    /// One flag for each row of that batch; empty: all have one.
    pub has: &'a [bool],
    /// Row numbers to serve for the modality's rows; empty: the global numbers in its own table.
    pub names: &'a [i64],
}

/// The number of values of each row of a batch, by element.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lengths<'a> {
    /// For each element, the values of every row of the fetch, in served order; empty for a dense element.
    pub of_fetch: &'a [Vec<u64>],
    /// The batch's range of these rows.
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

    /// The batch of a companion: 0 is the batch itself, 1 that of the table's first companion. Without rows if there is no such
    /// companion.
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

    /// The row number to serve at a position of the batch: the global one, or -1 where a row only pads a set.
    pub fn number(&self, at: usize) -> i64 {
        if self.padding.get(at).is_some_and(|&filling| filling) { -1 } else { self.rows[at] as i64 }
    }

    /// [`Batch::number`] at all positions.
    pub fn numbers(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.rows.len()).map(|at| self.number(at))
    }

    /// The number that names each row: its own, or in a modality that of the row it belongs to.
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

    /// The dtype of `indices`: the requested one, else i32, or i64 where a number does not fit.
    pub fn index_dtype(&self, element: usize) -> Dtype {
        self.table.index_dtype.unwrap_or_else(|| self.fitting(element))
    }

    /// The dtype of `indptr`: i64 if that was requested for `indices`, else i32, or i64 where a number does not fit, as in scipy.
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

/// A part of a batch that is filled from the collection, not written by the format. Matrices are named by their position in
/// `Table::elements`; 0 is X.
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
    /// The number of values of each row of a sparse matrix.
    Length(usize),
    /// Global row numbers, i64.
    Row,
    /// The numbers that name rows ([`Batch::names`]), as decimal text padded with zero bytes.
    RowName,
    /// In a modality: whether each row of the batch has a row of it.
    Has,
    /// In a modality: for each row of the batch, the position of its row in the modality's batch, from 1; 0 if it has none.
    Place,
    /// For neighbours: the sources of all edges, then their targets.
    EdgeIndex,
    /// For neighbours: the weight of each edge, in the stored dtype.
    EdgeWeight,
    /// An obs column by its position in `Table::columns`: codes, numbers or text.
    Column(usize),
    /// The mask of a nullable obs column.
    Mask(usize),
}

/// How a field's elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repr {
    /// Numbers, converted from the collection's dtype where it differs.
    Number(Dtype),
    /// Text of a fixed number of code points, 4 bytes each, little-endian (numpy `<U`), padded with zeros.
    Ucs4(usize),
    /// UTF-8 text of a fixed number of bytes, padded with zeros.
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

/// The range of a field in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// 0 for a field of the batch, n for one of its n-th companion ([`Batch::companion`]).
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

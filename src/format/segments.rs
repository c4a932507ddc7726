//! A file that holds all rows of an order, as segments: bytes that are known, and fields that lie across many fetches.
//!
//! Such a file is laid out from its row and value counts alone, so its size is exact before anything is read, and any range
//! of it is served from the few batches whose rows lie there.

use crate::batch::{Field, Repr};
use crate::collection::Table;

/// How much a file of many batches holds.
#[derive(Clone, Copy, Debug)]
pub struct FileShape<'a> {
    pub table: &'a Table,
    pub rows: u64,
    /// Values of these rows in each element of the table (0 for dense ones).
    pub nnz: &'a [u64],
    /// Batches that hold them.
    pub batches: u64,
}

/// What the bytes of a segment are.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// These.
    Bytes(Vec<u8>),
    /// A field of all rows, in order. Row bounds ([`Field::Indptr`]) count from the first row of the file.
    Field(Field, Repr),
}

/// A run of bytes of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    pub start: u64,
    pub len: u64,
    /// The first byte of the field that it holds; 0 for known bytes.
    pub from: u64,
    pub content: Content,
}

/// A whole file. What no segment covers is zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Segments {
    pub size: u64,
    /// In ascending order; they do not overlap. Empty ones are left out.
    pub list: Vec<Segment>,
}

impl Segments {
    pub fn new(size: u64, mut list: Vec<Segment>) -> Segments {
        list.retain(|segment| segment.len > 0);
        list.sort_by_key(|segment| segment.start);
        Segments { size, list }
    }

    /// The fields that it holds, as they are written.
    pub fn fields(&self) -> impl Iterator<Item = (Field, Repr)> + '_ {
        self.list.iter().filter_map(|segment| match segment.content {
            Content::Field(field, repr) => Some((field, repr)),
            Content::Bytes(_) => None,
        })
    }
}

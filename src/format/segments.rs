//! A file of all rows of a sequence, as segments: known bytes, and fields that extend over many fetches.
//!
//! It is laid out from row and value counts alone, so its size is exact before anything is read, and any range is served from the few
//! batches
//! that contain it.

use crate::batch::{Field, Repr};
use crate::collection::Table;

/// The counts of a file of many batches.
#[derive(Clone, Copy, Debug)]
pub struct FileShape<'a> {
    pub table: &'a Table,
    pub rows: u64,
    /// Values of these rows in each element of the table (0 for dense ones).
    pub nnz: &'a [u64],
    /// Number of batches.
    pub batches: u64,
}

/// The content of a segment.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Known bytes.
    Bytes(Vec<u8>),
    /// A field of all rows, in order. Row bounds ([`Field::Indptr`]) start at 0 with the first row of the file.
    Field(Field, Repr),
}

/// A byte range of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    pub start: u64,
    pub len: u64,
    /// Offset in the field of its first byte; 0 for known bytes.
    pub from: u64,
    pub content: Content,
}

/// The layout of a whole file. Bytes outside of segments are zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Segments {
    pub size: u64,
    /// Ascending and disjoint. Empty segments are left out.
    pub list: Vec<Segment>,
}

impl Segments {
    pub fn new(size: u64, mut list: Vec<Segment>) -> Segments {
        list.retain(|segment| segment.len > 0);
        list.sort_by_key(|segment| segment.start);
        Segments { size, list }
    }

    /// The fields in it, and their representations.
    pub fn fields(&self) -> impl Iterator<Item = (Field, Repr)> + '_ {
        self.list.iter().filter_map(|segment| match segment.content {
            Content::Field(field, repr) => Some((field, repr)),
            Content::Bytes(_) => None,
        })
    }
}

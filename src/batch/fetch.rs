//! The rows of one fetch in one table, and their lengths: the layouts of its batches follow from these.

use crate::collection::element::Element;
use crate::collection::{Collection, Table};
use crate::plan::FetchRows;

use super::{Batch, Edges, Joined, Lengths};

/// Rows of a fetch with their lengths, element by element.
#[derive(Clone, Debug, Default)]
pub struct FetchShape {
    /// Rows of the table in served order, and the start of each batch.
    rows: FetchRows,
    /// Values of each row, by element; empty for dense elements, whose rows have equal lengths.
    lengths: Vec<Vec<u64>>,
    /// Values of each batch, by element.
    nnz: Vec<u64>,
}

impl FetchShape {
    /// Looks up the lengths of rows of a collection.
    pub fn new(collection: &Collection, rows: FetchRows) -> FetchShape {
        let length = |(number, element): (usize, &Element)| {
            collection.row_lengths(number, if element.is_sparse() { &rows.rows } else { &[] })
        };
        let lengths = collection.table.elements.iter().enumerate().map(length).collect();
        FetchShape::of(rows, lengths)
    }

    /// Rows of known lengths.
    pub fn of(rows: FetchRows, lengths: Vec<Vec<u64>>) -> FetchShape {
        let sum = |lengths: &Vec<u64>, batch: &[usize]| lengths.get(batch[0]..batch[1]).map_or(0, |of| of.iter().sum());
        let nnz = rows.bounds.windows(2).flat_map(|batch| lengths.iter().map(move |lengths| sum(lengths, batch)));
        FetchShape { nnz: nnz.collect(), rows, lengths }
    }

    /// The batch at a place of the fetch, without companions.
    pub fn batch<'a>(&'a self, table: &'a Table, place: usize) -> Batch<'a> {
        let count = self.lengths.len();
        let nnz = &self.nnz[place * count..(place + 1) * count];
        let (start, end) = self.rows.bounds.get(place..place + 2).map_or((0, 0), |batch| (batch[0], batch[1]));
        let lengths = Lengths { of_fetch: &self.lengths, start, end };
        let (rows, padding) = (self.rows.batch(place), self.rows.padding(place));
        let joined = self.rows.joined.as_ref().map(|joined| {
            let (from, to) = joined.bounds.get(place..place + 2).map_or((0, 0), |batch| (batch[0], batch[1]));
            let part = |start, end| joined.names.get(start..end).unwrap_or_default();
            Joined { has: joined.has.get(from..to).unwrap_or_default(), names: part(start, end) }
        });
        let edges = self.rows.edges.as_ref().map(|edges| {
            let (from, to) = edges.bounds.get(place..place + 2).map_or((0, 0), |batch| (batch[0], batch[1]));
            Edges {
                from: edges.from.get(from..to).unwrap_or_default(),
                to: edges.to.get(from..to).unwrap_or_default(),
                weights: edges.weights.get(from * edges.size..to * edges.size).unwrap_or_default(),
            }
        });
        let (joined, edges) = (joined.unwrap_or_default(), edges.unwrap_or_default());
        Batch { rows, padding, nnz, lengths, place, joined, edges, ..Batch::new(table) }
    }
}

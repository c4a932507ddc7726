//! Formats in which each row is a record with its values and labels: names of matrices there, and files of consecutive records.

use crate::array::Dtype;
use crate::batch::{Batch, Field, Layout, Repr, Span};
use crate::collection::Table;
use crate::collection::element::{Element, MatrixKind};
use crate::number::as_usize;

use super::{Format, names};

/// The column with the number of tokens of a row, if X is tokens.
pub const LENGTH: &str = "length";

/// The names of each element's arrays: `input_ids` and `expressions` for tokens, `genes` and `expressions` for a sparse X, `X` for a dense
/// one; further elements have their path as prefix.
pub fn matrices(table: &Table) -> Vec<Vec<String>> {
    let paths = names::elements(table);
    let one = |(number, element): (usize, &Element)| {
        let name = |part: &str| if number == 0 { part.to_owned() } else { format!("{}/{part}", paths[number]) };
        match (element.is_sparse(), number) {
            _ if element.tokens.is_some() => vec![name("input_ids"), name("expressions")],
            (true, _) => vec![name("genes"), name("expressions")],
            (false, 0) => vec!["X".to_owned()],
            (false, _) => vec![paths[number].clone()],
        }
    };
    table.elements.iter().enumerate().map(one).collect()
}

/// Whether rows have a column with their number of tokens.
pub fn has_length(table: &Table) -> bool {
    table.x().tokens.is_some()
}

/// Names that obs columns must not have there.
pub fn taken(table: &Table) -> Vec<String> {
    let length = has_length(table).then(|| LENGTH.to_owned());
    matrices(table).into_iter().flatten().chain(length).collect()
}

/// An array in each row: column numbers or values of an element, or a dense row.
pub struct RowArray {
    pub name: String,
    pub field: Field,
    pub repr: Repr,
    /// The shape of a dense row.
    pub row: Vec<u64>,
}

impl RowArray {
    /// The arrays of a table; `repr` gives the dtype to write, from the field and its dtype.
    pub fn all(table: &Table, repr: impl Fn(Field, Dtype) -> Dtype) -> Vec<RowArray> {
        let mut arrays = Vec::new();
        for (number, (element, names)) in table.elements.iter().zip(matrices(table)).enumerate() {
            let mut push = |name: &String, field, dtype, row: &[u64]| {
                let repr = Repr::Number(repr(field, dtype));
                arrays.push(RowArray { name: name.clone(), field, repr, row: row.to_vec() });
            };
            match &element.kind {
                MatrixKind::Sparse { dtype } => {
                    let index = table.index_dtype.unwrap_or(Dtype::I32);
                    push(&names[0], Field::Indices(number), index, &[]);
                    push(&names[1], Field::Data(number), *dtype, &[]);
                }
                MatrixKind::Dense { dtype, row } => push(&names[0], Field::Dense(number), *dtype, row),
            }
        }
        arrays
    }

    /// Number of its elements in the row at a position of a batch.
    pub fn len(&self, batch: &Batch<'_>, at: usize) -> u64 {
        match self.field {
            Field::Data(element) | Field::Indices(element) => batch.lengths(element).get(at).copied().unwrap_or(0),
            _ => self.row.iter().product(),
        }
    }

    pub fn bytes(&self, batch: &Batch<'_>, at: usize) -> u64 {
        self.len(batch, at) * self.repr.size() as u64
    }
}

/// A file of consecutive records. A record has at least as many bytes as its arrays in the image.
pub trait RowFormat: Send + Sync {
    fn arrays(&self) -> &[RowArray];

    /// Bytes of the record of the row at a position of a batch.
    fn len(&self, batch: &Batch<'_>, at: usize) -> u64;

    /// Appends a record; `values` are the bytes of its arrays.
    fn write(&self, batch: &Batch<'_>, at: usize, values: &[&[u8]], out: &mut Vec<u8>);

    /// The bytes before the records, which have these lengths.
    fn head(&self, _lengths: &[u64]) -> Vec<u8> {
        Vec::new()
    }

    /// Number of zero bytes after the records.
    fn tail(&self) -> u64 {
        0
    }

    /// Maximum size of a file.
    fn most_bytes(&self) -> u64 {
        u64::MAX
    }
}

/// Makes a format of records: the engine fills the arrays one after the other at the end of the image; `finish` moves them to the records.
pub struct Records<R>(pub R);

impl<R: RowFormat> Records<R> {
    fn lengths(&self, batch: &Batch<'_>) -> Vec<u64> {
        (0..batch.rows.len()).map(|at| self.0.len(batch, at)).collect()
    }
}

impl<R: RowFormat> Format for Records<R> {
    fn most_bytes(&self) -> u64 {
        self.0.most_bytes()
    }

    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let lengths = self.lengths(batch);
        let size = self.0.head(&lengths).len() as u64 + lengths.iter().sum::<u64>() + self.0.tail();
        let bytes = |array: &RowArray| (0..batch.rows.len()).map(|at| array.bytes(batch, at)).sum::<u64>();
        let lens: Vec<u64> = self.0.arrays().iter().map(bytes).collect();
        let mut start = size - lens.iter().sum::<u64>();
        let span = |(array, len): (&RowArray, u64)| {
            let span = Span { companion: 0, field: array.field, repr: array.repr, start, len };
            start += len;
            span
        };
        let spans = self.0.arrays().iter().zip(lens).map(span).collect();
        Layout { size, spans }
    }

    fn finish(&self, batch: &Batch<'_>, layout: &Layout, image: &mut [u8]) {
        let first = layout.spans.first().map_or(image.len(), |span| as_usize(span.start));
        let filled = image[first..].to_vec();
        let mut places: Vec<usize> = layout.spans.iter().map(|span| as_usize(span.start) - first).collect();
        let lengths = self.lengths(batch);
        let head = self.0.head(&lengths);
        image[..head.len()].copy_from_slice(&head);
        let (mut at, mut record) = (head.len(), Vec::new());
        for row in 0..batch.rows.len() {
            let values: Vec<&[u8]> = self
                .0
                .arrays()
                .iter()
                .zip(&mut places)
                .map(|(array, place)| {
                    let start = *place;
                    *place += as_usize(array.bytes(batch, row));
                    &filled[start..*place]
                })
                .collect();
            record.clear();
            self.0.write(batch, row, &values, &mut record);
            image[at..][..record.len()].copy_from_slice(&record);
            at += record.len();
        }
        image[at..].fill(0);
    }
}

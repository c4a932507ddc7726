//! `.record.npy`: the tensors of `.npz` as fields of one record with the same names, a structured array without axes (NEP 1).
//!
//! `np.load` returns the record, whose fields are views: there are no members to parse, copy and check one by one, which makes `.npz` slow.
//! numpy limits headers to 10,000 bytes, so tables with very many obs columns have no such files.

use crate::batch::{Batch, Layout, Repr};
use crate::collection::Table;
use crate::number::{as_usize, le16, le32};

use super::Format;
use super::tensor::{Tensor, by_falling_size, sparse_shapes, tensors};

/// Maximum bytes of a header (numpy's `max_header_size`), here including magic number and length.
const MOST_HEADER: usize = 10_000;
/// Bytes of magic number, version and length, in format versions 1 and 3.
const PREFIX: [usize; 2] = [10, 12];
/// Alignment of the data.
const ALIGN: usize = 64;

/// The `.record.npy` format of one table.
struct Record {
    /// Sorted by descending element size, so that all are aligned.
    tensors: Vec<Tensor>,
    /// Sparse elements: number of the companion, index in the table, and the name of the shape.
    shapes: Vec<(usize, usize, String)>,
    /// Whether all names can be encoded in format version 1.
    is_ascii: bool,
}

pub fn open(table: &Table) -> Result<Box<dyn Format>, String> {
    let mut tensors = tensors(table, |chars, _| Repr::Ucs4(chars.max(1)));
    by_falling_size(&mut tensors, table);
    let shapes = sparse_shapes(table).into_iter();
    let mut shapes: Vec<(usize, usize, String)> = shapes.map(|(of, i, name)| (of, i, literal(&name))).collect();
    shapes.sort_unstable();
    for tensor in &mut tensors {
        tensor.name = literal(&tensor.name);
    }
    let is_ascii =
        tensors.iter().map(|tensor| &tensor.name).chain(shapes.iter().map(|(_, _, name)| name)).all(|n| n.is_ascii());
    let record = Record { tensors, shapes, is_ascii };
    let none = vec![0; table.elements.len()];
    let empty = Batch { nnz: &none, ..Batch::new(table) };
    // Assumes 20 digits, the maximum, for numbers of rows and values.
    let longest = record.fields(&empty, |_| vec![u64::MAX]).len() + PREFIX[1] + ALIGN;
    if longest > MOST_HEADER {
        let columns = table.columns.len();
        return Err(format!(
            "with {columns} obs columns its header is longer than numpy reads ({MOST_HEADER} bytes); select fewer with --obs"
        ));
    }
    Ok(Box::new(record))
}

/// A name as a Python literal.
fn literal(name: &str) -> String {
    format!("'{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl Record {
    /// The dictionary of the header; `shape` gives the axes of a tensor.
    fn fields(&self, batch: &Batch<'_>, shape: impl Fn(&Tensor) -> Vec<u64>) -> String {
        let mut text = "{'descr': [".to_owned();
        // Shapes first, as they have the largest elements.
        for (_, _, name) in &self.shapes {
            text.push_str(&format!("({name}, '<i8', (2,)), "));
        }
        for tensor in &self.tensors {
            let axes: String = shape(tensor).iter().map(|axis| format!("{axis},")).collect();
            let descr = match tensor.repr(batch) {
                Repr::Number(dtype) => dtype.npy().to_owned(),
                Repr::Ucs4(chars) => format!("<U{chars}"),
                Repr::Utf8(bytes) => format!("|S{bytes}"),
            };
            text.push_str(&format!("({}, '{descr}', ({axes})), ", tensor.name));
        }
        text.push_str("], 'fortran_order': False, 'shape': (), }");
        text
    }

    fn header(&self, batch: &Batch<'_>) -> Vec<u8> {
        let fields = self.fields(batch, |tensor| tensor.shape(batch).axes().to_vec());
        let prefix = PREFIX[usize::from(!self.is_ascii)];
        let total = (prefix + fields.len() + 1).next_multiple_of(ALIGN);
        let mut header = b"\x93NUMPY".to_vec();
        if self.is_ascii {
            header.extend_from_slice(&[1, 0]);
            header.extend_from_slice(&le16(total - prefix));
        } else {
            header.extend_from_slice(&[3, 0]);
            header.extend_from_slice(&le32(total - prefix));
        }
        header.extend_from_slice(fields.as_bytes());
        header.resize(total - 1, b' ');
        header.push(b'\n');
        header
    }

    /// Offset of the tensors, behind a header of `header` bytes.
    fn start(&self, header: usize) -> u64 {
        (header + 16 * self.shapes.len()) as u64
    }
}

impl Format for Record {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let mut at = self.start(self.header(batch).len());
        let mut spans = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            spans.push(tensor.span(batch, at));
            at += tensor.bytes(batch);
        }
        Layout { size: at, spans }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        let header = self.header(batch);
        image[..header.len()].copy_from_slice(&header);
        let numbers =
            self.shapes.iter().flat_map(|(companion, element, _)| batch.companion(*companion).shape(*element));
        for (number, out) in numbers.zip(image[header.len()..].as_chunks_mut::<8>().0) {
            *out = number.to_le_bytes();
        }
        let mut at = as_usize(self.start(header.len()));
        for tensor in &self.tensors {
            let end = at + as_usize(tensor.bytes(batch));
            tensor.pad(batch, &mut image[at..end]);
            at = end;
        }
    }
}

//! `.npy`: X as one dense C-ordered array (NEP 1, format version 1.0), followed by the rows of X of companions; or its tokens in padded
//! rows.

use crate::array::Dtype;
use crate::batch::{Batch, Field, Layout, Repr, Span};
use crate::collection::Table;
use crate::collection::element::{Element, MatrixKind};
use crate::number::le16;

use super::tensor::{Tensor, tensors};
use super::{Format, names};

/// The `.npy` format.
pub struct Npy;

/// Tokens, in rows of equal length.
struct InputIds(Tensor);

pub fn open(table: &Table) -> Result<Box<dyn Format>, String> {
    names::one_matrix(table)?;
    let alike = |x: &Element| (x.kind.dtype(), row_shape(x)) == (table.x().kind.dtype(), row_shape(table.x()));
    match table.companions.iter().find(|beside| !alike(beside.table.x())) {
        Some(beside) => Err(format!("it is one array, and rows of {} are others than those of X", beside.name)),
        None if table.x().tokens.is_some() && !table.companions.is_empty() => {
            Err("it is one array, and holds no tokens of rows beside those of a batch".to_owned())
        }
        None => match tensors(table, |_, bytes| Repr::Utf8(bytes)).into_iter().find(|_| table.x().tokens.is_some()) {
            Some(tokens) => Ok(Box::new(InputIds(tokens))),
            None => Ok(Box::new(Npy)),
        },
    }
}

/// The shape of a dense row.
fn row_shape(x: &Element) -> Vec<u64> {
    match &x.kind {
        MatrixKind::Sparse { .. } => vec![x.n_vars()],
        MatrixKind::Dense { row, .. } => row.clone(),
    }
}

/// The shape of all rows: the batch's, then those of companions.
fn shape(batch: &Batch<'_>) -> Vec<u64> {
    let mut shape = batch.shape(0);
    let beside = (1..=batch.table.companions.len()).map(|number| batch.companion(number).rows.len() as u64);
    if let Some(rows) = shape.first_mut() {
        *rows += beside.sum::<u64>();
    }
    shape
}

impl Format for Npy {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let dtype = batch.element(0).kind.dtype();
        let mut size = header_len(dtype.npy(), &shape(batch)) as u64;
        let span = |companion: usize| {
            let (start, shape) = (size, batch.companion(companion).shape(0));
            let len = shape.iter().product::<u64>() * dtype.size() as u64;
            size += len;
            Span { companion, field: Field::Dense(0), repr: Repr::Number(dtype), start, len }
        };
        let spans = (0..=batch.table.companions.len()).map(span).collect();
        Layout { size, spans }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        let dtype = batch.element(0).kind.dtype();
        let header = header(dtype.npy(), &shape(batch));
        image[..header.len()].copy_from_slice(&header);
    }
}

impl InputIds {
    /// The header of the array.
    fn header(&self, batch: &Batch<'_>) -> Vec<u8> {
        let descr = match self.0.repr(batch) {
            Repr::Number(dtype) => dtype.npy(),
            _ => Dtype::I32.npy(),
        };
        header(descr, self.0.shape(batch).axes())
    }
}

impl Format for InputIds {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let start = self.header(batch).len() as u64;
        Layout { size: start + self.0.bytes(batch), spans: vec![self.0.span(batch, start)] }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        let header = self.header(batch);
        let (head, tokens) = image.split_at_mut(header.len());
        head.copy_from_slice(&header);
        self.0.pad(batch, tokens);
    }
}

/// The header of an array, padded so that the data are 64-byte aligned, as numpy writes it.
pub fn header(descr: &str, shape: &[u64]) -> Vec<u8> {
    let total = header_len(descr, shape);
    let mut header = Vec::with_capacity(total);
    header.extend_from_slice(b"\x93NUMPY\x01\x00");
    header.extend_from_slice(&le16(total - PREFIX));
    let mut text = format!("{BEFORE_DESCR}{descr}{BEFORE_SHAPE}");
    for (i, n) in shape.iter().enumerate() {
        let separator = if i > 0 { " " } else { "" };
        let comma = if i + 1 < shape.len() || shape.len() == 1 { "," } else { "" };
        text.push_str(&format!("{separator}{n}{comma}"));
    }
    text.push_str(AFTER_SHAPE);
    header.extend_from_slice(text.as_bytes());
    header.resize(total - 1, b' ');
    header.push(b'\n');
    header
}

/// The length of `header`, without making it, as `stat` needs it often.
pub fn header_len(descr: &str, shape: &[u64]) -> usize {
    let digits = |n: &u64| n.checked_ilog10().unwrap_or(0) as usize + 1;
    let separators = match shape.len() {
        0 | 1 => shape.len(),
        axes => 2 * (axes - 1),
    };
    let shape = shape.iter().map(digits).sum::<usize>() + separators;
    let text = BEFORE_DESCR.len() + descr.len() + BEFORE_SHAPE.len() + shape + AFTER_SHAPE.len();
    (PREFIX + text + 1).next_multiple_of(64)
}

/// Magic, version and length.
const PREFIX: usize = 10;
const BEFORE_DESCR: &str = "{'descr': '";
const BEFORE_SHAPE: &str = "', 'fortran_order': False, 'shape': (";
const AFTER_SHAPE: &str = "), }";

#[cfg(test)]
mod tests {
    use super::{header, header_len};

    #[test]
    fn is_as_numpy_writes_it() {
        let text = |header: Vec<u8>| String::from_utf8_lossy(&header[10..]).trim_end().to_owned();
        assert_eq!(text(header("<f4", &[256, 20])), "{'descr': '<f4', 'fortran_order': False, 'shape': (256, 20), }");
        assert_eq!(text(header("|S3", &[])), "{'descr': '|S3', 'fortran_order': False, 'shape': (), }");
        assert_eq!(text(header("<i8", &[7])), "{'descr': '<i8', 'fortran_order': False, 'shape': (7,), }");
        for shape in [&[][..], &[0], &[7], &[256, 20], &[10, 100, 1000], &[u64::MAX, 1]] {
            let header = header("<i8", shape);
            assert_eq!((header.len() % 64, header.len()), (0, header_len("<i8", shape)));
        }
    }
}

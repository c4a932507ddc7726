//! `.npy`: X as one dense C-ordered array (NEP 1, format version 1.0).

use crate::batch::{Batch, Field, Layout, Repr, Span};
use crate::collection::MatrixKind;

use super::Format;

/// The `.npy` format.
pub struct Npy;

impl Format for Npy {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let (MatrixKind::Sparse { dtype } | MatrixKind::Dense { dtype, .. }) = batch.table.matrix;
        let shape = batch.shape();
        let start = header(dtype.npy(), &shape).len() as u64;
        let len = shape.iter().product::<u64>() * dtype.size() as u64;
        let span = Span { field: Field::Dense, repr: Repr::Number(dtype), start, len };
        Layout { size: start + len, spans: vec![span] }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        let (MatrixKind::Sparse { dtype } | MatrixKind::Dense { dtype, .. }) = batch.table.matrix;
        let header = header(dtype.npy(), &batch.shape());
        image[..header.len()].copy_from_slice(&header);
    }
}

/// An array's header, padded so that the data is 64-byte aligned, as numpy writes it.
pub fn header(descr: &str, shape: &[u64]) -> Vec<u8> {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (");
    for (i, n) in shape.iter().enumerate() {
        if i > 0 {
            text.push(' ');
        }
        text.push_str(&n.to_string());
        if i + 1 < shape.len() || shape.len() == 1 {
            text.push(',');
        }
    }
    text.push_str("), }");
    let total = (10 + text.len() + 1).next_multiple_of(64);
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&((total - 10) as u16).to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    header.resize(total - 1, b' ');
    header.push(b'\n');
    header
}

#[cfg(test)]
mod tests {
    use super::header;

    #[test]
    fn is_as_numpy_writes_it() {
        let text = |header: Vec<u8>| String::from_utf8_lossy(&header[10..]).trim_end().to_owned();
        assert_eq!(text(header("<f4", &[256, 20])), "{'descr': '<f4', 'fortran_order': False, 'shape': (256, 20), }");
        assert_eq!(text(header("|S3", &[])), "{'descr': '|S3', 'fortran_order': False, 'shape': (), }");
        assert_eq!(text(header("<i8", &[7])), "{'descr': '<i8', 'fortran_order': False, 'shape': (7,), }");
        assert_eq!(header("<i8", &[7]).len() % 64, 0);
    }
}

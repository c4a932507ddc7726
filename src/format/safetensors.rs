//! `.safetensors`: the tensors of `.npz` under the same names, mapped or read without parsing members.
//!
//! The header is padded to a length that does not depend on the epoch's and batch's number, so that the size follows
//! from the batch's shape. Tensors stand in order of falling element size: every one is aligned.

use serde_json::{Map, Value, json};

use crate::batch::{Batch, Layout, Repr, Span};
use crate::collection::MatrixKind;

use super::{Format, Tensor, tensors};

/// The `.safetensors` format.
pub struct Safetensors;

impl Format for Safetensors {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let tensors = sorted(batch);
        let mut at = 8 + header_len(batch, &tensors) as u64;
        let spans = tensors
            .iter()
            .map(|tensor| {
                let span = Span { field: tensor.field, repr: tensor.repr, start: at, len: tensor.len() };
                at += span.len;
                span
            })
            .collect();
        Layout { size: at, spans }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        let tensors = sorted(batch);
        let len = header_len(batch, &tensors);
        let text = header(batch, &tensors, batch.epoch, batch.index);
        image[..8].copy_from_slice(&(len as u64).to_le_bytes());
        image[8..8 + text.len()].copy_from_slice(text.as_bytes());
        image[8 + text.len()..8 + len].fill(b' ');
    }
}

fn sorted(batch: &Batch<'_>) -> Vec<Tensor> {
    let mut all = tensors(batch, |_, bytes| Repr::Utf8(bytes.max(1)));
    all.sort_by_key(|tensor| match tensor.repr {
        Repr::Number(dtype) => std::cmp::Reverse(dtype.size()),
        _ => std::cmp::Reverse(1),
    });
    all
}

/// Long enough for the longest numbers; a multiple of 64 less the 8 bytes before it.
fn header_len(batch: &Batch<'_>, tensors: &[Tensor]) -> usize {
    (8 + header(batch, tensors, u64::MAX, u64::MAX).len()).next_multiple_of(64) - 8
}

fn header(batch: &Batch<'_>, tensors: &[Tensor], epoch: u64, index: u64) -> String {
    let mut all = Map::new();
    let format = if matches!(batch.table.matrix, MatrixKind::Sparse { .. }) { "csr" } else { "dense" };
    let metadata = json!({
        "batch": index.to_string(),
        "epoch": epoch.to_string(),
        "format": format,
        "shape": format!("{:?}", batch.shape()),
    });
    all.insert("__metadata__".to_owned(), metadata);
    let mut at = 0;
    for tensor in tensors {
        let (dtype, shape) = match tensor.repr {
            Repr::Number(dtype) => (dtype.safetensors(), tensor.shape.clone()),
            // No string type there: one row of UTF-8 bytes a string.
            repr => ("U8", tensor.shape.iter().copied().chain([repr.size() as u64]).collect()),
        };
        let end = at + tensor.len();
        all.insert(tensor.name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    Value::Object(all).to_string()
}

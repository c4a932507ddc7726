//! `.safetensors`: the tensors of `.npz` with the same names; readers map it, or read it without parsing members.
//!
//! The header is padded to a length that does not depend on the numbers of epoch and batch, so that the size follows from the batch's
//! shape.
//! Tensors are sorted by descending element size, so that all are aligned.

use std::fmt::{self, Write};

use crate::batch::{Batch, Layout, Repr};
use crate::collection::Table;
use crate::number::as_usize;

use super::Format;
use super::tensor::{Tensor, by_falling_size, sparse_shapes, tensors};

/// The `.safetensors` format of one table.
pub struct Safetensors {
    tensors: Vec<Tensor>,
    /// `csr`, `dense` or `tokens`.
    kind: &'static str,
    /// Sparse elements except X: number of the companion, index in the table, and the name of the shape in the metadata.
    shapes: Vec<(usize, usize, String)>,
}

pub fn open(table: &Table) -> Result<Box<dyn Format>, String> {
    Ok(Box::new(Safetensors::new(table)))
}

impl Safetensors {
    pub fn new(table: &Table) -> Safetensors {
        let mut tensors = tensors(table, |_, bytes| Repr::Utf8(bytes.max(1)));
        by_falling_size(&mut tensors, table);
        let quoted = |name: String| serde_json::Value::from(name).to_string();
        for tensor in &mut tensors {
            tensor.name = quoted(std::mem::take(&mut tensor.name));
        }
        let kind = match (table.x().is_sparse(), &table.x().tokens) {
            (_, Some(_)) => "tokens",
            (true, None) => "csr",
            (false, None) => "dense",
        };
        let is_told = |companion: usize, i: usize| (companion, i) == (0, 0) && table.modality.is_none();
        let further = sparse_shapes(table).into_iter().filter(|(companion, i, _)| !is_told(*companion, *i));
        let shapes = further.map(|(companion, i, name)| (companion, i, quoted(name))).collect();
        Safetensors { tensors, kind, shapes }
    }

    fn header(&self, batch: &Batch<'_>, epoch: u64, index: u64, out: &mut impl Write) -> fmt::Result {
        write!(out, r#"{{"__metadata__":{{"batch":"{index}","epoch":"{epoch}","format":"{}","shape":"["#, self.kind)?;
        list(&batch.shape(0), out)?;
        out.write_str(r#"]""#)?;
        for (companion, element, name) in &self.shapes {
            write!(out, r#",{name}:"["#)?;
            list(&batch.companion(*companion).shape(*element), out)?;
            out.write_str(r#"]""#)?;
        }
        out.write_char('}')?;
        let mut at = 0;
        for tensor in &self.tensors {
            let span = tensor.span(batch, at);
            let dtype = match span.repr {
                Repr::Number(dtype) => dtype.safetensors(),
                _ => "U8",
            };
            write!(out, r#",{}:{{"dtype":"{dtype}","shape":["#, tensor.name)?;
            list(tensor.shape(batch).axes(), out)?;
            // There is no string type: each string is a row of UTF-8 bytes.
            if !matches!(span.repr, Repr::Number(_)) {
                write!(out, ",{}", span.repr.size())?;
            }
            let start = at;
            at += tensor.bytes(batch);
            write!(out, r#"],"data_offsets":[{start},{at}]}}"#)?;
        }
        out.write_char('}')
    }

    /// The length of the header, enough for the longest numbers. Together with the 8 bytes before it, a multiple of 64.
    fn header_len(&self, batch: &Batch<'_>) -> usize {
        let mut count = TextLength(8);
        // Counting cannot fail.
        let _ = self.header(batch, u64::MAX, u64::MAX, &mut count);
        count.0.next_multiple_of(64) - 8
    }
}

impl Format for Safetensors {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let mut at = 8 + self.header_len(batch) as u64;
        let mut spans = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            spans.push(tensor.span(batch, at));
            at += tensor.bytes(batch);
        }
        Layout { size: at, spans }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        let len = self.header_len(batch);
        let mut text = String::with_capacity(len);
        // Writing to a string cannot fail.
        let _ = self.header(batch, batch.epoch, batch.index, &mut text);
        image[..8].copy_from_slice(&(len as u64).to_le_bytes());
        image[8..8 + text.len()].copy_from_slice(text.as_bytes());
        image[8 + text.len()..8 + len].fill(b' ');
        let mut at = 8 + len;
        for tensor in &self.tensors {
            let end = at + as_usize(tensor.bytes(batch));
            tensor.pad(batch, &mut image[at..end]);
            at = end;
        }
    }
}

/// Counts the bytes of a text.
struct TextLength(usize);

impl Write for TextLength {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

fn list(numbers: &[u64], out: &mut impl Write) -> fmt::Result {
    for (i, number) in numbers.iter().enumerate() {
        write!(out, "{}{number}", if i > 0 { "," } else { "" })?;
    }
    Ok(())
}

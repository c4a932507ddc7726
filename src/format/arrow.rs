//! `.arrow`: an Arrow IPC file of one uncompressed record batch, with buffers at multiples of 64 bytes, so that readers can map it.
//!
//! Each row of the batch is a row: a sparse matrix becomes two list columns (`genes`, `expressions`), a dense one a column of fixed-size
//! lists; the obs columns follow. Everything before the record batch depends only on the table and is made once (`head`).
//!
//! Arrow has types of lists and texts with 32-bit and with 64-bit offsets. Both variants are prepared; a batch uses the second only if
//! it needs wide offsets.

mod columns;
mod head;

use crate::anndata::index::arrow::END;
use crate::array::Dtype;
use crate::batch::{Batch, Layout, Span};
use crate::collection::Table;
use crate::number::as_usize;

use super::Format;
pub use columns::{ArrowColumns, BufferPart, Width, filled_len};
pub use head::{Head, record_batch};

/// Alignment of buffers.
pub const ALIGN: u64 = 64;
/// The magic number at the start of a file, padded.
const BEGIN: &[u8; 8] = b"ARROW1\0\0";

/// The `.arrow` format of one table.
pub struct Arrow {
    narrow: Variant,
    wide: Variant,
}

/// What batches with the same width of offsets share.
struct Variant {
    width: Width,
    columns: ArrowColumns,
    head: Head,
    /// Bytes of the record batch's metadata message.
    message: u64,
}

pub fn open(table: &Table) -> Result<Box<dyn Format>, String> {
    let variant = |width| Variant::new(table, width);
    Ok(Box::new(Arrow { narrow: variant(Width::Narrow)?, wide: variant(Width::Wide)? }))
}

impl Variant {
    fn new(table: &Table, width: Width) -> Result<Variant, String> {
        let columns = ArrowColumns::new(table, width)?;
        let head = Head::new(table, &columns, BEGIN)?;
        let mut variant = Variant { width, columns, head, message: 0 };
        // The length of the message does not depend on the numbers in it.
        let buffers = vec![(0, 1); variant.columns.buffers.len()];
        let nodes = vec![(1, 0); variant.columns.nodes.len()];
        variant.message = record_batch(variant.head.bytes.len(), 1, &nodes, &buffers, ALIGN)?.len() as u64;
        Ok(variant)
    }

    /// Offset and length of each buffer in the body, and the length of the body.
    fn buffers(&self, batch: &Batch<'_>) -> (Vec<(u64, u64)>, u64) {
        let mut at: u64 = 0;
        let buffers = self.columns.buffers.iter().map(|part| {
            let (start, len) = (at, part.len(batch, self.width));
            at = (start + len).next_multiple_of(ALIGN);
            (start, len)
        });
        (buffers.collect(), at)
    }

    /// Offset of the body.
    fn body(&self) -> u64 {
        self.head.bytes.len() as u64 + self.message
    }
}

impl Arrow {
    fn variant(&self, batch: &Batch<'_>) -> &Variant {
        let most = i32::MAX as u64;
        let mut elements = (0..batch.table.elements.len()).filter(|&element| batch.element(element).is_sparse());
        let is_wide = elements.any(|element| batch.bounds_dtype(element) == Dtype::I64)
            || self.narrow.columns.texts().any(|column| column.text_bytes(batch.table, batch.rows) > most);
        if is_wide { &self.wide } else { &self.narrow }
    }
}

impl Format for Arrow {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let variant = self.variant(batch);
        let (buffers, len) = variant.buffers(batch);
        let parts = variant.columns.buffers.iter().zip(buffers);
        let span = |(part, (start, len)): (&BufferPart, (u64, u64))| match *part {
            BufferPart::Filled(field, repr) => {
                Some(Span { companion: 0, field, repr, start: variant.body() + start, len })
            }
            _ => None,
        };
        let spans = parts.filter_map(span).collect();
        Layout { size: variant.body() + len + END.len() as u64 + variant.head.foot_len, spans }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        let variant = self.variant(batch);
        let (buffers, len) = variant.buffers(batch);
        let nodes: Vec<(u64, u64)> = variant
            .columns
            .nodes
            .iter()
            .map(|node| (node.len(batch.rows.len() as u64, batch.nnz), node.missing(batch)))
            .collect();
        let (head, rest) = image.split_at_mut(variant.head.bytes.len());
        head.copy_from_slice(&variant.head.bytes);
        let (message, rest) = rest.split_at_mut(as_usize(variant.message));
        message.fill(0);
        // Succeeds, as a message of the same length was made before.
        let (at, rows) = (variant.head.bytes.len(), batch.rows.len() as u64);
        if let Ok(made) = record_batch(at, rows, &nodes, &buffers, len) {
            message[..made.len()].copy_from_slice(&made);
        }
        let (body, rest) = rest.split_at_mut(as_usize(len));
        let mut end = 0;
        for (part, &(start, len)) in variant.columns.buffers.iter().zip(&buffers) {
            body[end..as_usize(start)].fill(0);
            end = as_usize(start + len);
            part.write(batch, variant.width, &mut body[as_usize(start)..end]);
        }
        body[end..].fill(0);
        let (stop, foot) = rest.split_at_mut(END.len());
        stop.copy_from_slice(&END);
        variant.head.foot(variant.message, len, foot);
    }
}

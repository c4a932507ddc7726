//! Fills the small fields of an image: row numbers, row bounds and obs columns, all from memory.

use crate::anndata::column::Values;
use crate::array::Dtype;

use super::{Batch, Field, Repr, Span};
use crate::array::cast::cast;

/// Fills one span; does nothing for values and column numbers of matrices, which a gather writes.
pub fn fill(batch: &Batch<'_>, span: &Span, out: &mut [u8]) {
    match span.field {
        Field::Data(_) | Field::Indices(_) | Field::Dense(_) => {}
        Field::Indptr(element) => {
            let mut end = 0;
            let ends = std::iter::once(0).chain(batch.lengths(element).iter().map(|length| {
                end += length;
                end
            }));
            numbers(ends, span.repr, out);
        }
        Field::Length(element) => numbers(batch.lengths(element).iter().copied(), span.repr, out),
        Field::Row => numbers(batch.numbers().map(|row| row as u64), span.repr, out),
        Field::RowName => {
            for (row, out) in batch.names().zip(out.chunks_exact_mut(span.repr.size())) {
                text(&row.to_string(), span.repr, out);
            }
        }
        Field::Has if batch.joined.has.is_empty() => out.fill(1),
        Field::Has => batch.joined.has.iter().zip(out).for_each(|(&has, out)| *out = u8::from(has)),
        Field::Place => {
            let (has, mut place) = (batch.joined.has, 0_u32);
            for (at, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let there = has.get(at).copied().unwrap_or(has.is_empty());
                place += u32::from(there);
                *out = if there { place } else { 0 }.to_le_bytes();
            }
        }
        Field::EdgeIndex => {
            let nodes = batch.edges.from.iter().chain(batch.edges.to);
            nodes.zip(out.as_chunks_mut::<8>().0).for_each(|(node, out)| *out = node.to_le_bytes());
        }
        Field::EdgeWeight => out.copy_from_slice(batch.edges.weights),
        Field::Column(column) => match &batch.table.columns[column].values {
            Values::Categorical { codes: values, .. } | Values::Numbers { numbers: values, .. } => {
                let Repr::Number(to) = span.repr else { return };
                for (&row, out) in batch.rows.iter().zip(out.chunks_exact_mut(to.size())) {
                    cast(values.dtype, to, values.at(row as usize), out);
                }
            }
            Values::Text { texts, .. } => {
                if span.repr.size() > 0 {
                    for (&row, out) in batch.rows.iter().zip(out.chunks_exact_mut(span.repr.size())) {
                        text(texts.at(row as usize), span.repr, out);
                    }
                }
            }
        },
        Field::Mask(column) => {
            let (Values::Numbers { mask: Some(mask), .. } | Values::Text { mask: Some(mask), .. }) =
                &batch.table.columns[column].values
            else {
                return out.fill(0);
            };
            for (&row, out) in batch.rows.iter().zip(out) {
                *out = mask[row as usize];
            }
        }
    }
}

fn numbers(values: impl Iterator<Item = u64>, repr: Repr, out: &mut [u8]) {
    if repr == Repr::Number(Dtype::I32) {
        values.zip(out.as_chunks_mut::<4>().0).for_each(|(value, out)| *out = (value as i32).to_le_bytes());
    } else {
        values.zip(out.as_chunks_mut::<8>().0).for_each(|(value, out)| *out = (value as i64).to_le_bytes());
    }
}

/// Writes a string padded with zeros. It fits, as widths are those of the collection's longest.
fn text(text: &str, repr: Repr, out: &mut [u8]) {
    out.fill(0);
    if let Repr::Ucs4(_) = repr {
        for (char, out) in text.chars().zip(out.as_chunks_mut::<4>().0) {
            *out = u32::from(char).to_le_bytes();
        }
    } else {
        let len = text.len().min(out.len());
        out[..len].copy_from_slice(&text.as_bytes()[..len]);
    }
}

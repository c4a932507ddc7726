//! `.tsv`: the batch's obs rows as text, labels spelt out: to look at with `cat` and `head`, or to read in R.
//!
//! The one format whose size depends on values: those of obs, which are in memory.

use crate::anndata::column::{Column, Values};
use crate::array::cast::{to_i64, to_text};
use crate::batch::{Batch, Layout};
use crate::collection::Table;

use super::Format;

/// The `.tsv` format.
pub struct Tsv;

pub fn open(_: &Table) -> Result<Box<dyn Format>, String> {
    Ok(Box::new(Tsv))
}

impl Format for Tsv {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        Layout { size: text(batch).len() as u64, spans: Vec::new() }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        image.copy_from_slice(text(batch).as_bytes());
    }
}

fn text(batch: &Batch<'_>) -> String {
    let mut text = String::from("row");
    for column in &batch.table.columns {
        text.push('\t');
        escape(&column.name, &mut text);
    }
    text.push('\n');
    for &row in batch.rows {
        text.push_str(&row.to_string());
        for column in &batch.table.columns {
            text.push('\t');
            value(column, row as usize, &mut text);
        }
        text.push('\n');
    }
    text
}

/// One value; nothing where it is missing.
fn value(column: &Column, row: usize, text: &mut String) {
    match &column.values {
        Values::Categorical { codes, categories, .. } => {
            let code = to_i64(codes.dtype, codes.at(row));
            if let Some(label) = usize::try_from(code).ok().and_then(|code| categories.labels.get(code)) {
                escape(label, text);
            }
        }
        Values::Numbers { mask: Some(mask), .. } | Values::Text { mask: Some(mask), .. } if mask[row] != 0 => {}
        Values::Numbers { numbers, .. } => text.push_str(&to_text(numbers.dtype, numbers.at(row))),
        Values::Text { texts, .. } => escape(texts.at(row), text),
    }
}

/// A label may hold what separates fields: backslash escapes, as in PostgreSQL's text format.
pub fn escape(label: &str, text: &mut String) {
    for char in label.chars() {
        match char {
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\\' => text.push_str("\\\\"),
            char => text.push(char),
        }
    }
}

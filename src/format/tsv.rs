//! `.tsv`: the obs rows of a batch as text with labels, for `cat`, `head`, or R.
//!
//! The only batch format whose size depends on values: those of obs, which are in memory.

use crate::anndata::column::{Column, Values};
use crate::array::cast::{to_i64, to_text};
use crate::batch::{Batch, Layout};
use crate::collection::Table;
use crate::number::as_usize;

use super::{Format, names};

/// The `.tsv` format of one table.
pub struct Tsv {
    /// The first line: `row`, then the served names of the columns.
    header: String,
}

impl Tsv {
    pub fn new(table: &Table) -> Tsv {
        let names = names::columns(table).into_iter();
        Tsv { header: std::iter::once("row".to_owned()).chain(names).collect::<Vec<_>>().join("\t") }
    }

    fn text(&self, batch: &Batch<'_>) -> String {
        let mut text = format!("{}\n", self.header);
        for (&row, number) in batch.rows.iter().zip(batch.numbers()) {
            text.push_str(&number.to_string());
            for column in batch.table.columns.iter() {
                text.push('\t');
                value(column, as_usize(row), &mut text);
            }
            text.push('\n');
        }
        text
    }
}

pub fn open(table: &Table) -> Result<Box<dyn Format>, String> {
    Ok(Box::new(Tsv::new(table)))
}

impl Format for Tsv {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        Layout { size: self.text(batch).len() as u64, spans: Vec::new() }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        image.copy_from_slice(self.text(batch).as_bytes());
    }
}

/// Writes one value; nothing if missing or NaN, so that readers recognise numeric columns.
fn value(column: &Column, row: usize, text: &mut String) {
    match &column.values {
        Values::Categorical { codes, categories, .. } => {
            let code = to_i64(codes.dtype, codes.at(row));
            if let Some(label) = usize::try_from(code).ok().and_then(|code| categories.labels.get(code)) {
                escape(label, text);
            }
        }
        Values::Numbers { mask: Some(mask), .. } | Values::Text { mask: Some(mask), .. } if mask[row] != 0 => {}
        Values::Numbers { numbers, time: Some(time), .. } => {
            text.push_str(&time.text(to_i64(numbers.dtype, numbers.at(row))));
        }
        Values::Numbers { numbers, .. } => {
            let value = to_text(numbers.dtype, numbers.at(row));
            if value != "nan" {
                text.push_str(&value);
            }
        }
        Values::Text { texts, .. } => escape(texts.at(row), text),
    }
}

/// Escapes separators in a label with backslashes, as PostgreSQL's text format does.
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

//! obs columns for formats with typed columns, or with rows as records: types, missing values, values.

use std::borrow::Cow;

use crate::anndata::column::{Categories, Column, Values};
use crate::array::Dtype;
use crate::array::cast::to_i64;
use crate::array::meaning::{NOT_A_TIME, Time, Unit};
use crate::collection::Table;
use crate::number::as_usize;

use super::names;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObsKind {
    /// Labels of a categorical column.
    Labels,
    Boolean,
    Number(Dtype),
    /// Times or durations in seconds or finer units; other times are text, as months have no fixed length.
    Time(Time),
    Text,
}

/// One obs column.
#[derive(Clone, Debug)]
pub struct ObsColumn {
    /// The index in `Table::columns`.
    pub place: usize,
    pub name: String,
    pub kind: ObsKind,
    /// Whether values may be missing.
    pub nullable: bool,
}

/// The name of an obs column in a format that also has columns with the names `taken`: served names have no `/`, so no two become equal.
pub fn beside(served: String, taken: &[String]) -> String {
    if taken.contains(&served) { format!("obs/{served}") } else { served }
}

impl ObsColumn {
    /// The obs columns of a table, for a format that also has columns with the names `taken`.
    pub fn all(table: &Table, taken: &[String]) -> Vec<ObsColumn> {
        let one = |(place, (column, served)): (usize, (&Column, String))| {
            let (kind, nullable) = match &column.values {
                Values::Categorical { .. } => (ObsKind::Labels, true),
                Values::Numbers { time: Some(time), .. } if time.unit >= Unit::Second => (ObsKind::Time(*time), true),
                Values::Numbers { time: Some(_), .. } => (ObsKind::Text, true),
                Values::Numbers { numbers, mask, .. } if numbers.dtype == Dtype::Bool => {
                    (ObsKind::Boolean, mask.is_some())
                }
                Values::Numbers { numbers, mask, .. } => (ObsKind::Number(numbers.dtype), mask.is_some()),
                Values::Text { mask, .. } => (ObsKind::Text, mask.is_some()),
            };
            ObsColumn { place, name: beside(served, taken), kind, nullable }
        };
        table.columns.iter().zip(names::columns(table)).enumerate().map(one).collect()
    }

    fn values<'t>(&self, table: &'t Table) -> &'t Values {
        &table.columns[self.place].values
    }

    /// Whether missing values are marked by a mask, instead of code -1 or NaT.
    pub fn is_masked(&self, table: &Table) -> bool {
        let (Values::Numbers { mask, .. } | Values::Text { mask, .. }) = self.values(table) else { return false };
        mask.is_some()
    }

    pub fn is_missing(&self, table: &Table, row: u64) -> bool {
        let at = as_usize(row);
        match self.values(table) {
            Values::Categorical { .. } => self.code(table, row).is_none(),
            Values::Numbers { mask: Some(mask), .. } | Values::Text { mask: Some(mask), .. } if mask[at] != 0 => true,
            Values::Numbers { numbers, time: Some(_), .. } => to_i64(numbers.dtype, numbers.at(at)) == NOT_A_TIME,
            _ => false,
        }
    }

    /// Number of these rows without a value.
    pub fn missing(&self, table: &Table, rows: &[u64]) -> u64 {
        if !self.nullable {
            return 0;
        }
        rows.iter().filter(|&&row| self.is_missing(table, row)).count() as u64
    }

    /// The labels of a categorical column.
    pub fn categories<'t>(&self, table: &'t Table) -> Option<(&'t Categories, bool)> {
        match self.values(table) {
            Values::Categorical { categories, ordered, .. } => Some((categories, *ordered)),
            _ => None,
        }
    }

    /// The code of a label.
    pub fn code(&self, table: &Table, row: u64) -> Option<usize> {
        let Values::Categorical { codes, categories, .. } = self.values(table) else { return None };
        let code = usize::try_from(to_i64(codes.dtype, codes.at(as_usize(row)))).ok()?;
        (code < categories.labels.len()).then_some(code)
    }

    /// The bytes of a number, time or boolean, little-endian; arbitrary if missing. Empty for other types.
    pub fn number<'t>(&self, table: &'t Table, row: u64) -> &'t [u8] {
        match self.values(table) {
            Values::Numbers { numbers, .. } => numbers.at(as_usize(row)),
            _ => &[],
        }
    }

    /// A label, text, or time as text; empty if missing.
    pub fn text<'t>(&self, table: &'t Table, row: u64) -> Cow<'t, str> {
        if self.is_missing(table, row) {
            return Cow::Borrowed("");
        }
        match self.values(table) {
            Values::Categorical { categories, .. } => {
                let code = self.code(table, row);
                Cow::Borrowed(code.and_then(|code| categories.labels.get(code)).map_or("", String::as_str))
            }
            Values::Numbers { numbers, time: Some(time), .. } => {
                Cow::Owned(time.text(to_i64(numbers.dtype, numbers.at(as_usize(row)))))
            }
            Values::Numbers { .. } => Cow::Borrowed(""),
            Values::Text { texts, .. } => Cow::Borrowed(texts.at(as_usize(row))),
        }
    }

    /// Total bytes of the texts of these rows.
    pub fn text_bytes(&self, table: &Table, rows: &[u64]) -> u64 {
        rows.iter().map(|&row| self.text(table, row).len() as u64).sum()
    }
}

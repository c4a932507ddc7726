//! Controls of a view's rows: which rows are controls, which of them match a row, and what happens to rows without any.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::plan::Rows;
use crate::plan::controls::Controls;
use crate::plan::labels::joint;
use crate::view::bits::Bits;

use super::error::{About, SessionError};
use super::obs::Obs;
use super::spec::{PairSpec, Unmatched};

/// The controls of a mount, which all views share.
pub struct Pairs<'s> {
    spec: &'s PairSpec,
    pub controls: Arc<Controls>,
}

impl<'s> Pairs<'s> {
    /// Finds the controls among all rows of the stores, also those outside of all views.
    ///
    /// # Errors
    /// A column is missing or has no labels; no row is a control; no control matches any row.
    pub fn new(spec: &'s PairSpec, obs: &mut Obs<'_>) -> Result<Pairs<'s>, SessionError> {
        let rows = obs.collection.table.n_rows;
        let found = obs.restricted(None, Some(&spec.controls), None).about("--pair-with")?;
        let found = found.unwrap_or_else(|| Bits::none(rows));
        if found.is_empty() {
            let of = spec.controls.text();
            return Err(SessionError::Refused(format!("--pair-with: {of} is true of none of the {rows} rows")));
        }
        let columns = spec.columns.iter().map(|column| obs.codes(column).about("--match"));
        let groups = joint(rows as usize, &columns.collect::<Result<Vec<_>, _>>()?);
        let controls = Controls::new(u64::from(spec.each), groups, |row| found.contains(row)).about("--pair-with")?;
        if controls.count() == 0 {
            let (of, count) = (spec.columns.join(", "), found.count());
            return Err(SessionError::Refused(format!(
                "--match: none of the {count} controls has a label in each of {of}"
            )));
        }
        Ok(Pairs { spec, controls: Arc::new(controls) })
    }

    /// The rows of `selected` that stay in a view (`None`: all), and the number of rows without a control.
    ///
    /// # Errors
    /// There are rows without a control where that is refused, or no row has one.
    pub fn matched(&self, selected: &Rows, obs: &mut Obs<'_>) -> Result<(Option<Bits>, u64), SessionError> {
        let controls = &self.controls;
        let without = || selected.iter().filter(|&row| !controls.matches(row));
        let Some(first) = without().next() else { return Ok((None, 0)) };
        let (unmatched, count) = (without().count() as u64, selected.len());
        let remedy = match self.spec.unmatched {
            Unmatched::Itself => return Ok((None, unmatched)),
            Unmatched::Drop if unmatched < count => {
                let rows = obs.collection.table.n_rows;
                return Ok((Some(Bits::of(rows, |row| controls.matches(row as u64))), unmatched));
            }
            Unmatched::Drop => ", and --unmatched drop leaves none",
            Unmatched::Refuse => {
                "; leave them out with --unmatched drop, or pair them with themselves with --unmatched self"
            }
        };
        let (of, columns, such) =
            (self.spec.controls.text(), self.spec.columns.join(", "), self.labels_of(first, obs)?);
        Err(SessionError::Refused(format!(
            "{unmatched} of {count} rows have no control ({of}) with the same {columns}, such as row {first} ({such}){remedy}"
        )))
    }

    /// The description of the pairs of a view in `dataset.json`.
    pub fn told(&self, unmatched: u64) -> Value {
        let sizes = || self.controls.group_sizes();
        json!({
            "controls": self.controls.count(),
            "controls_a_row": self.spec.each,
            "groups": sizes().count(),
            "smallest_group": sizes().min(),
            "largest_group": sizes().max(),
            "rows_unmatched": unmatched,
            "unmatched": self.spec.unmatched.as_str(),
        })
    }

    fn labels_of(&self, row: u64, obs: &mut Obs<'_>) -> Result<String, SessionError> {
        let mut told = Vec::new();
        for column in &self.spec.columns {
            let label = obs.label_of(column, row)?.map_or("no label".to_owned(), |label| format!("{label:?}"));
            told.push(format!("{column} {label}"));
        }
        Ok(told.join(", "))
    }
}

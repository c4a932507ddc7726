//! Rows of a table that are served in step with those of another: the controls of perturbed cells.

use std::sync::Arc;

use super::{Collection, Table};

/// A table whose rows are served beside those of a batch: rows `each * i` up to `each * (i + 1)` belong to row i.
#[derive(Clone, Debug)]
pub struct Companion {
    /// What its parts are called in files: `control` for `control/X`. The names of companions are told apart from elements and
    /// columns by this prefix alone.
    pub name: String,
    /// Its rows for each row of the batch.
    pub each: u64,
    /// It has no companions itself.
    pub table: Arc<Table>,
}

/// The companion of controls.
pub const CONTROL: &str = "control";

impl Collection {
    /// Serves `each` further rows of this collection beside each row: its controls.
    pub fn with_controls(&mut self, each: u64) {
        let table = Arc::new(self.table.clone());
        self.table.companions.push(Companion { name: CONTROL.to_owned(), each, table });
    }
}

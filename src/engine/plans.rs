//! The plans of a mount: one for each view, and plans derived from a view, which are made when one of their files is first read.
//!
//! The rest of the engine knows plans by number: first the views, then each view in stored order, then each view by each categorical obs
//! column (4 bytes a row once it is read).

use std::sync::OnceLock;

use crate::anndata::column::Values;
use crate::array::cast::to_i64;
use crate::collection::{Collection, Table};
use crate::plan::{Plan, PlanError};

/// All plans, by number.
pub struct Plans {
    views: Vec<Plan>,
    derived: Vec<OnceLock<Plan>>,
    /// Categorical columns, by their index in the table.
    columns: Vec<usize>,
}

/// Maximum rows and labels of a column that can be grouped.
const MOST_ROWS: u64 = 1 << 32;
const MOST_LABELS: usize = 1 << 23;

impl Plans {
    pub fn new(views: Vec<Plan>, table: &Table) -> Plans {
        let is_categorical = |&column: &usize| matches!(table.columns[column].values, Values::Categorical { .. });
        let columns: Vec<usize> = (0..table.columns.len()).filter(is_categorical).collect();
        let derived = (0..views.len() * (1 + columns.len())).map(|_| OnceLock::new()).collect();
        Plans { views, derived, columns }
    }

    /// The plans of the views.
    pub fn views(&self) -> &[Plan] {
        &self.views
    }

    /// The plan of the view that a plan is derived from.
    pub fn view(&self, number: u16) -> &Plan {
        &self.views[usize::from(self.view_number(number))]
    }

    /// The number of that view.
    pub fn view_number(&self, number: u16) -> u16 {
        let (number, views) = (usize::from(number), self.views.len());
        let view = match number.checked_sub(2 * views) {
            Some(grouped) => grouped / self.columns.len().max(1),
            None => number % views.max(1),
        };
        view as u16
    }

    /// The number of a view's plan in stored order.
    pub fn stored(&self, view: u16) -> Option<u16> {
        u16::try_from(usize::from(view) + self.views.len()).ok()
    }

    /// The number of a view's plan by the i-th categorical column.
    ///
    /// # Errors
    /// Why there is no such plan.
    pub fn by(&self, table: &Table, view: u16, column: u16) -> Result<u16, &'static str> {
        let (plan, number) = (&self.views[usize::from(view)], usize::from(column));
        let Some(Values::Categorical { categories, .. }) = self.columns.get(number).map(|&i| &table.columns[i].values)
        else {
            return Err("there is no such column");
        };
        if plan.rows() == 0 {
            return Err("the view has no rows");
        }
        if table.n_rows > MOST_ROWS || categories.labels.len() > MOST_LABELS {
            return Err("too many rows or labels to be grouped");
        }
        let number = 2 * self.views.len() + usize::from(view) * self.columns.len() + number;
        u16::try_from(number).map_err(|_| "too many views and columns")
    }

    /// A plan, which is made now if needed.
    pub fn get(&self, collection: &Collection, number: u16) -> &Plan {
        let Some(derived) = usize::from(number).checked_sub(self.views.len()) else {
            return &self.views[usize::from(number)];
        };
        self.derived[derived].get_or_init(|| {
            let view = self.view(number);
            let made = match derived.checked_sub(self.views.len()) {
                None => Ok(view.stored()),
                Some(grouped) => self.grouped(collection, view, grouped % self.columns.len().max(1)),
            };
            made.unwrap_or_else(|error| {
                // Unreachable, as `by` has checked it. A plan without rows serves no wrong bytes.
                tracing::error!("rows cannot be put in order: {error}");
                Plan::new(&[], *view.sampling())
            })
        })
    }

    /// The plan of a view by a column; rows without a label form the last group.
    fn grouped(&self, collection: &Collection, view: &Plan, column: usize) -> Result<Plan, PlanError> {
        let Values::Categorical { codes, categories, .. } = &collection.table.columns[self.columns[column]].values
        else {
            return Err(PlanError::NoClass);
        };
        let labels = u32::try_from(categories.labels.len()).unwrap_or(u32::MAX);
        let code = |row: u64| u32::try_from(to_i64(codes.dtype, codes.at(row as usize))).unwrap_or(labels);
        let codes: Vec<u32> = view.view().iter().map(code).collect();
        view.grouped(&codes)
    }
}

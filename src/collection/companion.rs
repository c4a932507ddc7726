//! Companions: tables whose rows are served in step with the rows of another one, such as controls of perturbed cells, or the same cells
//! in another modality.

use std::sync::Arc;

use super::{Collection, Store, Table};
use crate::array::Dtype;

/// A table whose rows are served together with those of a batch.
#[derive(Clone, Debug)]
pub struct Companion {
    /// The prefix of its parts in files: `control` for `control/X`, `mod/protein` for `mod/protein/X`. Only by this prefix do they differ
    /// from elements and columns of the main table.
    pub name: String,
    pub rows: Beside,
    /// Has no companions itself.
    pub table: Arc<Table>,
}

/// Which rows of a companion belong to a row of the batch.
#[derive(Clone, Debug)]
pub enum Beside {
    /// A fixed number of rows of the same stores: rows `each * i..each * (i + 1)` belong to row i.
    Each(u64),
    /// One row or none, from other stores.
    Joined(Arc<Collection>),
    /// Neighbours in a graph, rows of the same stores: about `each` a row at most. `weights`: dtype of the edge weights.
    Neighbours { each: u64, weights: Dtype },
}

impl Companion {
    /// The stores of a modality; `None` for companions of the batch's own stores.
    pub fn modality(&self) -> Option<&Collection> {
        match &self.rows {
            Beside::Joined(collection) => Some(collection),
            Beside::Each(_) | Beside::Neighbours { .. } => None,
        }
    }
}

/// The companion of controls.
pub const CONTROL: &str = "control";
/// The companion of neighbours in a graph.
pub const NEIGHBOURS: &str = "neighbours";
/// Prefix of the parts of modalities, as in a MuData.
pub const MOD: &str = "mod";

impl Table {
    /// The prefix of its parts in files: empty, or that of the modality.
    pub fn below(&self) -> String {
        self.modality.as_ref().map_or_else(String::new, |name| format!("{MOD}/{name}/"))
    }

    /// Whether other modalities are served together with these rows.
    pub fn has_modalities(&self) -> bool {
        self.companions.iter().any(|companion| companion.modality().is_some())
    }
}

impl Collection {
    /// Serves `each` rows of this collection with each row, as controls.
    pub fn with_controls(&mut self, each: u64) {
        self.with_own(CONTROL, Beside::Each(each));
    }

    /// Serves neighbours of the rows with them: at most about `each` for a row.
    pub fn with_neighbours(&mut self, each: u64, weights: Dtype) {
        self.with_own(NEIGHBOURS, Beside::Neighbours { each, weights });
    }

    fn with_own(&mut self, name: &str, rows: Beside) {
        let table = Table { companions: Vec::new(), modality: None, ..self.table.clone() };
        self.table.companions.push(Companion { name: name.to_owned(), rows, table: Arc::new(table) });
    }

    /// Serves the rows of the same cells in another modality.
    pub fn with_modality(&mut self, name: &str, collection: Arc<Collection>) {
        let (name, table) = (format!("{MOD}/{name}"), Arc::new(collection.table.clone()));
        self.table.companions.push(Companion { name, rows: Beside::Joined(collection), table });
    }

    /// The collection that a companion's rows are from.
    pub fn of_companion(&self, number: usize) -> &Collection {
        self.table.companions.get(number).and_then(Companion::modality).unwrap_or(self)
    }

    /// This collection, then those of its modalities.
    pub fn with_modalities(&self) -> impl Iterator<Item = &Collection> {
        std::iter::once(self).chain(self.table.companions.iter().filter_map(Companion::modality))
    }

    /// The stores of these collections.
    pub fn all_stores(&self) -> impl Iterator<Item = &Store> {
        self.with_modalities().flat_map(|collection| &collection.stores)
    }
}

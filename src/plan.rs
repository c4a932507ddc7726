//! Which rows a batch holds, in what order: a pure function of (row counts, selection, sampling, strategy, epoch, batch).
//!
//! An epoch is a keyed permutation of the blocks, read as one stream of rows and cut into fetches of
//! `batch_size * fetch_factor` rows; the rows of a fetch are shuffled and cut into batches (scDataset's block
//! sampling with batched fetching, d'Ascenzo and Cultrera di Montesano 2025). Nothing is stored for a row or a block,
//! so batch 1,000,000 of epoch 7 costs the same as the first, and 1e9 rows cost no memory. A selection costs about a
//! bit a row ([`rows`]), weights and classes what their modules say; none of them gives up random access: whatever is
//! drawn is computed from (seed, epoch, place), never from what was drawn before.

pub mod auto;
mod blocks;
pub mod companion;
pub mod controls;
pub mod entropy;
mod error;
pub mod groups;
pub mod labels;
pub mod modality;
pub mod neighbours;
pub mod partition;
pub mod permutation;
pub mod rank;
pub mod resume;
pub mod rows;
mod shuffle;
pub mod strategy;

use std::ops::Range;
use std::sync::Arc;

use companion::Companion;
pub use error::PlanError;
pub use labels::NO_CLASS;
pub use partition::RemainderPolicy;
pub use rows::Rows;
use strategy::{Chances, Classes, Permuted, Stored};
pub use strategy::{EpochOrder, Strategy};

/// How rows become batches. All sizes are in rows, but `fetch_factor`, which is in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    pub batch_size: u64,
    pub block_size: u64,
    pub fetch_factor: u64,
    pub seed: u64,
    /// Leave out the last batch of an epoch where it is short.
    pub drop_last: bool,
}

impl Sampling {
    /// Rows of one (full) fetch.
    pub fn fetch_rows(&self) -> u64 {
        self.batch_size * self.fetch_factor
    }

    /// Independent blocks mixed in one full fetch, if there are that many ([`Plan::k`]): what diversity depends on.
    fn k(&self) -> f64 {
        self.fetch_rows() as f64 / self.block_size as f64
    }
}

/// The plan of every epoch of one view.
#[derive(Clone, Debug)]
pub struct Plan {
    strategy: Arc<dyn Strategy>,
    uneven: RemainderPolicy,
    companions: Vec<Arc<dyn Companion>>,
}

impl Plan {
    /// Plans over all rows of stores of these many rows each, every row once. Blocks never span stores, so each store's last
    /// block may be short.
    ///
    /// `sampling`'s sizes must be at least 1; the command line checks that.
    pub fn new(store_rows: &[u64], sampling: Sampling) -> Plan {
        Plan::of(Arc::new(Permuted::new(Rows::all(store_rows), sampling)))
    }

    /// Plans over the rows of a view, drawn by a strategy. Blocks are runs of `block_size` rows of the view.
    pub fn of(strategy: Arc<dyn Strategy>) -> Plan {
        Plan { strategy, uneven: RemainderPolicy::Drop, companions: Vec::new() }
    }

    /// The same plan, with what is served in step with its rows.
    pub fn with_companions(self, companions: Vec<Arc<dyn Companion>>) -> Plan {
        Plan { companions, ..self }
    }

    /// The rows in step with those of a fetch, one list a companion.
    pub fn companions(&self, epoch: u64, fetch: u64, rows: &FetchRows) -> Vec<FetchRows> {
        let beside = |of: &Arc<dyn Companion>| of.beside(self.sampling(), (epoch, fetch), rows);
        self.companions.iter().map(beside).collect()
    }

    pub fn strategy(&self) -> &dyn Strategy {
        self.strategy.as_ref()
    }

    /// The rows of the same view, each once, as they are stored.
    pub fn stored(&self) -> Plan {
        Plan::of(Arc::new(Stored::new(self.view().clone(), self.keeping_all(), false)))
            .with_companions(self.companions.clone())
    }

    /// The rows of the same view, each once, grouped by a label: one code a row of the view. Within a label they are drawn as an
    /// epoch of that label alone would be; each batch is of one label.
    ///
    /// # Errors
    /// Too many rows or labels.
    pub fn grouped(&self, codes: &[u32]) -> Result<Plan, PlanError> {
        let classes = Classes::new(self.view().clone(), self.keeping_all(), codes, None, None)?.grouped();
        Ok(Plan::of(Arc::new(classes)).with_uneven(self.uneven).with_companions(self.companions.clone()))
    }

    fn keeping_all(&self) -> Sampling {
        Sampling { drop_last: false, ..*self.sampling() }
    }

    /// The same plan, with what becomes of batches that ranks cannot share evenly.
    pub fn with_uneven(self, uneven: RemainderPolicy) -> Plan {
        Plan { uneven, ..self }
    }

    pub fn uneven(&self) -> RemainderPolicy {
        self.uneven
    }

    /// The sampling, with the block size that the strategy implies.
    pub fn sampling(&self) -> &Sampling {
        self.strategy.sampling()
    }

    /// The rows of the view.
    pub fn view(&self) -> &Rows {
        self.strategy.view()
    }

    /// Rows of the view.
    pub fn rows(&self) -> u64 {
        self.view().len()
    }

    /// Blocks that an epoch draws from.
    pub fn blocks(&self) -> u64 {
        self.strategy.blocks()
    }

    /// Independent blocks mixed in one fetch: those that the sampling asks for, or all where there are fewer.
    pub fn k(&self) -> f64 {
        self.sampling().k().min(self.blocks() as f64)
    }

    /// Rows that one epoch draws, repeats counted.
    pub fn drawn_rows(&self) -> u64 {
        self.strategy.drawn_rows()
    }

    /// Rows that one epoch serves: those drawn, but for short batches that are dropped.
    pub fn served_rows(&self) -> u64 {
        self.strategy.served_rows()
    }

    /// Batches of one epoch.
    pub fn batches(&self) -> u64 {
        self.strategy.batches()
    }

    /// Whether an epoch serves each row of the view exactly once.
    pub fn serves_each_row_once(&self) -> bool {
        matches!(self.strategy.chances(), Chances::Equal) && self.served_rows() == self.rows()
    }

    /// Rows of one batch of an epoch; 0 past the last. Only the last batch can be short, unless batches are of one
    /// class and serve each row once: then one batch of each class can be, and which one depends on the epoch.
    pub fn batch_rows(&self, epoch: u64, batch: u64) -> u64 {
        self.strategy.batch_rows(epoch, batch)
    }

    /// Fetches of one epoch.
    pub fn fetches(&self) -> u64 {
        self.batches().div_ceil(self.sampling().fetch_factor)
    }

    /// The fetch that a batch is part of, and its place there.
    pub fn fetch_of(&self, batch: u64) -> (u64, usize) {
        (batch / self.sampling().fetch_factor, (batch % self.sampling().fetch_factor) as usize)
    }

    /// The batches of a fetch.
    pub fn batches_of(&self, fetch: u64) -> Range<u64> {
        let first = fetch * self.sampling().fetch_factor;
        first..(first + self.sampling().fetch_factor).min(self.batches())
    }

    /// The order of one epoch. Costs time and memory for each store or class, not for each block or row.
    pub fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_> {
        self.strategy.epoch(epoch)
    }
}

/// The rows of one fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRows {
    /// Global row numbers in served order.
    pub rows: Vec<u64>,
    /// Where each batch starts in `rows`, and where the last ends: one number more than batches.
    pub bounds: Vec<usize>,
    /// Which rows only fill a set up; empty where none does.
    pub padding: Vec<bool>,
    /// Of a modality: which rows of the fetch have one of these.
    pub joined: Option<JoinedRows>,
    /// Of neighbours: the edges between them and the rows of each batch.
    pub edges: Option<EdgeRows>,
}

/// The edges of the batches of a fetch. Nodes of a batch are its rows, then those beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeRows {
    /// Where the edges of each batch begin, and where the last end.
    pub bounds: Vec<usize>,
    /// The node that each edge comes from: the neighbour.
    pub from: Vec<i64>,
    /// The node that it leads to: the one whose neighbour that is.
    pub to: Vec<i64>,
    /// A weight an edge, each of `size` bytes.
    pub weights: Vec<u8>,
    pub size: usize,
}

/// Which rows of a fetch a modality has a row for. Rows of a modality are as many as those that have one, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinedRows {
    /// One for each row of the fetch.
    pub has: Vec<bool>,
    /// Where each batch starts in `has`, and where the last ends.
    pub bounds: Vec<usize>,
    /// What each row of the modality is called: the number of the row that has it, or -1 where that only fills a set up.
    pub names: Vec<i64>,
}

impl FetchRows {
    /// The rows of the batch at a place of the fetch; none past the last.
    pub fn batch(&self, place: usize) -> &[u64] {
        match self.bounds.get(place..place + 2) {
            Some(&[start, end]) => &self.rows[start..end],
            _ => &[],
        }
    }

    /// Which rows of the batch at a place only fill a set up; empty where none of the fetch does.
    pub fn padding(&self, place: usize) -> &[bool] {
        match self.bounds.get(place..place + 2) {
            Some(&[start, end]) => self.padding.get(start..end).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Batches of `batch_size` rows, the last one short where rows do not divide.
    pub fn cut(rows: Vec<u64>, batch_size: u64) -> FetchRows {
        let bounds = (0..rows.len()).step_by(batch_size as usize).chain([rows.len()]).collect();
        FetchRows { rows, bounds, ..FetchRows::default() }
    }
}

#[cfg(test)]
mod tests;

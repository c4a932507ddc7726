//! Which rows a batch has, in which order: a pure function of (row counts, selection, sampling, strategy, epoch, batch).
//!
//! An epoch is a keyed permutation of the blocks, read as one stream of rows and cut into fetches of `batch_size * fetch_factor` rows;
//! the rows of a fetch are shuffled and cut into batches (scDataset's block sampling with batched fetching, d'Ascenzo and Cultrera di
//! Montesano 2025). Nothing is stored for each row or block, so batch 1,000,000 of epoch 7 costs as much as the first, and 1e9 rows cost no
//! memory. A selection costs about a bit a row ([`rows`]), weights and classes what their modules say. All keep random access: whatever is
//! drawn is computed from (seed, epoch, position), never from earlier draws.

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

/// How rows become batches. All sizes are in rows, except `fetch_factor`, which is in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    pub batch_size: u64,
    pub block_size: u64,
    pub fetch_factor: u64,
    pub seed: u64,
    /// Leave out the last batch of an epoch if it is short.
    pub drop_last: bool,
}

impl Sampling {
    /// Rows of a full fetch.
    pub fn fetch_rows(&self) -> u64 {
        self.batch_size * self.fetch_factor
    }

    /// Independent blocks mixed in a full fetch, if the epoch has that many ([`Plan::k`]); diversity depends on it.
    fn k(&self) -> f64 {
        self.fetch_rows() as f64 / self.block_size as f64
    }
}

/// The plan of one view, for all epochs.
#[derive(Clone, Debug)]
pub struct Plan {
    strategy: Arc<dyn Strategy>,
    uneven: RemainderPolicy,
    companions: Vec<Arc<dyn Companion>>,
}

impl Plan {
    /// A plan over all rows of some stores (`store_rows`: rows of each), every row once. Blocks never span stores, so the last block of
    /// each
    /// store may be short.
    ///
    /// The sizes in `sampling` must be at least 1; the command line checks that.
    pub fn new(store_rows: &[u64], sampling: Sampling) -> Plan {
        Plan::of(Arc::new(Permuted::new(Rows::all(store_rows), sampling)))
    }

    /// A plan over the rows of a view, drawn by a strategy. Blocks are runs of `block_size` rows of the view.
    pub fn of(strategy: Arc<dyn Strategy>) -> Plan {
        Plan { strategy, uneven: RemainderPolicy::Drop, companions: Vec::new() }
    }

    /// The same plan with companions.
    pub fn with_companions(self, companions: Vec<Arc<dyn Companion>>) -> Plan {
        Plan { companions, ..self }
    }

    /// The rows of each companion for those of a fetch.
    pub fn companions(&self, epoch: u64, fetch: u64, rows: &FetchRows) -> Vec<FetchRows> {
        let beside = |of: &Arc<dyn Companion>| of.beside(self.sampling(), (epoch, fetch), rows);
        self.companions.iter().map(beside).collect()
    }

    pub fn strategy(&self) -> &dyn Strategy {
        self.strategy.as_ref()
    }

    /// A plan over the same view: each row once, in stored order.
    pub fn stored(&self) -> Plan {
        Plan::of(Arc::new(Stored::new(self.view().clone(), self.keeping_all(), false)))
            .with_companions(self.companions.clone())
    }

    /// A plan over the same view: each row once, sorted by label (`codes`: one for each row of the view). The rows of a label are drawn as
    /// an epoch of that label alone would be; each batch has one label.
    ///
    /// # Errors
    /// There are too many rows or labels.
    pub fn grouped(&self, codes: &[u32]) -> Result<Plan, PlanError> {
        let classes = Classes::new(self.view().clone(), self.keeping_all(), codes, None, None)?.grouped();
        Ok(Plan::of(Arc::new(classes)).with_uneven(self.uneven).with_companions(self.companions.clone()))
    }

    fn keeping_all(&self) -> Sampling {
        Sampling { drop_last: false, ..*self.sampling() }
    }

    /// The same plan with another policy for batches that ranks cannot share evenly.
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

    /// Number of blocks that an epoch draws from.
    pub fn blocks(&self) -> u64 {
        self.strategy.blocks()
    }

    /// Independent blocks mixed in one fetch: as the sampling requests, or all if there are fewer.
    pub fn k(&self) -> f64 {
        self.sampling().k().min(self.blocks() as f64)
    }

    /// Number of rows that an epoch draws, counting repeats.
    pub fn drawn_rows(&self) -> u64 {
        self.strategy.drawn_rows()
    }

    /// Number of rows that an epoch serves: those drawn, without short batches that are dropped.
    pub fn served_rows(&self) -> u64 {
        self.strategy.served_rows()
    }

    /// Number of batches of an epoch.
    pub fn batches(&self) -> u64 {
        self.strategy.batches()
    }

    /// Whether an epoch serves each row of the view exactly once.
    pub fn serves_each_row_once(&self) -> bool {
        matches!(self.strategy.chances(), Chances::Equal) && self.served_rows() == self.rows()
    }

    /// Number of rows of a batch; 0 past the last. Only the last batch can be short, unless batches have one class each and serve each
    /// row once: then one batch of each class can be, and which one depends on the epoch.
    pub fn batch_rows(&self, epoch: u64, batch: u64) -> u64 {
        self.strategy.batch_rows(epoch, batch)
    }

    /// Number of fetches of an epoch.
    pub fn fetches(&self) -> u64 {
        self.batches().div_ceil(self.sampling().fetch_factor)
    }

    /// The fetch of a batch, and the batch's position in it.
    pub fn fetch_of(&self, batch: u64) -> (u64, usize) {
        (batch / self.sampling().fetch_factor, (batch % self.sampling().fetch_factor) as usize)
    }

    /// The batches of a fetch.
    pub fn batches_of(&self, fetch: u64) -> Range<u64> {
        let first = fetch * self.sampling().fetch_factor;
        first..(first + self.sampling().fetch_factor).min(self.batches())
    }

    /// The order of one epoch. Takes time and memory for each store or class, not for each block or row.
    pub fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_> {
        self.strategy.epoch(epoch)
    }
}

/// The rows of one fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRows {
    /// Global row numbers in served order.
    pub rows: Vec<u64>,
    /// The start of each batch in `rows`, and the end of the last: one number more than batches.
    pub bounds: Vec<usize>,
    /// Which rows only pad a set; empty if none does.
    pub padding: Vec<bool>,
    /// For a modality: which rows of the fetch have a row in it.
    pub joined: Option<JoinedRows>,
    /// For neighbours: the edges between them and the rows of each batch.
    pub edges: Option<EdgeRows>,
}

/// The edges of the batches of a fetch. The nodes of a batch are its rows, then their neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeRows {
    /// The start of each batch's edges, and the end of the last.
    pub bounds: Vec<usize>,
    /// The source node of each edge: the neighbour.
    pub from: Vec<i64>,
    /// The target node of each edge: the node whose neighbour the source is.
    pub to: Vec<i64>,
    /// The weight of each edge, in `size` bytes.
    pub weights: Vec<u8>,
    pub size: usize,
}

/// Which rows of a fetch have a row in a modality. The modality's own rows are those of the rows that have one, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinedRows {
    /// A flag for each row of the fetch.
    pub has: Vec<bool>,
    /// The start of each batch in `has`, and the end of the last.
    pub bounds: Vec<usize>,
    /// The number to serve for each row of the modality: that of the row that has it, or -1 if that only pads a set.
    pub names: Vec<i64>,
}

impl FetchRows {
    /// The rows of the batch at a position in the fetch; empty past the last.
    pub fn batch(&self, place: usize) -> &[u64] {
        match self.bounds.get(place..place + 2) {
            Some(&[start, end]) => &self.rows[start..end],
            _ => &[],
        }
    }

    /// Which rows of the batch at a position only pad a set; empty if none in the fetch does.
    pub fn padding(&self, place: usize) -> &[bool] {
        match self.bounds.get(place..place + 2) {
            Some(&[start, end]) => self.padding.get(start..end).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Cuts rows into batches of `batch_size`; the last one may be short.
    pub fn cut(rows: Vec<u64>, batch_size: u64) -> FetchRows {
        let bounds = (0..rows.len()).step_by(batch_size as usize).chain([rows.len()]).collect();
        FetchRows { rows, bounds, ..FetchRows::default() }
    }
}

#[cfg(test)]
mod tests;

//! Which rows a batch holds, in what order: a pure function of (row counts, selection, sampling, draw, epoch, batch).
//!
//! An epoch is a keyed permutation of the blocks, read as one stream of rows and cut into fetches of
//! `batch_size * fetch_factor` rows; the rows of a fetch are shuffled and cut into batches (scDataset's block
//! sampling with batched fetching, d'Ascenzo and Cultrera di Montesano 2025). Nothing is stored for a row or a block,
//! so batch 1,000,000 of epoch 7 costs the same as the first, and 1e9 rows cost no memory. A selection costs about a
//! bit a row ([`rows`]), weights and classes what their modules say; none of them gives up random access: whatever is
//! drawn is computed from (seed, epoch, place), never from what was drawn before.

pub mod auto;
mod blocks;
mod classes;
pub mod draw;
pub mod entropy;
mod error;
pub mod partition;
pub mod permutation;
pub mod rank;
pub mod resume;
pub mod rows;
mod shuffle;
mod weights;

use std::ops::Range;

use blocks::{BlockOrder, Blocks};
use classes::{ClassEpoch, Classes};
pub use draw::{Draw, NO_CLASS, Order};
pub use error::PlanError;
pub use partition::RemainderPolicy;
use permutation::Permutation;
pub use rows::Rows;
use shuffle::Domain;
use weights::Weighted;

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

    /// Independent blocks mixed in one fetch: what diversity depends on.
    pub fn k(&self) -> f64 {
        self.fetch_rows() as f64 / self.block_size as f64
    }
}

/// The plan of every epoch of one view.
#[derive(Clone, Debug)]
pub struct Plan {
    sampling: Sampling,
    rows: Rows,
    drawing: Drawing,
    uneven: RemainderPolicy,
}

/// What a [`Draw`] became.
#[derive(Clone, Debug)]
enum Drawing {
    Permuted(Blocks),
    Stored { blocks: u64, shuffled: bool },
    Weighted(Weighted),
    Classes(Classes),
}

impl Plan {
    /// Plans over all rows of stores of so many rows each. Blocks never span stores, so each store's last block may be
    /// short.
    ///
    /// `sampling`'s sizes must be at least 1; the command line checks that.
    pub fn new(store_rows: &[u64], sampling: Sampling) -> Plan {
        let blocks = Blocks::new(store_rows.iter().copied(), sampling.block_size);
        Plan {
            sampling,
            rows: Rows::all(store_rows),
            drawing: Drawing::Permuted(blocks),
            uneven: RemainderPolicy::Drop,
        }
    }

    /// Plans over the rows of a view, drawn in a given way. Blocks are runs of `block_size` rows of the view.
    ///
    /// `sampling`'s sizes must be at least 1; the command line checks that.
    pub fn of(rows: Rows, sampling: Sampling, draw: Draw) -> Result<Plan, PlanError> {
        let sampling = draw.sampling(sampling);
        let blocks = Blocks::new(rows.store_counts().iter().copied(), sampling.block_size);
        let drawing = match draw {
            Draw::Permuted(Order::Block | Order::Random) => Drawing::Permuted(blocks),
            Draw::Permuted(order) => Drawing::Stored { blocks: blocks.count(), shuffled: order == Order::Buffered },
            Draw::Weighted { weights, samples } => Drawing::Weighted(Weighted::new(blocks, weights, samples)?),
            Draw::Classes { codes, weights, samples } => {
                Drawing::Classes(Classes::new(&rows, &sampling, &codes, weights, samples)?)
            }
        };
        Ok(Plan { sampling, rows, drawing, uneven: RemainderPolicy::Drop })
    }

    /// The rows of the same view, each once, as they are stored.
    ///
    /// # Errors
    /// None that a plan did not have.
    pub fn stored(&self) -> Result<Plan, PlanError> {
        let sampling = Sampling { drop_last: false, ..self.sampling };
        Plan::of(self.rows.clone(), sampling, Draw::Permuted(Order::Sequential))
    }

    /// The rows of the same view, each once, grouped by a label: one code a row of the view. Within a label they are drawn as an
    /// epoch of that label alone would be; each batch is of one label.
    ///
    /// # Errors
    /// Too many rows or labels.
    pub fn grouped(&self, codes: &[u32]) -> Result<Plan, PlanError> {
        let sampling = Sampling { drop_last: false, ..self.sampling };
        let classes = Classes::new(&self.rows, &sampling, codes, None, None)?.grouped();
        Ok(Plan { sampling, drawing: Drawing::Classes(classes), ..self.clone() })
    }

    /// The batches of a label, where rows are grouped.
    pub fn batches_of_label(&self, code: usize) -> Option<Range<u64>> {
        match &self.drawing {
            Drawing::Classes(classes) => classes.batches_of(code),
            _ => None,
        }
    }

    /// The same plan, with what becomes of batches that ranks cannot share evenly.
    pub fn with_uneven(self, uneven: RemainderPolicy) -> Plan {
        Plan { uneven, ..self }
    }

    pub fn uneven(&self) -> RemainderPolicy {
        self.uneven
    }

    /// The sampling, with the block size that the order implies.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// The rows of the view.
    pub fn view(&self) -> &Rows {
        &self.rows
    }

    /// Rows of the view.
    pub fn rows(&self) -> u64 {
        self.rows.len()
    }

    /// Blocks that an epoch draws from.
    pub fn blocks(&self) -> u64 {
        match &self.drawing {
            Drawing::Permuted(blocks) => blocks.count(),
            Drawing::Stored { blocks, .. } => *blocks,
            Drawing::Weighted(weighted) => weighted.blocks(),
            Drawing::Classes(classes) => classes.blocks(),
        }
    }

    /// Rows that one epoch draws, repeats counted.
    pub fn drawn_rows(&self) -> u64 {
        match &self.drawing {
            Drawing::Permuted(_) | Drawing::Stored { .. } => self.rows(),
            Drawing::Weighted(weighted) => weighted.samples(),
            Drawing::Classes(classes) => classes.rows(),
        }
    }

    /// Rows that one epoch serves: those drawn, but for short batches that are dropped.
    pub fn served_rows(&self) -> u64 {
        if let Drawing::Classes(classes) = &self.drawing {
            return classes.served_rows(&self.sampling);
        }
        let drawn = self.drawn_rows();
        if self.sampling.drop_last { drawn - drawn % self.sampling.batch_size } else { drawn }
    }

    /// Batches of one epoch.
    pub fn batches(&self) -> u64 {
        match &self.drawing {
            Drawing::Classes(classes) => classes.batches(),
            _ => self.served_rows().div_ceil(self.sampling.batch_size),
        }
    }

    /// Whether an epoch serves each row of the view exactly once.
    pub fn serves_each_row_once(&self) -> bool {
        matches!(self.drawing, Drawing::Permuted(_) | Drawing::Stored { .. }) && self.served_rows() == self.rows()
    }

    /// Whether all batches of an epoch but its last have their size.
    pub fn has_full_batches(&self) -> bool {
        !matches!(self.drawing, Drawing::Classes(_))
    }

    /// Rows of one batch of an epoch; 0 past the last. Only the last batch can be short, unless batches are of one
    /// class and serve each row once: then one batch of each class can be, and which one depends on the epoch.
    pub fn batch_rows(&self, epoch: u64, batch: u64) -> u64 {
        if let Drawing::Classes(classes) = &self.drawing {
            let (fetch, place) = self.fetch_of(batch);
            return classes.epoch(self.sampling, epoch).batch_rows(fetch, place);
        }
        let start = batch.saturating_mul(self.sampling.batch_size);
        self.served_rows().saturating_sub(start).min(self.sampling.batch_size)
    }

    /// Fetches of one epoch.
    pub fn fetches(&self) -> u64 {
        self.batches().div_ceil(self.sampling.fetch_factor)
    }

    /// The fetch that a batch is part of, and its place there.
    pub fn fetch_of(&self, batch: u64) -> (u64, usize) {
        (batch / self.sampling.fetch_factor, (batch % self.sampling.fetch_factor) as usize)
    }

    /// The batches of a fetch.
    pub fn batches_of(&self, fetch: u64) -> Range<u64> {
        let first = fetch * self.sampling.fetch_factor;
        first..(first + self.sampling.fetch_factor).min(self.batches())
    }

    /// The order of one epoch. Costs time and memory for each store or class, not for each block or row.
    pub fn epoch(&self, epoch: u64) -> EpochOrder<'_> {
        let order = match &self.drawing {
            Drawing::Permuted(blocks) => {
                Ordered::Permuted(blocks.ordered(Permutation::new(blocks.count(), self.sampling.seed, epoch)))
            }
            Drawing::Stored { shuffled, .. } => Ordered::Stored { shuffled: *shuffled },
            Drawing::Weighted(weighted) => Ordered::Weighted(weighted),
            Drawing::Classes(classes) => Ordered::Classes(classes.epoch(self.sampling, epoch)),
        };
        EpochOrder { plan: self, epoch, order }
    }
}

/// One epoch's order.
#[derive(Clone, Debug)]
pub struct EpochOrder<'a> {
    plan: &'a Plan,
    epoch: u64,
    order: Ordered<'a>,
}

#[derive(Clone, Debug)]
enum Ordered<'a> {
    Permuted(BlockOrder<'a>),
    Stored { shuffled: bool },
    Weighted(&'a Weighted),
    Classes(ClassEpoch<'a>),
}

/// The rows of one fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRows {
    /// Global row numbers in served order.
    pub rows: Vec<u64>,
    /// Where each batch starts in `rows`, and where the last ends: one number more than batches.
    pub bounds: Vec<usize>,
}

impl FetchRows {
    /// The rows of the batch at a place of the fetch; none past the last.
    pub fn batch(&self, place: usize) -> &[u64] {
        match self.bounds.get(place..place + 2) {
            Some(&[start, end]) => &self.rows[start..end],
            _ => &[],
        }
    }

    fn cut(rows: Vec<u64>, batch_size: u64) -> FetchRows {
        let bounds = (0..rows.len()).step_by(batch_size as usize).chain([rows.len()]).collect();
        FetchRows { rows, bounds }
    }
}

impl EpochOrder<'_> {
    /// The rows of a fetch as runs of global rows, in no order that means anything; `None` where they are no runs.
    pub fn runs(&self, fetch: u64) -> Option<Vec<Range<u64>>> {
        let (sampling, plan) = (&self.plan.sampling, self.plan);
        let start = fetch.saturating_mul(sampling.fetch_rows()).min(plan.drawn_rows());
        let end = start.saturating_add(sampling.fetch_rows()).min(plan.drawn_rows());
        if plan.rows.len() < plan.rows.of() || end > plan.served_rows() {
            return None;
        }
        match &self.order {
            Ordered::Permuted(order) => {
                let mut runs = Vec::new();
                order.stretch(start..end, |run| runs.push(run));
                Some(runs)
            }
            Ordered::Stored { .. } => Some(std::iter::once(start..end).collect()),
            _ => None,
        }
    }

    /// The rows of a fetch, batch by batch. Empty past the last fetch.
    pub fn fetch(&self, fetch: u64) -> FetchRows {
        let (sampling, view) = (&self.plan.sampling, &self.plan.rows);
        let drawn = self.plan.drawn_rows();
        let start = fetch.saturating_mul(sampling.fetch_rows()).min(drawn);
        let end = start.saturating_add(sampling.fetch_rows()).min(drawn);
        let mut rows = Vec::with_capacity((end - start) as usize);
        let shuffled = match &self.order {
            Ordered::Permuted(order) => {
                order.stretch(start..end, |run| view.select_run(run, &mut rows));
                true
            }
            Ordered::Stored { shuffled } => {
                view.select_run(start..end, &mut rows);
                *shuffled
            }
            Ordered::Weighted(weighted) => {
                weighted.draw(view, sampling.seed, self.epoch, start..end, &mut rows);
                true
            }
            Ordered::Classes(classes) => return classes.fetch(fetch),
        };
        if shuffled {
            shuffle::shuffle(&mut rows, &mut shuffle::rng(Domain::Rows, sampling.seed, self.epoch, fetch));
        }
        // What drop_last leaves out is cut after the shuffle, so that it is a random few rows, not a block's end.
        rows.truncate(self.plan.served_rows().saturating_sub(start) as usize);
        FetchRows::cut(rows, sampling.batch_size)
    }
}

#[cfg(test)]
mod tests;

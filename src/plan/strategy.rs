//! How an epoch draws the rows of a view: one trait, and for each way one file and one line of [`STRATEGIES`].
//!
//! Contract, held against every registered strategy by [`conforms`]: an epoch is a pure function of (view, sampling, inputs,
//! epoch), and so is each of its fetches, whatever was asked for before. So batch 1,000,000 of epoch 7 costs what the first
//! costs, and a strategy keeps no state but what it was made of.

mod bags;
mod classes;
mod conformance;
mod permuted;
mod registry;
mod sets;
mod stored;
mod weights;

use std::fmt;
use std::ops::Range;

use super::groups::GroupShape;
use super::shuffle::{self, Domain};
use super::{FetchRows, Rows, Sampling};

pub use bags::Bags;
pub use classes::Classes;
pub use conformance::conforms;
pub use permuted::Permuted;
pub use registry::{Make, Registration, STRATEGIES, by_name};
pub use sets::Sets;
pub use stored::Stored;

/// One way of drawing the rows of one view, with what it needs to know of them.
pub trait Strategy: fmt::Debug + Send + Sync {
    /// The rows of the view.
    fn view(&self) -> &Rows;

    fn sampling(&self) -> &Sampling;

    /// Blocks that an epoch draws from.
    fn blocks(&self) -> u64;

    /// Rows that one epoch draws, repeats counted.
    fn drawn_rows(&self) -> u64 {
        self.view().len()
    }

    /// Rows that one epoch serves: those drawn, but for short batches that are dropped.
    fn served_rows(&self) -> u64 {
        let drawn = self.drawn_rows();
        if self.sampling().drop_last { drawn - drawn % self.sampling().batch_size } else { drawn }
    }

    /// Batches of one epoch; the same number in every epoch.
    fn batches(&self) -> u64 {
        self.served_rows().div_ceil(self.sampling().batch_size)
    }

    /// Rows of one batch of an epoch; 0 past the last.
    fn batch_rows(&self, _epoch: u64, batch: u64) -> u64 {
        let start = batch.saturating_mul(self.sampling().batch_size);
        self.served_rows().saturating_sub(start).min(self.sampling().batch_size)
    }

    /// The order of one epoch. May cost time and memory for each store or class, not for each block or row.
    fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_>;

    /// With which chances rows are drawn: what a batch's mixture of labels is compared with.
    fn chances(&self) -> Chances<'_> {
        Chances::Equal
    }

    /// Whether all batches of an epoch but its last have their size, so that a batch's place follows from its number.
    fn has_full_batches(&self) -> bool {
        true
    }

    /// What is to be told of an epoch besides its rows and batches: counts by name, for `plan` and `dataset.json`.
    fn told(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The batches of a label, where batches are of one label each and those of a label follow one another.
    fn batches_of_label(&self, _label: usize) -> Option<Range<u64>> {
        None
    }
}

/// One epoch's order.
pub trait EpochOrder: Send + Sync {
    /// The rows of a fetch, batch by batch. Empty past the last fetch.
    fn fetch(&self, fetch: u64) -> FetchRows;

    /// The rows of a fetch as runs of global rows, in any order, where they are few runs: counting needs no more than that.
    fn runs(&self, _fetch: u64) -> Option<Vec<Range<u64>>> {
        None
    }
}

/// The chance of each row to be in a batch.
pub enum Chances<'a> {
    /// Every row is drawn once.
    Equal,
    /// With replacement, by one weight a row of the view.
    Weights(&'a [f32]),
    /// Batches are not meant to be mixed.
    Unmixed,
}

/// What a strategy is made of besides the view and the sampling. Every list is by row of the view, in stored order.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The label of each row as a code, or [`super::NO_CLASS`].
    pub codes: Option<Vec<u32>>,
    /// One weight a row, finite and not negative.
    pub weights: Option<Vec<f32>>,
    /// Rows an epoch where they are drawn with replacement; `None`: as many as the view has.
    pub samples: Option<u64>,
    /// How groups become sets or bags; the codes are those of the groups.
    pub shape: GroupShape,
}

/// The order of an epoch that is one stream of rows, cut into fetches of `batch_size * fetch_factor` rows and these into
/// batches.
pub struct StreamOrder<'a> {
    pub strategy: &'a dyn Strategy,
    pub epoch: u64,
    /// Whether the rows of a fetch are shuffled.
    pub shuffled: bool,
    pub stream: Stream<'a>,
}

/// Calls its second argument with each run of a stretch.
pub type RunsOf<'a> = dyn Fn(Range<u64>, &mut dyn FnMut(Range<u64>)) + Send + Sync + 'a;
/// Appends the rows of a stretch.
pub type RowsOf<'a> = dyn Fn(Range<u64>, &mut Vec<u64>) + Send + Sync + 'a;

/// A stretch of an epoch's stream of rows; it lies within `drawn_rows`.
pub enum Stream<'a> {
    /// As runs of rows of the view, by their numbers in the view.
    Runs(Box<RunsOf<'a>>),
    /// As global rows, which are appended.
    Rows(Box<RowsOf<'a>>),
}

impl StreamOrder<'_> {
    /// The stretch of the stream that a fetch draws.
    fn stretch(&self, fetch: u64) -> Range<u64> {
        let (size, drawn) = (self.strategy.sampling().fetch_rows(), self.strategy.drawn_rows());
        let start = fetch.saturating_mul(size).min(drawn);
        start..start.saturating_add(size).min(drawn)
    }
}

impl EpochOrder for StreamOrder<'_> {
    fn fetch(&self, fetch: u64) -> FetchRows {
        let (sampling, view) = (self.strategy.sampling(), self.strategy.view());
        let Range { start, end } = self.stretch(fetch);
        let mut rows = Vec::with_capacity(usize::try_from(end - start).unwrap_or(0));
        match &self.stream {
            Stream::Runs(runs) => runs(start..end, &mut |run| view.select_run(run, &mut rows)),
            Stream::Rows(draw) => draw(start..end, &mut rows),
        }
        if self.shuffled {
            shuffle::shuffle(&mut rows, &mut shuffle::rng(Domain::Rows, sampling.seed, self.epoch, fetch));
        }
        // What drop_last leaves out is cut after the shuffle, so that it is a random few rows, not a block's end.
        let served = self.strategy.served_rows().saturating_sub(start);
        rows.truncate(usize::try_from(served).unwrap_or(usize::MAX));
        FetchRows::cut(rows, sampling.batch_size)
    }

    fn runs(&self, fetch: u64) -> Option<Vec<Range<u64>>> {
        let (view, stretch) = (self.strategy.view(), self.stretch(fetch));
        let Stream::Runs(draw) = &self.stream else { return None };
        // Numbers in the view are global rows where it has all of them. What drop_last leaves out is known after the shuffle.
        if view.len() < view.of() || stretch.end > self.strategy.served_rows() {
            return None;
        }
        let mut runs = Vec::new();
        draw(stretch, &mut |run| runs.push(run));
        Some(runs)
    }
}

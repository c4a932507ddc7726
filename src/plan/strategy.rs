//! Strategies: how an epoch draws the rows of a view. Each is one file, and one line of [`STRATEGIES`].
//!
//! Contract, checked for every registered strategy by [`conforms`]: an epoch is a pure function of (view, sampling, inputs, epoch), and so
//! is
//! each of its fetches, whatever was requested before. So batch 1,000,000 of epoch 7 costs as much as the first, and a strategy has no
//! state
//! besides its construction parameters.

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

/// One way of drawing the rows of a view, with its inputs.
pub trait Strategy: fmt::Debug + Send + Sync {
    /// The rows of the view.
    fn view(&self) -> &Rows;

    fn sampling(&self) -> &Sampling;

    /// Number of blocks that an epoch draws from.
    fn blocks(&self) -> u64;

    /// Number of rows that an epoch draws, counting repeats.
    fn drawn_rows(&self) -> u64 {
        self.view().len()
    }

    /// Number of rows that an epoch serves: those drawn, without short batches that are dropped.
    fn served_rows(&self) -> u64 {
        let drawn = self.drawn_rows();
        if self.sampling().drop_last { drawn - drawn % self.sampling().batch_size } else { drawn }
    }

    /// Number of batches of an epoch, the same in every epoch.
    fn batches(&self) -> u64 {
        self.served_rows().div_ceil(self.sampling().batch_size)
    }

    /// Number of rows of a batch; 0 past the last.
    fn batch_rows(&self, _epoch: u64, batch: u64) -> u64 {
        let start = batch.saturating_mul(self.sampling().batch_size);
        self.served_rows().saturating_sub(start).min(self.sampling().batch_size)
    }

    /// The order of one epoch. May take time and memory for each store or class, but not for each block or row.
    fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_>;

    /// The probabilities with which rows are drawn, to compute the expected mixture of labels.
    fn chances(&self) -> Chances<'_> {
        Chances::Equal
    }

    /// Whether all batches except the last are full, so that the position of a batch follows from its number.
    fn has_full_batches(&self) -> bool {
        true
    }

    /// Further counts of an epoch by name, for `plan` and `dataset.json`.
    fn told(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The batches of a label, if batches have one label each and those of a label are consecutive.
    fn batches_of_label(&self, _label: usize) -> Option<Range<u64>> {
        None
    }
}

/// The order of one epoch.
pub trait EpochOrder: Send + Sync {
    /// The rows of a fetch, batch by batch; empty past the last fetch.
    fn fetch(&self, fetch: u64) -> FetchRows;

    /// The rows of a fetch as runs of global rows, in any order, if that are few runs: this makes counting fast.
    fn runs(&self, _fetch: u64) -> Option<Vec<Range<u64>>> {
        None
    }
}

/// The probability of each row.
pub enum Chances<'a> {
    /// Every row is drawn once.
    Equal,
    /// With replacement, by weight (one for each row of the view).
    Weights(&'a [f32]),
    /// Batches are not meant to be mixed, so nothing is expected.
    Unmixed,
}

/// The inputs of a strategy besides view and sampling. Lists have an entry for each row of the view, in stored order.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The label of each row as a code, or [`super::NO_CLASS`].
    pub codes: Option<Vec<u32>>,
    /// The weight of each row, finite and not negative.
    pub weights: Option<Vec<f32>>,
    /// Rows of an epoch drawn with replacement; `None`: as many as the view has.
    pub samples: Option<u64>,
    /// Parameters of sets and bags; `codes` are then the groups.
    pub shape: GroupShape,
}

/// An epoch that is one stream of rows, cut into fetches of `batch_size * fetch_factor` rows, and these into batches.
pub struct StreamOrder<'a> {
    pub strategy: &'a dyn Strategy,
    pub epoch: u64,
    /// Whether to shuffle the rows of a fetch.
    pub shuffled: bool,
    pub stream: Stream<'a>,
}

/// Calls its second argument with each run of rows in a range of the stream.
pub type RunsOf<'a> = dyn Fn(Range<u64>, &mut dyn FnMut(Range<u64>)) + Send + Sync + 'a;
/// Appends the rows in a range of the stream.
pub type RowsOf<'a> = dyn Fn(Range<u64>, &mut Vec<u64>) + Send + Sync + 'a;

/// Gives the rows in a range of an epoch's stream, which has `drawn_rows` rows.
pub enum Stream<'a> {
    /// As runs of rows, numbered within the view.
    Runs(Box<RunsOf<'a>>),
    /// As global row numbers, which are appended.
    Rows(Box<RowsOf<'a>>),
}

impl StreamOrder<'_> {
    /// The range of the stream that a fetch draws.
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
        // Rows that `drop_last` leaves out are cut after the shuffle, so that they are random instead of the end of a block.
        let served = self.strategy.served_rows().saturating_sub(start);
        rows.truncate(usize::try_from(served).unwrap_or(usize::MAX));
        FetchRows::cut(rows, sampling.batch_size)
    }

    fn runs(&self, fetch: u64) -> Option<Vec<Range<u64>>> {
        let (view, stretch) = (self.strategy.view(), self.stretch(fetch));
        let Stream::Runs(draw) = &self.stream else { return None };
        // Numbers in the view are global row numbers only if the view has all rows. Which rows `drop_last` leaves out is known only after
        // the shuffle.
        if view.len() < view.of() || stretch.end > self.strategy.served_rows() {
            return None;
        }
        let mut runs = Vec::new();
        draw(stretch, &mut |run| runs.push(run));
        Some(runs)
    }
}

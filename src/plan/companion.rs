//! Rows that are served in step with those of a fetch.

use std::fmt;

use super::{FetchRows, Sampling};

/// What chooses the rows that stand beside those of a fetch: controls, for one ([`super::controls`]).
///
/// Contract, as of a [`super::Strategy`]: the rows beside a fetch are a pure function of (what it was made of, sampling, epoch,
/// fetch, rows of the fetch), and their number follows from that of the rows alone.
pub trait Companion: fmt::Debug + Send + Sync {
    /// Its rows for each row of a fetch.
    fn each(&self) -> u64;

    /// The rows beside those of a fetch: `each * i` up to `each * (i + 1)` belong to row i.
    fn rows(&self, sampling: &Sampling, epoch: u64, fetch: u64, rows: &[u64]) -> Vec<u64>;
}

/// The rows of a companion beside those of a fetch, batch by batch.
pub(super) fn beside(
    companion: &dyn Companion,
    sampling: &Sampling,
    (epoch, fetch): (u64, u64),
    rows: &FetchRows,
) -> FetchRows {
    let each = companion.each() as usize;
    FetchRows {
        rows: companion.rows(sampling, epoch, fetch, &rows.rows),
        bounds: rows.bounds.iter().map(|bound| bound * each).collect(),
        padding: Vec::new(),
    }
}

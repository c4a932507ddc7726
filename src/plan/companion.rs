//! Rows that are served in step with those of a fetch.

use std::fmt;

use super::{FetchRows, Sampling};

/// What chooses the rows that stand beside those of a fetch: controls ([`super::controls`]), the same cells in another modality
/// ([`super::modality`]), or neighbours in a graph ([`super::neighbours`]).
///
/// Contract, as of a [`super::Strategy`]: the rows beside a fetch are a pure function of (what it was made of, sampling, epoch,
/// fetch, rows of the fetch).
pub trait Companion: fmt::Debug + Send + Sync {
    /// The rows beside those of a fetch, batch by batch; `place`: epoch and fetch.
    fn beside(&self, sampling: &Sampling, place: (u64, u64), rows: &FetchRows) -> FetchRows;
}

//! Companions: rows that are served in step with those of a fetch.

use std::fmt;

use super::{FetchRows, Sampling};

/// Chooses the companion rows of a fetch: controls ([`super::controls`]), the same cells in another modality ([`super::modality`]), or
/// neighbours in a graph ([`super::neighbours`]).
///
/// Contract, as for a [`super::Strategy`]: they are a pure function of (construction parameters, sampling, epoch, fetch, rows of the
/// fetch).
pub trait Companion: fmt::Debug + Send + Sync {
    /// The companion rows of a fetch, batch by batch; `place`: (epoch, fetch).
    fn beside(&self, sampling: &Sampling, place: (u64, u64), rows: &FetchRows) -> FetchRows;
}

//! The rows of a fetch and the shapes of its batches, remembered for the few fetches in use.

use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::batch::Batch;
use crate::collection::{Collection, Table};
use crate::plan::{FetchRows, Plan};

use super::{Key, at_most};

/// One fetch of one epoch, planned.
pub struct Fetch {
    /// Global rows in served order, and where each batch starts.
    rows: FetchRows,
    /// Stored values of each row.
    lengths: Vec<u64>,
    /// Stored values before each batch, and in all.
    bounds: Vec<u64>,
}

impl Fetch {
    fn new(collection: &Collection, plan: &Plan, epoch: u64, fetch: u64) -> Fetch {
        let rows = plan.epoch(epoch).fetch(fetch);
        let lengths = collection.row_lengths(&rows.rows);
        let mut total = 0;
        let ends = rows.bounds.windows(2).map(|batch| {
            total += lengths[batch[0]..batch[1]].iter().sum::<u64>();
            total
        });
        let bounds = std::iter::once(0).chain(ends).collect();
        Fetch { rows, lengths, bounds }
    }

    /// The batch at a place of the fetch.
    pub fn batch<'a>(&'a self, table: &'a Table, key: Key, place: usize) -> Batch<'a> {
        let nnz = match self.bounds.get(place..place + 2) {
            Some(&[start, end]) => end - start,
            _ => 0,
        };
        Batch { table, rows: self.rows.batch(place), nnz, epoch: key.epoch, index: key.batch }
    }

    /// Stored values of each of its rows.
    pub fn lengths(&self, place: usize) -> &[u64] {
        match self.rows.bounds.get(place..place + 2) {
            Some(&[start, end]) => &self.lengths[start..end],
            _ => &[],
        }
    }
}

/// View, epoch, fetch.
type Place = (u16, u64, u64);

/// The fetches planned lately. A fetch costs about 20 ns a row to plan, and is asked for by every `stat`.
pub struct Fetches {
    recent: Mutex<LruCache<Place, Arc<Fetch>>>,
}

/// At 262,144 rows a fetch (256 blocks of 1,024 rows) this many take 64 MiB.
const KEPT: usize = 16;

impl Fetches {
    pub fn new() -> Fetches {
        Fetches { recent: Mutex::new(LruCache::new(at_most(KEPT))) }
    }

    pub fn get(&self, collection: &Collection, plan: &Plan, place: Place) -> Arc<Fetch> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = recent.get(&place) {
            return found.clone();
        }
        drop(recent);
        // Planned without the lock: two threads may plan the same fetch, to the same result.
        let planned = Arc::new(Fetch::new(collection, plan, place.1, place.2));
        recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.put(place, planned.clone());
        planned
    }
}

//! The rows of a fetch and the shapes of its batches, remembered for the few fetches in use.

use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::batch::{Batch, Lengths};
use crate::collection::element::Element;
use crate::collection::{Collection, Table};
use crate::plan::{FetchRows, Plan};

use super::{ImageKey, at_most};

/// One fetch of one epoch, planned.
pub struct Fetch {
    /// Global rows in served order, and where each batch starts.
    rows: FetchRows,
    /// Values of each row, element by element; none for dense ones, whose rows are all alike.
    lengths: Vec<Vec<u64>>,
    /// Values of each batch, in each element.
    nnz: Vec<u64>,
}

impl Fetch {
    fn new(collection: &Collection, plan: &Plan, epoch: u64, fetch: u64) -> Fetch {
        let rows = plan.epoch(epoch).fetch(fetch);
        let length = |(number, element): (usize, &Element)| {
            collection.row_lengths(number, if element.is_sparse() { &rows.rows } else { &[] })
        };
        let lengths: Vec<Vec<u64>> = collection.table.elements.iter().enumerate().map(length).collect();
        let sum = |lengths: &Vec<u64>, batch: &[usize]| lengths.get(batch[0]..batch[1]).map_or(0, |of| of.iter().sum());
        let nnz = rows.bounds.windows(2).flat_map(|batch| lengths.iter().map(move |lengths| sum(lengths, batch)));
        Fetch { nnz: nnz.collect(), rows, lengths }
    }

    /// The batch at a place of the fetch.
    pub fn batch<'a>(&'a self, table: &'a Table, key: ImageKey, place: usize) -> Batch<'a> {
        let count = self.lengths.len();
        let nnz = &self.nnz[place * count..(place + 1) * count];
        let (start, end) = self.rows.bounds.get(place..place + 2).map_or((0, 0), |batch| (batch[0], batch[1]));
        let lengths = Lengths { of_fetch: &self.lengths, start, end };
        Batch { table, rows: self.rows.batch(place), nnz, lengths, epoch: key.epoch, index: key.batch }
    }
}

/// View, epoch, fetch.
type FetchId = (u16, u64, u64);

/// The fetches planned lately. A fetch costs about 20 ns a row to plan, and is asked for by every `stat`.
pub struct Fetches {
    recent: Mutex<LruCache<FetchId, Arc<Fetch>>>,
}

/// At 262,144 rows a fetch (256 blocks of 1,024 rows) this many take 64 MiB.
const KEPT: usize = 16;

impl Fetches {
    pub fn new() -> Fetches {
        Fetches { recent: Mutex::new(LruCache::new(at_most(KEPT))) }
    }

    pub fn get(&self, collection: &Collection, plan: &Plan, place: FetchId) -> Arc<Fetch> {
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

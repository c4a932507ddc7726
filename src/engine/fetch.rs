//! Planned fetches: rows, and shapes of batches; cached for the few fetches in use.

use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::batch::{Batch, FetchShape};
use crate::collection::{Collection, Table};
use crate::plan::Plan;

use super::{ImageKey, at_most};

/// One fetch of one epoch, planned.
pub struct Fetch {
    rows: FetchShape,
    /// The shapes of the table's companions, in order.
    companions: Vec<FetchShape>,
}

impl Fetch {
    fn new(collection: &Collection, plan: &Plan, epoch: u64, fetch: u64) -> Fetch {
        let rows = plan.epoch(epoch).fetch(fetch);
        let in_step = plan.companions(epoch, fetch, &rows);
        let shape = |(number, rows)| FetchShape::new(collection.of_companion(number), rows);
        let companions = in_step.into_iter().enumerate().map(shape).collect();
        Fetch { rows: FetchShape::new(collection, rows), companions }
    }

    /// The batch at a position of the fetch.
    pub fn batch<'a>(&'a self, table: &'a Table, key: ImageKey, place: usize) -> Batch<'a> {
        let batch = self.rows.batch(table, place);
        Batch { epoch: key.epoch, index: key.batch, companions: &self.companions, ..batch }
    }
}

/// View, epoch, fetch.
type FetchId = (u16, u64, u64);

/// Recently planned fetches. Planning takes about 20 ns a row, and every `stat` needs the fetch.
pub struct Fetches {
    recent: Mutex<LruCache<FetchId, Arc<Fetch>>>,
}

/// At 262,144 rows a fetch (256 blocks of 1,024 rows) these take 64 MiB.
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
        // Planned without the lock: two threads may plan the same fetch, with equal results.
        let planned = Arc::new(Fetch::new(collection, plan, place.1, place.2));
        recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.put(place, planned.clone());
        planned
    }
}

//! The stores of a mount, with all resources to read them.

use std::sync::Mutex;

use serde_json::{Value, json};

use crate::array::Counters;
use crate::array::cache::ChunkCache;
use crate::array::gather::Io;
use crate::collection::{Collection, Store};
use crate::format::Writers;
use crate::storage::{self, Meter};

use super::fetch::Fetches;
use super::parts::Parts;
use super::plans::Plans;

/// The stores of a mount, with all resources to read them.
pub struct StoreLoader {
    pub collection: Collection,
    pub plans: Plans,
    pub writers: Writers,
    pub parts: Parts,
    pub fetches: Fetches,
    pub counters: Counters,
    /// The cache of decoded chunks, if the budget holds a fair part of all.
    pub cache: Option<ChunkCache>,
    pub threads: rayon::ThreadPool,
    /// Limits of requests to storage.
    pub io: Io,
    /// A pool with one thread less, which leaves a core to readers, for loads that are not urgent.
    pub background_pool: rayon::ThreadPool,
    /// Buffers of loads that decode rows as a whole, one pair for each loader, reused because fresh memory costs page faults.
    pub scratch: Mutex<Vec<[Vec<u8>; 2]>>,
}

/// Stores to list in statistics, at most.
const MOST_STORES: usize = 100;

impl StoreLoader {
    /// The requests to each store, or to the first ones if there are many.
    pub fn stores(&self) -> Value {
        let told = |store: &Store| {
            let arrays = store.elements.iter().flat_map(|part| part.matrix.arrays());
            let meter = arrays.into_iter().find_map(|array| array.source.meter().map(Meter::figures))?;
            Some((store.container.name().to_owned(), meter))
        };
        Value::Object(self.collection.all_stores().take(MOST_STORES).filter_map(told).collect())
    }

    /// The requests to all stores; latency and depth are those of the slowest.
    pub fn storage(&self) -> Value {
        // One array for each store, as all arrays of a store share its meter.
        let elements = self.collection.all_stores().flat_map(|store| &store.elements);
        let arrays = elements.flat_map(|part| part.matrix.arrays());
        let mut meters: Vec<&Meter> = arrays.filter_map(|array| array.source.meter()).collect();
        meters.dedup_by(|a, b| std::ptr::eq(*a, *b));
        let sum = |of: fn(&Meter) -> u64| meters.iter().map(|meter| of(meter)).sum::<u64>();
        let most = |of: &dyn Fn(&Meter) -> u64| meters.iter().map(|meter| of(meter)).max().unwrap_or(0);
        let slow = meters.iter().filter(|meter| meter.is_slow()).count();
        let (cache_hits, cache_misses) = storage::cache_counts();
        json!({
            "requests": sum(Meter::requests),
            "bytes": sum(Meter::bytes),
            "failed": sum(Meter::failed),
            "retries": sum(Meter::retries),
            "in_flight": sum(Meter::in_flight),
            "p50_microseconds": most(&|meter| meter.quantile(0.5)),
            "p99_microseconds": most(&|meter| meter.quantile(0.99)),
            "latency_microseconds": most(&|meter| if meter.is_slow() { meter.latency() } else { 0 }),
            "slow_stores": slow,
            "cache_hits": cache_hits,
            "cache_misses": cache_misses,
            "depth": self.io.depth_of(&meters),
        })
    }
}

//! The stores of a mount, and what reads them.

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

/// The stores of a mount, and what reads them.
pub struct StoreLoader {
    pub collection: Collection,
    pub plans: Plans,
    pub writers: Writers,
    pub parts: Parts,
    pub fetches: Fetches,
    pub counters: Counters,
    /// Decoded chunks, where a fair part of all fits the budget.
    pub cache: Option<ChunkCache>,
    pub threads: rayon::ThreadPool,
    /// Requests to storage.
    pub io: Io,
    /// One thread less, for what is not needed soon: it leaves a core to a reader.
    pub background_pool: rayon::ThreadPool,
    /// Buffers of loads that see rows whole: one pair a loader, as fresh memory costs a page fault for every 4 KiB.
    pub scratch: Mutex<Vec<[Vec<u8>; 2]>>,
}

/// Stores that are told one by one.
const MOST_STORES: usize = 100;

impl StoreLoader {
    /// What each store was asked for; of the first ones where there are many.
    pub fn stores(&self) -> Value {
        let told = |store: &Store| {
            let arrays = store.elements.iter().flat_map(|part| part.matrix.arrays());
            let meter = arrays.into_iter().find_map(|array| array.source.meter().map(Meter::figures))?;
            Some((store.container.name().to_owned(), meter))
        };
        Value::Object(self.collection.all_stores().take(MOST_STORES).filter_map(told).collect())
    }

    /// What storage was asked for, over all stores; latency and depth are those of the slowest.
    pub fn storage(&self) -> Value {
        // All arrays of a store share its meter.
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

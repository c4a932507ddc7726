//! What the queue serves, apart from the queue: plans, layouts and bytes.
//!
//! The queue knows it by [`FetchLoader`] alone, so that models run the queue itself over a supply that fails, hangs and panics
//! when they want (`models`).

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::array::Counters;
use crate::array::cache::ChunkCache;
use crate::array::gather::Io;
use crate::batch::Layout;
use crate::collection::Collection;
use crate::format::Writers;
use crate::plan::Plan;
use crate::storage::Meter;

use super::budget::Image;
use super::fetch::{Fetch, Fetches};
use super::load::load;
use super::load_task::Item;
use super::parts::Parts;
use super::plans::Plans;
use super::{ImageKey, ImageKind, ReadError};

/// What load tasks load.
pub trait FetchLoader: Send + Sync + 'static {
    /// One fetch of one epoch, planned.
    type Fetch;

    /// The plan of a view. Panics if `view` is out of range.
    fn plan(&self, view: u16) -> &Plan;

    fn fetch(&self, view: u16, epoch: u64, fetch: u64) -> Arc<Self::Fetch>;

    /// Rows of a batch.
    fn rows(&self, key: ImageKey) -> u64;

    /// The exact layout of one batch of a fetch.
    ///
    /// # Errors
    /// The format cannot hold it.
    fn layout(&self, fetch: &Self::Fetch, key: ImageKey) -> Result<Layout, ReadError>;

    /// Fills the images of `items`, which are batches of `fetch` in one format. What an image held before does not matter.
    /// `in_background`: no reader needs them soon. `advance` is called after each chunk; deadlines are measured from it.
    ///
    /// # Errors
    /// A damaged or stale store: then no image may be served.
    fn load(
        &self,
        fetch: &Self::Fetch,
        items: &[Item],
        images: &mut [Image],
        in_background: bool,
        advance: &(dyn Fn() + Sync),
    ) -> Result<(), ReadError>;
}

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

impl StoreLoader {
    /// What storage was asked for, over all stores; latency and depth are those of the slowest.
    pub fn storage(&self) -> Value {
        // All arrays of a store share its meter.
        let elements = self.collection.stores.iter().flat_map(|store| &store.elements);
        let arrays = elements.flat_map(|part| part.matrix.arrays());
        let mut meters: Vec<&Meter> = arrays.filter_map(|array| array.source.meter()).collect();
        meters.dedup_by(|a, b| std::ptr::eq(*a, *b));
        let sum = |of: fn(&Meter) -> u64| meters.iter().map(|meter| of(meter)).sum::<u64>();
        let most = |of: &dyn Fn(&Meter) -> u64| meters.iter().map(|meter| of(meter)).max().unwrap_or(0);
        let slow = meters.iter().filter(|meter| meter.is_slow()).count();
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
            "depth": self.io.depth_of(&meters),
        })
    }
}

impl FetchLoader for StoreLoader {
    type Fetch = Fetch;

    fn plan(&self, view: u16) -> &Plan {
        self.plans.get(&self.collection, view)
    }

    fn fetch(&self, view: u16, epoch: u64, fetch: u64) -> Arc<Fetch> {
        self.fetches.get(&self.collection, self.plan(view), (view, epoch, fetch))
    }

    fn rows(&self, key: ImageKey) -> u64 {
        // Each part of a batch but the first is of rows that were counted with it.
        if matches!(key.kind, ImageKind::Part(part) if part > 0) {
            return 0;
        }
        // Short batches stand anywhere where batches are of one class, so the plan is asked, which remembers this fetch.
        let (number, place) = self.plan(key.view).fetch_of(key.batch);
        let fetch = self.fetch(key.view, key.epoch, number);
        fetch.batch(&self.collection.table, key, place).rows.len() as u64
    }

    fn layout(&self, fetch: &Fetch, key: ImageKey) -> Result<Layout, ReadError> {
        let batch = fetch.batch(&self.collection.table, key, self.plan(key.view).fetch_of(key.batch).1);
        let extension = match key.kind {
            ImageKind::File(extension) => extension,
            ImageKind::Part(part) => return Ok(self.parts.layout(part, &batch)),
        };
        match self.writers.get(extension) {
            Ok(writer) => Ok(writer.layout(&batch)),
            // The tree has no such file, so nobody can ask for it.
            Err(reason) => Err(ReadError::Internal(reason.to_owned())),
        }
    }

    fn load(
        &self,
        fetch: &Fetch,
        items: &[Item],
        images: &mut [Image],
        in_background: bool,
        advance: &(dyn Fn() + Sync),
    ) -> Result<(), ReadError> {
        load(self, fetch, items, images, in_background, advance)
    }
}

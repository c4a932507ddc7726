//! The engine's statistics, as JSON and in Prometheus' text format.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::array::cache::ChunkCache;

use super::Shared;

/// Counters since the mount. Relaxed: they order nothing.
#[derive(Default)]
pub struct Stats {
    reads: AtomicU64,
    bytes: AtomicU64,
    batches: AtomicU64,
    rows: AtomicU64,
    tasks: AtomicU64,
    images: AtomicU64,
    load_ns: AtomicU64,
    evicted: AtomicU64,
    failed: AtomicU64,
    stored: AtomicU64,
    waits: AtomicU64,
    wait_ns: AtomicU64,
    /// Microseconds from a read's arrival to its answer, and from the opening of a file to its first byte.
    read: Latency,
    first: Latency,
}

/// A distribution of microseconds, with two significant digits, up to an hour.
struct Latency(Mutex<Option<Histogram<u64>>>);

impl Default for Latency {
    fn default() -> Self {
        Latency(Mutex::new(Histogram::new_with_max(3_600_000_000, 2).ok()))
    }
}

impl Latency {
    fn record(&self, time: Duration) {
        if let Some(histogram) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// A quantile in microseconds; 0 without values.
    fn quantile(&self, quantile: f64) -> u64 {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        histogram.as_ref().map_or(0, |histogram| histogram.value_at_quantile(quantile))
    }
}

impl Stats {
    /// Counts a read that arrived at `since`; `waited`: for a load. `opened`: when its file was opened, if it is the first read.
    pub fn served(&self, bytes: usize, since: Instant, waited: bool, opened: Option<Instant>) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let time = since.elapsed();
        self.read.record(time);
        if waited {
            self.waits.fetch_add(1, Ordering::Relaxed);
            self.wait_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        }
        if let Some(opened) = opened {
            self.first.record(opened.elapsed());
        }
    }

    /// Counts an image stored in the page cache.
    pub fn stored(&self, bytes: usize) {
        self.stored.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a batch that was read to the end for the first time since it was loaded.
    pub fn read(&self, rows: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Counts a load task that loaded `images` images in `time`.
    pub fn loaded(&self, images: usize, time: Duration) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        self.images.fetch_add(images as u64, Ordering::Relaxed);
        self.load_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn evicted(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub fn stats_json(&self) -> Value {
        let (unread, read, loading, streams, unread_bytes, retained) = {
            let state = self.lock();
            let unread: u64 = state.unread.iter().map(|(_, image)| image.capacity()).sum();
            let counts = (state.unread.len(), state.read.len(), state.loading.len(), state.access.streams.len());
            (counts.0, counts.1, counts.2, counts.3, unread, state.read_bytes)
        };
        let ((used, free), gone) = (self.pool.used(), self.pool.gone());
        let chunks = self.loader.cache.as_ref().map_or(0, ChunkCache::bytes);
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seconds = |counter: &AtomicU64| get(counter) as f64 / 1e9;
        let (stats, store) = (&self.stats, &self.loader.counters);
        json!({
            "uptime_seconds": self.start.elapsed().as_secs_f64(),
            "store": {
                "bytes_read": get(&store.bytes),
                "reads": get(&store.reads),
                "chunks": get(&store.chunks),
                "decode_seconds": seconds(&store.decode_ns),
                "scatter_seconds": seconds(&store.scatter_ns),
                "read_seconds": seconds(&store.read_ns),
            },
            "storage": self.loader.storage(),
            "stores": self.loader.stores(),
            "served": {
                "reads": get(&stats.reads),
                "bytes": get(&stats.bytes),
                "batches": get(&stats.batches),
                "rows": get(&stats.rows),
                "page_cached": get(&stats.stored),
                "waits": get(&stats.waits),
                "wait_seconds": seconds(&stats.wait_ns),
                "streams": streams,
            },
            "latency_microseconds": {
                "read_p50": stats.read.quantile(0.5),
                "read_p99": stats.read.quantile(0.99),
                "first_byte_p50": stats.first.quantile(0.5),
                "first_byte_p99": stats.first.quantile(0.99),
            },
            "loads": {
                "tasks": get(&stats.tasks),
                "images": get(&stats.images),
                "seconds": seconds(&stats.load_ns),
                "evicted": get(&stats.evicted),
                "failed": get(&stats.failed),
            },
            "images": {"unread": unread, "read": read, "loading": loading},
            "memory": {
                "budget_bytes": self.limits.memory,
                "used_bytes": used + chunks,
                "chunk_bytes": chunks,
                "free_bytes": free,
                "loading_bytes": used.saturating_sub(free + unread_bytes + retained + gone),
                "leased_bytes": self.pool.leased(),
                "unread_bytes": unread_bytes,
                "retained_bytes": retained,
            },
        })
    }
}

/// All numbers of the statistics as Prometheus gauges: `shufflefs_store_bytes_read 123.0`, and for each store
/// `shufflefs_stores_requests{store="a.h5ad"} 7.0`.
pub fn prometheus(stats: &Value) -> String {
    let mut registry = Registry::with_prefix("shufflefs");
    for (group, values) in stats.as_object().into_iter().flatten() {
        let Some(values) = values.as_object() else {
            add(&mut registry, group.clone(), [(None, values)]);
            continue;
        };
        let of_stores = || values.iter().filter_map(|(store, figures)| Some((store, figures.as_object()?)));
        for name in of_stores().next().into_iter().flat_map(|(_, figures)| figures.keys()) {
            let samples = of_stores().map(|(store, figures)| (Some(store.as_str()), &figures[name]));
            add(&mut registry, format!("{group}_{name}"), samples);
        }
        for (name, value) in values.iter().filter(|(_, value)| !value.is_object()) {
            add(&mut registry, format!("{group}_{name}"), [(None, value)]);
        }
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Adds a gauge with one number, or one for each store.
fn add<'a>(registry: &mut Registry, name: String, samples: impl IntoIterator<Item = (Option<&'a str>, &'a Value)>) {
    let gauge = Family::<Vec<(&str, String)>, Gauge<f64, AtomicU64>>::default();
    for (store, value) in samples {
        let labels = store.map(|store| ("store", store.to_owned()));
        gauge.get_or_create(&labels.into_iter().collect()).set(value.as_f64().unwrap_or(f64::NAN));
    }
    let help = name.replace('_', " ");
    registry.register(name, help, gauge);
}

//! What the engine counts, as JSON and in Prometheus' text format.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::Shared;

/// Counts since the mount. Relaxed: nothing is ordered by them.
#[derive(Default)]
pub struct Stats {
    reads: AtomicU64,
    bytes: AtomicU64,
    batches: AtomicU64,
    rows: AtomicU64,
    flights: AtomicU64,
    images: AtomicU64,
    load_ns: AtomicU64,
    evicted: AtomicU64,
    failed: AtomicU64,
}

impl Stats {
    /// A read was answered.
    pub fn served(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A batch was read to its end for the first time since it was loaded.
    pub fn consumed(&self, rows: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// A flight loaded so many images.
    pub fn loaded(&self, images: usize, time: Duration) {
        self.flights.fetch_add(1, Ordering::Relaxed);
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
        let (fresh, consumed, loading) = {
            let state = self.lock();
            (state.fresh.len(), state.consumed.len(), state.loading.len())
        };
        let (used, free) = self.pool.used();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seconds = |counter: &AtomicU64| get(counter) as f64 / 1e9;
        let (stats, store) = (&self.stats, &self.counters);
        json!({
            "uptime_seconds": self.start.elapsed().as_secs_f64(),
            "store": {
                "bytes_read": get(&store.bytes),
                "reads": get(&store.reads),
                "chunks": get(&store.chunks),
                "decode_seconds": seconds(&store.decode_ns),
            },
            "served": {
                "reads": get(&stats.reads),
                "bytes": get(&stats.bytes),
                "batches": get(&stats.batches),
                "rows": get(&stats.rows),
            },
            "loads": {
                "flights": get(&stats.flights),
                "images": get(&stats.images),
                "seconds": seconds(&stats.load_ns),
                "evicted": get(&stats.evicted),
                "failed": get(&stats.failed),
            },
            "images": {"fresh": fresh, "consumed": consumed, "loading": loading},
            "memory": {"budget_bytes": self.limits.memory, "used_bytes": used, "free_bytes": free},
        })
    }
}

/// Numbers of the statistics as Prometheus gauges: `shufflefs_store_bytes_read 123`.
pub fn prometheus(stats: &Value) -> String {
    let mut text = String::new();
    let Some(groups) = stats.as_object() else { return text };
    for (group, values) in groups {
        match values.as_object() {
            Some(values) => {
                for (name, value) in values {
                    text.push_str(&format!("shufflefs_{group}_{name} {value}\n"));
                }
            }
            None => text.push_str(&format!("shufflefs_{group} {values}\n")),
        }
    }
    text
}

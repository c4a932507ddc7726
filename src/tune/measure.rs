//! Measures on this machine: how fast the engine loads blocks of several sizes, and how fast a reader reads files that are loaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::array::cost::ReadCost;
use crate::engine::{Engine, ImageKey};
use crate::format::Extension;
use crate::plan::Plan;
use crate::tree::Tree;

use super::reader::Reader;

/// Time limit of one measurement.
const LOOK: Duration = Duration::from_millis(1500);
/// Fetches that a rate is measured over; the first ones are excluded, as they are loaded with nothing else to do.
const FETCHES: u64 = 4;
/// Repetitions of reading loaded files, at most.
const ROUNDS: usize = 12;

/// The measured cost of loading blocks of one size.
#[derive(Clone, Debug)]
pub struct Loading {
    pub block_size: u64,
    /// Rows a second, loaded by all threads of the engine while nobody reads.
    pub rows_per_second: f64,
    /// Seconds a row, summed over threads.
    pub decode: f64,
    pub read: f64,
    pub scatter: f64,
    /// The read cost of a plan with this block size, over `cost_rows` rows.
    pub cost: ReadCost,
    pub cost_rows: u64,
}

/// The measured cost of files of one format.
#[derive(Clone, Debug)]
pub struct FormatCost {
    pub format: Extension,
    /// Loading time relative to the first format.
    pub load: f64,
    /// Bytes a row.
    pub row_bytes: f64,
    /// Reading a whole loaded file through the mount into a buffer; `None` without a mount.
    pub copy: Option<FileTime>,
    /// Reading it as trainers do; `None` where Python or a library is missing.
    pub parse: Option<FileTime>,
    /// Why `copy` or `parse` is missing.
    pub missing: Option<String>,
    /// Slowdown of a reader of new files while others are loaded.
    pub beside: f64,
}

/// Seconds to read a file, as a linear function of its size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FileTime {
    pub file: f64,
    pub byte: f64,
}

impl FileTime {
    /// Fits files of two sizes, each given as (bytes, seconds).
    pub fn of(small: (f64, f64), large: (f64, f64)) -> FileTime {
        let byte = ((large.1 - small.1) / (large.0 - small.0).max(1.0)).max(0.0);
        let file = small.1 - byte * small.0;
        if file >= 0.0 { FileTime { file, byte } } else { FileTime { file: 0.0, byte: large.1 / large.0.max(1.0) } }
    }

    pub fn seconds(&self, bytes: f64) -> f64 {
        self.file + self.byte * bytes
    }
}

/// The rate of a reader, in rows a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    pub rows_per_second: f64,
    pub rows: u64,
    /// Fetches that the rate was measured over: all but the first, or all if there were at most two.
    pub fetches: u64,
}

/// Loads an image and waits for it.
fn load(engine: &Engine, key: ImageKey) -> Result<(), String> {
    let (sender, receiver) = sync_channel(1);
    let opened = move |image: Result<_, &crate::engine::ReadError>| {
        let _ = sender.send(image.map(drop).map_err(ToString::to_string));
    };
    engine.open(key, None, Box::new(opened));
    receiver.recv().unwrap_or_else(|_| Err("a load was given up".to_owned()))
}

/// Waits until no prefetch is running.
pub fn settle(engine: &Engine) {
    let deadline = Instant::now() + 4 * LOOK;
    while engine.stats()["images"]["loading"].as_u64() != Some(0) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Rows a second of an epoch while nobody reads, and seconds a row of decoding, reading and scattering.
///
/// # Errors
/// A store cannot be read.
pub fn loading(engine: &Engine, view: u16, epoch: u64, format: Extension) -> Result<(f64, [f64; 3]), String> {
    let plan = engine.plan(view);
    let rows_of = |batches: u64| (batches * plan.sampling().batch_size).min(plan.served_rows());
    settle(engine);
    let before = engine.stats();
    let start = Instant::now();
    let (mut first, mut last) = (None, (0, 0.0));
    for batch in 0..plan.batches() {
        load(engine, ImageKey::file(view, epoch, batch, format))?;
        let is_end = batch + 1 == plan.batches_of(plan.fetch_of(batch).0).end;
        if is_end {
            last = (rows_of(batch + 1), start.elapsed().as_secs_f64());
            let fetches = plan.fetch_of(batch).0 + 1;
            first = first.or(Some(last));
            if fetches >= FETCHES && start.elapsed() > LOOK / 2 || start.elapsed() > LOOK && fetches > 1 {
                break;
            }
        }
    }
    // If the whole epoch was loaded, all of it counts: nothing beyond it was prefetched.
    let is_whole = last.0 == plan.served_rows();
    let (from, since) = first.filter(|_| !is_whole).unwrap_or_default();
    let rate = (last.0 - from) as f64 / (last.1 - since).max(1e-6);
    settle(engine);
    let after = engine.stats();
    let number = |stats: &Value, group: &str, name: &str| stats[group][name].as_f64().unwrap_or(0.0);
    let more = |group: &str, name: &str| number(&after, group, name) - number(&before, group, name);
    let mean = plan.served_rows() as f64 / plan.batches().max(1) as f64;
    let rows = (more("loads", "images") * mean).max(1.0);
    let each = ["decode_seconds", "read_seconds", "scatter_seconds"].map(|name| more("store", name) / rows);
    Ok((rate, each))
}

/// A mount to read.
pub struct Place<'a> {
    pub path: &'a Path,
    pub tree: &'a Tree,
    pub engine: &'a Arc<Engine>,
}

impl Place<'_> {
    /// The paths of some batches of epoch 0 of a view.
    pub fn files(&self, view: u16, batches: std::ops::Range<u64>, format: Extension) -> Vec<PathBuf> {
        let mut directory = self.path.to_owned();
        if let (true, Some(view)) = (self.tree.views.len() > 1, self.tree.views.get(usize::from(view))) {
            directory.push(&view.name);
        }
        directory.push(self.tree.epoch_name(0));
        batches.map(|batch| directory.join(self.tree.batch_name(view, batch, format))).collect()
    }

    /// Mean bytes of a file, and seconds to read one that is loaded already.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn loaded(&self, reader: &mut Reader, view: u16, format: Extension) -> Result<(f64, f64), String> {
        let plan: &Plan = self.engine.plan(view);
        let batches = plan.batches_of(0);
        let sizes: Vec<u64> =
            batches.clone().filter_map(|batch| self.engine.size(ImageKey::file(view, 0, batch, format))).collect();
        let bytes = sizes.iter().sum::<u64>() as f64 / sizes.len().max(1) as f64;
        let files = self.files(view, batches, format);
        let (mut best, mut spent) = (f64::INFINITY, 0.0);
        // The first round loads the files. Of the others the fastest counts, as other processes may be running.
        for round in 0..ROUNDS {
            settle(self.engine);
            let (count, seconds) = reader.read(format, &files, LOOK)?;
            if round > 0 && count > 0 {
                best = best.min(seconds / count as f64);
                spent += seconds;
            }
            if round > 2 && spent > LOOK.as_secs_f64() / 4.0 {
                break;
            }
        }
        Ok((bytes, best))
    }

    /// The rate of a reader of an epoch that is not loaded.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn served(&self, reader: &mut Reader, view: u16, format: Extension, limit: Duration) -> Result<Served, String> {
        let plan = self.engine.plan(view);
        settle(self.engine);
        let all = self.files(view, 0..plan.batches(), format);
        let left = limit.mul_f64(4.0);
        let step = plan.sampling().fetch_factor as usize;
        // The first fetch is excluded: it is loaded with nothing to read meanwhile.
        let mut at = if all.len() > 2 * step { reader.read(format, &all[..step], left)?.0 } else { 0 };
        let (mut files, mut seconds, mut fetches) = (0, 0.0, 0);
        // Whole fetches, so that the rate is not that of a part.
        while at < all.len() && seconds < limit.as_secs_f64() {
            let (count, took) = reader.read(format, &all[at..(at + step).min(all.len())], left)?;
            (files, at, seconds, fetches) = (files + count, at + count, seconds + took, fetches + 1);
            if count == 0 {
                break;
            }
        }
        let rows = (files as u64 * plan.sampling().batch_size).min(plan.served_rows());
        Ok(Served { rows_per_second: rows as f64 / seconds.max(1e-6), rows, fetches })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_takes_follows_from_two_sizes() {
        let time = FileTime::of((1e3, 2e-3), (1e6, 3e-3));
        assert!((time.seconds(1e3) - 2e-3).abs() < 1e-9 && (time.seconds(1e6) - 3e-3).abs() < 1e-9);
        // Noise must not make a cost negative.
        assert_eq!(FileTime::of((1e3, 1e-9), (1e6, 3e-3)).file, 0.0);
        assert_eq!(FileTime::of((1e6, 3e-3), (1e6, 2e-3)).byte, 0.0);
    }
}

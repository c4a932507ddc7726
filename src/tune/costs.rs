//! Costs of settings: measured seconds, applied to what each setting's own plan decodes, reads and serves.

use std::time::{Duration, Instant};

use crate::array::cost::ReadCost;
use crate::engine::Engine;
use crate::format::Extension;
use crate::plan::{NO_CLASS, Plan, Sampling, auto, entropy};
use crate::session::figures::{Sample, perfect};
use crate::session::{Obs, Session, SessionError};

use super::measure::{self, FormatCost, Loading};
use super::model::{Modelled, RowCost, Setting, kept, needed};
use super::{ASSUMED, Asked, BLOCKS, FETCH_BYTES, FETCH_ROWS, MIXED, Machine, plan};

/// Upper limits: batches whose entropy is averaged, and rows planned for it.
const BATCHES: u64 = 64;
const PLANNED: u64 = 3 << 20;
/// Other batch sizes to show.
const OTHERS: [u64; 4] = [64, 256, 1024, 4096];

/// What is known of the stores without reading their matrices.
pub struct Costs<'a> {
    session: &'a Session,
    base: &'a Plan,
    /// The label of each row of the collection.
    codes: Vec<u32>,
    pub perfect: f64,
    /// Bytes of a row in each format.
    row_bytes: Vec<(Extension, f64)>,
    /// Bytes of all decoded chunks; 0 if nothing is encoded.
    decoded: u64,
    block_size: Option<u64>,
}

impl<'a> Costs<'a> {
    /// # Errors
    /// The column does not exist or holds one label; a format cannot hold the stores.
    pub fn new(session: &'a Session, asked: &Asked) -> Result<Costs<'a>, SessionError> {
        let collection = &session.collection;
        let base = &session.views[asked.view].plan;
        let rows = collection.table.n_rows;
        let codes = match &asked.label {
            Some(name) => Obs::new(collection, &session.counters)?.codes(name)?,
            None => (0..rows).map(|row| (row * 16 / rows.max(1)) as u32).collect(),
        };
        let perfect = perfect(base, &codes).unwrap_or(0.0);
        if perfect <= 0.0 {
            let label = asked.label.as_deref().unwrap_or("the stored order");
            return Err(SessionError::Refused(format!(
                "{label}: all rows of a batch have one label, however they are mixed; name another column with --label"
            )));
        }
        let mut row_bytes = Vec::new();
        for &format in &asked.formats {
            let writer = session
                .writers
                .get(format)
                .map_err(|why| SessionError::Refused(format!("there are no .{} files: {why}", format.as_str())))?;
            let sample = Sample::of(collection, base, writer);
            let rows = base.sampling().batch_size.min(base.rows()).max(1);
            row_bytes.push((format, sample.batch_bytes as f64 / rows as f64));
        }
        let arrays =
            collection.all_stores().flat_map(|store| store.elements.iter().flat_map(|part| part.matrix.arrays()));
        let encoded = arrays.filter(|array| array.source.is_encoded());
        let decoded = encoded.fold(0_u64, |sum, array| sum.saturating_add(array.bytes().unwrap_or(u64::MAX)));
        let block_size = session.spec.views[asked.view].block_size.map(u64::from);
        Ok(Costs { session, base, codes, perfect, row_bytes, decoded, block_size })
    }

    pub fn rows(&self) -> u64 {
        self.base.rows()
    }

    /// Bytes of a row in the largest format.
    pub fn largest_row(&self) -> f64 {
        self.row_bytes.iter().map(|(_, bytes)| *bytes).fold(1.0, f64::max)
    }

    /// Block sizes to measure, largest first, and rows of a fetch.
    pub fn probes(&self, session: &Session) -> (Vec<u64>, u64) {
        let auto = auto::block_size(&session.collection.storage_profile());
        let fits = (FETCH_BYTES / self.largest_row()) as u64;
        let rows =
            FETCH_ROWS.min(fits).min(self.rows() / 6).max(self.base.sampling().batch_size.min(self.rows())).max(1);
        let mut sizes: Vec<u64> = match self.block_size {
            Some(size) => vec![size],
            None => BLOCKS.iter().copied().chain([auto]).collect(),
        };
        sizes.retain(|&size| size <= rows.max(4) || self.block_size.is_some());
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.dedup();
        (sizes, rows)
    }

    /// A batch size far from the given one.
    pub fn other_batch(&self, batch: u32) -> u32 {
        let larger = batch.saturating_mul(8);
        if batch >= 512 || u64::from(larger) > self.rows() / 2 { (batch / 8).max(1) } else { larger }
    }

    /// Measures loading with blocks of each size; sizes that come after `time` has passed are left out.
    pub fn loading(
        &self,
        engine: &Engine,
        sizes: &[u64],
        format: Extension,
        time: Duration,
    ) -> Result<Vec<Loading>, SessionError> {
        let writer = self.session.writers.get(format).map_err(SessionError::refused)?;
        let (start, mut found) = (Instant::now(), Vec::new());
        for (view, &block_size) in (0..).zip(sizes) {
            if start.elapsed() > time && !found.is_empty() {
                break;
            }
            let (rows_per_second, [decode, read, scatter]) =
                measure::loading(engine, view, 0, format).map_err(SessionError::Refused)?;
            let sample = Sample::of(&self.session.collection, engine.plan(view), writer);
            let (cost, cost_rows) = (sample.cost, sample.rows);
            found.push(Loading { block_size, rows_per_second, decode, read, scatter, cost, cost_rows });
        }
        Ok(found)
    }

    /// Loading times of the other formats, relative to the first.
    pub fn formats(
        &self,
        engine: &Engine,
        loading: &[Loading],
        formats: &[Extension],
    ) -> Result<Vec<FormatCost>, SessionError> {
        // A medium block size, where neither decoding nor copying dominates.
        let middle = loading.len() / 2;
        let own = |rate: f64, [decode, read, scatter]: [f64; 3]| {
            let threads = self.session.spec.threads.max(1) as f64;
            scatter + (1.0 / rate.max(1e-9) - (decode + read + scatter) / threads).max(0.0)
        };
        let first = loading.get(middle).map(|one| own(one.rows_per_second, [one.decode, one.read, one.scatter]));
        let mut found = Vec::new();
        for &(format, row_bytes) in &self.row_bytes {
            let load = match first {
                Some(first) if format != formats[0] => {
                    let measured = measure::loading(engine, middle as u16, 1, format).map_err(SessionError::Refused)?;
                    (own(measured.0, measured.1) / first.max(1e-12)).clamp(0.1, 100.0)
                }
                _ => 1.0,
            };
            found.push(FormatCost { format, load, row_bytes, copy: None, parse: None, missing: None, beside: 1.0 });
        }
        Ok(found)
    }

    /// Models every setting within the memory limit.
    pub fn model(&self, loading: &[Loading], formats: &[FormatCost], machine: &Machine) -> Vec<Modelled> {
        let batch_size = self.base.sampling().batch_size;
        let mut all = Vec::new();
        for one in loading {
            for k in MIXED {
                let fetch_factor = (k * one.block_size).div_ceil(batch_size).max(1);
                // A fetch of all rows is perfectly mixed: larger ones are not tried.
                let rows = fetch_factor * batch_size;
                if rows >= 2 * self.rows().max(batch_size) {
                    continue;
                }
                all.extend(self.settings(batch_size, one, fetch_factor, formats, machine));
            }
        }
        all
    }

    /// A setting's k in batches of other sizes.
    pub fn batches(
        &self,
        chosen: &Setting,
        loading: &[Loading],
        formats: &[FormatCost],
        machine: &Machine,
    ) -> Vec<Modelled> {
        let one = loading.iter().filter(|one| one.block_size == chosen.block_size);
        let of = |size: u64| {
            one.clone().flat_map(move |one| {
                let fetch_factor = (chosen.k * one.block_size as f64 / size as f64).ceil().max(1.0) as u64;
                let same =
                    formats.iter().filter(|cost| cost.format.as_str() == chosen.format).cloned().collect::<Vec<_>>();
                let found = self.settings(size, one, fetch_factor, &same, machine);
                found.into_iter().find(|one| one.setting.threads == chosen.threads)
            })
        };
        OTHERS.into_iter().filter(|&size| size <= self.rows()).flat_map(of).collect()
    }

    /// One block size and fetch factor, in all formats, with several numbers of threads and memory budgets.
    fn settings(
        &self,
        batch_size: u64,
        one: &Loading,
        fetch_factor: u64,
        formats: &[FormatCost],
        machine: &Machine,
    ) -> Vec<Modelled> {
        let own = self.base.sampling();
        let sampling = Sampling { batch_size, block_size: one.block_size, fetch_factor, ..*own };
        let plan = plan(self.base, sampling);
        let rows = sampling.fetch_rows().min(self.rows());
        let smallest = formats.iter().map(|format| format.row_bytes).fold(f64::INFINITY, f64::min);
        if needed((rows as f64 * smallest) as u64) > machine.limit {
            return Vec::new();
        }
        let label = |row: u64| self.codes.get(row as usize).copied().filter(|&code| code != NO_CLASS);
        let sample = (PLANNED / rows.max(1)).clamp(8, BATCHES);
        let entropy = entropy::planned(&plan, 0, sample, label);
        let Some(writer) = formats.first().and_then(|cost| self.session.writers.get(cost.format).ok()) else {
            return Vec::new();
        };
        let cost = Sample::of(&self.session.collection, &plan, writer);
        let mut all = Vec::new();
        for format in formats {
            let row = row(one, (&cost.cost, cost.rows), format, batch_size, machine);
            let fetch_bytes = (rows as f64 * format.row_bytes) as u64;
            let least = needed(fetch_bytes).max(64 << 20);
            // Enough for all decoded chunks, by the engine's rule (`engine::budget`).
            let decoded = self.decoded.saturating_add(self.decoded / 5);
            let whole = (decoded / 2 * 3).max(decoded.saturating_add(least));
            let mut amounts = vec![least];
            if self.decoded > 0 && whole <= machine.limit {
                amounts.push(whole);
            }
            for memory in amounts {
                for threads in threads(machine.threads) {
                    let setting = Setting {
                        batch_size,
                        block_size: one.block_size,
                        fetch_factor,
                        k: plan.k(),
                        format: format.format.as_str(),
                        threads,
                        memory,
                    };
                    let rate = |kept: f64| row.rate(threads, machine.cores, true, kept);
                    let later = rate(kept(memory, fetch_bytes, self.decoded));
                    all.push(Modelled { setting, cost: row, rows_per_second: rate(0.0), later, entropy });
                }
            }
        }
        all
    }
}

/// 1, 2, 4 and so on, and `all`.
fn threads(all: usize) -> Vec<usize> {
    let mut found: Vec<usize> =
        std::iter::successors(Some(1), |&threads| Some(threads * 2)).take_while(|&one| one < all).collect();
    found.push(all);
    found
}

/// The cost of a row: measured in `one`, scaled by `planned`, the read cost of a plan over a number of rows.
fn row(one: &Loading, planned: (&ReadCost, u64), format: &FormatCost, batch_size: u64, machine: &Machine) -> RowCost {
    let ratio = |of: fn(&ReadCost) -> u64| {
        let (now, then) =
            (of(planned.0) as f64 / planned.1.max(1) as f64, of(&one.cost) as f64 / one.cost_rows.max(1) as f64);
        if now > 0.0 && then > 0.0 { now / then } else { 1.0 }
    };
    let decoded = ratio(|cost| cost.decoded);
    // Chunks are read whole, unfiltered data run by run.
    let read = if one.cost.chunks > 0 { ratio(|cost| cost.bytes) } else { ratio(|cost| cost.requests) };
    let own = (one.decode + one.read + one.scatter) / machine.threads.max(1) as f64;
    let alone = (1.0 / one.rows_per_second.max(1e-9) - own).max(0.0);
    let bytes = format.row_bytes * batch_size as f64;
    let reader = format.parse.or(format.copy).unwrap_or(ASSUMED).seconds(bytes) * format.beside / batch_size as f64;
    RowCost {
        decode: one.decode * decoded,
        read: one.read * read,
        scatter: one.scatter * format.load,
        alone: alone * format.load,
        reader,
        storage: planned.0.requests as f64 / planned.1.max(1) as f64 * machine.wait,
    }
}

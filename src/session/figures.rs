//! Figures of a plan, from a sample of its fetches: sizes, chunks to read, entropy.

use serde_json::{Map, Value, json};

use crate::array::cost::ReadCost;
use crate::batch::{Batch, FetchShape};
use crate::collection::Collection;
use crate::format::Format;
use crate::plan::strategy::Chances;
use crate::plan::{FetchRows, NO_CLASS, Plan, entropy};

use super::{Obs, Session, SessionError};

/// Fetches of the sample: the first, the last, and two between.
const FETCHES: u64 = 4;
/// Batches whose entropy is averaged.
const BATCHES: u64 = 200;

/// The figures of every view, as JSON. `label`: an obs column whose entropy within a batch to compute.
///
/// # Errors
/// The column cannot be read, or holds no labels.
pub fn figures(session: &Session, label: Option<&str>) -> Result<Value, SessionError> {
    let Session { spec, collection, writers, views, counters, .. } = session;
    let writer = writers.get(spec.format).map_err(SessionError::refused)?;
    let mut obs = Obs::new(collection, counters)?;
    let codes = label.map(|name| obs.codes(name)).transpose()?;
    let mut each = Map::new();
    for view in views {
        let plan = &view.plan;
        let sampling = plan.sampling();
        let mut told = Map::new();
        let mut put = |name: &str, value: Value| drop(told.insert(name.to_owned(), value));
        put("rows", json!(plan.rows()));
        put("rows_per_epoch", json!(plan.served_rows()));
        put("batches", json!(plan.batches()));
        put("fetches", json!(plan.fetches()));
        put("blocks", json!(plan.blocks()));
        put("batch_size", json!(sampling.batch_size));
        put("block_size", json!(sampling.block_size));
        put("fetch_factor", json!(sampling.fetch_factor));
        put("k", json!(plan.k()));
        put("selection_bytes", json!(plan.view().bytes()));
        let sample = Sample::of(collection, plan, writer);
        put("bytes_per_batch", json!(sample.batch_bytes));
        put("bytes_per_fetch", json!(sample.batch_bytes.saturating_mul(sampling.fetch_factor.min(plan.batches()))));
        put("chunks_per_row", json!(sample.chunks_per_row));
        put("read_amplification", json!(sample.amplification));
        put("bytes_read_per_epoch", json!(sample.read));
        if collection.is_remote() {
            put("requests_per_epoch", json!(sample.requests));
        }
        if let Some(codes) = &codes {
            put("label_entropy_bits", json!(entropy_of(plan, codes)));
            put("label_entropy_shuffled_bits", json!(perfect(plan, codes)));
        }
        told.extend(view.doc.clone());
        each.insert(view.name.clone(), Value::Object(told));
    }
    let x = collection.table.x();
    Ok(json!({
        "stores": collection.stores.iter().map(|store| store.path.to_string_lossy()).collect::<Vec<_>>(),
        "rows": collection.table.n_rows,
        "genes": if x.tokens.is_some() { x.genes.len() as u64 } else { x.n_vars() },
        "genes_in_no_store": collection.table.x().absent_is_zero.then(|| collection.table.x().absent.len()),
        "format": spec.format.as_str(),
        "label": label,
        "options": session.options(),
        "views": each,
    }))
}

/// The costs of a sample of an epoch's fetches.
#[derive(Debug, Default)]
pub struct Sample {
    /// Mean size of a file.
    pub batch_bytes: u64,
    /// Chunks to decode for a row, where rows that share a chunk share its cost; `None` if nothing is encoded.
    chunks_per_row: Option<f64>,
    /// Elements decoded / elements needed; `None` if nothing is encoded.
    amplification: Option<f64>,
    /// Runs of adjacent chunks, or of unfiltered elements, read in an epoch; for a remote store, the number of its requests.
    requests: u64,
    /// Bytes read from the stores in an epoch without caches: as stored where known, else as decoded.
    read: u64,
    /// Rows in the sample, and their read cost.
    pub rows: u64,
    pub cost: ReadCost,
}

impl Sample {
    /// Samples four fetches of epoch 0 of a plan, in one format. Reads no matrix data.
    pub fn of(collection: &Collection, plan: &Plan, writer: &dyn Format) -> Sample {
        let order = plan.epoch(0);
        let fetches = plan.fetches().min(FETCHES);
        let (mut bytes, mut batches) = (0u64, 0u64);
        let mut read = ReadCosts::default();
        for i in 0..fetches {
            let number = i * plan.fetches() / fetches;
            let fetch = order.fetch(number);
            let in_step = plan.companions(0, number, &fetch);
            let shape = |(i, rows): (usize, &FetchRows)| FetchShape::new(collection.of_companion(i), rows.clone());
            let companions: Vec<FetchShape> = in_step.iter().enumerate().map(shape).collect();
            let shape = FetchShape::new(collection, fetch.clone());
            for (place, index) in plan.batches_of(number).enumerate() {
                let batch = shape.batch(&collection.table, place);
                bytes += writer.layout(&Batch { index, companions: &companions, ..batch }).size;
                batches += 1;
            }
            let companions_of = &collection.table.companions;
            let is_own =
                |number: usize| companions_of.get(number).is_none_or(|companion| companion.modality().is_none());
            let (own, others): (Vec<_>, Vec<_>) = in_step.into_iter().enumerate().partition(|(i, _)| is_own(*i));
            let beside = own.into_iter().flat_map(|(_, rows)| rows.rows);
            read.add(collection, fetch.rows.len(), fetch.rows.into_iter().chain(beside));
            for (number, rows) in others {
                read.add(collection.of_companion(number), 0, rows.rows.into_iter());
            }
        }
        let ReadCosts { rows, chunks: cost } = read;
        let ReadCost { chunks, decoded, needed, requests, bytes: read } = cost;
        let epoch = |sum: u64| (sum as f64 * plan.fetches() as f64 / fetches.max(1) as f64) as u64;
        let per = |sum: u64, of: u64| (chunks > 0 && of > 0).then(|| sum as f64 / of as f64);
        Sample {
            batch_bytes: bytes / batches.max(1),
            chunks_per_row: per(chunks, rows),
            amplification: per(decoded, needed),
            requests: epoch(requests),
            read: epoch(read),
            rows,
            cost,
        }
    }
}

/// Sums over fetches; within a fetch, each chunk is decoded once.
#[derive(Default)]
struct ReadCosts {
    rows: u64,
    chunks: ReadCost,
}

impl ReadCosts {
    /// Adds a fetch. `served`: its number of rows; `rows`: the rows to read for it.
    fn add(&mut self, collection: &Collection, served: usize, rows: impl Iterator<Item = u64>) {
        let mut rows: Vec<(usize, u64)> = rows.map(|row| collection.locate(row)).collect();
        rows.sort_unstable();
        self.rows += served as u64;
        // Weighted draws may repeat rows, which are read once.
        rows.dedup();
        for (number, store) in collection.stores.iter().enumerate() {
            let from = rows.partition_point(|&(store, _)| store < number);
            let to = rows.partition_point(|&(store, _)| store <= number);
            for part in &store.elements {
                part.matrix.add_cost(rows[from..to].iter().map(|&(_, row)| row), &mut self.chunks);
            }
        }
    }
}

/// The expected entropy of a label if rows were drawn with the same weights, regardless of where they are stored. `None` for batches of
/// one class, which are not to be mixed. `codes` has a code for each row of the collection.
pub fn perfect(plan: &Plan, codes: &[u32]) -> Option<f64> {
    let size = plan.sampling().batch_size;
    // Missing labels count as one more label.
    let labels = codes.iter().filter(|&&code| code != NO_CLASS).max().map_or(0, |&code| code as usize + 1);
    let label = |row: u64| (codes[row as usize] as usize).min(labels);
    match plan.strategy().chances() {
        Chances::Equal => {
            let mut counts = vec![0u64; labels + 1];
            plan.view().iter().for_each(|row| counts[label(row)] += 1);
            Some(entropy::shuffled(&counts, size))
        }
        Chances::Weights(weights) => {
            let mut sums = vec![0.0; labels + 1];
            plan.view().iter().zip(weights).for_each(|(row, &weight)| sums[label(row)] += f64::from(weight));
            Some(entropy::drawn(&sums, size))
        }
        Chances::Unmixed => None,
    }
}

/// Mean entropy of a label within a batch of the plan, in bits.
fn entropy_of(plan: &Plan, codes: &[u32]) -> f64 {
    let label = |row: u64| codes.get(row as usize).copied().filter(|&code| code != NO_CLASS);
    entropy::planned(plan, 0, BATCHES, label)
}

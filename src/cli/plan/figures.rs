//! Figures of a plan from a few of its fetches: sizes, chunks read, entropy.

use std::collections::HashSet;

use crate::anndata::matrix::Matrix;
use crate::array::Array;
use crate::batch::{Batch, Lengths};
use crate::collection::Collection;
use crate::format::Format;
use crate::plan::{Draw, FetchRows, NO_CLASS, Plan, entropy};

/// Fetches that are looked at: first, last, and between.
const FETCHES: u64 = 4;
/// Batches whose entropy is averaged.
const BATCHES: u64 = 200;

/// What some fetches of an epoch cost.
#[derive(Debug, Default)]
pub struct Sample {
    /// Mean size of a file.
    pub batch_bytes: u64,
    /// Chunks decoded for a row, shared ones in part; `None` where nothing is encoded.
    pub chunks_per_row: Option<f64>,
    /// Elements decoded over elements needed; `None` where nothing is encoded.
    pub amplification: Option<f64>,
}

impl Sample {
    pub fn of(collection: &Collection, plan: &Plan, writer: &dyn Format) -> Sample {
        let order = plan.epoch(0);
        let fetches = plan.fetches().min(FETCHES);
        let (mut bytes, mut batches) = (0u64, 0u64);
        let mut read = ReadCosts::default();
        for i in 0..fetches {
            let number = i * plan.fetches() / fetches;
            let fetch = order.fetch(number);
            for (place, index) in plan.batches_of(number).enumerate() {
                let rows = fetch.batch(place);
                let lengths = |number: usize| match collection.table.elements[number].is_sparse() {
                    true => rows.iter().map(|&row| collection.row_length(number, row)).collect(),
                    false => Vec::new(),
                };
                let lengths: Vec<Vec<u64>> = (0..collection.table.elements.len()).map(lengths).collect();
                let nnz: Vec<u64> = lengths.iter().map(|lengths| lengths.iter().sum()).collect();
                let lengths = Lengths { of_fetch: &lengths, start: 0, end: rows.len() };
                let batch = Batch { table: &collection.table, rows, nnz: &nnz, lengths, epoch: 0, index };
                bytes += writer.layout(&batch).size;
                batches += 1;
            }
            read.add(collection, &fetch);
        }
        let per = |sum: u64, of: u64| (read.chunks > 0 && of > 0).then(|| sum as f64 / of as f64);
        Sample {
            batch_bytes: bytes / batches.max(1),
            chunks_per_row: per(read.chunks, read.rows),
            amplification: per(read.decoded, read.needed),
        }
    }
}

/// Sums over fetches. A fetch decodes each chunk once.
#[derive(Default)]
struct ReadCosts {
    rows: u64,
    chunks: u64,
    decoded: u64,
    needed: u64,
}

impl ReadCosts {
    fn add(&mut self, collection: &Collection, fetch: &FetchRows) {
        let mut rows: Vec<(usize, u64)> = fetch.rows.iter().map(|&row| collection.locate(row)).collect();
        rows.sort_unstable();
        self.rows += rows.len() as u64;
        // Weighted draws repeat rows, which are read once.
        rows.dedup();
        for (number, store) in collection.stores.iter().enumerate() {
            let from = rows.partition_point(|&(store, _)| store < number);
            let to = rows.partition_point(|&(store, _)| store <= number);
            for part in &store.elements {
                let rows = rows[from..to].iter().map(|&(_, row)| row);
                match &part.matrix {
                    Matrix::Sparse { indptr, .. } => {
                        let runs: Vec<(u64, u64)> =
                            rows.map(|row| (indptr[row as usize], indptr[row as usize + 1])).collect();
                        part.matrix.arrays().into_iter().for_each(|array| self.flat(array, &runs));
                    }
                    Matrix::Dense { array } => self.rows_of(array, rows),
                }
            }
        }
    }

    /// Runs of elements of an array of one axis.
    fn flat(&mut self, array: &Array, runs: &[(u64, u64)]) {
        if !array.source.is_encoded() {
            return;
        }
        let size = array.chunk_elements().max(1);
        let mut chunks = HashSet::new();
        for &(start, end) in runs.iter().filter(|(start, end)| start < end) {
            chunks.extend(start / size..=(end - 1) / size);
            self.needed += end - start;
        }
        self.chunks += chunks.len() as u64;
        self.decoded += chunks.len() as u64 * size.min(array.shape[0]);
    }

    /// Whole rows of an array of several axes.
    fn rows_of(&mut self, array: &Array, rows: impl Iterator<Item = u64>) {
        if !array.source.is_encoded() {
            return;
        }
        let high = array.chunk_shape[0].max(1);
        let mut bands = HashSet::new();
        let mut count = 0;
        for row in rows {
            bands.insert(row / high);
            count += 1;
        }
        let across = |(shape, chunk): (&u64, &u64)| shape.div_ceil((*chunk).max(1));
        let wide: u64 = array.shape.iter().zip(&array.chunk_shape).skip(1).map(across).product();
        let row: u64 = array.shape.iter().skip(1).product();
        self.chunks += bands.len() as u64 * wide;
        self.decoded += bands.len() as u64 * wide * array.chunk_elements();
        self.needed += count * row;
    }
}

/// The expected entropy of a label if rows were drawn with the same weights and no regard to where they are stored; `None`
/// for batches of one class, which are not meant to be mixed. `codes` are those of all rows.
pub fn perfect(plan: &Plan, draw: &Draw, codes: &[u32]) -> Option<f64> {
    let size = plan.sampling().batch_size;
    // Those without a label are one label more.
    let labels = codes.iter().filter(|&&code| code != NO_CLASS).max().map_or(0, |&code| code as usize + 1);
    let label = |row: u64| (codes[row as usize] as usize).min(labels);
    match draw {
        Draw::Permuted(_) => {
            let mut counts = vec![0u64; labels + 1];
            plan.view().iter().for_each(|row| counts[label(row)] += 1);
            Some(entropy::shuffled(&counts, size))
        }
        Draw::Weighted { weights, .. } => {
            let mut sums = vec![0.0; labels + 1];
            plan.view().iter().zip(weights).for_each(|(row, &weight)| sums[label(row)] += f64::from(weight));
            Some(entropy::drawn(&sums, size))
        }
        Draw::Classes { .. } => None,
    }
}

/// Mean entropy of a label within a batch of the plan, in bits.
pub fn entropy(plan: &Plan, codes: &[u32]) -> f64 {
    let label = |row: u64| codes.get(row as usize).copied().filter(|&code| code != NO_CLASS);
    entropy::planned(plan, 0, BATCHES, label)
}

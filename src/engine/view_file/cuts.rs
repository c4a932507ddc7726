//! Counts the rows and values before each group of `fetch_factor` batches of an epoch.

use rayon::prelude::*;

use crate::collection::Collection;
use crate::engine::ImageKey;
use crate::engine::loader::FetchLoader;
use crate::engine::store_loader::StoreLoader;
use crate::plan::strategy::EpochOrder;
use crate::plan::{Plan, Rows};

use super::DealtEpoch;

/// Counts before each group, and in total: one number more than groups.
#[derive(Debug, Default)]
pub struct Cuts {
    /// Empty if all batches except the last are full.
    pub rows: Vec<u64>,
    /// By element; empty for dense ones.
    pub values: Vec<Vec<u64>>,
}

impl DealtEpoch {
    /// Number of batches of this sequence.
    pub fn batches(&self, plan: &Plan) -> u64 {
        self.rank.map_or_else(|| plan.batches(), |rank| rank.batches(plan))
    }

    /// The batch of the epoch that is the i-th of this sequence.
    pub fn batch(&self, plan: &Plan, i: u64) -> Option<u64> {
        match self.rank {
            Some(rank) => rank.batch(plan, i),
            None => (i < plan.batches()).then_some(i),
        }
    }
}

impl Cuts {
    /// Counts all groups, on all decoding threads.
    pub fn count(stores: &StoreLoader, dealt: DealtEpoch) -> Cuts {
        let plan = stores.plan(dealt.view);
        let epoch = plan.epoch(dealt.epoch);
        let factor = plan.sampling().fetch_factor;
        let groups = dealt.batches(plan).div_ceil(factor);
        let group = |group: u64| {
            let batches = group * factor..((group + 1) * factor).min(dealt.batches(plan));
            match dealt.rank {
                None => of_fetch(&stores.collection, epoch.as_ref(), group),
                Some(_) => of_batches(stores, plan, dealt, batches),
            }
        };
        let counts: Vec<(u64, Vec<u64>)> = stores.threads.install(|| (0..groups).into_par_iter().map(group).collect());
        let full = dealt.rank.is_none() && plan.strategy().has_full_batches();
        let rows = if full { Vec::new() } else { sums(counts.iter().map(|(rows, _)| *rows)) };
        let values = |(number, element): (usize, &crate::collection::element::Element)| {
            if element.is_sparse() { sums(counts.iter().map(|(_, values)| values[number])) } else { Vec::new() }
        };
        let values = stores.collection.table.elements.iter().enumerate().map(values).collect();
        stores.collection.release_pages();
        Cuts { rows, values }
    }
}

fn sums(counts: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut sum = 0;
    std::iter::once(0)
        .chain(counts.map(|count| {
            sum += count;
            sum
        }))
        .collect()
}

/// Number of rows and values of a fetch. For runs of rows, only their bounds are looked up, which makes 1e8 rows a second possible.
fn of_fetch(collection: &Collection, epoch: &dyn EpochOrder, fetch: u64) -> (u64, Vec<u64>) {
    let elements = 0..collection.table.elements.len();
    if let Some(runs) = epoch.runs(fetch) {
        let rows = runs.iter().map(|run| run.end - run.start).sum();
        return (rows, elements.map(|element| collection.values_of_runs(element, &runs)).collect());
    }
    let rows = epoch.fetch(fetch).rows;
    (rows.len() as u64, elements.map(|element| values(collection, element, &rows)).collect())
}

fn of_batches(stores: &StoreLoader, plan: &Plan, dealt: DealtEpoch, batches: std::ops::Range<u64>) -> (u64, Vec<u64>) {
    let mut sum = (0, vec![0; stores.collection.table.elements.len()]);
    for batch in batches.filter_map(|i| dealt.batch(plan, i)) {
        let (number, place) = plan.fetch_of(batch);
        let fetch = stores.fetch(dealt.view, dealt.epoch, number);
        let key = ImageKey::part(dealt.view, dealt.epoch, batch);
        let batch = fetch.batch(&stores.collection.table, key, place);
        sum.0 += batch.rows.len() as u64;
        sum.1.iter_mut().zip(batch.nnz).for_each(|(sum, count)| *sum += count);
    }
    sum
}

fn values(collection: &Collection, element: usize, rows: &[u64]) -> u64 {
    if collection.table.elements[element].is_sparse() { collection.row_lengths(element, rows).iter().sum() } else { 0 }
}

/// Number of values of all rows of a view in each element (0 for dense ones).
pub fn totals(collection: &Collection, view: &Rows, threads: &rayon::ThreadPool) -> Vec<u64> {
    let table = &collection.table;
    let all = view.len() == table.n_rows;
    let total = |number: usize| {
        let element = &table.elements[number];
        if !element.is_sparse() {
            return 0;
        }
        if all {
            return collection.stores.iter().map(|store| store.elements[number].served(store.rows, element)).sum();
        }
        let part = |part: u64| {
            let mut rows = Vec::new();
            view.select_run(part * PART..((part + 1) * PART).min(view.len()), &mut rows);
            values(collection, number, &rows)
        };
        threads.install(|| (0..view.len().div_ceil(PART)).into_par_iter().map(part).sum())
    };
    (0..table.elements.len()).map(total).collect()
}

/// Rows to count at once.
const PART: u64 = 1 << 16;

//! Checks the contract of strategies. Unit tests run it on each registered one; other tests on their own strategies.

use super::{Chances, Inputs, Registration};
use crate::plan::groups::GroupShape;
use crate::plan::rank::Rank;
use crate::plan::{FetchRows, NO_CLASS, Plan, PlanError, Rows, Sampling};

/// Numbers of rows of stores, not multiples of anything, one of them 0.
const STORES: [u64; 5] = [333, 0, 2, 900, 41];

/// Makes the strategy over selections of rows with several sizes, and checks the contract of [`super::Strategy`].
///
/// # Errors
/// The violation, with the sizes.
#[doc(hidden)]
pub fn conforms(registered: &Registration) -> Result<(), String> {
    for (batch_size, block_size, fetch_factor) in [(1, 1, 1), (7, 3, 5), (64, 16, 4), (256, 16, 64), (10, 4000, 3)] {
        for (drop_last, all) in [(false, false), (true, false), (false, true), (true, true)] {
            let sampling = Sampling { batch_size, block_size, fetch_factor, seed: 11, drop_last };
            let plan = plan(registered, sampling, all).map_err(|error| error.to_string())?;
            holds(registered, &plan, all).map_err(|cause| format!("{}: {sampling:?}: {cause}", registered.name))?;
        }
    }
    Ok(())
}

/// A plan over all rows, or over a selection.
fn plan(registered: &Registration, sampling: Sampling, all: bool) -> Result<Plan, PlanError> {
    let selected = |row: &u64| all || row % 3 == 1 || (200..500).contains(row);
    let rows = Rows::from_ascending(&STORES, (0..STORES.iter().sum()).filter(selected))?;
    let numbers = 0..u32::try_from(rows.len()).unwrap_or(0);
    let code = |row: u32| if row.is_multiple_of(17) { NO_CLASS } else { row / 8 % 5 };
    let inputs = Inputs {
        codes: registered.labels.then(|| numbers.clone().map(code).collect()),
        weights: registered.weights.then(|| numbers.map(|row| (row % 7) as f32).collect()),
        samples: None,
        shape: GroupShape::default(),
    };
    registered.strategy(rows, sampling, inputs).map(Plan::of)
}

fn holds(registered: &Registration, plan: &Plan, all: bool) -> Result<(), String> {
    let same = |what: &str, found: u64, wanted: u64| {
        if found == wanted { Ok(()) } else { Err(format!("{what}: {found}, not {wanted}")) }
    };
    for epoch in [0, 7] {
        let forward: Vec<FetchRows> = (0..plan.fetches()).map(|fetch| plan.epoch(epoch).fetch(fetch)).collect();
        let order = plan.epoch(epoch);
        for (number, fetch) in (0..plan.fetches()).rev().zip(forward.iter().rev()) {
            if order.fetch(number) != *fetch {
                return Err(format!("fetch {number} of epoch {epoch} depends on what was asked for before"));
            }
            let batches = plan.batches_of(number);
            same("batches of a fetch", fetch.bounds.len() as u64, batches.end - batches.start + 1)?;
            for (place, batch) in batches.enumerate() {
                let rows = fetch.batch(place);
                same("rows of a batch", plan.batch_rows(epoch, batch), rows.len() as u64)?;
                let size = plan.sampling().batch_size;
                let full = plan.strategy().has_full_batches() && batch + 1 < plan.batches();
                if rows.is_empty() || rows.len() as u64 > size || full && (rows.len() as u64) < size {
                    return Err(format!("batch {batch} has {} rows", rows.len()));
                }
            }
            if let Some(runs) = order.runs(number) {
                let (mut of_runs, mut rows): (Vec<u64>, _) = (runs.into_iter().flatten().collect(), fetch.rows.clone());
                of_runs.sort_unstable();
                rows.sort_unstable();
                if of_runs != rows {
                    return Err(format!("the runs of fetch {number} are not its rows"));
                }
            }
        }
        same("rows past the last batch", plan.batch_rows(epoch, plan.batches()), 0)?;
        for past in [plan.fetches(), u64::MAX] {
            same("rows past the last fetch", order.fetch(past).rows.len() as u64, 0)?;
        }
        let mut rows: Vec<u64> = forward.iter().flat_map(|fetch| fetch.rows.iter().copied()).collect();
        same("rows served", rows.len() as u64, plan.served_rows())?;
        if let Some(row) = rows.iter().find(|&&row| !plan.view().contains(row)) {
            return Err(format!("row {row} is not of the view"));
        }
        rows.sort_unstable();
        if matches!(plan.strategy().chances(), Chances::Equal) && rows.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a row is served twice in an epoch".to_owned());
        }
    }
    let of_ranks: u64 = (0..3).map(|index| Rank { index, of: 3 }.batches(plan)).sum();
    if of_ranks > plan.batches() || of_ranks + 3 <= plan.batches() {
        return Err(format!("three ranks have {of_ranks} of {} batches", plan.batches()));
    }
    let again = self::plan(registered, *plan.sampling(), all).map_err(|error| error.to_string())?;
    if plan.fetches() > 0 && again.epoch(5).fetch(0) != plan.epoch(5).fetch(0) {
        return Err("the same inputs give another order".to_owned());
    }
    Ok(())
}

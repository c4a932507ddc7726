//! What each strategy promises: exactness, disjoint ranks, frequencies, classes, independence of epochs.

use std::collections::HashMap;

use super::classes::codes;
use super::*;
use crate::plan::strategy::{Inputs, STRATEGIES, by_name, conforms};

/// Every third row and all of one range, of stores whose sizes are not multiples of anything.
pub(super) fn subset() -> (Vec<u64>, Vec<u64>) {
    let stores = vec![333, 0, 2, 9000, 41, 7];
    let n = stores.iter().sum();
    (stores, (0..n).filter(|row| row % 3 == 1 || (2000..5000).contains(row)).collect())
}

pub(super) fn view(stores: &[u64], rows: &[u64]) -> Rows {
    Rows::from_ascending(stores, rows.iter().copied()).expect("ascending")
}

/// The name of a registered strategy, and its inputs.
pub(super) type Draw = (&'static str, Inputs);

pub(super) fn once(order: &'static str) -> Draw {
    (order, Inputs::default())
}

fn weighted(weights: Vec<f32>, samples: Option<u64>) -> Draw {
    ("weights", Inputs { weights: Some(weights), samples, ..Inputs::default() })
}

/// `weights`: one for each class, which is given to the first of its rows.
pub(super) fn classes(codes: Vec<u32>, weights: Option<Vec<f64>>, samples: Option<u64>) -> Draw {
    let of_rows = |weights: Vec<f64>| {
        let mut left = weights;
        let weight = |&code: &u32| left.get_mut(code as usize).map_or(0.0, |weight| std::mem::take(weight) as f32);
        codes.iter().map(weight).collect()
    };
    let weights = weights.map(of_rows);
    ("class-batches", Inputs { codes: Some(codes), weights, samples, ..Inputs::default() })
}

fn made(rows: Rows, sampling: Sampling, (name, inputs): Draw) -> Result<Plan, PlanError> {
    by_name(name).expect("registered").strategy(rows, sampling, inputs).map(Plan::of)
}

pub(super) fn plan(stores: &[u64], rows: &[u64], sampling: Sampling, draw: Draw) -> Plan {
    made(view(stores, rows), sampling, draw).expect("valid")
}

#[test]
fn every_registered_strategy_conforms() {
    for registered in &STRATEGIES {
        assert_eq!(conforms(registered), Ok(()));
    }
}

#[test]
fn k_is_no_more_than_there_are_blocks() {
    let (stores, rows) = subset();
    let small = plan(&stores, &rows[..40], sampling(16, 4, 256), once("block"));
    assert_eq!((small.k(), small.blocks()), (10.0, 10));
    assert_eq!(plan(&stores, &rows, sampling(16, 4, 8), once("block")).k(), 32.0);
    assert_eq!(plan(&[9], &[], sampling(2, 2, 2), once("block")).k(), 0.0);
}

/// All rows of an epoch, batch by batch, with fetches requested in reverse; checks what the plan says about them.
pub(super) fn batches(plan: &Plan, epoch: u64) -> Vec<Vec<u64>> {
    let mut found = Vec::new();
    for fetch in (0..plan.fetches()).rev() {
        let rows = plan.epoch(epoch).fetch(fetch);
        let numbers = plan.batches_of(fetch);
        assert_eq!(rows.bounds.len() as u64 - 1, numbers.end - numbers.start);
        assert_eq!(rows.rows.len(), *rows.bounds.last().expect("one"));
        for batch in numbers.rev() {
            let (of, place) = plan.fetch_of(batch);
            assert_eq!(of, fetch);
            assert_eq!(plan.batch_rows(epoch, batch), rows.batch(place).len() as u64);
            assert!((1..=plan.sampling().batch_size).contains(&plan.batch_rows(epoch, batch)));
            found.push(rows.batch(place).to_vec());
        }
    }
    found.reverse();
    assert_eq!(plan.batch_rows(epoch, plan.batches()), 0);
    assert!(plan.epoch(epoch).fetch(plan.fetches()).rows.is_empty());
    assert!(plan.epoch(epoch).fetch(u64::MAX).rows.is_empty());
    assert_eq!(found.len() as u64, plan.batches());
    assert_eq!(found.iter().map(|rows| rows.len() as u64).sum::<u64>(), plan.served_rows());
    found
}

pub(super) fn sorted(mut rows: Vec<u64>) -> Vec<u64> {
    rows.sort_unstable();
    rows
}

fn counts(rows: &[u64]) -> HashMap<u64, u64> {
    let mut counts = HashMap::new();
    rows.iter().for_each(|&row| *counts.entry(row).or_default() += 1);
    counts
}

/// Chi-square of counts against their expectations, as standard deviations from its mean.
pub(super) fn excess(pairs: impl Iterator<Item = (u64, f64)>) -> f64 {
    let (mut chi2, mut freedom) = (0.0, -1.0);
    for (count, expected) in pairs {
        chi2 += (count as f64 - expected).powi(2) / expected;
        freedom += 1.0;
    }
    (chi2 - freedom) / f64::sqrt(2.0 * freedom)
}

/// A change of these hashes changes every batch of every user: it needs a new major version and a line in the changelog.
pub(super) fn golden(plan: &Plan) -> String {
    let mut sha = Sha256::new();
    for row in batches(plan, 3).concat() {
        sha.update(row.to_le_bytes());
    }
    sha.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_order_serves_each_selected_row_once() {
    let (stores, rows) = subset();
    for order in ["block", "random", "sequential", "buffered"] {
        for (batch_size, block_size, fetch_factor) in [(1, 1, 1), (7, 3, 5), (64, 16, 4), (256, 16, 64), (10, 4000, 3)]
        {
            for drop_last in [false, true] {
                let sampling = Sampling { drop_last, ..sampling(batch_size, block_size, fetch_factor) };
                let plan = plan(&stores, &rows, sampling, once(order));
                for epoch in [0, 7] {
                    let served = sorted(batches(&plan, epoch).concat());
                    let left = rows.len() % batch_size as usize;
                    assert_eq!(served.len(), rows.len() - if drop_last { left } else { 0 });
                    assert!(served.windows(2).all(|pair| pair[0] < pair[1]));
                    assert!(served.iter().all(|row| rows.binary_search(row).is_ok()), "only selected rows");
                }
            }
        }
    }
}

#[test]
fn a_view_of_everything_is_the_collection() {
    let stores = [333, 2, 90, 41, 7];
    let whole = Plan::new(&stores, sampling(8, 16, 3));
    let view = plan(&stores, &(0..473).collect::<Vec<_>>(), sampling(8, 16, 3), once("block"));
    assert_eq!(epoch_rows(&whole, 5), epoch_rows(&view, 5));
    assert_eq!(view.view().bytes(), 0);
}

#[test]
fn stored_orders() {
    let (stores, rows) = subset();
    let sequential = plan(&stores, &rows, sampling(10, 16, 5), once("sequential"));
    assert_eq!(batches(&sequential, 0).concat(), rows);
    assert_eq!(batches(&sequential, 9).concat(), rows);
    let buffered = plan(&stores, &rows, sampling(10, 16, 5), once("buffered"));
    let (first, second) = (epoch_rows(&buffered, 0), epoch_rows(&buffered, 1));
    assert_ne!(first, second);
    for (fetch, stored) in first.chunks(50).zip(rows.chunks(50)) {
        assert_ne!(fetch, stored);
        assert_eq!(sorted(fetch.to_vec()), stored);
    }
}

#[test]
fn blocks_are_runs_of_selected_rows() {
    let (stores, rows) = subset();
    let plan = plan(&stores, &rows, sampling(64, 16, 8), once("block"));
    let order = plan.epoch(2);
    let mut places: Vec<usize> =
        order.fetch(1).rows.iter().map(|row| rows.binary_search(row).expect("selected")).collect();
    places.sort_unstable();
    // 32 blocks; those adjacent in stored order form one run.
    let runs = places.chunk_by(|a, b| a + 1 == *b).count();
    assert!((20..=34).contains(&runs), "{runs}");
}

#[test]
fn weights_are_frequencies() {
    let (stores, rows) = subset();
    let weights: Vec<f32> = (0..rows.len()).map(|i| [0.0, 1.0, 0.25, 3.0, 0.5][i % 5]).collect();
    let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    for (block_size, samples) in [(16, None), (1, None), (7, Some(100_001)), (100_000, None)] {
        let draw = weighted(weights.clone(), samples);
        let plan = plan(&stores, &rows, sampling(64, block_size, 8), draw);
        assert_eq!(plan.drawn_rows(), samples.unwrap_or(rows.len() as u64));
        let epochs = 4_000_000 / plan.drawn_rows();
        let mut drawn = Vec::new();
        for epoch in 0..epochs {
            drawn.extend(epoch_rows(&plan, epoch));
        }
        let counts = counts(&drawn);
        assert!(counts.keys().all(|row| weights[rows.binary_search(row).expect("selected")] > 0.0));
        // Draws of one block are not independent: between blocks the variance is that of samples / block_size draws. So the rows of a block
        // are tested together, and rows within their block separately.
        let expected = |weight: f32| f64::from(weight) / sum * drawn.len() as f64;
        let count = |row: &u64| counts.get(row).copied().unwrap_or(0);
        let blocks: Vec<(u64, f64)> = rows
            .iter()
            .zip(&weights)
            .collect::<Vec<_>>()
            .chunk_by(|a, b| (*a.0 < 335) == (*b.0 < 335) && *a.0 / 1500 == *b.0 / 1500)
            .map(|part| (part.iter().map(|(row, _)| count(row)).sum(), part.iter().map(|(_, w)| expected(**w)).sum()))
            .collect();
        let unit = block_size.min(9000) as f64;
        let apart = excess(blocks.iter().map(|&(count, expected)| ((count as f64 / unit) as u64, expected / unit)));
        assert!(apart < 4.0, "{block_size}: {blocks:?}");
        if block_size == 1 {
            let each =
                excess(rows.iter().zip(&weights).filter(|(_, w)| **w > 0.0).map(|(r, w)| (count(r), expected(*w))));
            assert!(each.abs() < 4.0, "{each}");
        }
        for place in 1..5 {
            let of =
                |place: usize| rows.iter().skip(place).step_by(5).map(count).sum::<u64>() as f64 / drawn.len() as f64;
            let share = f64::from(weights[place]) / f64::from(weights[..5].iter().sum::<f32>());
            assert!((of(place) - share).abs() < 0.003, "{block_size}: {} {share}", of(place));
        }
    }
}

#[test]
fn a_drawn_block_gives_a_block_of_draws() {
    let drawn = |sampling: Sampling| {
        let draw = weighted(vec![1.0; 10_000], Some(1_000_000));
        plan(&[10_000], &(0..10_000).collect::<Vec<_>>(), sampling, draw)
    };
    let plan = drawn(sampling(64, 16, 8));
    for fetch in [0, 5, 1000] {
        let mut blocks: Vec<u64> = plan.epoch(1).fetch(fetch).rows.iter().map(|row| row / 16).collect();
        blocks.sort_unstable();
        blocks.dedup();
        assert!((28..=32).contains(&blocks.len()), "{}", blocks.len());
    }
    // With fetches that do not start with a block, the draws are the same.
    let other = Sampling { batch_size: 10, fetch_factor: 3, ..*plan.sampling() };
    let other = drawn(other);
    assert_eq!(sorted(epoch_rows(&plan, 0)), sorted(epoch_rows(&other, 0)));
}

#[test]
fn balanced_classes_are_drawn_alike() {
    let codes: Vec<u32> = (0..20_000u32).map(|row| [0, 1, NO_CLASS, 3][(row.isqrt() % 4) as usize]).collect();
    let weights = labels::balanced(&codes).expect("codes");
    let plan = plan(&[20_000], &(0..20_000).collect::<Vec<_>>(), sampling(64, 4, 8), weighted(weights, Some(400_000)));
    let mut found = [0u64; 4];
    for row in epoch_rows(&plan, 0) {
        found[codes[row as usize] as usize] += 1;
    }
    for class in [0, 1, 3] {
        assert!((found[class] as f64 / 400_000.0 - 1.0 / 3.0).abs() < 0.01, "{found:?}");
    }
    assert_eq!(found[2], 0);
}

#[test]
fn epochs_of_every_draw_are_independent() {
    let all: Vec<u64> = (0..4096).collect();
    let codes: Vec<u32> = (0..4096).map(|row| row / 600).collect();
    for draw in [
        once("random"),
        weighted(vec![1.0; 4096], None),
        classes(codes.clone(), None, None),
        classes(codes, Some(vec![1.0; 7]), None),
    ] {
        let plan = plan(&[4096], &all, sampling(64, 16, 4), draw);
        let first = epoch_rows(&plan, 0);
        for epoch in 1..20 {
            let same = first.iter().zip(epoch_rows(&plan, epoch)).filter(|(a, b)| **a == *b).count();
            assert!(same < 12, "{same}");
        }
    }
}

#[test]
fn draws_that_cannot_be() {
    let of = |draw| made(Rows::all(&[3]), sampling(2, 2, 2), draw).err();
    let classes = |codes: &[u32], weights: Option<Vec<f64>>| classes(codes.to_vec(), weights, None);
    assert!(matches!(of(classes(&[0, 1], None)), Some(PlanError::Count { given: 2, wanted: 3, .. })));
    assert!(matches!(of(classes(&[NO_CLASS; 3], None)), Some(PlanError::NoClass)));
    assert!(matches!(of(classes(&[0, 1, u32::MAX - 1], None)), Some(PlanError::Code { .. })));
    assert!(matches!(of(classes(&[0, 0, 2], Some(vec![0.0, 1.0, 0.0]))), Some(PlanError::NoWeight { .. })));
    assert!(matches!(of(classes(&[0, 0, 1], Some(vec![1.0, f64::NAN]))), Some(PlanError::Weight { index: 1, .. })));
    let none = made(Rows::all(&[3]), sampling(2, 2, 2), weighted(vec![1.0; 3], Some(0)));
    assert_eq!(none.expect("valid").batches(), 0);
    let empty = made(view(&[9], &[]), sampling(2, 2, 2), once("block")).expect("valid");
    assert_eq!((empty.batches(), empty.fetches()), (0, 0));
}

#[test]
fn golden_draws() {
    let (stores, rows) = subset();
    let codes = codes(&rows);
    let of = |draw| golden(&plan(&stores, &rows, sampling(64, 16, 8), draw));
    let weights: Vec<f32> = (0..rows.len()).map(|i| (i % 7) as f32 * 0.3).collect();
    assert_eq!(
        [
            of(once("block")),
            of(once("random")),
            of(once("buffered")),
            of(weighted(weights, None)),
            of(classes(codes.clone(), None, None)),
            of(classes(codes, Some((0..12).map(f64::from).collect()), Some(5000))),
        ],
        [
            "34ee76533fccfd12",
            "9f7a5a705b3033b8",
            "fb8b1a749b4c7461",
            "32858955b9375d05",
            "5aa0973a557765d2",
            "567d2c42355defc1"
        ]
    );
}

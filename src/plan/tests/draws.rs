//! What each way of drawing promises: exactness, exclusivity, frequencies, classes, independence of epochs.

use std::collections::HashMap;

use super::*;

/// Every third, and all of a stretch, of stores of awkward sizes.
fn subset() -> (Vec<u64>, Vec<u64>) {
    let stores = vec![333, 0, 2, 9000, 41, 7];
    let n = stores.iter().sum();
    (stores, (0..n).filter(|row| row % 3 == 1 || (2000..5000).contains(row)).collect())
}

fn view(stores: &[u64], rows: &[u64]) -> Rows {
    Rows::from_ascending(stores, rows.iter().copied()).expect("ascending")
}

fn plan(stores: &[u64], rows: &[u64], sampling: Sampling, draw: Draw) -> Plan {
    Plan::of(view(stores, rows), sampling, draw).expect("valid")
}

/// All rows of an epoch, batch by batch, from fetches asked for last first; checks what the plan says of them.
fn batches(plan: &Plan, epoch: u64) -> Vec<Vec<u64>> {
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

fn sorted(mut rows: Vec<u64>) -> Vec<u64> {
    rows.sort_unstable();
    rows
}

fn counts(rows: &[u64]) -> HashMap<u64, u64> {
    let mut counts = HashMap::new();
    rows.iter().for_each(|&row| *counts.entry(row).or_default() += 1);
    counts
}

/// Chi-square of counts against what is expected of each, in standard deviations from its mean.
fn excess(pairs: impl Iterator<Item = (u64, f64)>) -> f64 {
    let (mut chi2, mut freedom) = (0.0, -1.0);
    for (count, expected) in pairs {
        chi2 += (count as f64 - expected).powi(2) / expected;
        freedom += 1.0;
    }
    (chi2 - freedom) / f64::sqrt(2.0 * freedom)
}

/// Once these change, every batch of every user changes: a new major version, and a line in the changelog.
fn golden(plan: &Plan) -> String {
    let mut sha = Sha256::new();
    for row in batches(plan, 3).concat() {
        sha.update(row.to_le_bytes());
    }
    sha.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_order_serves_each_selected_row_once() {
    let (stores, rows) = subset();
    for order in [Order::Block, Order::Random, Order::Sequential, Order::Buffered] {
        for (batch_size, block_size, fetch_factor) in [(1, 1, 1), (7, 3, 5), (64, 16, 4), (256, 16, 64), (10, 4000, 3)]
        {
            for drop_last in [false, true] {
                let sampling = Sampling { drop_last, ..sampling(batch_size, block_size, fetch_factor) };
                let plan = plan(&stores, &rows, sampling, Draw::Permuted(order));
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
    let view = plan(&stores, &(0..473).collect::<Vec<_>>(), sampling(8, 16, 3), Draw::Permuted(Order::Block));
    assert_eq!(epoch_rows(&whole, 5), epoch_rows(&view, 5));
    assert_eq!(view.view().bytes(), 0);
}

#[test]
fn stored_orders() {
    let (stores, rows) = subset();
    let sequential = plan(&stores, &rows, sampling(10, 16, 5), Draw::Permuted(Order::Sequential));
    assert_eq!(batches(&sequential, 0).concat(), rows);
    assert_eq!(batches(&sequential, 9).concat(), rows);
    let buffered = plan(&stores, &rows, sampling(10, 16, 5), Draw::Permuted(Order::Buffered));
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
    let plan = plan(&stores, &rows, sampling(64, 16, 8), Draw::Permuted(Order::Block));
    let order = plan.epoch(2);
    let mut places: Vec<usize> =
        order.fetch(1).rows.iter().map(|row| rows.binary_search(row).expect("selected")).collect();
    places.sort_unstable();
    // 32 blocks; those next to each other in stored order make one run.
    let runs = places.chunk_by(|a, b| a + 1 == *b).count();
    assert!((20..=34).contains(&runs), "{runs}");
}

#[test]
fn weights_are_frequencies() {
    let (stores, rows) = subset();
    let weights: Vec<f32> = (0..rows.len()).map(|i| [0.0, 1.0, 0.25, 3.0, 0.5][i % 5]).collect();
    let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    for (block_size, samples) in [(16, None), (1, None), (7, Some(100_001)), (100_000, None)] {
        let draw = Draw::Weighted { weights: weights.clone(), samples };
        let plan = plan(&stores, &rows, sampling(64, block_size, 8), draw);
        assert_eq!(plan.drawn_rows(), samples.unwrap_or(rows.len() as u64));
        let epochs = 4_000_000 / plan.drawn_rows();
        let mut drawn = Vec::new();
        for epoch in 0..epochs {
            drawn.extend(epoch_rows(&plan, epoch));
        }
        let counts = counts(&drawn);
        assert!(counts.keys().all(|row| weights[rows.binary_search(row).expect("selected")] > 0.0));
        // Draws of one block are not independent: between blocks the variance is that of samples / block_size draws.
        // So rows of a block together, and rows within their block, are tested apart.
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
    let plan = plan(
        &[10_000],
        &(0..10_000).collect::<Vec<_>>(),
        sampling(64, 16, 8),
        Draw::Weighted { weights: vec![1.0; 10_000], samples: Some(1_000_000) },
    );
    for fetch in [0, 5, 1000] {
        let mut blocks: Vec<u64> = plan.epoch(1).fetch(fetch).rows.iter().map(|row| row / 16).collect();
        blocks.sort_unstable();
        blocks.dedup();
        assert!((28..=32).contains(&blocks.len()), "{}", blocks.len());
    }
    // A stretch that does not start with a block is the same draws.
    let other = Plan { sampling: Sampling { batch_size: 10, fetch_factor: 3, ..plan.sampling }, ..plan.clone() };
    assert_eq!(sorted(epoch_rows(&plan, 0)), sorted(epoch_rows(&other, 0)));
}

#[test]
fn balanced_classes_are_drawn_alike() {
    let codes: Vec<u32> = (0..20_000u32).map(|row| [0, 1, NO_CLASS, 3][(row.isqrt() % 4) as usize]).collect();
    let weights = draw::balanced(&codes).expect("codes");
    let plan = plan(
        &[20_000],
        &(0..20_000).collect::<Vec<_>>(),
        sampling(64, 4, 8),
        Draw::Weighted { weights, samples: Some(400_000) },
    );
    let mut found = [0u64; 4];
    for row in epoch_rows(&plan, 0) {
        found[codes[row as usize] as usize] += 1;
    }
    for class in [0, 1, 3] {
        assert!((found[class] as f64 / 400_000.0 - 1.0 / 3.0).abs() < 0.01, "{found:?}");
    }
    assert_eq!(found[2], 0);
}

/// Codes of 12 classes: most rows in a few, some of no class, class 5 empty, class 11 of one row.
fn codes(rows: &[u64]) -> Vec<u32> {
    let code = |&row: &u64| match row {
        4321 => 11,
        _ if row % 17 == 0 => NO_CLASS,
        _ if row % 100 == 0 => 10,
        _ => [0, 0, 0, 1, 2, 3, 4, 6, 7, 8, 9][(row / 40 % 11) as usize],
    };
    rows.iter().map(code).collect()
}

#[test]
fn class_batches_hold_one_class_and_each_row_once() {
    let (stores, mut rows) = subset();
    rows.push(4321);
    rows.sort_unstable();
    rows.dedup();
    let codes = codes(&rows);
    let class = |row: &u64| codes[rows.binary_search(row).expect("selected")];
    for (batch_size, block_size, fetch_factor) in [(1, 1, 1), (7, 3, 5), (64, 16, 4), (256, 16, 64), (10, 4000, 3)] {
        for drop_last in [false, true] {
            let sampling = Sampling { drop_last, ..sampling(batch_size, block_size, fetch_factor) };
            let plan =
                plan(&stores, &rows, sampling, Draw::Classes { codes: codes.clone(), weights: None, samples: None });
            for epoch in [0, 3] {
                let found = batches(&plan, epoch);
                let mut of_class = [0u64; 12];
                let mut short = [0u64; 12];
                for batch in &found {
                    let code = class(&batch[0]);
                    assert!(batch.iter().all(|row| class(row) == code), "one class");
                    of_class[code as usize] += 1;
                    short[code as usize] += u64::from((batch.len() as u64) < batch_size);
                }
                let served = sorted(found.concat());
                assert!(served.windows(2).all(|pair| pair[0] < pair[1]), "no row twice");
                for code in 0..12 {
                    let n = codes.iter().filter(|&&other| other == code).count() as u64;
                    let wanted = if drop_last { n / batch_size } else { n.div_ceil(batch_size) };
                    assert_eq!(of_class[code as usize], wanted);
                    assert_eq!(short[code as usize], u64::from(!drop_last && n % batch_size != 0));
                }
                if !drop_last {
                    let expected = rows.iter().zip(&codes).filter(|(_, code)| **code != NO_CLASS);
                    assert!(served.iter().eq(expected.map(|(row, _)| row)));
                }
            }
            if plan.batches() > 3 {
                assert_ne!(batches(&plan, 0), batches(&plan, 1));
            }
        }
    }
}

#[test]
fn classes_are_spread_over_the_epoch_in_whole_blocks() {
    // Class 0 has 3/5 of the rows, 1 and 2 have 1/5 each, in runs of 100.
    let codes: Vec<u32> = (0..200_000).map(|row| [0, 1, 0, 2, 0][row / 100 % 5]).collect();
    let all: Vec<u64> = (0..200_000).collect();
    let draw = Draw::Classes { codes: codes.clone(), weights: None, samples: None };
    let plan = plan(&[200_000], &all, sampling(50, 10, 20), draw);
    let mut firsts = [0u64; 3];
    for epoch in 0..3 {
        for fetch in 0..plan.fetches() - 1 {
            let rows = plan.epoch(epoch).fetch(fetch);
            let mut n = [0i64; 3];
            (0..20).for_each(|place| n[codes[rows.batch(place)[0] as usize] as usize] += 1);
            assert!(n.iter().zip([12, 4, 4]).all(|(n, share)| (n - share).abs() <= 2), "{n:?}");
            firsts[codes[rows.batch(0)[0] as usize] as usize] += 1;
            let mut blocks: Vec<u64> = rows.rows.iter().map(|row| row / 10).collect();
            blocks.sort_unstable();
            blocks.dedup();
            assert!(blocks.len() <= 103, "{} blocks for 100", blocks.len());
        }
    }
    let whole = firsts.iter().sum::<u64>() as f64;
    let pairs = firsts.iter().zip([0.6, 0.2, 0.2]).map(|(&count, share)| (count, whole * share));
    assert!(excess(pairs) < 4.0, "{firsts:?}");
}

#[test]
fn class_batches_can_be_drawn_by_weight() {
    let (stores, mut rows) = subset();
    rows.push(4321);
    rows.sort_unstable();
    rows.dedup();
    let codes = codes(&rows);
    let class = |row: &u64| codes[rows.binary_search(row).expect("selected")] as usize;
    let weights: Vec<f64> = (0..12).map(|code| [1.0, 0.0, 2.5][code % 3]).collect();
    for (weights, samples) in [(Some(weights.clone()), None), (None, Some(50_003)), (Some(weights), Some(999))] {
        let draw = Draw::Classes { codes: codes.clone(), weights: weights.clone(), samples };
        let plan = plan(&stores, &rows, sampling(16, 4, 16), draw);
        let (mut of_class, mut of_row) = ([0u64; 12], HashMap::<u64, u64>::new());
        for epoch in 0..2_000_000 / plan.drawn_rows() {
            for batch in (0..plan.fetches()).flat_map(|fetch| {
                let rows = plan.epoch(epoch).fetch(fetch);
                (0..rows.bounds.len() - 1).map(move |place| rows.batch(place).to_vec()).collect::<Vec<_>>()
            }) {
                assert!(batch.iter().all(|row| class(row) == class(&batch[0])), "one class");
                of_class[class(&batch[0])] += 1;
                batch.iter().for_each(|&row| *of_row.entry(row).or_default() += 1);
            }
        }
        let weights: Vec<f64> = (0..12)
            .map(|code| if code == 5 { 0.0 } else { weights.as_ref().map_or(1.0, |weights| weights[code]) })
            .collect();
        let drawn = of_class.iter().sum::<u64>() as f64;
        let expected = |code: usize| weights[code] / weights.iter().sum::<f64>() * drawn;
        let pairs = (0..12).filter(|&code| weights[code] > 0.0).map(|code| (of_class[code], expected(code)));
        assert!(excess(pairs) < 4.0, "{of_class:?}");
        assert!((0..12).all(|code| weights[code] > 0.0 || of_class[code] == 0));
        // Rows of a class alike. A batch's rows are a sample without replacement, so counts vary less than by chance.
        for code in [0, 8, 10] {
            let n = rows.iter().filter(|row| class(row) == code).count() as f64;
            let served: u64 =
                rows.iter().filter(|row| class(row) == code).map(|row| of_row.get(row).unwrap_or(&0)).sum();
            if served == 0 {
                continue;
            }
            let pairs = rows.iter().filter(|row| class(row) == code);
            let far = excess(pairs.map(|row| (of_row.get(row).copied().unwrap_or(0), served as f64 / n)));
            // Rows of a block come together: their counts vary up to block_size times as much.
            assert!(far < 4.0 * 4.0 * 4.0, "{code}: {far}");
        }
        assert_ne!(batches(&plan, 0), batches(&plan, 1));
    }
}

#[test]
fn epochs_of_every_draw_are_independent() {
    let all: Vec<u64> = (0..4096).collect();
    let codes: Vec<u32> = (0..4096).map(|row| row / 600).collect();
    for draw in [
        Draw::Permuted(Order::Random),
        Draw::Weighted { weights: vec![1.0; 4096], samples: None },
        Draw::Classes { codes: codes.clone(), weights: None, samples: None },
        Draw::Classes { codes, weights: Some(vec![1.0; 7]), samples: None },
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
    let of = |draw| Plan::of(Rows::all(&[3]), sampling(2, 2, 2), draw).err();
    let classes =
        |codes: &[u32], weights: Option<Vec<f64>>| Draw::Classes { codes: codes.to_vec(), weights, samples: None };
    assert!(matches!(of(classes(&[0, 1], None)), Some(PlanError::Count { given: 2, wanted: 3, .. })));
    assert!(matches!(of(classes(&[NO_CLASS; 3], None)), Some(PlanError::NoClass)));
    assert!(matches!(of(classes(&[0, 1, u32::MAX - 1], None)), Some(PlanError::Code { .. })));
    assert!(matches!(of(classes(&[0, 1, 2], Some(vec![1.0; 2]))), Some(PlanError::Count { .. })));
    assert!(matches!(of(classes(&[0, 0, 2], Some(vec![0.0, 1.0, 0.0]))), Some(PlanError::NoWeight { .. })));
    assert!(matches!(of(classes(&[0, 0, 1], Some(vec![1.0, f64::NAN]))), Some(PlanError::Weight { index: 1, .. })));
    let none = Plan::of(Rows::all(&[3]), sampling(2, 2, 2), Draw::Weighted { weights: vec![1.0; 3], samples: Some(0) });
    assert_eq!(none.expect("valid").batches(), 0);
    let empty = Plan::of(view(&[9], &[]), sampling(2, 2, 2), Draw::Permuted(Order::Block)).expect("valid");
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
            of(Draw::Permuted(Order::Block)),
            of(Draw::Permuted(Order::Random)),
            of(Draw::Permuted(Order::Buffered)),
            of(Draw::Weighted { weights, samples: None }),
            of(Draw::Classes { codes: codes.clone(), weights: None, samples: None }),
            of(Draw::Classes { codes, weights: Some((0..12).map(f64::from).collect()), samples: Some(5000) }),
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

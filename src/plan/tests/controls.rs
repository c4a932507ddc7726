//! What controls promise: they match, are uniform, come from few windows, and follow from their inputs alone.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::*;
use crate::plan::controls::Controls;
use crate::plan::labels::joint;

fn rng(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    }
}

#[test]
fn labels_of_several_columns_are_one_code() {
    let columns = [vec![0, 1, 0, NO_CLASS, 1, 0], vec![5, 5, 6, 5, NO_CLASS, 5]];
    assert_eq!(joint(6, &columns), [0, 1, 2, NO_CLASS, NO_CLASS, 0]);
    assert_eq!(joint(3, &[]), [0, 0, 0]);
}

/// Random tables, compared with a simple implementation of the promise.
#[test]
fn each_control_matches_its_row_whatever_the_sizes() {
    for seed in 0..60 {
        let mut draw = rng(seed);
        let (rows, kinds, lots) = (1 + draw(400), 1 + draw(5), 1 + draw(4));
        let mut label = |n: u64| if draw(12) == 0 { NO_CLASS } else { draw(n) as u32 };
        let columns: Vec<Vec<u32>> = [kinds, lots].iter().map(|&n| (0..rows).map(|_| label(n)).collect()).collect();
        let is_control: Vec<bool> = (0..rows).map(|_| draw(4) == 0).collect();
        let each = 1 + draw(3);
        let controls =
            Controls::new(each, joint(rows as usize, &columns), |row| is_control[row as usize]).expect("few");
        let labels = |row: u64| [columns[0][row as usize], columns[1][row as usize]];
        let of = |row: u64| -> BTreeSet<u64> {
            let known = !labels(row).contains(&NO_CLASS);
            (0..rows).filter(|&other| known && is_control[other as usize] && labels(other) == labels(row)).collect()
        };
        let sampling = Sampling { seed, ..sampling(1 + draw(40), 1 + draw(20), 1 + draw(5)) };
        let plan = Plan::new(&[rows], sampling).with_companions(vec![Arc::new(controls.clone())]);
        for epoch in 0..3 {
            for fetch in (0..plan.fetches()).rev() {
                let own = plan.epoch(epoch).fetch(fetch);
                let all = plan.companions(epoch, fetch, &own);
                let [beside] = all.as_slice() else { panic!("one companion") };
                assert_eq!(beside.rows.len() as u64, each * own.rows.len() as u64);
                for place in 0..own.bounds.len() - 1 {
                    assert_eq!(beside.batch(place).len() as u64, each * own.batch(place).len() as u64);
                }
                for (&row, controls) in own.rows.iter().zip(beside.rows.chunks(each as usize)) {
                    let matching = of(row);
                    let right = |control: &u64| matching.contains(control) || (matching.is_empty() && *control == row);
                    assert!(controls.iter().all(right), "{seed}: row {row} beside {controls:?}");
                }
                assert_eq!(plan.companions(epoch, fetch, &own), all);
            }
        }
        let matched = (0..rows).filter(|&row| !of(row).is_empty()).count();
        assert_eq!((0..rows).filter(|&row| controls.matches(row)).count(), matched);
        let labelled = |&row: &u64| is_control[row as usize] && !labels(row).contains(&NO_CLASS);
        assert_eq!(controls.count(), (0..rows).filter(labelled).count() as u64);
    }
}

/// Rows 0..rows in one group, some of which are controls.
fn one_group(rows: u64, each: u64, controls: &[u64]) -> Controls {
    Controls::new(each, vec![0; rows as usize], |row| controls.contains(&row)).expect("few")
}

/// The sum of (seen - expected)^2 / expected.
fn chi_square(counts: &[u64]) -> f64 {
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    counts.iter().map(|&count| (count as f64 - mean).powi(2) / mean).sum()
}

/// At every position of a fetch, over epochs, each control is equally likely, wherever it is stored. With n controls the statistic has n -
/// 1
/// degrees of freedom; the bound is mean + 6 deviations, for 144 tests with fixed seeds.
#[test]
fn every_control_is_equally_likely_at_every_place() {
    const EPOCHS: u64 = 3000;
    for (members, block) in [(7u64, 3u64), (10, 10), (5, 16), (64, 16), (33, 8), (12, 1)] {
        // Stored in two runs, so that the ring has a gap in the middle and at its end.
        let controls: Vec<u64> = (0..members).map(|i| if i < members / 2 { i } else { 100 + i }).collect();
        let controls = one_group(200, 2, &controls);
        let rows: Vec<u64> = (0..24).collect();
        let sampling = Sampling { seed: members, ..sampling(8, block, 3) };
        let number = |row: u64| (if row < 100 { row } else { row - 100 }) as usize;
        let mut counts = vec![vec![0u64; members as usize]; 48];
        for epoch in 0..EPOCHS {
            for (place, row) in controls.rows(&sampling, epoch, 5, &rows).into_iter().enumerate() {
                counts[place][number(row)] += 1;
            }
        }
        let freedom = (members - 1) as f64;
        for place in (0..48).step_by(2) {
            let found = chi_square(&counts[place]);
            let limit = freedom + 6.0 * (2.0 * freedom).sqrt();
            assert!(found < limit, "{members} controls, blocks of {block}, place {place}: {found:.1} > {limit:.1}");
        }
    }
}

/// Two controls of one row, and those of two rows in different windows, are independent; with blocks of 1 all are.
#[test]
fn controls_of_one_row_are_independent() {
    const EPOCHS: u64 = 20_000;
    let rows: Vec<u64> = (0..16).collect();
    for (block, first, second) in [(4, 0, 1), (4, 6, 9), (1, 3, 30), (100, 0, 5)] {
        let controls = one_group(64, 2, &[3, 9, 20, 21, 22, 23]);
        let mut counts = vec![0u64; 36];
        let at = |row: u64| [3, 9, 20, 21, 22, 23].iter().position(|&known| known == row).expect("a control");
        for epoch in 0..EPOCHS {
            let drawn = controls.rows(&sampling(4, block, 4), epoch, 0, &rows);
            counts[6 * at(drawn[first]) + at(drawn[second])] += 1;
        }
        let found = chi_square(&counts);
        assert!(found < 35.0 + 6.0 * 70f64.sqrt(), "block {block}, places {first} and {second}: {found:.1}");
    }
}

/// A fetch reads about as many blocks for controls as for its rows.
#[test]
fn controls_come_from_few_windows() {
    let controls: Vec<u64> = (1000..3000).collect();
    let controls = one_group(5000, 1, &controls);
    let rows: Vec<u64> = (0..512).collect();
    let mut drawn = controls.rows(&sampling(64, 16, 8), 3, 0, &rows);
    drawn.sort_unstable();
    drawn.dedup();
    let runs = drawn.chunk_by(|a, b| b - a < 16).count();
    assert!(runs <= 512 / 16 && drawn.len() > 200, "{runs} runs of {} controls", drawn.len());
}

#[test]
fn epochs_fetches_and_seeds_draw_anew() {
    let controls = one_group(500, 1, &(0..200).collect::<Vec<_>>());
    let rows: Vec<u64> = (200..328).collect();
    let of = |seed, epoch, fetch| controls.rows(&Sampling { seed, ..sampling(32, 8, 4) }, epoch, fetch, &rows);
    let all = [of(0, 0, 0), of(0, 1, 0), of(0, 0, 1), of(1, 0, 0)];
    assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])));
}

/// A change of this hash changes every paired batch of every user: it needs a new major version and a line in the changelog.
#[test]
fn golden_controls() {
    let groups: Vec<u32> = (0..5000).map(|row| if row % 97 == 0 { NO_CLASS } else { row / 16 % 7 }).collect();
    let controls = Controls::new(3, groups, |row| row % 5 == 0).expect("few");
    let plan = Plan::new(&[3000, 2000], sampling(64, 16, 4)).with_companions(vec![Arc::new(controls)]);
    let mut sha = Sha256::new();
    for fetch in 0..plan.fetches() {
        let rows = plan.epoch(2).fetch(fetch);
        for row in plan.companions(2, fetch, &rows).into_iter().flat_map(|beside| beside.rows) {
            sha.update(row.to_le_bytes());
        }
    }
    let hash: String = sha.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "371cd98bc62116cf");
}

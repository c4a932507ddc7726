//! Batches of one class: exactness, positions of short batches, spread, and draws by weight.

use std::collections::HashMap;

use super::draws::{batches, classes, excess, plan, sorted, subset};
use super::*;

/// Codes of 12 classes: most rows in a few, some of no class, class 5 empty, class 11 of one row.
pub(super) fn codes(rows: &[u64]) -> Vec<u32> {
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
            let plan = plan(&stores, &rows, sampling, classes(codes.clone(), None, None));
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
                    assert_eq!(short[code as usize], u64::from(!drop_last && !n.is_multiple_of(batch_size)));
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
    let draw = classes(codes.clone(), None, None);
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
        let draw = classes(codes.clone(), weights.clone(), samples);
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
        // Rows of a class are equally likely: tested for parts of it over drawn blocks, and for positions within a block by share.
        for code in [0, 8, 10] {
            let times: Vec<u64> =
                rows.iter().filter(|row| class(row) == code).map(|row| of_row.get(row).copied().unwrap_or(0)).collect();
            let served = times.iter().sum::<u64>() as f64;
            if weights[code] == 0.0 {
                continue;
            }
            let each = served / times.len() as f64;
            let parts = times
                .chunks(times.len() / 7)
                .map(|part| (part.iter().sum::<u64>() / 4, each * part.len() as f64 / 4.0));
            assert!(excess(parts) < 4.0, "{code}");
            for place in 0..4 {
                let (sum, n) =
                    times.iter().skip(place).step_by(4).fold((0, 0.0), |(sum, n), time| (sum + time, n + 1.0));
                assert!((sum as f64 / n / each - 1.0).abs() < 0.02, "{code}: {}", sum as f64 / n / each);
            }
        }
        assert_ne!(batches(&plan, 0), batches(&plan, 1));
    }
}

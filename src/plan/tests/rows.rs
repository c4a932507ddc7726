//! Rank and select compared with lists, for various densities.

use super::super::{PlanError, Rows};

fn check(store_rows: &[u64], expected: &[u64]) {
    let rows = Rows::from_ascending(store_rows, expected.iter().copied()).expect("valid");
    let all: u64 = store_rows.iter().sum();
    let mut words = vec![0u64; all.div_ceil(64) as usize];
    expected.iter().for_each(|row| words[(row / 64) as usize] |= 1 << (row % 64));
    let same = Rows::from_words(store_rows, words).expect("valid");
    assert_eq!(rows.len(), expected.len() as u64);
    assert!(rows.iter().eq(expected.iter().copied()));
    assert!(same.iter().eq(expected.iter().copied()));
    assert_eq!(rows.store_counts(), same.store_counts());
    let mut first = 0;
    for (store, count) in store_rows.iter().zip(rows.store_counts()) {
        let within = expected.iter().filter(|&&row| (first..first + store).contains(&row)).count();
        assert_eq!(*count, within as u64);
        first += store;
    }
    for row in (0..=all).step_by(1 + all as usize / 5000) {
        assert_eq!(rows.rank(row), expected.partition_point(|&other| other < row) as u64, "{row}");
        assert_eq!(rows.contains(row), expected.binary_search(&row).is_ok());
    }
    for start in (0..expected.len()).step_by(1 + expected.len() / 500) {
        assert_eq!(rows.select(start as u64), Some(expected[start]));
        for len in [1, 16, 63, 5000] {
            let end = (start + len).min(expected.len());
            let mut run = vec![7];
            rows.select_run(start as u64..(start + len) as u64, &mut run);
            assert_eq!(run[1..], expected[start..end]);
        }
    }
    assert_eq!(rows.select(rows.len()), None);
}

#[test]
fn rank_and_select_whatever_the_density() {
    for store_rows in [vec![1], vec![64], vec![4096], vec![4097], vec![3, 0, 9000, 4096, 12_345], vec![50_000]] {
        let all: u64 = store_rows.iter().sum();
        for step in [1, 2, 3, 15, 16, 17, 100, 5000] {
            check(&store_rows, &(0..all).step_by(step).collect::<Vec<_>>());
            check(&store_rows, &(0..all).filter(|row| row % step as u64 != 0).collect::<Vec<_>>());
        }
        check(&store_rows, &(0..all).filter(|row| row / 5000 % 2 == 1).collect::<Vec<_>>());
        check(&store_rows, &[]);
        check(&store_rows, &[all - 1]);
    }
}

#[test]
fn refuses_what_is_no_selection() {
    assert!(matches!(Rows::from_ascending(&[9], [3, 3]), Err(PlanError::NotAscending { row: 3, before: 3 })));
    assert!(matches!(Rows::from_ascending(&[9], [4, 9]), Err(PlanError::NoSuchRow { row: 9, rows: 9 })));
    assert!(matches!(Rows::from_words(&[9], [1 << 9]), Err(PlanError::NoSuchRow { row: 9, rows: 9 })));
    assert!(Rows::from_ascending(&[], []).expect("empty").is_empty());
    assert!(Rows::from_ascending(&[0, 0], []).expect("empty").is_empty());
}

#[test]
fn costs_a_bit_a_row_at_most() {
    let n = 1_000_000;
    let half = Rows::from_ascending(&[n], (0..n).filter(|row| row * 7 % 11 < 5)).expect("valid");
    assert!(half.bytes() as f64 * 8.0 / (n as f64) < 1.07, "{}", half.bytes());
    let runs = Rows::from_ascending(&[n], 100_000..700_000).expect("valid");
    assert!(runs.bytes() < 6_000, "{}", runs.bytes());
    let few = Rows::from_ascending(&[n], (0..n).step_by(1000)).expect("valid");
    assert!(few.bytes() < 6_000, "{}", few.bytes());
}

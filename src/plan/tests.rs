use super::*;
use sha2::{Digest, Sha256};

fn sampling(batch_size: u64, block_size: u64, fetch_factor: u64) -> Sampling {
    Sampling { batch_size, block_size, fetch_factor, seed: 0, drop_last: false }
}

fn epoch_rows(plan: &Plan, epoch: u64) -> Vec<u64> {
    let order = plan.epoch(epoch);
    (0..plan.fetches()).flat_map(|fetch| order.fetch(fetch).rows).collect()
}

#[test]
fn every_row_once_whatever_the_sizes() {
    for stores in [vec![1], vec![5, 0, 17, 1], vec![1000], vec![64, 64], vec![333, 2, 90, 41, 7], vec![0, 3]] {
        let n: u64 = stores.iter().sum();
        for block_size in [1, 3, 16, 64, 2000] {
            for (batch_size, fetch_factor) in [(1, 1), (7, 5), (64, 2), (256, 64)] {
                let plan = Plan::new(&stores, sampling(batch_size, block_size, fetch_factor));
                for epoch in [0, 1, 99] {
                    let mut rows = epoch_rows(&plan, epoch);
                    assert_eq!(plan.batches(), n.div_ceil(batch_size));
                    rows.sort_unstable();
                    assert!(rows.iter().copied().eq(0..n), "{stores:?} {block_size} {batch_size} {fetch_factor}");
                }
            }
        }
    }
}

#[test]
fn only_the_last_fetch_is_short() {
    let plan = Plan::new(&[333, 2, 90, 41, 7], sampling(8, 16, 3));
    let order = plan.epoch(4);
    for fetch in 0..plan.fetches() - 1 {
        assert_eq!(order.fetch(fetch).rows.len(), 24);
    }
    assert_eq!(order.fetch(plan.fetches() - 1).rows.len(), 473 % 24);
    assert!(order.fetch(plan.fetches()).rows.is_empty());
    assert!(order.fetch(u64::MAX).rows.is_empty());
}

#[test]
fn drop_last_leaves_out_less_than_a_batch() {
    let plan = Plan::new(&[1003], Sampling { drop_last: true, ..sampling(10, 4, 7) });
    let rows = epoch_rows(&plan, 0);
    assert_eq!((plan.batches(), rows.len()), (100, 1000));
    assert_ne!(rows, epoch_rows(&plan, 1));
    let none = Plan::new(&[9], Sampling { drop_last: true, ..sampling(10, 4, 7) });
    assert_eq!((none.batches(), none.fetches()), (0, 0));
}

#[test]
fn a_fetch_reads_whole_blocks() {
    let plan = Plan::new(&[10_000], sampling(64, 16, 8));
    let mut rows = plan.epoch(2).fetch(3).rows;
    rows.sort_unstable();
    assert_eq!(rows.chunk_by(|a, b| a + 1 == *b && b % 16 != 0).count(), 32);
}

/// A change of these hashes changes every batch of every user: it needs a new major version and a line in the changelog.
#[test]
fn golden_orders() {
    let hash = |plan: &Plan, epoch: u64| {
        let mut sha = Sha256::new();
        for row in epoch_rows(plan, epoch) {
            sha.update(row.to_le_bytes());
        }
        sha.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let plan = Plan::new(&[1000, 77], sampling(64, 16, 4));
    let seeded = Plan::new(&[1000, 77], Sampling { seed: 7, ..sampling(64, 16, 4) });
    let large = Plan::new(&[123_457, 99_991], sampling(256, 16, 64));
    assert_eq!(
        [hash(&plan, 0), hash(&plan, 1), hash(&seeded, 0), hash(&large, 3)],
        ["25f0b7399e604656", "45e60b7c441f4893", "51454ae4c6cd5f32", "2580df656285bb19"]
    );
}

#[test]
fn epochs_and_seeds_are_independent() {
    let plan = Plan::new(&[4096], sampling(64, 16, 4));
    // Rows at the same position in two independent orders: one is expected.
    let same = |a: &[u64], b: &[u64]| a.iter().zip(b).filter(|(a, b)| a == b).count();
    let first = epoch_rows(&plan, 0);
    for epoch in 1..20 {
        assert!(same(&first, &epoch_rows(&plan, epoch)) < 10);
        let other = Plan::new(&[4096], Sampling { seed: epoch, ..sampling(64, 16, 4) });
        assert!(same(&first, &epoch_rows(&other, 0)) < 10);
    }
}

#[test]
fn rows_reach_every_position() {
    // 24 rows in blocks of 2, fetches of 8: over seeds, each row is at each position equally often.
    let mut counts = vec![0u64; 24 * 24];
    for seed in 0..12_000 {
        let plan = Plan::new(&[24], Sampling { seed, ..sampling(4, 2, 2) });
        for (position, row) in epoch_rows(&plan, 0).into_iter().enumerate() {
            counts[position * 24 + row as usize] += 1;
        }
    }
    let chi2: f64 = counts.iter().map(|&c| (c as f64 - 500.0).powi(2) / 500.0).sum();
    let freedom = 23.0 * 23.0;
    assert!((chi2 - freedom) / f64::sqrt(2.0 * freedom) < 4.0, "{chi2}");
}

/// Label entropy of batches of 64 with 14 plates stored one after the other, compared with scDataset's published values.
#[test]
fn diversity_is_scdatasets() {
    let plate_rows: Vec<u64> = (0..14).map(|plate| 20_992 + 1_408 * plate).collect();
    let bounds: Vec<u64> = plate_rows
        .iter()
        .scan(0, |end, rows| {
            *end += rows;
            Some(*end)
        })
        .collect();
    for (block_size, fetch_factor, published) in
        [(64, 1, 0.0), (16, 1, 1.75), (16, 4, 3.0), (16, 16, 3.47), (64, 64, 3.47), (16, 64, 3.58), (16, 256, 3.61)]
    {
        let plan = Plan::new(&[bounds[13]], sampling(64, block_size, fetch_factor));
        let order = plan.epoch(0);
        let (mut sum, mut batches) = (0.0, 0);
        for fetch in 0..plan.fetches().min(4096 / fetch_factor) {
            for batch in order.fetch(fetch).rows.chunks_exact(64) {
                let mut counts = [0u32; 14];
                for row in batch {
                    counts[bounds.partition_point(|end| end <= row)] += 1;
                }
                let entropy: f64 = counts
                    .iter()
                    .filter(|&&count| count > 0)
                    .map(|&count| f64::from(count) / 64.0)
                    .map(|p| -p * p.log2())
                    .sum();
                sum += entropy;
                batches += 1;
            }
        }
        let entropy = sum / f64::from(batches);
        assert!((entropy - published).abs() < 0.05, "block {block_size}, fetch {fetch_factor}: {entropy} bits");
    }
}

mod classes;
mod controls;
mod draws;
mod groups;
mod rows;

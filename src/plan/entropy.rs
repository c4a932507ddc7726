//! Measures mixing: the entropy of a label within a batch, in bits, for a plan and for perfect shuffling.
//!
//! Perfect shuffling does not reach the entropy of all rows, because a batch is a small sample. So a plan is compared with the expected
//! entropy of a random batch of the same size, which is computed exactly. A missing label counts as one more label.

use super::Plan;

/// Expected entropy of a label in `batch_size` rows drawn without replacement; `label_rows`: number of rows with each label. Exact: entropy
/// is
/// a sum over labels, and the count of each is hypergeometric.
pub fn shuffled(label_rows: &[u64], batch_size: u64) -> f64 {
    let all: u64 = label_rows.iter().sum();
    let size = batch_size.min(all);
    let ratio = |rows: u64, x: u64| {
        // P(x + 1) / P(x).
        let (more, fewer) =
            ((rows - x) as f64 * (size - x) as f64, (x + 1) as f64 * (all - rows + x + 1 - size) as f64);
        more / fewer
    };
    label_rows
        .iter()
        .filter(|&&rows| rows > 0)
        .map(|&rows| {
            let (least, most) = (size.saturating_sub(all - rows), rows.min(size));
            let mode = ((u128::from(rows) + 1) * (u128::from(size) + 1) / (u128::from(all) + 2)) as u64;
            expected(least, most, mode, |x| ratio(rows, x), size)
        })
        .sum()
}

/// The same with replacement, from the probability of each label, as for weighted draws.
pub fn drawn(probabilities: &[f64], batch_size: u64) -> f64 {
    let sum: f64 = probabilities.iter().sum();
    probabilities
        .iter()
        .map(|weight| weight / sum)
        .filter(|&p| p > 0.0 && p < 1.0)
        .map(|p| {
            let ratio = |x: u64| (batch_size - x) as f64 / (x + 1) as f64 * p / (1.0 - p);
            expected(0, batch_size, ((batch_size + 1) as f64 * p) as u64, ratio, batch_size)
        })
        .sum()
}

/// Expectation of one label's term of the entropy. The distribution of its count is given by P(x + 1) / P(x), and summed from its mode in
/// both
/// directions, so that nothing relevant underflows.
fn expected(least: u64, most: u64, mode: u64, ratio: impl Fn(u64) -> f64, size: u64) -> f64 {
    let mode = mode.clamp(least, most);
    let (mut whole, mut sum) = (1.0, part(mode, size));
    let mut p = 1.0;
    for x in mode..most {
        p *= ratio(x);
        whole += p;
        sum += p * part(x + 1, size);
        if p < 1e-20 {
            break;
        }
    }
    p = 1.0;
    for x in (least..mode).rev() {
        p /= ratio(x);
        whole += p;
        sum += p * part(x, size);
        if p < 1e-20 {
            break;
        }
    }
    sum / whole
}

/// The term of the entropy of a label that `count` of `size` rows have.
fn part(count: u64, size: u64) -> f64 {
    if count == 0 {
        return 0.0;
    }
    let p = count as f64 / size as f64;
    -p * p.log2()
}

/// Mean entropy of a label over `sample` batches (or all, if fewer) evenly spaced in an epoch. Short batches are left out if there are
/// others.
pub fn planned(plan: &Plan, epoch: u64, sample: u64, label: impl Fn(u64) -> Option<u32>) -> f64 {
    let order = plan.epoch(epoch);
    let batches = plan.batches();
    let sample = sample.min(batches);
    let (mut full, mut short) = ((0.0, 0u64), (0.0, 0u64));
    let mut last = None;
    for i in 0..sample {
        let batch = (u128::from(batches) * u128::from(i) / u128::from(sample)) as u64;
        let (fetch, place) = plan.fetch_of(batch);
        let rows = match last.take() {
            Some((same, rows)) if same == fetch => rows,
            _ => order.fetch(fetch),
        };
        let of = rows.batch(place);
        let mut labels: Vec<u64> = of.iter().map(|&row| label(row).map_or(0, |code| u64::from(code) + 1)).collect();
        labels.sort_unstable();
        let entropy: f64 = labels.chunk_by(|a, b| a == b).map(|same| part(same.len() as u64, of.len() as u64)).sum();
        let mean = if of.len() as u64 == plan.sampling().batch_size { &mut full } else { &mut short };
        *mean = (mean.0 + entropy, mean.1 + 1);
        last = Some((fetch, rows));
    }
    let (sum, count) = if full.1 > 0 { full } else { short };
    if count > 0 { sum / count as f64 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::{Plan, Sampling};
    use super::*;

    fn plan(rows: u64, block_size: u64, fetch_factor: u64) -> Plan {
        Plan::new(&[rows], Sampling { batch_size: 64, block_size, fetch_factor, seed: 0, drop_last: false })
    }

    #[test]
    fn perfect_shuffling_is_what_random_blocks_of_one_row_give() {
        // 14 plates as scDataset publishes them: 3.62 bits.
        let plates: Vec<u64> = (0..14).map(|plate| 20_992 + 1_408 * plate).collect();
        let n = plates.iter().sum();
        let ends: Vec<u64> = plates
            .iter()
            .scan(0, |end, rows| {
                *end += rows;
                Some(*end)
            })
            .collect();
        let label = |row: u64| Some(ends.partition_point(|&end| end <= row) as u32);
        let perfect = shuffled(&plates, 64);
        assert!((perfect - 3.62).abs() < 0.01, "{perfect}");
        assert!((planned(&plan(n, 1, 16), 0, 3000, label) - perfect).abs() < 0.01);
        assert!((planned(&plan(n, 16, 4), 0, 1000, label) - 3.0).abs() < 0.05);
        assert_eq!(planned(&plan(n, 64, 1), 0, 100, |_| None), 0.0);
        let shares: Vec<f64> = plates.iter().map(|&rows| rows as f64).collect();
        assert!((drawn(&shares, 64) - perfect).abs() < 0.001);
    }

    #[test]
    fn small_cases_by_hand() {
        // 2 of 2 + 2 rows: equal labels in 1 of 3 cases, else 1 bit.
        assert!((shuffled(&[2, 2], 2) - 2.0 / 3.0).abs() < 1e-12);
        assert!((drawn(&[1.0, 1.0], 2) - 0.5).abs() < 1e-12);
        // All rows: no randomness is left.
        assert!((shuffled(&[1, 1, 2], 4) - 1.5).abs() < 1e-12);
        assert!((shuffled(&[1, 1, 2], 400) - 1.5).abs() < 1e-12);
        assert_eq!((shuffled(&[9], 4), shuffled(&[], 4), drawn(&[3.0], 4)), (0.0, 0.0, 0.0));
        // Four labels, 3 draws with replacement: all equal in 1 of 16, two equal in 9 of 16, all different in 6 of 16 cases.
        let (two, three) = (3f64.log2() - 2.0 / 3.0, 3f64.log2());
        assert!((drawn(&[1.0; 4], 3) - (9.0 * two + 6.0 * three) / 16.0).abs() < 1e-12);
        // Large counts stay finite.
        assert!((shuffled(&[1 << 40, 1 << 40], 256) - 0.997).abs() < 0.001);
    }
}

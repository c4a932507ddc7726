//! Draws with replacement by weight: a block by the sum of its rows' weights, then rows in it by theirs.
//!
//! The unit is a drawn block, from which `block_size` rows are drawn; so a fetch still reads `fetch_rows / block_size` blocks, and each
//! draw is
//! a given row with probability weight / sum of all weights. Unit u of an epoch is computed from (seed, epoch, u) alone. A row of weight 0
//! is
//! never drawn: the table of blocks is made in integers that sum up exactly, so rounding leaves no remainder to assign.
//!
//! Memory: 4 bytes for each row's weight, 12 bytes for each block in the table.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::{Chances, EpochOrder, Strategy, Stream, StreamOrder};
use crate::plan::blocks::Blocks;
use crate::plan::shuffle::{self, Domain, below};
use crate::plan::{PlanError, Rows, Sampling};

/// A view with a weight for each row.
#[derive(Clone, Debug)]
pub struct Weighted {
    rows: Rows,
    sampling: Sampling,
    weights: Vec<f32>,
    blocks: Blocks,
    table: Alias,
    samples: u64,
}

impl Weighted {
    /// An epoch has `samples` rows (default: as many as the view has); `weights`: one for each row.
    pub fn new(rows: Rows, sampling: Sampling, weights: Vec<f32>, samples: Option<u64>) -> Result<Weighted, PlanError> {
        let blocks = Blocks::new(rows.store_counts().iter().copied(), sampling.block_size);
        if weights.len() as u64 != rows.len() {
            return Err(PlanError::Count { what: "weights", given: weights.len() as u64, wanted: rows.len() });
        }
        check("row", weights.iter().map(|&weight| f64::from(weight)))?;
        let sums = (0..blocks.count()).map(|block| {
            let block = blocks.block(block);
            weights[block.start as usize..block.end as usize].iter().map(|&weight| f64::from(weight)).sum()
        });
        let table = Alias::new(sums.collect(), "row")?;
        let samples = samples.unwrap_or(rows.len());
        Ok(Weighted { rows, sampling, weights, blocks, table, samples })
    }

    /// Appends a range of an epoch's draws, as global row numbers.
    fn draw(&self, epoch: u64, stretch: Range<u64>, rows: &mut Vec<u64>) {
        let (mut block_rows, mut sums) = (Vec::new(), Vec::new());
        let size = self.blocks.size();
        for unit in stretch.start / size..stretch.end.div_ceil(size) {
            let mut rng = shuffle::rng(Domain::Draws, self.sampling.seed, epoch, unit);
            let block = self.blocks.block(self.table.draw(&mut rng) as u64);
            block_rows.clear();
            self.rows.select_run(block.clone(), &mut block_rows);
            sums.clear();
            let mut sum = 0.0;
            sums.extend(self.weights[block.start as usize..block.end as usize].iter().map(|&weight| {
                sum += f64::from(weight);
                sum
            }));
            for draw in unit * size..((unit + 1) * size).min(stretch.end) {
                // Below `sum` in spite of rounding, as the fraction is at most 1 - 2^-53.
                let at = (rng.next_u64() >> 11) as f64 * (0.5f64).powi(53) * sum;
                // The first cumulative sum above `at` belongs to a row with a positive weight.
                let row = sums.partition_point(|&sum| sum <= at);
                if draw >= stretch.start {
                    rows.push(block_rows[row]);
                }
            }
        }
    }
}

impl Strategy for Weighted {
    fn view(&self) -> &Rows {
        &self.rows
    }

    fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    fn blocks(&self) -> u64 {
        self.blocks.count()
    }

    fn drawn_rows(&self) -> u64 {
        self.samples
    }

    fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_> {
        let stream = Stream::Rows(Box::new(move |stretch, rows| self.draw(epoch, stretch, rows)));
        Box::new(StreamOrder { strategy: self, epoch, shuffled: true, stream })
    }

    fn chances(&self) -> Chances<'_> {
        Chances::Weights(&self.weights)
    }
}

/// Fails unless all weights are finite and not negative.
pub fn check(what: &'static str, weights: impl Iterator<Item = f64>) -> Result<(), PlanError> {
    match weights.enumerate().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0)) {
        Some((index, value)) => Err(PlanError::Weight { what, index: index as u64, value }),
        None => Ok(()),
    }
}

/// Draws from 0..n by weight in constant time: the alias method (Walker, "An efficient method for generating discrete random variables with
/// general distributions", 1977). The table is filled in one sweep without work lists (Hübschle-Schneider and Sanders, "Parallel weighted
/// random sampling", 2022).
#[derive(Clone, Debug)]
pub struct Alias {
    /// Slot i has `share` chances: `keep[i]` of them are for i, the rest for `other[i]`.
    keep: Vec<u64>,
    other: Vec<u32>,
    share: u64,
}

impl Alias {
    /// `weights` must be finite and not negative; `what` they belong to, for messages.
    pub fn new(mut weights: Vec<f64>, what: &'static str) -> Result<Alias, PlanError> {
        let n = weights.len() as u64;
        if n > u64::from(u32::MAX) {
            return Err(PlanError::TooManyRows { rows: n, limit: u64::from(u32::MAX) });
        }
        let most = weights.iter().copied().fold(0.0, f64::max);
        if most <= 0.0 {
            return Err(PlanError::NoWeight { what });
        }
        // Scaled to a maximum of 1, so that neither the sum nor its inverse overflows.
        weights.iter_mut().for_each(|weight| *weight /= most);
        let sum: f64 = weights.iter().sum();
        // Integer chances that sum up to n * share, so that the sweep below is exact. They are rounded down; the remainder, less than
        // 2^-40 of the whole, is distributed equally to all with a weight.
        let share = (1u64 << 62) / n;
        let whole = n * share;
        let mut scale = whole as f64 / sum;
        let mut keep: Vec<u64>;
        let over = loop {
            keep = weights.iter().map(|&weight| (weight * scale) as u64).collect();
            let sum: u128 = keep.iter().map(|&chances| u128::from(chances)).sum();
            match u128::from(whole).checked_sub(sum) {
                Some(over) => break over as u64,
                None => scale *= 1.0 - f64::EPSILON * 4096.0,
            }
        };
        let some = weights.iter().filter(|&&weight| weight > 0.0).count() as u64;
        let (each, mut rest) = (over / some, over % some);
        for (chances, _) in keep.iter_mut().zip(&weights).filter(|(_, weight)| **weight > 0.0) {
            *chances += each + u64::from(rest > 0);
            rest = rest.saturating_sub(1);
        }
        let mut table = Alias { keep, other: (0..n as u32).collect(), share };
        table.sweep();
        Ok(table)
    }

    /// Fills each slot from one that has too much. The sum is exact, so while one slot lacks something another has too much.
    fn sweep(&mut self) {
        let next_large = |keep: &[u64], from: usize| (from..keep.len()).find(|&i| keep[i] > self.share);
        let mut large = next_large(&self.keep, 0);
        for slot in 0..self.keep.len() {
            let mut lacking = slot;
            while let Some(giver) = large
                && self.keep[lacking] < self.share
            {
                self.other[lacking] = giver as u32;
                self.keep[giver] -= self.share - self.keep[lacking];
                if self.keep[giver] > self.share {
                    break;
                }
                large = next_large(&self.keep, giver + 1);
                // If the giver now lacks something and was passed already, it is next; otherwise the sweep will reach it.
                if giver > slot {
                    break;
                }
                lacking = giver;
            }
        }
    }

    pub fn draw(&self, rng: &mut ChaCha8Rng) -> usize {
        let chance = below(rng, self.keep.len() as u64 * self.share);
        let slot = (chance / self.share) as usize;
        if chance % self.share < self.keep[slot] { slot } else { self.other[slot] as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chances of each outcome, computed from the table.
    fn chances(table: &Alias) -> Vec<u128> {
        let mut chances = vec![0u128; table.keep.len()];
        for (slot, (&keep, &other)) in table.keep.iter().zip(&table.other).enumerate() {
            chances[slot] += u128::from(keep.min(table.share));
            chances[other as usize] += u128::from(table.share.saturating_sub(keep));
        }
        chances
    }

    #[test]
    fn the_table_holds_the_weights() {
        let mut rng = shuffle::rng(Domain::Draws, 1, 2, 3);
        for n in [1usize, 2, 3, 10, 1000, 65_537] {
            for shape in 0..6 {
                let weights: Vec<f64> = (0..n)
                    .map(|i| match shape {
                        0 => 1.0,
                        1 => (rng.next_u64() >> 40) as f64,
                        2 => ((rng.next_u64() >> 60) as f64 - 12.0).max(0.0) + f64::from(u8::from(i == 0)),
                        3 => f64::MIN_POSITIVE / 8.0,
                        4 => (i as f64 * -0.7).exp().max(1e-300),
                        _ => f64::from(u8::from(i == n / 2)),
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                let table = Alias::new(weights.clone(), "row").expect("valid");
                let chances = chances(&table);
                let whole = chances.iter().sum::<u128>();
                assert_eq!(whole, u128::from(table.share) * n as u128);
                assert!(table.keep.iter().all(|&keep| keep <= table.share), "{n} {shape}");
                for (&weight, &chances) in weights.iter().zip(&chances) {
                    assert!(if weight == 0.0 { chances == 0 } else { chances > 0 || weight / sum < 1e-18 });
                    let p = weight / sum;
                    assert!((p - chances as f64 / whole as f64).abs() < 1e-11 * (p + 1.0 / n as f64));
                }
            }
        }
    }

    #[test]
    fn refuses_what_are_no_weights() {
        let sampling = Sampling { batch_size: 2, block_size: 2, fetch_factor: 1, seed: 0, drop_last: false };
        let new = |weights: &[f32]| Weighted::new(Rows::all(&[3]), sampling, weights.to_vec(), None).err();
        assert!(matches!(new(&[1.0; 2]), Some(PlanError::Count { given: 2, wanted: 3, .. })));
        assert!(matches!(new(&[1.0, -1.0, 1.0]), Some(PlanError::Weight { index: 1, .. })));
        assert!(matches!(new(&[1.0, 1.0, f32::NAN]), Some(PlanError::Weight { index: 2, .. })));
        assert!(matches!(new(&[0.0; 3]), Some(PlanError::NoWeight { .. })));
        assert!(new(&[0.0, f32::MIN_POSITIVE, f32::MAX]).is_none());
    }
}

//! Equal parts of an epoch for distributed training: rank r of W.
//!
//! Whole fetches go round the ranks, so that no chunk is decoded for two of them; the batches of the fetches that are
//! left over are dealt one by one. Every rank has the same number of batches, so no collective operation waits for a
//! rank that has none; at most W - 1 batches of an epoch are served to nobody.

use super::Plan;

/// Rank `index` of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rank {
    pub index: u64,
    pub of: u64,
}

impl Rank {
    /// Batches that each rank has.
    pub fn batches(self, plan: &Plan) -> u64 {
        plan.batches() / self.of
    }

    /// The batch of the whole epoch that is batch `i` of this rank.
    pub fn batch(self, plan: &Plan, i: u64) -> Option<u64> {
        if i >= self.batches(plan) {
            return None;
        }
        let factor = plan.sampling().fetch_factor;
        // Rounds in which every rank gets a full fetch; only the last fetch of an epoch can be short.
        let rounds = plan.batches() / factor / self.of;
        let round = i / factor;
        Some(if round < rounds {
            (round * self.of + self.index) * factor + i % factor
        } else {
            rounds * self.of * factor + (i - rounds * factor) * self.of + self.index
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Plan, Sampling};
    use super::Rank;

    #[test]
    fn ranks_are_equal_disjoint_and_together_all_but_a_few() {
        for rows in [1, 7, 100, 1003, 4096] {
            for (batch_size, fetch_factor) in [(1, 1), (4, 3), (16, 8), (64, 64)] {
                let sampling = Sampling { batch_size, block_size: 2, fetch_factor, seed: 0, drop_last: false };
                let plan = Plan::new(&[rows], sampling);
                for of in 1..=17 {
                    let mut seen = vec![false; plan.batches() as usize];
                    for index in 0..of {
                        let rank = Rank { index, of };
                        for i in 0..rank.batches(&plan) {
                            let batch = rank.batch(&plan, i).expect("in range") as usize;
                            assert!(!std::mem::replace(&mut seen[batch], true), "{rows} {of}: {batch} twice");
                        }
                        assert_eq!(rank.batch(&plan, rank.batches(&plan)), None);
                    }
                    assert!(seen.iter().filter(|&&seen| !seen).count() < of as usize);
                }
            }
        }
    }
}

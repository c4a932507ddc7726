//! Ranks of distributed training: rank r has one of W equal parts of an epoch.
//!
//! [`super::partition`] divides the batches. Every rank has the same number of batches, so no collective operation waits for a rank that
//! has no more.

use super::Plan;
use super::partition::{Batches, share};

/// Rank `index` of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rank {
    pub index: u64,
    pub of: u64,
}

impl Rank {
    /// Number of batches of each rank.
    pub fn batches(self, plan: &Plan) -> u64 {
        share(plan.batches(), self.of, plan.uneven())
    }

    /// The batch of the epoch that is the i-th of this rank.
    pub fn batch(self, plan: &Plan, i: u64) -> Option<u64> {
        let all = Batches::all(plan.batches(), plan.sampling().fetch_factor);
        all.partition(self.of, plan.uneven()).batch(self.index, i)
    }
}

#[cfg(test)]
mod tests {
    use super::super::partition::RemainderPolicy;
    use super::super::{Plan, Sampling};
    use super::Rank;

    #[test]
    fn ranks_are_equal_disjoint_and_together_all_but_a_few() {
        for rows in [0, 1, 7, 100, 1003, 4096] {
            for (batch_size, fetch_factor) in [(1, 1), (4, 3), (16, 8), (64, 64)] {
                for drop_last in [false, true] {
                    let sampling = Sampling { batch_size, block_size: 2, fetch_factor, seed: 0, drop_last };
                    let plan = Plan::new(&[rows], sampling);
                    for of in 1..=64 {
                        check(&plan, of);
                        check(&plan.clone().with_uneven(RemainderPolicy::Pad), of);
                    }
                }
            }
        }
    }

    fn check(plan: &Plan, of: u64) {
        let mut times = vec![0u64; plan.batches() as usize];
        // The ranks that read each fetch.
        let mut readers = vec![Vec::new(); plan.fetches() as usize];
        for index in 0..of {
            let rank = Rank { index, of };
            for i in 0..rank.batches(plan) {
                let batch = rank.batch(plan, i).expect("in range");
                times[batch as usize] += 1;
                readers[plan.fetch_of(batch).0 as usize].push(index);
            }
            assert_eq!(rank.batch(plan, rank.batches(plan)), None);
        }
        let (unserved, repeats) =
            times.iter().fold((0, 0), |(none, more), &n| (none + u64::from(n == 0), more + n.saturating_sub(1)));
        match plan.uneven() {
            RemainderPolicy::Drop => assert!(repeats == 0 && unserved < of, "{unserved} {repeats}"),
            RemainderPolicy::Pad => assert!(unserved == 0 && repeats < of, "{unserved} {repeats}"),
        }
        // Only the short fetch, and whole fetches that do not fill a round, are read by several ranks.
        let shared = plan.batches() / plan.sampling().fetch_factor / of * of;
        for readers in &mut readers[..shared as usize] {
            readers.dedup();
            assert_eq!(readers.len(), 1);
        }
    }
}

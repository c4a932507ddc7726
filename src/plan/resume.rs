//! What remains of an epoch that stopped after some steps with some number of ranks, so that it can be resumed with another number.
//!
//! A step is one batch on every rank. Nothing was recorded: the batches that `step` steps of `world` ranks consumed follow from these
//! numbers. During rounds of whole fetches, a step consumes one batch of each of `world` fetches, so parts of these may remain; later steps
//! consume the epoch's order from the front.

use super::Plan;
use super::partition::Batches;

/// After how many steps of how many ranks an epoch stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    pub step: u64,
    pub world: u64,
}

/// The remaining batches, including those that would have been dropped.
pub fn remaining(plan: &Plan, stopped: Stopped) -> Batches {
    let (batches, factor) = (plan.batches(), plan.sampling().fetch_factor);
    let world = stopped.world.max(1);
    let rounds = batches / factor / world;
    let (round, within) = (stopped.step / factor, stopped.step % factor);
    let mut rest = Batches::all(batches, factor);
    if round < rounds {
        rest.fetches.start = round * world;
        if within > 0 {
            let first = rest.fetches.start * factor;
            rest.ends = world;
            rest.part = first + within..first + factor;
            rest.fetches.start += world;
        }
        return rest;
    }
    let dealt = rounds * world * factor;
    let consumed = (stopped.step - rounds * factor).saturating_mul(world).saturating_add(dealt).min(batches);
    if consumed >= rest.last.start {
        rest.fetches.start = rest.fetches.end;
        rest.last.start = consumed;
        return rest;
    }
    rest.fetches.start = consumed.div_ceil(factor);
    if consumed % factor > 0 {
        rest.ends = 1;
        rest.part = consumed..rest.fetches.start * factor;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::super::partition::RemainderPolicy;
    use super::super::rank::Rank;
    use super::super::{Plan, Sampling};
    use super::*;

    #[test]
    fn what_remains_is_what_was_not_consumed_and_is_dealt_evenly() {
        for (rows, batch_size, fetch_factor) in
            [(0, 4, 3), (1, 4, 3), (1003, 4, 7), (4096, 16, 8), (777, 1, 5), (50, 2, 64)]
        {
            let sampling = Sampling { batch_size, block_size: 2, fetch_factor, seed: 0, drop_last: false };
            for uneven in [RemainderPolicy::Drop, RemainderPolicy::Pad] {
                let plan = Plan::new(&[rows], sampling).with_uneven(uneven);
                for world in [1, 2, 3, 8, 13, 64] {
                    let steps = Rank { index: 0, of: world }.batches(&plan);
                    for step in (0..=steps).step_by(1 + steps as usize / 40).chain([steps, steps + 5]) {
                        let mut left = vec![true; plan.batches() as usize];
                        for index in 0..world {
                            for batch in (0..step).filter_map(|i| Rank { index, of: world }.batch(&plan, i)) {
                                left[batch as usize] = false;
                            }
                        }
                        let left: Vec<u64> = (0..plan.batches()).filter(|&batch| left[batch as usize]).collect();
                        let rest = remaining(&plan, Stopped { step, world });
                        if step <= steps {
                            assert!(rest.ranges().into_iter().flatten().eq(left.iter().copied()), "{step} of {world}");
                        }
                        assert_eq!(rest.count(), rest.ranges().into_iter().flatten().count() as u64);
                        for other in [1, 2, 4, 5, 64] {
                            check(&rest, other, uneven);
                        }
                    }
                }
            }
        }
    }

    fn check(rest: &Batches, world: u64, uneven: RemainderPolicy) {
        let partition = rest.partition(world, uneven);
        let mut dealt: Vec<u64> = Vec::new();
        for rank in 0..world {
            dealt.extend((0..partition.batches()).map(|i| partition.batch(rank, i).expect("in range")));
            assert_eq!(partition.batch(rank, partition.batches()), None);
        }
        assert_eq!(dealt.len() as u64, partition.batches() * world);
        dealt.sort_unstable();
        dealt.dedup();
        let missing = rest.count() - dealt.len() as u64;
        assert!(if uneven == RemainderPolicy::Pad { missing == 0 } else { missing < world });
        assert!(partition.batches() * world < rest.count() + world, "at most {world} - 1 repeats");
        let all: Vec<u64> = rest.ranges().into_iter().flatten().collect();
        assert!(dealt.iter().all(|batch| all.binary_search(batch).is_ok()), "only what remains");
    }
}

//! Divides batches among W ranks, the same number for each: whole fetches round robin, the remainder batch by batch.
//!
//! Only fetches of the remainder are read by several ranks, so ranks hardly ever decode the same chunks. What is divided is an epoch, or
//! what
//! remains of one: first the remaining parts of fetches that were begun, then whole fetches, then a short one. The i-th batch of a rank is
//! computed; nothing is listed.

use std::ops::Range;

/// What to do with batches that ranks cannot share evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemainderPolicy {
    /// Serve them to no rank: at most W - 1 batches of an epoch.
    #[default]
    Drop,
    /// Serve some batches twice, at most W - 1 of an epoch: a rank that lacks a batch repeats one of its own.
    Pad,
}

impl RemainderPolicy {
    pub const ALL: [RemainderPolicy; 2] = [RemainderPolicy::Drop, RemainderPolicy::Pad];

    /// The name in options and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            RemainderPolicy::Drop => "drop",
            RemainderPolicy::Pad => "pad",
        }
    }
}

/// The number of batches of each of `world` ranks.
pub fn share(batches: u64, world: u64, uneven: RemainderPolicy) -> u64 {
    match uneven {
        RemainderPolicy::Drop => batches / world.max(1),
        RemainderPolicy::Pad => batches.div_ceil(world.max(1)),
    }
}

/// Batches of an epoch, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    /// The remaining parts of this many consecutive fetches: batches `part` of the first, and the same positions of the others.
    pub(super) ends: u64,
    pub(super) part: Range<u64>,
    /// Whole fetches.
    pub(super) fetches: Range<u64>,
    /// Batches of a whole fetch.
    pub(super) factor: u64,
    /// Batches of the short last fetch.
    pub(super) last: Range<u64>,
}

impl Batches {
    /// All batches of an epoch.
    pub fn all(batches: u64, factor: u64) -> Batches {
        let whole = batches / factor;
        Batches { ends: 0, part: 0..0, fetches: 0..whole, factor, last: whole * factor..batches }
    }

    /// Number of batches.
    pub fn count(&self) -> u64 {
        self.of_ends() + self.of_fetches() + (self.last.end - self.last.start)
    }

    /// The batches as ascending ranges of their numbers in the epoch, adjacent ones merged.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let ends = (0..self.ends).map(|i| self.part.start + i * self.factor..self.part.end + i * self.factor);
        let whole = self.fetches.start * self.factor..self.fetches.end * self.factor;
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in ends.chain([whole, self.last.clone()]).filter(|range| !range.is_empty()) {
            match merged.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => merged.push(range),
            }
        }
        merged
    }

    /// Divides the batches among `world` ranks.
    pub fn partition(&self, world: u64, uneven: RemainderPolicy) -> RankPartition<'_> {
        RankPartition { batches: self, world: world.max(1), uneven }
    }

    fn of_ends(&self) -> u64 {
        self.ends * (self.part.end - self.part.start)
    }

    fn of_fetches(&self) -> u64 {
        (self.fetches.end - self.fetches.start) * self.factor
    }

    /// The i-th batch among those in parts of fetches.
    fn in_ends(&self, i: u64) -> u64 {
        let len = self.part.end - self.part.start;
        self.part.start + i / len * self.factor + i % len
    }
}

/// Batches divided among ranks.
#[derive(Clone, Copy, Debug)]
pub struct RankPartition<'a> {
    batches: &'a Batches,
    world: u64,
    uneven: RemainderPolicy,
}

impl RankPartition<'_> {
    /// The number of batches of each rank.
    pub fn batches(&self) -> u64 {
        share(self.batches.count(), self.world, self.uneven)
    }

    /// The number in the epoch of a rank's i-th batch; `None` past its last.
    pub fn batch(&self, rank: u64, i: u64) -> Option<u64> {
        if i >= self.batches() || rank >= self.world {
            return None;
        }
        self.own(rank, i).or_else(|| {
            // A rank that lacks a batch repeats one from the middle of its own, so that it reads no other rank's fetch; a rank without any
            // takes another's.
            if i > 0 { self.own(rank, i / 2) } else { self.nth(rank % self.batches.count()) }
        })
    }

    /// The i-th batch of a rank, without repeats.
    fn own(&self, rank: u64, i: u64) -> Option<u64> {
        let Batches { ends, part, fetches, factor, last } = self.batches;
        // Rounds in which every rank gets the remaining part of one fetch, then rounds of whole fetches.
        let end_len = part.end - part.start;
        let (end_rounds, rounds) = (ends / self.world, (fetches.end - fetches.start) / self.world);
        let (dealt_ends, dealt) = (end_rounds * end_len, rounds * factor);
        if i < dealt_ends {
            return Some(self.batches.in_ends((i / end_len * self.world + rank) * end_len + i % end_len));
        }
        let i = i - dealt_ends;
        if i < dealt {
            return Some((fetches.start + i / factor * self.world + rank) * factor + i % factor);
        }
        // What is left over of each, in the epoch's order, batch by batch.
        let mut slot = (i - dealt) * self.world + rank;
        let left_ends = self.batches.of_ends() - dealt_ends * self.world;
        if slot < left_ends {
            return Some(self.batches.in_ends(dealt_ends * self.world + slot));
        }
        slot -= left_ends;
        let left = self.batches.of_fetches() - dealt * self.world;
        if slot < left {
            return Some((fetches.start * factor) + dealt * self.world + slot);
        }
        slot -= left;
        (slot < last.end - last.start).then_some(last.start + slot)
    }

    /// The i-th of all batches.
    fn nth(&self, i: u64) -> Option<u64> {
        RankPartition { world: 1, ..*self }.own(0, i)
    }
}

//! The positions of readers. Several workers that read one epoch within a fetch are one stream, whose next fetch is known.
//!
//! A single read in the middle of an absent fetch loads that batch only. A read of the first batch of a fetch, of a second batch, or of the
//! fetch after one being read, loads the whole fetch.

use std::collections::HashSet;

use lru::LruCache;

use crate::engine::{ImageKey, ImageKind, at_most};
use crate::plan::Plan;
use crate::plan::rank::Rank;

/// What the readers of one directory have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    pub view: u16,
    pub epoch: u64,
    pub rank: Option<Rank>,
    pub kind: ImageKind,
}

/// View, epoch, format, fetch.
type FormatFetch = (u16, u64, ImageKind, u64);

/// The readers seen recently.
pub struct Streams {
    /// Fetches that are read as a whole, or expected next.
    whole: LruCache<FormatFetch, ()>,
    /// Fetches of which one batch was read, and its position.
    touched: LruCache<FormatFetch, usize>,
    /// Fetches already queued ahead of a stream: checking all their batches again at every read would cost more than serving it.
    ahead: LruCache<FormatFetch, ()>,
}

/// Fetches to load ahead of a stream.
const AHEAD: usize = 2;

/// Maximum streams to follow.
const FOLLOWED: usize = 256;

impl Streams {
    pub fn new() -> Streams {
        Streams {
            whole: LruCache::new(at_most(4 * FOLLOWED)),
            touched: LruCache::new(at_most(FOLLOWED)),
            ahead: LruCache::new(at_most(2 * FOLLOWED)),
        }
    }

    /// Records that the batch at position `place` of a fetch is read from its start. Returns the fetches (epoch, fetch) to load ahead if
    /// reading continues.
    pub fn read(&mut self, plan: &Plan, stream: Stream, fetch: u64, place: usize) -> Vec<(u64, u64)> {
        let key = (stream.view, stream.epoch, stream.kind, fetch);
        let whole =
            place == 0 || self.whole.get(&key).is_some() || self.touched.get(&key).is_some_and(|&first| first != place);
        if !whole {
            self.touched.put(key, place);
            return Vec::new();
        }
        self.whole.put(key, ());
        let mut ahead = Vec::new();
        let mut last = (stream.epoch, fetch);
        for _ in 0..AHEAD {
            let Some(next) = following(plan, Stream { epoch: last.0, ..stream }, last.1) else { break };
            let key = (stream.view, next.0, stream.kind, next.1);
            self.whole.put(key, ());
            if !self.ahead.contains(&key) {
                ahead.push(next);
            }
            last = next;
        }
        ahead
    }

    /// Records that a fetch is loaded or loading.
    pub fn queued(&mut self, stream: &Stream, fetch: u64) {
        self.ahead.put((stream.view, stream.epoch, stream.kind, fetch), ());
    }

    /// Records that a queued batch was not loaded.
    pub fn dropped(&mut self, key: &ImageKey, fetch: u64) {
        self.ahead.pop(&(key.view, key.epoch, key.kind, fetch));
    }

    /// Records that a fetch is absent although its first batch is read: the directory is read again, or backwards, and what was queued for
    /// earlier readers does not count.
    pub fn restarted(&mut self, stream: &Stream) {
        let theirs =
            |&(view, epoch, kind, _): &FormatFetch| (view, epoch, kind) == (stream.view, stream.epoch, stream.kind);
        let old: Vec<FormatFetch> = self.ahead.iter().map(|(place, ())| *place).filter(theirs).collect();
        old.iter().for_each(|place| _ = self.ahead.pop(place));
    }

    /// Number of recently seen directories that are read in order.
    pub fn len(&self) -> usize {
        self.whole.iter().map(|(&(view, epoch, kind, _), _)| (view, epoch, kind)).collect::<HashSet<_>>().len()
    }

    /// Whether to load a fetch as a whole.
    pub fn wants_whole(&self, stream: &Stream, fetch: u64) -> bool {
        self.whole.contains(&(stream.view, stream.epoch, stream.kind, fetch))
    }
}

/// The fetch after this one in the order of a directory; after the last one, the first of the next epoch.
fn following(plan: &Plan, stream: Stream, fetch: u64) -> Option<(u64, u64)> {
    let of = stream.rank.map_or(1, |rank| rank.of);
    // Rounds of whole fetches go to the ranks in turn (`plan::rank`); the remaining fetches are shared.
    let round_end = plan.batches() / plan.sampling().fetch_factor / of * of;
    let next = if fetch + of < round_end {
        fetch + of
    } else if fetch < round_end {
        round_end
    } else {
        fetch + 1
    };
    if next < plan.fetches() {
        return Some((stream.epoch, next));
    }
    if let ImageKind::Part(_) = stream.kind {
        // A file of many batches ends with its epoch.
        return None;
    }
    let first = stream.rank.map_or(0, |rank| rank.index);
    (first < plan.fetches()).then_some((stream.epoch + 1, first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Extension;
    use crate::plan::Sampling;

    #[test]
    fn a_second_batch_promotes_and_the_next_fetch_is_known() {
        let sampling = Sampling { batch_size: 10, block_size: 1, fetch_factor: 4, seed: 0, drop_last: false };
        let plan = Plan::new(&[215], sampling);
        let stream = Stream { view: 0, epoch: 0, rank: None, kind: ImageKind::File(Extension::ALL[0]) };
        let mut streams = Streams::new();
        assert_eq!(streams.read(&plan, stream, 2, 1), []);
        assert!(!streams.wants_whole(&stream, 2));
        assert_eq!(streams.read(&plan, stream, 2, 1), []);
        assert_eq!(streams.read(&plan, stream, 2, 3), [(0, 3), (0, 4)]);
        assert!(streams.wants_whole(&stream, 2) && streams.wants_whole(&stream, 3));
        assert_eq!(streams.read(&plan, stream, 5, 0), [(1, 0), (1, 1)]);
        let rank = Stream { rank: Some(Rank { index: 1, of: 2 }), ..stream };
        assert_eq!(streams.read(&plan, rank, 1, 0), [(0, 3), (0, 4)]);
        assert_eq!(streams.read(&plan, rank, 3, 0), [(0, 4), (0, 5)]);
        assert_eq!(streams.read(&plan, rank, 5, 0), [(1, 1), (1, 3)]);
        streams.queued(&stream, 3);
        assert_eq!(streams.read(&plan, stream, 2, 3), [(0, 4)]);
        streams.restarted(&Stream { epoch: 1, ..stream });
        assert_eq!(streams.read(&plan, stream, 2, 3), [(0, 4)]);
        streams.restarted(&stream);
        assert_eq!(streams.read(&plan, stream, 2, 3), [(0, 3), (0, 4)]);
    }
}

//! Rows a second, memory and mixing of settings that were not measured. Pure.
//!
//! Loading, copying and parsing run at the same time: a pipeline is as fast as its slowest part, and no faster than all its
//! processor time on the cores there are. With L seconds of loading a row on all threads together, s of it that no thread can share,
//! and R seconds of the reader (which copies and parses alone), a row takes max(L / threads + s, R, (L + s + R) / cores), and for
//! storage that answers after a while no less than its requests a row x latency / requests in flight.

/// How a mount could be asked to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    pub batch_size: u64,
    pub block_size: u64,
    pub fetch_factor: u64,
    /// Blocks mixed in a fetch.
    pub k: f64,
    pub format: &'static str,
    pub threads: usize,
    /// Bytes.
    pub memory: u64,
}

/// What a row costs, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowCost {
    /// Of all decoding threads together.
    pub decode: f64,
    pub read: f64,
    pub scatter: f64,
    /// Of one thread alone.
    pub alone: f64,
    /// Of the reader: open, copy, parse.
    pub reader: f64,
    /// Waiting for storage, with as many requests in flight as there will be.
    pub storage: f64,
}

impl RowCost {
    /// Rows a second on so many threads and cores; `ahead`: whether the next fetch is loaded while one is read. `kept`: the share
    /// of decoded chunks that are in memory.
    pub fn rate(&self, threads: usize, cores: usize, ahead: bool, kept: f64) -> f64 {
        let (threads, cores) = (threads.clamp(1, cores.max(1)) as f64, cores.max(1) as f64);
        let load = (self.decode + self.read) * (1.0 - kept) + self.scatter;
        let wall = load / threads + self.alone;
        let storage = self.storage * (1.0 - kept);
        let row = if ahead {
            wall.max(self.reader).max((load + self.alone + self.reader) / cores).max(storage)
        } else {
            wall.max(storage) + self.reader
        };
        1.0 / row.max(1e-9)
    }

    /// Seconds that the reader takes for a row where a row was seen to take so many, whatever `reader` says: all of them, or what
    /// loading leaves of the cores.
    pub fn reader_where(&self, row: f64, cores: usize) -> f64 {
        let rest = row * cores.max(1) as f64 - (self.decode + self.read + self.scatter + self.alone);
        rest.min(row).max(0.0)
    }
}

/// A setting and what it comes to.
#[derive(Clone, Debug)]
pub struct Modelled {
    pub setting: Setting,
    pub cost: RowCost,
    /// Of the first epoch, and of data beyond memory.
    pub rows_per_second: f64,
    /// Of later epochs, where decoded chunks are kept.
    pub later: f64,
    /// Bits of the label within a batch.
    pub entropy: f64,
}

/// Bytes that a mount needs to load ahead: the fetch that is read, two that are loaded, and one retained.
pub fn needed(fetch_bytes: u64) -> u64 {
    fetch_bytes.saturating_mul(4)
}

/// The share of decoded chunks that a budget keeps, as `engine::budget` deals it.
pub fn kept(memory: u64, fetch_bytes: u64, decoded: u64) -> f64 {
    if decoded == 0 {
        return 0.0;
    }
    let room = memory.saturating_sub(needed(fetch_bytes).max(memory / 3));
    if room < decoded / 4 { 0.0 } else { (room as f64 / decoded as f64).min(1.0) }
}

/// Those that no other beats in both speed and mixing, slowest first; of equals the one of less memory.
pub fn front(all: &[Modelled], admitted: impl Fn(&Modelled) -> bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..all.len()).filter(|&i| admitted(&all[i])).collect();
    let key = |i: usize| (all[i].later.max(all[i].rows_per_second), all[i].entropy);
    order.sort_by(|&a, &b| {
        let ((fast, mixed), (other, less)) = (key(a), key(b));
        other.total_cmp(&fast).then(less.total_cmp(&mixed)).then(all[a].setting.memory.cmp(&all[b].setting.memory))
    });
    let mut front: Vec<usize> = Vec::new();
    let mut best = f64::NEG_INFINITY;
    for i in order {
        if all[i].entropy > best + 1e-9 {
            best = all[i].entropy;
            front.push(i);
        }
    }
    front.reverse();
    front
}

/// Mixing that is as good as perfect shuffling.
pub const GOOD: f64 = 0.99;

/// The setting to recommend: with a rate that is enough, the best mixed that reaches it; else the fastest that mixes as well as
/// perfect shuffling, or the best mixed where none does. Of those within 2 % the one of least memory.
pub fn choose(
    all: &[Modelled],
    perfect: f64,
    enough: Option<f64>,
    admitted: impl Fn(&Modelled) -> bool,
) -> Option<usize> {
    let rate = |i: usize| all[i].rows_per_second;
    let candidates: Vec<usize> = (0..all.len()).filter(|&i| admitted(&all[i])).collect();
    let mixed = |i: usize| all[i].entropy >= GOOD * perfect;
    let by = |key: &dyn Fn(usize) -> f64, among: &[usize]| -> Option<usize> {
        let best = among.iter().map(|&i| key(i)).max_by(f64::total_cmp)?;
        let near = among.iter().copied().filter(|&i| key(i) >= 0.98 * best);
        near.min_by(|&a, &b| {
            let (one, other) = (&all[a].setting, &all[b].setting);
            one.memory.cmp(&other.memory).then(one.threads.cmp(&other.threads)).then(key(b).total_cmp(&key(a)))
        })
    };
    let fast = |among: &[usize]| by(&rate, among);
    if let Some(enough) = enough {
        let reach: Vec<usize> = candidates.iter().copied().filter(|&i| rate(i) >= enough).collect();
        let good: Vec<usize> = reach.iter().copied().filter(|&i| mixed(i)).collect();
        // What is fast enough need not be faster: it may take less memory.
        let least = good.iter().copied().min_by_key(|&i| (all[i].setting.memory, all[i].setting.threads));
        return least.or_else(|| by(&|i| all[i].entropy, &reach));
    }
    let good: Vec<usize> = candidates.iter().copied().filter(|&i| mixed(i)).collect();
    fast(&good).or_else(|| by(&|i| all[i].entropy, &candidates))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modelled(rate: f64, entropy: f64, memory: u64) -> Modelled {
        let setting =
            Setting { batch_size: 64, block_size: 16, fetch_factor: 64, k: 256.0, format: "npz", threads: 2, memory };
        Modelled { setting, cost: RowCost::default(), rows_per_second: rate, later: rate, entropy }
    }

    #[test]
    fn a_pipeline_is_as_fast_as_its_slowest_part() {
        let cost = RowCost { decode: 8e-6, read: 1e-6, scatter: 1e-6, alone: 0.0, reader: 2e-6, storage: 0.0 };
        // One core does everything; two share it; with many, the threads decide, then the reader.
        let rates =
            [(1, 1), (2, 2), (2, 8), (8, 8)].map(|(threads, cores)| cost.rate(threads, cores, true, 0.0).round());
        assert_eq!(rates, [83_333.0, 166_667.0, 200_000.0, 500_000.0]);
        assert_eq!(cost.rate(2, 2, false, 0.0).round(), 142_857.0, "nothing is loaded ahead");
        assert_eq!(cost.rate(2, 2, true, 1.0).round(), 500_000.0, "all chunks are kept: the reader decides");
        let slow = RowCost { storage: 1e-4, ..cost };
        assert_eq!(slow.rate(2, 2, true, 0.0).round(), 10_000.0);
    }

    #[test]
    fn what_a_reader_takes_follows_from_a_rate() {
        let cost = RowCost { decode: 8e-6, read: 1e-6, scatter: 1e-6, alone: 0.0, reader: 2e-6, storage: 0.0 };
        for (reader, cores) in [(40e-6, 2), (12e-6, 2), (30e-6, 8)] {
            let seen = RowCost { reader, ..cost }.rate(cores, cores, true, 0.0);
            assert!((cost.reader_where(1.0 / seen, cores) - reader).abs() < 1e-9, "{reader} on {cores}");
        }
        assert_eq!(cost.reader_where(1e-6, 2), 0.0, "faster than it can be loaded");
    }

    #[test]
    fn the_front_and_the_choice() {
        let all = [
            modelled(100.0, 3.6, 8),
            modelled(200.0, 3.59, 4),
            modelled(199.0, 3.59, 2),
            modelled(400.0, 3.0, 4),
            modelled(300.0, 2.0, 4),
            modelled(500.0, 0.0, 4),
        ];
        assert_eq!(front(&all, |_| true), [0, 1, 3, 5]);
        assert_eq!(front(&all, |one| one.setting.memory <= 4 && one.entropy < 3.5), [3, 5]);
        // The fastest that mixes well; within 2 % the one of less memory.
        assert_eq!(choose(&all, 3.62, None, |_| true), Some(2));
        assert_eq!(choose(&all, 3.62, Some(150.0), |_| true), Some(2));
        assert_eq!(choose(&all, 3.62, Some(350.0), |_| true), Some(3), "none mixes well at that rate: the best mixed");
        assert_eq!(choose(&all, 3.62, Some(900.0), |_| true), None);
        assert_eq!(choose(&all, 9.0, None, |_| true), Some(2), "none mixes well: the best mixed, within 2 % of it");
        assert_eq!(choose(&[], 1.0, None, |_| true), None);
    }

    #[test]
    fn what_a_budget_keeps() {
        assert_eq!((kept(100, 10, 0), kept(40, 10, 100), kept(80, 10, 100)), (0.0, 0.0, 0.4));
        assert_eq!(kept(3000, 10, 100), 1.0);
        assert_eq!(needed(u64::MAX), u64::MAX);
    }
}

//! Models the rate, memory and mixing of settings that were not measured. Pure.
//!
//! Loading, copying and parsing overlap: the rate is that of the slowest stage, and is bounded by total processor time over cores. Let L
//! be the seconds of loading a row, summed over threads, s its part that does not parallelise, and R the seconds of the reader (one
//! thread, which copies and parses). Then a row takes max(L / threads + s, R, (L + s + R) / cores), and with slow storage at least its
//! requests a row x latency / requests in flight.

/// Options of a mount that affect its rate.
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

/// The cost of a row, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowCost {
    /// Summed over decoding threads.
    pub decode: f64,
    pub read: f64,
    pub scatter: f64,
    /// The part that runs on one thread.
    pub alone: f64,
    /// The reader: open, copy, parse.
    pub reader: f64,
    /// Waiting for storage, divided by requests in flight.
    pub storage: f64,
}

impl RowCost {
    /// Rows a second on `threads` threads and `cores` cores; `ahead`: whether the next fetch is loaded while one is read; `kept`: the
    /// share of decoded chunks that is in memory.
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

    /// Seconds of the reader for a row where the whole pipeline was measured to take `row` seconds, whatever `reader` says: all of
    /// them, or what loading leaves of the cores.
    pub fn reader_where(&self, row: f64, cores: usize) -> f64 {
        let rest = row * cores.max(1) as f64 - (self.decode + self.read + self.scatter + self.alone);
        rest.min(row).max(0.0)
    }
}

/// A setting and its modelled results.
#[derive(Clone, Debug)]
pub struct Modelled {
    pub setting: Setting,
    pub cost: RowCost,
    /// In the first epoch, and in all if the data exceed memory.
    pub rows_per_second: f64,
    /// In later epochs, where decoded chunks are retained.
    pub later: f64,
    /// Entropy of the label within a batch, in bits.
    pub entropy: f64,
}

/// Bytes that a mount needs to prefetch: the fetch being read, two being loaded, one retained.
pub fn needed(fetch_bytes: u64) -> u64 {
    fetch_bytes.saturating_mul(4)
}

/// The share of decoded chunks that a budget retains, by the rule of `engine::budget`.
pub fn kept(memory: u64, fetch_bytes: u64, decoded: u64) -> f64 {
    if decoded == 0 {
        return 0.0;
    }
    let room = memory.saturating_sub(needed(fetch_bytes).max(memory / 3));
    if room < decoded / 4 { 0.0 } else { (room as f64 / decoded as f64).min(1.0) }
}

/// The Pareto front of rate and entropy, slowest first; of equals the one with least memory.
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

/// Share of the entropy of perfect shuffling that counts as perfect.
pub const GOOD: f64 = 0.99;

/// The setting to recommend: with a target rate, the best mixed that reaches it; else the fastest that mixes as well as perfect
/// shuffling, or the best mixed where none does. Among those within 2 %, the one with least memory.
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
        // All of these reach the target, so the one with least memory is chosen.
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
        // With one core its total counts; two share it; with many, the threads limit, then the reader.
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
        // The fastest that mixes well; among those within 2 %, the one with less memory.
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

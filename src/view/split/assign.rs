//! How many items of each class each side gets, and the hashes at which to cut.
//!
//! The hash functions are written out here and must never change: they decide which rows are in a test set.

use super::parse::{Fraction, UNIT};

/// The hash of a side's last item in a class; `None` if it has none.
pub type Cut = Option<u64>;

/// A bijection on 64-bit numbers (the finaliser of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014, with Stafford's thirteenth set of constants).
pub fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// 2^64 / golden ratio, rounded to an odd number: seeds that differ by 1 give keys that differ in about half of their bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of a row: a bijection for each seed, so no two rows tie.
pub fn hash_row(seed: u64, row: u64) -> u64 {
    let key = mixed(seed.wrapping_add(STEP));
    mixed(mixed(row.wrapping_mul(STEP) ^ key).wrapping_add(key))
}

/// The hash of a group's label: FNV-1a (Fowler, Noll and Vo, 1991), mixed with the seed.
pub fn hash_label(seed: u64, label: Option<&str>) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    // A missing label hashes as a byte that occurs in no UTF-8 text.
    let bytes = label.map_or(&b"\xff"[..], str::as_bytes);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| fnv(hash, byte));
    let key = mixed(seed.wrapping_add(2u64.wrapping_mul(STEP)));
    mixed(mixed(hash ^ key).wrapping_add(key))
}

/// For each class, the number of items of each side, then of no side: shares are rounded down or up, and remainders go to the sides that
/// lag most over the classes so far.
pub fn allot(fractions: &[Fraction], sizes: &[u64]) -> Vec<Vec<u64>> {
    let unit = u128::from(UNIT);
    let mut parts: Vec<u128> = fractions.iter().map(|fraction| fraction.parts.into()).collect();
    parts.push(unit - parts.iter().sum::<u128>().min(unit));
    // How much each side lags, in items times UNIT.
    let mut behind = vec![0i128; parts.len()];
    let one = |&size: &u64| {
        let mut counts: Vec<u64> = Vec::with_capacity(parts.len());
        let mut open = Vec::new();
        for (side, part) in parts.iter().enumerate() {
            let share = part * u128::from(size);
            counts.push((share / unit) as u64);
            behind[side] += (share % unit) as i128;
            if share % unit > 0 {
                open.push(side);
            }
        }
        // Ties go to the side named first.
        open.sort_by_key(|&side| std::cmp::Reverse(behind[side]));
        let left = size - counts.iter().sum::<u64>();
        for &side in open.iter().take(left as usize) {
            counts[side] += 1;
            behind[side] -= unit as i128;
        }
        counts
    };
    sizes.iter().map(one).collect()
}

/// Buckets to count hashes in, over all classes: 32 MiB.
const BUCKETS: usize = 1 << 22;

/// The cuts of each class: the hash of each side's last item, with the items of a class sorted by hash. `items` is iterated twice; only
/// items near a cut are kept.
pub fn cuts<I: Iterator<Item = (usize, u64)>>(
    sizes: &[u64],
    counts: &[Vec<u64>],
    items: impl Fn() -> I,
) -> Vec<Vec<Cut>> {
    let bits = (BUCKETS / sizes.len().max(1)).max(1).ilog2().min(16);
    let bucket = |class: usize, hash: u64| (class << bits) | hash.unbounded_shr(64 - bits) as usize;
    let mut counted = vec![0u32; sizes.len() << bits];
    items().for_each(|(class, hash)| counted[bucket(class, hash)] += 1);
    // For each cut: its bucket, and the number of items of the bucket before it.
    let mut wanted: Vec<(usize, usize, usize, u64)> = Vec::new();
    for (class, counts) in counts.iter().enumerate() {
        let buckets = &counted[class << bits..(class + 1) << bits];
        let (mut place, mut passed, mut end) = (0, 0, 0);
        for (side, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            end += count;
            while place + 1 < buckets.len() && passed + u64::from(buckets[place]) < end {
                passed += u64::from(buckets[place]);
                place += 1;
            }
            wanted.push(((class << bits) | place, class, side, end - passed));
        }
    }
    // Hashes in buckets with a cut. An array maps buckets to their lists, as a hash map would be slow: it is asked for every item.
    const NONE: u32 = u32::MAX;
    let mut place_of = vec![NONE; counted.len()];
    let mut near: Vec<Vec<u64>> = Vec::new();
    for &(bucket, ..) in &wanted {
        if place_of[bucket] == NONE {
            place_of[bucket] = near.len() as u32;
            near.push(Vec::new());
        }
    }
    items().for_each(|(class, hash)| {
        let place = place_of[bucket(class, hash)];
        if place != NONE {
            near[place as usize].push(hash);
        }
    });
    near.iter_mut().for_each(|hashes| hashes.sort_unstable());
    let mut cuts: Vec<Vec<Cut>> = counts.iter().map(|counts| vec![None; counts.len()]).collect();
    for (bucket, class, side, place) in wanted {
        let hashes = &near[place_of[bucket] as usize];
        cuts[class][side] = (place as usize).checked_sub(1).and_then(|last| hashes.get(last)).copied();
    }
    cuts
}

//! How many items of each class go to each side, and the hashes at which that cuts them.
//!
//! The hash is spelt out and value-stable: it decides who is in a test set, and must never change.

use super::parse::{Fraction, UNIT};

/// The last hash of a side; `None` where it has nothing of the class.
pub type Cut = Option<u64>;

/// A bijection on 64-bit numbers (the finaliser of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014, with Stafford's thirteenth set of constants).
pub fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The odd number next to 2^64 over the golden ratio: keys differ in about half of their bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The place of a row: a bijection of the row for each seed, so no two rows tie.
pub fn hash_row(seed: u64, row: u64) -> u64 {
    let key = mixed(seed.wrapping_add(STEP));
    mixed(mixed(row.wrapping_mul(STEP) ^ key).wrapping_add(key))
}

/// The place of a group, by its label: FNV-1a (Fowler, Noll and Vo, 1991), mixed with the seed.
pub fn hash_label(seed: u64, label: Option<&str>) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    // A missing label is no label that there could be: it has a byte that no text has.
    let bytes = label.map_or(&b"\xff"[..], str::as_bytes);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| fnv(hash, byte));
    let key = mixed(seed.wrapping_add(2u64.wrapping_mul(STEP)));
    mixed(mixed(hash ^ key).wrapping_add(key))
}

/// Items of each class that each side gets, and last what no side gets: each share rounded down or up, the remainders
/// to the sides that are furthest behind over the classes so far.
pub fn allot(fractions: &[Fraction], sizes: &[u64]) -> Vec<Vec<u64>> {
    let unit = u128::from(UNIT);
    let mut parts: Vec<u128> = fractions.iter().map(|fraction| fraction.parts.into()).collect();
    parts.push(unit - parts.iter().sum::<u128>().min(unit));
    // What a side should have and has not, in items times UNIT.
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
        // Of equals the first side named.
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

/// Buckets of hashes counted over all classes: 32 MiB.
const BUCKETS: usize = 1 << 22;

/// The hash of the last item of each side in each class, if the items of a class stand in the order of their hashes.
/// `items` is gone through twice; nothing is kept of it but the items near a cut.
pub fn cuts<I: Iterator<Item = (usize, u64)>>(
    sizes: &[u64],
    counts: &[Vec<u64>],
    items: impl Fn() -> I,
) -> Vec<Vec<Cut>> {
    let bits = (BUCKETS / sizes.len().max(1)).max(1).ilog2().min(16);
    let bucket = |class: usize, hash: u64| (class << bits) | hash.unbounded_shr(64 - bits) as usize;
    let mut counted = vec![0u32; sizes.len() << bits];
    items().for_each(|(class, hash)| counted[bucket(class, hash)] += 1);
    // Where each cut lies: a bucket, and how many of its items are before the cut.
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
    // Hashes of the buckets that a cut lies in, each at its place; a map would be asked for every item.
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

//! Counter-based randomness, and the shuffle of a fetch's rows: Fisher-Yates with ChaCha8.
//!
//! Results must never change: the generator is named and pinned, the key is written out, and bounded draws are implemented here, because
//! `rand` may change its own between versions. Golden hashes in the plan's tests verify it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The use of a key, so that no two uses share a random stream.
#[derive(Clone, Copy)]
pub enum Domain {
    /// The order of an epoch's blocks.
    Blocks = 1,
    /// The shuffle of a fetch's rows.
    Rows = 2,
    /// A weighted draw: its block, and the rows in it.
    Draws = 3,
    /// The class of a batch drawn by weight.
    BatchClass = 4,
    /// The order of a class's blocks in an epoch.
    ClassBlocks = 5,
    /// The order of a class's blocks in one fetch.
    ClassFetch = 6,
    /// How the batches of each class are spread over an epoch.
    Spread = 7,
    /// The order of a fetch's batches.
    Batches = 8,
    /// The shuffle of rows before they are cut into sets.
    Sets = 9,
    /// A bag: its blocks, the start of reading, and the shuffle of its rows.
    Bags = 10,
    /// The controls of a fetch's rows.
    Controls = 16,
    /// The neighbours of a fetch's rows.
    Neighbours = 17,
}

/// The generator for one use. It is keyed by four numbers, so that each draw can be computed without those before it (Salmon, Moraes, Dror
/// and
/// Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).
pub fn rng(domain: Domain, seed: u64, epoch: u64, item: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([domain as u64, seed, epoch, item]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Shuffles in place (Durstenfeld's form of Fisher-Yates).
pub fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..items.len()).rev() {
        let j = below(rng, i as u64 + 1);
        items.swap(i, j as usize);
    }
}

/// A uniform draw from 0..n without bias (Lemire, "Fast Random Integer Generation in an Interval", 2019).
pub fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        let low = product as u64;
        if low >= n || low >= n.wrapping_neg() % n {
            return (product >> 64) as u64;
        }
    }
}

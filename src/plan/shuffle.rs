//! The shuffle of one fetch's rows: Fisher-Yates driven by ChaCha8.
//!
//! Value-stable for ever: the generator is named and pinned, the key is spelt out, and the bounded draw is ours,
//! because `rand` may change its own between versions. Golden hashes in the plan's tests hold it in place.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a key is for, so that no two uses share a stream.
#[derive(Clone, Copy)]
pub enum Domain {
    Blocks = 1,
    Rows = 2,
}

/// The 32-byte key of one use: four little-endian numbers.
pub fn key(domain: Domain, seed: u64, epoch: u64, item: u64) -> [u8; 32] {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([domain as u64, seed, epoch, item]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    key
}

/// Shuffles the rows of one fetch in place (Durstenfeld's form of Fisher-Yates).
pub fn shuffle(rows: &mut [u64], seed: u64, epoch: u64, fetch: u64) {
    let mut rng = ChaCha8Rng::from_seed(key(Domain::Rows, seed, epoch, fetch));
    for i in (1..rows.len()).rev() {
        let j = below(&mut rng, i as u64 + 1);
        rows.swap(i, j as usize);
    }
}

/// A uniform draw from 0..n without bias (Lemire, "Fast Random Integer Generation in an Interval", 2019).
fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        let low = product as u64;
        if low >= n || low >= n.wrapping_neg() % n {
            return (product >> 64) as u64;
        }
    }
}

//! A keyed permutation of 0..n with random access in both directions: the order of an epoch's blocks.
//!
//! A generalised Feistel network on a * b >= n with modular addition, with cycle walking until the value is below n (Black and Rogaway,
//! "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, methods 2 and 3). As a and b are near sqrt(n), the domain is hardly larger than n,
//! so walks are short. Memory is constant for any n.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::shuffle::{self, Domain};

/// Enough for uniform orders even of few blocks (tests: every arrangement of up to 6 blocks).
const ROUNDS: usize = 16;

/// A permutation of 0..n.
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    /// The two radices: a value is `left * b + right`, left < a, right < b.
    a: u64,
    b: u64,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of 0..n for (seed, epoch).
    pub fn new(n: u64, seed: u64, epoch: u64) -> Permutation {
        Permutation::drawn(n, &mut shuffle::rng(Domain::Blocks, seed, epoch, 0))
    }

    /// The permutation of 0..n with keys drawn from the generator.
    pub fn drawn(n: u64, rng: &mut ChaCha8Rng) -> Permutation {
        // Both radices must be at least 2: otherwise the network would only rotate.
        let a = n.isqrt().max(2);
        let b = n.div_ceil(a).max(1);
        Permutation { n, a, b, keys: std::array::from_fn(|_| rng.next_u64()) }
    }

    /// The block at a position of the order. `place` must be below n.
    pub fn at(&self, place: u64) -> u64 {
        let mut value = place;
        loop {
            value = self.forward(value);
            if value < self.n {
                return value;
            }
        }
    }

    /// The position of a block in the order: the inverse of `at`.
    pub fn place_of(&self, block: u64) -> u64 {
        let mut value = block;
        loop {
            value = self.backward(value);
            if value < self.n {
                return value;
            }
        }
    }

    fn forward(&self, value: u64) -> u64 {
        let (mut left, mut right) = (value / self.b, value % self.b);
        for (round, &key) in self.keys.iter().enumerate() {
            if round % 2 == 0 {
                left = add(left, hash(key, right, self.a), self.a);
            } else {
                right = add(right, hash(key, left, self.b), self.b);
            }
        }
        left * self.b + right
    }

    fn backward(&self, value: u64) -> u64 {
        let (mut left, mut right) = (value / self.b, value % self.b);
        for (round, &key) in self.keys.iter().enumerate().rev() {
            if round % 2 == 0 {
                left = add(left, self.a - hash(key, right, self.a), self.a);
            } else {
                right = add(right, self.b - hash(key, left, self.b), self.b);
            }
        }
        left * self.b + right
    }
}

/// (x + y) mod m for x < m and y <= m.
fn add(x: u64, y: u64, m: u64) -> u64 {
    let sum = x + y;
    if sum >= m { sum - m } else { sum }
}

/// A keyed hash of `value` to 0..m: MurmurHash3's 64-bit finalizer twice, then a multiply-shift to the range.
fn hash(key: u64, value: u64, m: u64) -> u64 {
    let mut x = value ^ key;
    for _ in 0..2 {
        x ^= x >> 33;
        x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
        x ^= x >> 33;
        x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        x ^= x >> 33;
        x = x.wrapping_add(key);
    }
    ((u128::from(x) * u128::from(m)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn is_a_permutation_and_its_inverse() {
        for n in (1..130).chain([255, 256, 257, 1000, 1023, 4099, 65_537]) {
            for seed in 0..3 {
                let order = Permutation::new(n, seed, 5);
                let mut seen = vec![false; n as usize];
                for place in 0..n {
                    let block = order.at(place);
                    assert!(!std::mem::replace(&mut seen[block as usize], true), "{n} {seed}: {block} twice");
                    assert_eq!(order.place_of(block), place);
                }
            }
        }
    }

    #[test]
    fn inverts_at_huge_n() {
        let order = Permutation::new(u64::MAX / 1024, 3, 9);
        for place in [0, 1, 77, 1 << 40, u64::MAX / 1024 - 1] {
            assert_eq!(order.place_of(order.at(place)), place);
        }
    }

    /// Chi-square of `counts` against uniform, as standard deviations from its mean (the degrees of freedom).
    fn excess(counts: &[u64]) -> f64 {
        let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        let chi2: f64 = counts.iter().map(|&c| (c as f64 - expected).powi(2) / expected).sum();
        let freedom = (counts.len() - 1) as f64;
        (chi2 - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn every_arrangement_of_few_blocks_is_equally_likely() {
        for n in 2..=6u64 {
            let mut counts: HashMap<Vec<u64>, u64> = HashMap::new();
            let factorial: u64 = (1..=n).product();
            for seed in 0..factorial * 100 {
                let order = Permutation::new(n, seed, 0);
                *counts.entry((0..n).map(|p| order.at(p)).collect()).or_default() += 1;
            }
            let mut counts: Vec<u64> = counts.into_values().collect();
            counts.resize(factorial as usize, 0);
            assert!(excess(&counts) < 4.0, "{n} blocks: {} standard deviations", excess(&counts));
        }
    }

    #[test]
    fn positions_and_neighbours_are_uniform() {
        for n in [10u64, 16, 23, 64] {
            let mut positions = vec![0u64; (n * n) as usize];
            let mut steps = vec![0u64; n as usize];
            for seed in 0..4000 {
                let order = Permutation::new(n, seed, 1);
                for place in 0..n {
                    positions[(place * n + order.at(place)) as usize] += 1;
                }
                steps[((order.at(1) + n - order.at(0)) % n) as usize] += 1;
            }
            assert!(excess(&positions) < 4.0, "{n}: {}", excess(&positions));
            assert_eq!(steps[0], 0);
            assert!(excess(&steps[1..]) < 4.0, "{n}: {}", excess(&steps[1..]));
        }
    }
}

//! A set of rows: a bit for each row, in words of 64, filled in parallel.
//!
//! Bits past the last row are always zero; counting and iterating rely on it.

use rayon::prelude::*;

/// Words filled by one parallel task: 64 Ki rows.
const TASK_WORDS: usize = 1024;

/// A set of rows 0..len.
#[derive(Clone, Debug, PartialEq)]
pub struct Bits {
    words: Vec<u64>,
    len: u64,
}

impl Bits {
    pub fn none(len: u64) -> Bits {
        Bits { words: vec![0; len.div_ceil(64) as usize], len }
    }

    pub fn all(len: u64) -> Bits {
        let mut bits = Bits { words: vec![!0; len.div_ceil(64) as usize], len };
        bits.trim();
        bits
    }

    /// The rows for which `holds` is true; it is called once for each row, in parallel.
    pub fn of(len: u64, holds: impl Fn(usize) -> bool + Sync) -> Bits {
        let mut bits = Bits::none(len);
        bits.words.par_chunks_mut(TASK_WORDS).enumerate().for_each(|(task, words)| {
            for (i, word) in words.iter_mut().enumerate() {
                let first = (task * TASK_WORDS + i) * 64;
                let last = (first + 64).min(len as usize);
                *word = (first..last).fold(0, |word, row| word | (u64::from(holds(row)) << (row - first)));
            }
        });
        bits
    }

    fn trim(&mut self) {
        let used = self.len % 64;
        if let Some(last) = self.words.last_mut()
            && used > 0
        {
            *last &= (1 << used) - 1;
        }
    }

    /// Number of rows, in the set or not.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Number of rows in the set.
    pub fn count(&self) -> u64 {
        self.words.par_iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Word w holds rows 64 w to 64 w + 63, the first in the lowest bit.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub fn contains(&self, row: u64) -> bool {
        row < self.len && self.words[(row / 64) as usize] >> (row % 64) & 1 == 1
    }

    /// Adds a row, which must be below `len`.
    pub fn insert(&mut self, row: u64) {
        self.words[(row / 64) as usize] |= 1 << (row % 64);
    }

    pub fn remove(&mut self, row: u64) {
        self.words[(row / 64) as usize] &= !(1 << (row % 64));
    }

    pub fn invert(mut self) -> Bits {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.trim();
        self
    }

    pub fn and(mut self, other: &Bits) -> Bits {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
        self
    }

    pub fn or(mut self, other: &Bits) -> Bits {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self
    }

    /// The rows in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut word = word;
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(i as u64 * 64 + u64::from(bit))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_awkward_lengths() {
        for len in [0, 1, 63, 64, 65, 70_000] {
            let thirds = Bits::of(len, |row| row % 3 == 0);
            assert!(thirds.iter().eq((0..len).filter(|row| row % 3 == 0)));
            assert_eq!(thirds.clone().invert().count() + thirds.count(), len);
            assert_eq!(thirds.clone().or(&thirds.clone().invert()), Bits::all(len));
            assert!(thirds.clone().and(&thirds.clone().invert()).is_empty());
            assert!(!thirds.contains(len));
        }
    }
}

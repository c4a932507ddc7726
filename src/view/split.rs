//! Divides rows among named sides by fractions: row by row, by whole groups, or within classes.
//!
//! A keyed hash decides: of the seed and the global row number, or of the seed and the group's label. The rows (or groups) of a class are
//! sorted by hash and cut at the fractions. So counts are exact, and a row changes sides only if the cut moves past its hash. A split is
//! therefore stable when stores are appended: rows keep their numbers and groups their labels, and a cut among n hashes moves by about
//! 1/sqrt(n).
//!
//! Counts in classes follow from error diffusion: each cell (class, side) has its share rounded down or up, and each remaining row goes to
//! the side that lags most behind its fraction so far. So each side as a whole is within a row of its fraction, except in contrived cases.

mod assign;
mod parse;

use super::ViewError;
use super::bits::Bits;
pub use assign::mixed;
use assign::{Cut, allot, cuts, hash_label, hash_row};
pub use parse::{Fraction, UNIT, fractions};

/// A label for each row: groups or classes of a split.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// The name of the column.
    pub name: &'a str,
    /// A code for each row; `labels.len()` and above mean a missing label.
    pub codes: &'a [u32],
    pub labels: &'a [String],
}

impl Labelled<'_> {
    /// The code of a row; missing labels have the last code.
    fn code(&self, row: u64) -> usize {
        (self.codes[row as usize] as usize).min(self.labels.len())
    }

    /// The number of codes, including that of missing labels.
    fn count(&self) -> usize {
        self.labels.len() + 1
    }
}

/// The parameters of a split.
#[derive(Clone, Copy, Debug)]
pub struct Split<'a> {
    /// Fractions that sum to at most 1; the remaining rows are on no side.
    pub fractions: &'a [Fraction],
    /// Keep whole groups on one side. Rows without a label form one group.
    pub groups: Option<Labelled<'a>>,
    /// Apply the fractions within each class. Rows without a label form one class.
    pub classes: Option<Labelled<'a>>,
    pub seed: u64,
}

/// One side of a split.
#[derive(Clone, Debug)]
pub struct Side {
    pub name: String,
    pub rows: Bits,
    /// The number of its groups, in a split by groups.
    pub groups: Option<u64>,
}

/// Deviations of a side from its fraction below this share of all rows are left as they are.
const TOLERANCE: f64 = 0.01;
/// Groups to move, at most.
const MOVES: usize = 1000;

impl Split<'_> {
    /// Divides `rows` among the sides.
    ///
    /// # Errors
    /// There are fewer groups than sides.
    pub fn divide(&self, rows: &Bits) -> Result<Vec<Side>, ViewError> {
        match &self.groups {
            None => Ok(self.by_row(rows)),
            Some(groups) => self.by_group(rows, groups),
        }
    }

    fn by_row(&self, rows: &Bits) -> Vec<Side> {
        let class = |row: u64| self.classes.as_ref().map_or(0, |classes| classes.code(row));
        let mut sizes = vec![0; self.classes.as_ref().map_or(1, Labelled::count)];
        rows.iter().for_each(|row| sizes[class(row)] += 1);
        let counts = allot(self.fractions, &sizes);
        let items = || rows.iter().map(|row| (class(row), hash_row(self.seed, row)));
        let cuts = cuts(&sizes, &counts, items);
        let mut sides = self.empty(rows.len());
        for row in rows.iter() {
            if let Some(side) = side_of(&cuts[class(row)], hash_row(self.seed, row)).filter(|&side| side < sides.len())
            {
                sides[side].rows.insert(row);
            }
        }
        sides
    }

    fn by_group(&self, rows: &Bits, groups: &Labelled<'_>) -> Result<Vec<Side>, ViewError> {
        let mut sizes = vec![0u64; groups.count()];
        rows.iter().for_each(|row| sizes[groups.code(row)] += 1);
        let present = sizes.iter().filter(|&&size| size > 0).count();
        if present < self.fractions.len() {
            return Err(ViewError::Split(format!(
                "{} has {present} groups among these rows, fewer than the {} sides",
                groups.name,
                self.fractions.len()
            )));
        }
        let hashes: Vec<u64> = (0..groups.count())
            .map(|code| hash_label(self.seed, groups.labels.get(code).map(String::as_str)))
            .collect();
        let side_of_group = match &self.classes {
            None => self.fill(&sizes, &hashes),
            Some(classes) => self.groups_within(rows, groups, classes, &sizes, &hashes),
        };
        let mut sides = self.empty(rows.len());
        for row in rows.iter() {
            if let Some(side) = sides.get_mut(side_of_group[groups.code(row)]) {
                side.rows.insert(row);
            }
        }
        for (number, side) in sides.iter_mut().enumerate() {
            let here = side_of_group.iter().zip(&sizes).filter(|&(&side, &size)| side == number && size > 0);
            side.groups = Some(here.count() as u64);
        }
        Ok(sides)
    }

    /// Assigns groups to sides: in the order of their hashes, each to the side whose share of the rows contains the group's middle. Then
    /// moves single groups while a side is empty or off by more than 1 % of the rows, and a move brings both sides nearer.
    fn fill(&self, sizes: &[u64], hashes: &[u64]) -> Vec<usize> {
        let total: u64 = sizes.iter().sum();
        let targets: Vec<f64> = self.shares().map(|share| share * total as f64).collect();
        let mut order: Vec<usize> = (0..sizes.len()).filter(|&group| sizes[group] > 0).collect();
        order.sort_unstable_by_key(|&group| (hashes[group], group));
        let mut sides = vec![usize::MAX; sizes.len()];
        let (mut given, mut members) = (vec![0.0; targets.len()], vec![0u64; targets.len()]);
        let mut before = 0;
        for &group in &order {
            let middle = before as f64 + sizes[group] as f64 / 2.0;
            before += sizes[group];
            let mut end = 0.0;
            let mut past = |target: &f64| {
                end += target;
                end <= middle
            };
            let side = targets.iter().take_while(|&target| past(target)).count().min(targets.len() - 1);
            sides[group] = side;
            given[side] += sizes[group] as f64;
            members[side] += 1;
        }
        for _ in 0..MOVES {
            let empty = |side: usize, members: &[u64]| targets[side] > 0.0 && members[side] == 0;
            let off = |side: usize| (given[side] - targets[side]).abs() > TOLERANCE * total as f64;
            if !(0..targets.len()).any(|side| off(side) || empty(side, &members)) {
                break;
            }
            // How much nearer a move brings the two sides; filling an empty side counts more than any distance.
            let gain = |group: usize, to: usize| {
                let (from, size) = (sides[group], sizes[group] as f64);
                let off = |side: usize, change: f64| (given[side] + change - targets[side]).abs();
                let nearer = off(from, 0.0) + off(to, 0.0) - off(from, -size) - off(to, size);
                let filled = if empty(to, &members) { 4.0 * total as f64 } else { 0.0 };
                if from == to || members[from] == 1 && from < self.fractions.len() { 0.0 } else { nearer + filled }
            };
            let moves = order.iter().flat_map(|&group| (0..targets.len()).map(move |to| (group, to)));
            let best =
                moves.map(|(group, to)| (gain(group, to), group, to)).reduce(|a, b| if b.0 > a.0 { b } else { a });
            let Some((gain, group, to)) = best.filter(|best| best.0 > 0.5) else { break };
            debug_assert!(gain > 0.0);
            let from = std::mem::replace(&mut sides[group], to);
            let size = sizes[group] as f64;
            given[from] -= size;
            given[to] += size;
            members[from] -= 1;
            members[to] += 1;
        }
        sides
    }

    /// A split by groups within classes: a group belongs to the class of most of its rows.
    fn groups_within(
        &self,
        rows: &Bits,
        groups: &Labelled<'_>,
        classes: &Labelled<'_>,
        sizes: &[u64],
        hashes: &[u64],
    ) -> Vec<usize> {
        let mut pairs: std::collections::HashMap<(usize, usize), u64> = Default::default();
        rows.iter().for_each(|row| *pairs.entry((groups.code(row), classes.code(row))).or_default() += 1);
        let mut most = vec![(0, 0); groups.count()];
        for ((group, class), count) in pairs {
            // Ties go to the lowest class, to be independent of the map's order.
            if (count, std::cmp::Reverse(class)) > (most[group].0, std::cmp::Reverse(most[group].1)) {
                most[group] = (count, class);
            }
        }
        let class = |group: usize| most[group].1;
        let present = || (0..sizes.len()).filter(|&group| sizes[group] > 0);
        let mut members = vec![0; classes.count()];
        present().for_each(|group| members[class(group)] += 1);
        let counts = allot(self.fractions, &members);
        let cuts = cuts(&members, &counts, || present().map(|group| (class(group), hashes[group])));
        let side = |group: usize| side_of(&cuts[class(group)], hashes[group]).unwrap_or(usize::MAX);
        (0..sizes.len()).map(|group| if sizes[group] > 0 { side(group) } else { usize::MAX }).collect()
    }

    /// The fraction of each side, then that of no side.
    fn shares(&self) -> impl Iterator<Item = f64> {
        let sum: f64 = self.fractions.iter().map(Fraction::share).sum();
        let rest = if sum < 1.0 - 1e-9 { 1.0 - sum } else { 0.0 };
        self.fractions.iter().map(Fraction::share).chain((rest > 0.0).then_some(rest))
    }

    fn empty(&self, rows: u64) -> Vec<Side> {
        let side = |fraction: &Fraction| Side { name: fraction.name.clone(), rows: Bits::none(rows), groups: None };
        self.fractions.iter().map(side).collect()
    }
}

/// The first side whose cut is not below the hash.
fn side_of(cuts: &[Cut], hash: u64) -> Option<usize> {
    cuts.iter().position(|cut| cut.is_some_and(|last| hash <= last))
}

#[cfg(test)]
mod tests;

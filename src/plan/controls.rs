//! Controls for each row of a fetch: drawn uniformly, with replacement, from the controls of the row's group.
//!
//! A group is all rows with the same labels in the matched columns. Its controls form a ring in stored order. A fetch that needs n controls
//! of a group draws them from ceil(n / block_size) windows of `block_size` consecutive controls on the ring, so that it reads about as many
//! chunks for controls as for rows. Windows start at uniformly random positions; the n controls are assigned to windows in turn, and each
//! is
//! at a uniformly random position of its window.
//!
//! There is no bias: on a ring, a window with a uniformly random start has each control at its i-th position with equal probability, so
//! each
//! control drawn is uniform over the group, for any window size. The cost of windows is independence: two controls of one fetch and group
//! are independent only if their windows differ, as those of one row do (if the group has at least as many windows), or if the group has no
//! more controls than a block. With `block_size` 1 all are independent.
//!
//! Memory: 4 bytes a row and 4 bytes a control.

use std::collections::HashMap;

use super::companion::Companion;
use super::shuffle::{self, Domain, below};
use super::{FetchRows, NO_CLASS, PlanError, Sampling};

/// The controls of all rows.
#[derive(Clone, Debug)]
pub struct Controls {
    each: u64,
    /// The group of each row; [`NO_CLASS`] if no control matches.
    groups: Vec<u32>,
    /// The start of each group's controls in `members`, and the end of the last.
    bounds: Vec<usize>,
    /// The controls, sorted by group, then by row.
    members: Vec<u32>,
}

impl Controls {
    /// `each`: controls for each row, at least 1. `groups`: the group of each row, numbered from 0 without gaps, or [`NO_CLASS`].
    /// `is_control`: whether a row is a control.
    ///
    /// # Errors
    /// There are too many rows.
    pub fn new(each: u64, mut groups: Vec<u32>, is_control: impl Fn(u64) -> bool) -> Result<Controls, PlanError> {
        let (rows, limit) = (groups.len() as u64, 1 << 32);
        if rows > limit {
            return Err(PlanError::TooManyRows { rows, limit });
        }
        let count = groups.iter().filter(|&&group| group != NO_CLASS).max().map_or(0, |&group| group as usize + 1);
        let mut bounds = vec![0; count + 1];
        let controls = || (0..).zip(&groups).filter(|&(row, &group)| group != NO_CLASS && is_control(row));
        controls().for_each(|(_, &group)| bounds[group as usize + 1] += 1);
        (0..count).for_each(|group| bounds[group + 1] += bounds[group]);
        let (mut next, mut members) = (bounds.clone(), vec![0; bounds[count]]);
        for (row, &group) in controls() {
            members[next[group as usize]] = row as u32;
            next[group as usize] += 1;
        }
        for group in groups.iter_mut().filter(|group| **group != NO_CLASS) {
            if bounds[*group as usize] == bounds[*group as usize + 1] {
                *group = NO_CLASS;
            }
        }
        Ok(Controls { each, groups, bounds, members })
    }

    /// Number of controls.
    pub fn count(&self) -> u64 {
        self.members.len() as u64
    }

    /// Whether a row has controls.
    pub fn matches(&self, row: u64) -> bool {
        self.groups.get(row as usize).is_some_and(|&group| group != NO_CLASS)
    }

    /// The number of controls of each group that has any.
    pub fn group_sizes(&self) -> impl Iterator<Item = u64> + '_ {
        self.bounds.windows(2).map(|group| (group[1] - group[0]) as u64).filter(|&size| size > 0)
    }

    fn of(&self, group: u32) -> &[u32] {
        match self.bounds.get(group as usize..).unwrap_or_default() {
            [start, end, ..] => &self.members[*start..*end],
            _ => &[],
        }
    }
}

/// The windows from which a fetch draws the controls of one group.
#[derive(Default)]
struct Windows {
    /// Number of controls that the fetch needs.
    needed: u64,
    /// The start of each window on the ring.
    starts: Vec<u64>,
    /// Number of controls drawn so far.
    drawn: usize,
}

impl Companion for Controls {
    fn beside(&self, sampling: &Sampling, (epoch, fetch): (u64, u64), rows: &FetchRows) -> FetchRows {
        FetchRows {
            rows: self.rows(sampling, epoch, fetch, &rows.rows),
            bounds: rows.bounds.iter().map(|bound| bound * self.each as usize).collect(),
            ..FetchRows::default()
        }
    }
}

impl Controls {
    /// The controls of these rows: `each * i..each * (i + 1)` belong to row i. A row without matching controls is its own control.
    pub fn rows(&self, sampling: &Sampling, epoch: u64, fetch: u64, rows: &[u64]) -> Vec<u64> {
        let group = |row: u64| self.groups.get(row as usize).copied().unwrap_or(NO_CLASS);
        let mut windows: HashMap<u32, Windows> = HashMap::new();
        rows.iter().for_each(|&row| windows.entry(group(row)).or_default().needed += self.each);
        let mut rng = shuffle::rng(Domain::Controls, sampling.seed, epoch, fetch);
        let mut beside = Vec::with_capacity(rows.len() * self.each as usize);
        for &row in rows {
            let group = group(row);
            let controls = self.of(group);
            let count = controls.len() as u64;
            let Some(windows) = windows.get_mut(&group).filter(|_| count > 0) else {
                beside.extend(std::iter::repeat_n(row, self.each as usize));
                continue;
            };
            if windows.starts.is_empty() {
                let number = windows.needed.div_ceil(sampling.block_size);
                windows.starts = (0..number).map(|_| below(&mut rng, count)).collect();
            }
            for _ in 0..self.each {
                let start = windows.starts[windows.drawn % windows.starts.len()];
                let place = start + below(&mut rng, count.min(sampling.block_size));
                windows.drawn += 1;
                beside.push(u64::from(controls[(place % count) as usize]));
            }
        }
        beside
    }
}

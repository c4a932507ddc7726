//! Groups the rows of a view: the members of each group, cut into blocks of that group alone.
//!
//! Memory: 4 bytes for each row in a group.

use std::ops::Range;

use super::blocks::{BlockOrder, Blocks};
use super::labels::{NO_CLASS, class_rows};
use super::{PlanError, Rows};

/// What to do with the rows of a group that do not fill a whole set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Short {
    /// Leave them out.
    Drop,
    /// Fill the set with rows of the group, which are then repeated.
    #[default]
    Repeat,
    /// The same, with the repeated rows marked as padding.
    Pad,
}

impl Short {
    pub const ALL: [Short; 3] = [Short::Drop, Short::Repeat, Short::Pad];

    /// The name in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Short::Drop => "drop",
            Short::Repeat => "repeat",
            Short::Pad => "pad",
        }
    }
}

/// Parameters of sets and bags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupShape {
    /// Rows of a set; `None`: those of a batch.
    pub set_size: Option<u64>,
    pub short: Short,
    /// Rows to draw of a bag, at most; `None`: all.
    pub bag_max: Option<u64>,
}

/// The rows of a view that are in a group.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Global row numbers, sorted by group, then by row.
    members: Vec<u32>,
    /// The groups by code.
    pub all: Vec<Group>,
}

/// One group; for a code without rows it is empty.
#[derive(Clone, Debug)]
pub struct Group {
    /// The start of its rows in `members`.
    first: usize,
    pub blocks: Blocks,
}

impl Groups {
    /// `codes`: one for each row of the view; see [`super::strategy::Inputs`].
    ///
    /// # Errors
    /// The number of codes is wrong, or one is too large; row numbers exceed 32 bits; no row is in a group.
    pub fn new(view: &Rows, codes: &[u32], block_size: u64) -> Result<Groups, PlanError> {
        if codes.len() as u64 != view.len() {
            return Err(PlanError::Count { what: "class codes", given: codes.len() as u64, wanted: view.len() });
        }
        if view.of() > 1 << 32 {
            return Err(PlanError::TooManyRows { rows: view.of(), limit: 1 << 32 });
        }
        let counts = class_rows(codes)?;
        let grouped: u64 = counts.iter().sum();
        if grouped == 0 {
            return Err(PlanError::NoClass);
        }
        let firsts = counts.iter().scan(0, |next, &count| {
            *next += count as usize;
            Some(*next - count as usize)
        });
        let firsts: Vec<usize> = firsts.collect();
        let (members, store_rows) = sort(view, codes, firsts.clone(), grouped as usize);
        let group = |(rows, first)| Group { first, blocks: Blocks::new(rows, block_size) };
        Ok(Groups { members, all: store_rows.into_iter().zip(firsts).map(group).collect() })
    }

    /// Number of rows in groups.
    pub fn rows(&self) -> u64 {
        self.members.len() as u64
    }

    /// Number of rows of one group.
    pub fn rows_of(&self, group: usize) -> u64 {
        self.all[group].blocks.rows()
    }

    /// The codes of groups with rows, sorted by their first rows.
    pub fn in_stored_order(&self) -> Vec<u32> {
        let is_there = |group: &u32| self.all.get(*group as usize).is_some_and(|group| group.blocks.rows() > 0);
        let mut order: Vec<u32> = (0..self.all.len() as u32).filter(is_there).collect();
        order.sort_unstable_by_key(|&group| self.members[self.all[group as usize].first]);
        order
    }

    /// Number of blocks of all groups.
    pub fn blocks(&self) -> u64 {
        self.all.iter().map(|group| group.blocks.count()).sum()
    }

    /// Appends a range of a group's rows, with its blocks in the given order.
    pub fn stretch(&self, group: usize, order: &BlockOrder, stretch: Range<u64>, rows: &mut Vec<u64>) {
        let first = self.all[group].first;
        order.stretch(stretch, |run| {
            let members = first + run.start as usize..first + run.end as usize;
            rows.extend(self.members[members].iter().map(|&row| u64::from(row)));
        });
    }
}

/// Members sorted by group (`next`: the start of each group's), and for each group its number of rows in each store.
fn sort(view: &Rows, codes: &[u32], mut next: Vec<usize>, grouped: usize) -> (Vec<u32>, Vec<Vec<u64>>) {
    let mut members = vec![0u32; grouped];
    let mut store_rows = vec![Vec::new(); next.len()];
    let mut rows = view.iter().zip(codes);
    for &count in view.store_counts() {
        let before = next.clone();
        for (row, &code) in rows.by_ref().take(count as usize).filter(|(_, code)| **code != NO_CLASS) {
            members[next[code as usize]] = row as u32;
            next[code as usize] += 1;
        }
        for (rows, (before, next)) in store_rows.iter_mut().zip(before.iter().zip(&next)) {
            if next > before {
                rows.push((next - before) as u64);
            }
        }
    }
    (members, store_rows)
}

//! Bags: every batch is one group, all of its rows or a random part of them, as for multiple-instance learning.
//!
//! Each bag is served once an epoch, in a permuted order; a batch has as many rows as its bag, shuffled. If a bag has more than `most`
//! rows,
//! that many are drawn in each epoch: its permuted blocks are read cyclically from a random row on. So each row of the bag has the same
//! probability, `most / rows`, and whole blocks are read; with blocks of one row it is a uniform draw without replacement.
//!
//! Memory: 4 bytes for each row in a group, about 100 bytes for each group.

use super::{Chances, EpochOrder, Strategy};
use crate::plan::groups::Groups;
use crate::plan::permutation::Permutation;
use crate::plan::shuffle::{self, Domain, below};
use crate::plan::{FetchRows, PlanError, Rows, Sampling};

#[derive(Debug)]
pub struct Bags {
    view: Rows,
    /// Its batch size is the number of rows of the largest bag.
    sampling: Sampling,
    groups: Groups,
    /// The groups with rows.
    bags: Vec<u32>,
    /// Maximum rows to draw of a bag.
    most: u64,
}

impl Bags {
    /// `codes`: one for each row of the view; see [`super::Inputs`]. `most`: maximum rows to draw of a bag; `None`: all.
    ///
    /// # Errors
    /// Those of [`Groups::new`].
    pub fn new(view: Rows, sampling: Sampling, codes: &[u32], most: Option<u64>) -> Result<Bags, PlanError> {
        let groups = Groups::new(&view, codes, sampling.block_size)?;
        let most = most.unwrap_or(u64::MAX).max(1);
        let rows = |group: &u32| groups.rows_of(*group as usize);
        let bags: Vec<u32> = (0..groups.all.len() as u32).filter(|group| rows(group) > 0).collect();
        let batch_size = bags.iter().map(rows).max().unwrap_or(1).min(most);
        Ok(Bags { view, sampling: Sampling { batch_size, ..sampling }, groups, bags, most })
    }

    fn order(&self, epoch: u64) -> BagEpoch<'_> {
        let order = Permutation::new(self.bags.len() as u64, self.sampling.seed, epoch);
        BagEpoch { bags: self, epoch, order }
    }

    /// Number of rows of this group's batch.
    fn rows_of(&self, group: u32) -> u64 {
        self.groups.rows_of(group as usize).min(self.most)
    }
}

impl Strategy for Bags {
    fn view(&self) -> &Rows {
        &self.view
    }

    fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    fn blocks(&self) -> u64 {
        self.groups.blocks()
    }

    fn drawn_rows(&self) -> u64 {
        self.bags.iter().map(|&group| self.rows_of(group)).sum()
    }

    /// Bags are never short, so none is dropped.
    fn served_rows(&self) -> u64 {
        self.drawn_rows()
    }

    fn batches(&self) -> u64 {
        self.bags.len() as u64
    }

    fn batch_rows(&self, epoch: u64, batch: u64) -> u64 {
        self.order(epoch).group(batch).map_or(0, |group| self.rows_of(group))
    }

    fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_> {
        Box::new(self.order(epoch))
    }

    fn chances(&self) -> Chances<'_> {
        Chances::Unmixed
    }

    fn has_full_batches(&self) -> bool {
        false
    }

    fn told(&self) -> Vec<(&'static str, u64)> {
        let drawn = self.drawn_rows();
        let sizes = || self.bags.iter().map(|&group| self.rows_of(group));
        vec![
            ("bags", self.batches()),
            ("smallest_bag", sizes().min().unwrap_or(0)),
            ("largest_bag", sizes().max().unwrap_or(0)),
            (
                "bags_cut",
                self.bags.iter().filter(|group| self.groups.rows_of(**group as usize) > self.most).count() as u64,
            ),
            ("rows_without_group", self.view.len() - self.groups.rows()),
            ("rows_not_drawn_of_bags_cut", self.groups.rows() - drawn),
        ]
    }
}

/// The bags of one epoch.
struct BagEpoch<'a> {
    bags: &'a Bags,
    epoch: u64,
    order: Permutation,
}

impl BagEpoch<'_> {
    /// The group of a batch; `None` past the last.
    fn group(&self, batch: u64) -> Option<u32> {
        let count = self.bags.bags.len() as u64;
        (batch < count).then(|| self.bags.bags[self.order.at(batch) as usize])
    }

    /// Appends the rows of a group's batch.
    fn rows(&self, group: u32, rows: &mut Vec<u64>) {
        let Bags { sampling, groups, .. } = self.bags;
        let blocks = &groups.all[group as usize].blocks;
        let (all, count, before) = (blocks.rows(), self.bags.rows_of(group), rows.len());
        let mut rng = shuffle::rng(Domain::Bags, sampling.seed, self.epoch, u64::from(group));
        let order = blocks.ordered(Permutation::drawn(blocks.count(), &mut rng));
        let start = below(&mut rng, all);
        let end = (start + count).min(all);
        groups.stretch(group as usize, &order, start..end, rows);
        groups.stretch(group as usize, &order, 0..count - (end - start), rows);
        shuffle::shuffle(&mut rows[before..], &mut rng);
    }
}

impl EpochOrder for BagEpoch<'_> {
    fn fetch(&self, fetch: u64) -> FetchRows {
        let factor = self.bags.sampling.fetch_factor;
        let first = fetch.saturating_mul(factor);
        let mut found = FetchRows { bounds: vec![0], ..FetchRows::default() };
        for group in (first..first.saturating_add(factor)).map_while(|batch| self.group(batch)) {
            self.rows(group, &mut found.rows);
            found.bounds.push(found.rows.len());
        }
        found
    }
}

//! Sets: every `size` consecutive rows are of one group, and sets are shuffled.
//!
//! In each epoch, a group's blocks are permuted. Its rows in that order are divided into stretches of [`MIXED_BLOCKS`] blocks or one set,
//! whichever is larger (fewer blocks if a fetch would not have [`LEAST_STRETCHES`]); the rows of a stretch are shuffled and cut into sets.
//! So
//! the sets of a group no larger than a stretch are a uniform partition of its rows, those of a larger group mix that many blocks, and
//! whole
//! blocks are read. Groups smaller than a block form a stretch together with neighbours in the store, until these fill a block. Stretches
//! are
//! permuted over the epoch (cell-load shuffles its "sentences" in memory; here nothing is stored), and the sets of a fetch are shuffled.
//! Every
//! row of a group is in exactly one set of an epoch, except the rows that do not fill a set:
//!
//! - *drop*: they are left out: random rows of the group's last stretch.
//! - *repeat*: the set is filled with rows of the same stretch, each as often as any other, to within one.
//! - *pad*: the same, with the filling rows marked ([`FetchRows::padding`]).
//!
//! Memory: 4 bytes for each row in a group, about 100 bytes for each group.

use std::ops::Range;

use super::{Chances, EpochOrder, Strategy};
use crate::plan::blocks::{BlockOrder, Blocks};
use crate::plan::groups::{Groups, Short};
use crate::plan::permutation::Permutation;
use crate::plan::shuffle::{self, Domain};
use crate::plan::{FetchRows, PlanError, Rows, Sampling};

/// Blocks of a group that are mixed before they are cut into sets.
const MIXED_BLOCKS: u64 = 16;
/// Minimum stretches of a fetch, if stretches have several sets, so that consecutive sets are of different groups.
const LEAST_STRETCHES: u64 = 16;

#[derive(Debug)]
pub struct Sets {
    view: Rows,
    sampling: Sampling,
    groups: Groups,
    /// Rows of a set.
    size: u64,
    short: Short,
    /// The groups in stored order; sets are numbered in this order.
    order: Vec<u32>,
    /// The number of the first set of each group in `order`, and the number of sets.
    firsts: Vec<u64>,
    /// Maximum sets of a stretch.
    mixed: u64,
    /// The sets, divided into stretches.
    stretches: Blocks,
}

impl Sets {
    /// `codes`: one for each row of the view; see [`super::Inputs`]. `size`: rows of a set; `None`: a batch is one set.
    ///
    /// # Errors
    /// A batch is not a whole number of sets; no group fills a set.
    pub fn new(
        view: Rows,
        sampling: Sampling,
        codes: &[u32],
        size: Option<u64>,
        short: Short,
    ) -> Result<Sets, PlanError> {
        let size = size.unwrap_or(sampling.batch_size);
        if size == 0 || !sampling.batch_size.is_multiple_of(size) {
            return Err(PlanError::SetSize { size, batch: sampling.batch_size });
        }
        let groups = Groups::new(&view, codes, sampling.block_size)?;
        let order = groups.in_stored_order();
        let cut = |rows: u64| if short == Short::Drop { rows / size } else { rows.div_ceil(size) };
        let sets_of = |group: &u32| cut(groups.rows_of(*group as usize));
        let mut firsts = vec![0];
        let mut all = 0;
        for group in &order {
            all += sets_of(group);
            firsts.push(all);
        }
        if all == 0 {
            let largest = order.iter().map(|&group| groups.rows_of(group as usize)).max().unwrap_or(0);
            return Err(PlanError::NoSet { size, largest });
        }
        let most = sampling.fetch_rows() / size / LEAST_STRETCHES;
        let mixed = (MIXED_BLOCKS * sampling.block_size).div_ceil(size).min(most).max(1);
        // A whole number of blocks, so that no block is in two stretches.
        let step = if sampling.block_size.is_multiple_of(size) { sampling.block_size / size } else { 1 };
        let mixed = if mixed > step { mixed - mixed % step } else { mixed };
        let each = order.iter().map(|group| (groups.rows_of(*group as usize), sets_of(group)));
        let stretches = Blocks::new(together(each, sampling.block_size, mixed), mixed);
        Ok(Sets { view, sampling, groups, size, short, order, firsts, mixed, stretches })
    }

    /// Number of sets of an epoch.
    fn sets(&self) -> u64 {
        self.firsts.last().copied().unwrap_or(0)
    }

    /// Number of rows in sets of an epoch, not counting repeats.
    fn distinct(&self) -> u64 {
        let of = |(&group, firsts): (&u32, &[u64])| {
            self.groups.rows_of(group as usize).min((firsts[1] - firsts[0]).saturating_mul(self.size))
        };
        self.order.iter().zip(self.firsts.windows(2)).map(of).sum()
    }

    /// The position in `order` of the group of a set.
    fn place_of(&self, set: u64) -> usize {
        self.firsts.partition_point(|&first| first <= set).saturating_sub(1)
    }
}

/// Combines neighbouring groups (each with its numbers of rows and sets) into stretches, until they fill a block, but with at most `most`
/// sets;
/// returns the number of sets of each. A group with more sets is divided and not combined.
fn together(groups: impl Iterator<Item = (u64, u64)>, block_size: u64, most: u64) -> Vec<u64> {
    let mut found: Vec<u64> = Vec::new();
    let mut before = u64::MAX;
    for (rows, sets) in groups.filter(|(_, sets)| *sets > 0) {
        match found.last_mut() {
            Some(last) if before < block_size && *last + sets <= most => {
                (*last, before) = (*last + sets, before + rows);
            }
            _ => {
                found.push(sets);
                before = rows;
            }
        }
    }
    found
}

impl Strategy for Sets {
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
        self.sets() * self.size
    }

    fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_> {
        let order = Permutation::new(self.stretches.count(), self.sampling.seed, epoch);
        Box::new(SetEpoch { sets: self, epoch, order: self.stretches.ordered(order) })
    }

    fn chances(&self) -> Chances<'_> {
        Chances::Unmixed
    }

    fn told(&self) -> Vec<(&'static str, u64)> {
        let (drawn, distinct) = (self.drawn_rows(), self.distinct());
        let filled = if self.short == Short::Pad { "rows_of_padding" } else { "rows_repeated" };
        vec![
            ("groups", self.order.len() as u64),
            ("sets", self.sets()),
            ("set_size", self.size),
            ("rows_without_group", self.view.len() - self.groups.rows()),
            ("rows_in_short_sets_dropped", self.groups.rows() - distinct),
            (filled, drawn - distinct),
        ]
    }
}

/// The sets of one epoch.
struct SetEpoch<'a> {
    sets: &'a Sets,
    epoch: u64,
    /// Gives runs of sets; each run is within one stretch.
    order: BlockOrder<'a>,
}

/// A set of a fetch.
struct OneSet {
    rows: Vec<u64>,
    /// Number of rows before the filling ones.
    own: usize,
}

impl EpochOrder for SetEpoch<'_> {
    fn fetch(&self, fetch: u64) -> FetchRows {
        let Sets { sampling, size, short, .. } = self.sets;
        let (each, all) = (sampling.fetch_rows() / size, self.sets.sets());
        let start = fetch.saturating_mul(each).min(all);
        let mut found: Vec<OneSet> = Vec::new();
        self.order.stretch(start..start.saturating_add(each).min(all), |run| self.cut(run, &mut found));
        let mut rng = shuffle::rng(Domain::Batches, sampling.seed, self.epoch, fetch);
        shuffle::shuffle(&mut found, &mut rng);
        let served = self.sets.served_rows().saturating_sub(start * size);
        let served = usize::try_from(served).unwrap_or(usize::MAX);
        let padding = if *short == Short::Pad {
            let marks = |set: &OneSet| (0..set.rows.len()).map(|at| at >= set.own).collect::<Vec<bool>>();
            found.iter().flat_map(marks).take(served).collect()
        } else {
            Vec::new()
        };
        let mut rows: Vec<u64> = found.into_iter().flat_map(|set| set.rows).collect();
        rows.truncate(served);
        FetchRows { padding, ..FetchRows::cut(rows, sampling.batch_size) }
    }
}

impl SetEpoch<'_> {
    /// Makes the sets of a run, which is within one stretch.
    fn cut(&self, run: Range<u64>, found: &mut Vec<OneSet>) {
        let mut start = run.start;
        while start < run.end {
            let place = self.sets.place_of(start);
            let end = run.end.min(self.sets.firsts[place + 1]);
            self.cut_group(place, start..end, found);
            start = end;
        }
    }

    /// Makes the sets of a run that are of the group at a position of the order.
    fn cut_group(&self, place: usize, run: Range<u64>, found: &mut Vec<OneSet>) {
        let Sets { sampling, groups, size, firsts, order, mixed, .. } = self.sets;
        let group = order[place] as usize;
        let (first, count, all) = (firsts[place], firsts[place + 1] - firsts[place], groups.rows_of(group));
        // A combined group has no more sets than a stretch.
        let stretch = (run.start - first) / mixed * mixed;
        let end = (stretch + mixed).min(count);
        // The last stretch includes rows that are dropped, so that these are random.
        let rows_end = if end == count { all } else { end * size };
        let blocks = &groups.all[group].blocks;
        let mut rng = shuffle::rng(Domain::ClassBlocks, sampling.seed, self.epoch, group as u64);
        let order = blocks.ordered(Permutation::drawn(blocks.count(), &mut rng));
        let mut rows = Vec::new();
        groups.stretch(group, &order, stretch * size..rows_end, &mut rows);
        shuffle::shuffle(&mut rows, &mut shuffle::rng(Domain::Sets, sampling.seed, self.epoch, first + stretch));
        let size = *size as usize;
        for set in run {
            let start = (set - first - stretch) as usize * size;
            let mut own: Vec<u64> = rows[start..rows.len().min(start + size)].to_vec();
            let count = own.len();
            own.extend(rows.iter().cycle().take(size - count));
            found.push(OneSet { rows: own, own: count });
        }
    }
}

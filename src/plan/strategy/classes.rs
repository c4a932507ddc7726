//! Batches of one class each: every row of every class once, or classes drawn by weight with replacement.
//!
//! The rows of a class are cut into blocks of `block_size` rows of that class and permuted, as a view of that class alone would be. A fetch
//! has the next `batch_size * n` rows of each class that has n batches in it, shuffled within the class; so blocks are read whole, and a
//! batch
//! mixes `n * batch_size / block_size` of them.
//!
//! *Each row once*: a class has ceil(rows / batch_size) batches (with `drop_last`, floor), one of which, at a random position, is short.
//! Classes are spread evenly over the epoch: batch j of a class with n batches has time (j + u) / n, with u drawn for each class and epoch
//! (systematic sampling: Madow and Madow, "On the theory of systematic sampling", 1944). So the number of a class's batches in a fetch is n
//! times the fraction of time that the fetch covers, to within one; and how many batches of each class precede a fetch is found by a search
//! for the fetch's time, without the fetches before it. Within a fetch batches are shuffled.
//!
//! *By weight*: the class of batch i follows from (seed, epoch, i). A fetch reads the blocks of a class cyclically, in an order and from a
//! position drawn for that fetch, so every row of a class is equally likely, and none is repeated in a fetch before all were served.
//!
//! Memory: 4 bytes for each row that has a class.

use std::ops::Range;

use rand_chacha::rand_core::Rng;

use super::weights::{Alias, check};
use super::{Chances, EpochOrder, Strategy};
use crate::plan::blocks::Blocks;
use crate::plan::groups::{Group, Groups};
use crate::plan::permutation::Permutation;
use crate::plan::shuffle::{self, Domain, below};
use crate::plan::{FetchRows, PlanError, Rows, Sampling};

/// The classes of a view's rows.
#[derive(Clone, Debug)]
pub struct Classes {
    view: Rows,
    sampling: Sampling,
    members: Groups,
    classes: Vec<Class>,
    /// The table to draw classes from; `None`: each row once.
    drawn: Option<Alias>,
    /// Number of rows that an epoch draws.
    rows: u64,
    /// Number of batches of an epoch.
    batches: u64,
    /// Whether all batches of a class are consecutive, in ascending order of classes.
    grouped: bool,
}

#[derive(Clone, Debug)]
struct Class {
    blocks: Blocks,
    /// Number of batches, if each row is served once.
    batches: u64,
}

impl Classes {
    /// `codes`: one for each row of the view; see [`super::Inputs`]. `weights`: one for each class.
    pub fn new(
        view: Rows,
        sampling: Sampling,
        codes: &[u32],
        weights: Option<Vec<f64>>,
        samples: Option<u64>,
    ) -> Result<Classes, PlanError> {
        let members = Groups::new(&view, codes, sampling.block_size)?;
        let counts: Vec<u64> = members.all.iter().map(|group| group.blocks.rows()).collect();
        let classed = members.rows();
        let cut = |rows: u64| {
            if sampling.drop_last { rows / sampling.batch_size } else { rows.div_ceil(sampling.batch_size) }
        };
        let class = |group: &Group| Class { batches: cut(group.blocks.rows()), blocks: group.blocks.clone() };
        let classes: Vec<Class> = members.all.iter().map(class).collect();
        let each_once = weights.is_none() && samples.is_none();
        let rows = samples.unwrap_or(classed);
        let batches = if each_once { classes.iter().map(|class| class.batches).sum() } else { cut(rows) };
        let drawn = if each_once { None } else { Some(table(&counts, weights)?) };
        Ok(Classes { view, sampling, members, classes, drawn, rows, batches, grouped: false })
    }

    /// The same with all batches of a class in sequence, in ascending order of classes; the last one of each may be short.
    pub fn grouped(self) -> Classes {
        Classes { grouped: true, ..self }
    }

    fn order(&self, epoch: u64) -> ClassEpoch<'_> {
        let mut rng = shuffle::rng(Domain::Spread, self.sampling.seed, epoch, 0);
        // Two draws for every class, also if not needed, so that the draws of a class do not depend on others.
        let spread = self.classes.iter().map(|class| Spread {
            phase: rng.next_u64(),
            short: ((u128::from(rng.next_u64()) * u128::from(class.batches)) >> 64) as u64,
        });
        let in_a_row = |class: &Class| Spread { phase: 0, short: class.batches.saturating_sub(1) };
        let spread = match &self.drawn {
            _ if self.grouped => self.classes.iter().map(in_a_row).collect(),
            None => spread.collect(),
            Some(_) => Vec::new(),
        };
        ClassEpoch { classes: self, sampling: self.sampling, epoch, spread }
    }
}

impl Strategy for Classes {
    fn view(&self) -> &Rows {
        &self.view
    }

    fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    fn blocks(&self) -> u64 {
        self.classes.iter().map(|class| class.blocks.count()).sum()
    }

    fn drawn_rows(&self) -> u64 {
        self.rows
    }

    fn served_rows(&self) -> u64 {
        if self.sampling.drop_last { self.batches * self.sampling.batch_size } else { self.rows }
    }

    fn batches(&self) -> u64 {
        self.batches
    }

    fn batch_rows(&self, epoch: u64, batch: u64) -> u64 {
        let (fetch, place) = (batch / self.sampling.fetch_factor, batch % self.sampling.fetch_factor);
        self.order(epoch).batch_rows(fetch, place as usize)
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

    fn batches_of_label(&self, label: usize) -> Option<Range<u64>> {
        let own = self.classes.get(label).filter(|_| self.grouped)?.batches;
        let first = self.classes[..label].iter().map(|class| class.batches).sum();
        Some(first..first + own)
    }
}

/// The table to draw classes from: those with rows, by weight or equally.
fn table(counts: &[u64], weights: Option<Vec<f64>>) -> Result<Alias, PlanError> {
    let weights = weights.unwrap_or_else(|| vec![1.0; counts.len()]);
    if weights.len() < counts.len() {
        let (given, wanted) = (weights.len() as u64, counts.len() as u64);
        return Err(PlanError::Count { what: "class weights", given, wanted });
    }
    check("class", weights.iter().copied())?;
    let weights = counts.iter().zip(weights).map(|(&count, weight)| if count > 0 { weight } else { 0.0 });
    Alias::new(weights.collect(), "class that has rows")
}

/// The batches of one epoch.
#[derive(Clone, Debug)]
struct ClassEpoch<'a> {
    classes: &'a Classes,
    sampling: Sampling,
    epoch: u64,
    /// For each class, if each row is served once.
    spread: Vec<Spread>,
}

/// The positions of a class's batches in an epoch.
#[derive(Clone, Copy, Debug)]
struct Spread {
    /// The time of the first one, as a fraction of the time between two, in 2^-64.
    phase: u64,
    /// Which batch is the short one.
    short: u64,
}

/// A batch of a fetch: its class, and its range of the rows that the class has in this fetch.
struct BatchRows {
    class: usize,
    rows: Range<usize>,
}

impl EpochOrder for ClassEpoch<'_> {
    fn fetch(&self, fetch: u64) -> FetchRows {
        let started = self.started(fetch);
        let places = self.places(fetch, &started);
        // The number of rows of each class in this fetch, classes ascending.
        let mut present: Vec<(usize, u64)> = Vec::new();
        let mut ends: Vec<(usize, u64)> = places.iter().map(|place| (place.class, place.rows.end as u64)).collect();
        ends.sort_unstable();
        for part in ends.chunk_by(|a, b| a.0 == b.0) {
            present.extend(part.last());
        }
        let mut rng = shuffle::rng(Domain::Rows, self.sampling.seed, self.epoch, fetch);
        let pool = |&(class, rows): &(usize, u64)| {
            let mut rows = match started.get(class) {
                Some(&batch) => self.next_rows(class, batch, rows),
                None => self.any_rows(class, fetch, rows),
            };
            shuffle::shuffle(&mut rows, &mut rng);
            rows
        };
        let pools: Vec<Vec<u64>> = present.iter().map(pool).collect();
        let mut found = FetchRows { bounds: vec![0], ..FetchRows::default() };
        for BatchRows { class, rows } in places {
            if let Ok(pool) = present.binary_search_by_key(&class, |&(class, _)| class) {
                found.rows.extend_from_slice(&pools[pool][rows]);
                found.bounds.push(found.rows.len());
            }
        }
        found
    }
}

impl ClassEpoch<'_> {
    /// Number of rows of the batch at a position of a fetch; 0 past the last.
    fn batch_rows(&self, fetch: u64, place: usize) -> u64 {
        self.places(fetch, &self.started(fetch)).get(place).map_or(0, |place| place.rows.len() as u64)
    }

    /// The batches of a fetch, by number in the epoch.
    fn batches_of(&self, fetch: u64) -> Range<u64> {
        let batches = self.classes.batches;
        let first = fetch.saturating_mul(self.sampling.fetch_factor).min(batches);
        first..first.saturating_add(self.sampling.fetch_factor).min(batches)
    }

    /// Number of batches of each class before a fetch, if each row is served once.
    fn started(&self, fetch: u64) -> Vec<u64> {
        if self.classes.drawn.is_none() { self.before(self.batches_of(fetch).start) } else { Vec::new() }
    }

    fn places(&self, fetch: u64, started: &[u64]) -> Vec<BatchRows> {
        match &self.classes.drawn {
            None => self.places_once(fetch, started),
            Some(table) => self.places_drawn(fetch, table),
        }
    }

    /// Batches with classes drawn by weight; the rows of a class are assigned in the order of its batches.
    fn places_drawn(&self, fetch: u64, table: &Alias) -> Vec<BatchRows> {
        let size = self.sampling.batch_size;
        let mut used = vec![0; self.classes.classes.len()];
        let place = |batch: u64| {
            let mut rng = shuffle::rng(Domain::BatchClass, self.sampling.seed, self.epoch, batch);
            let class = table.draw(&mut rng);
            let start = used[class];
            used[class] += (self.classes.rows - batch * size).min(size) as usize;
            BatchRows { class, rows: start..used[class] }
        };
        self.batches_of(fetch).map(place).collect()
    }

    /// The next batches of each class, shuffled.
    fn places_once(&self, fetch: u64, started: &[u64]) -> Vec<BatchRows> {
        let batches = self.batches_of(fetch);
        let mut places = Vec::with_capacity((batches.end - batches.start) as usize);
        for (class, (start, end)) in started.iter().copied().zip(self.before(batches.end)).enumerate() {
            let first = self.first_row(class, start);
            for batch in start..end {
                let rows = self.first_row(class, batch) - first..self.first_row(class, batch + 1) - first;
                places.push(BatchRows { class, rows: rows.start as usize..rows.end as usize });
            }
        }
        if !self.classes.grouped {
            let mut rng = shuffle::rng(Domain::Batches, self.sampling.seed, self.epoch, fetch);
            shuffle::shuffle(&mut places, &mut rng);
        }
        places
    }

    /// Number of a class's rows before its batch `batch`.
    fn first_row(&self, class: usize, batch: u64) -> u64 {
        let Class { batches, ref blocks, .. } = self.classes.classes[class];
        let full = batch * self.sampling.batch_size;
        // If the short batch is dropped, all batches are full.
        let missing = (batches * self.sampling.batch_size).saturating_sub(blocks.rows());
        if batch > self.spread[class].short { full - missing } else { full }
    }

    /// Number of batches of each class before batch `batch` of the epoch.
    fn before(&self, batch: u64) -> Vec<u64> {
        if self.classes.grouped {
            let mut left = batch;
            let take = |class: &Class| {
                let taken = class.batches.min(left);
                left -= taken;
                taken
            };
            return self.classes.classes.iter().map(take).collect();
        }
        let at = |time: u128| {
            let count = move |(class, spread): (&Class, &Spread)| {
                // Batches j with (j + phase) / n < time, all in units of 2^-64.
                let passed = (time * u128::from(class.batches)).saturating_sub(u128::from(spread.phase));
                passed.div_ceil(1 << 64).min(u128::from(class.batches)) as u64
            };
            self.classes.classes.iter().zip(&self.spread).map(count)
        };
        // The latest time by which at most `batch` batches have come, by bisection.
        // Each class deviates by less than one batch from its share of the time, so the initial interval is short.
        let (all, classes) = (u128::from(self.classes.batches.max(1)), self.classes.classes.len() as u64);
        let mut low = (u128::from(batch.saturating_sub(classes)) << 64) / all;
        let mut high = ((u128::from(batch + classes) << 64) / all + 1).min(1 << 64);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if at(middle).sum::<u64>() <= batch { low = middle } else { high = middle - 1 }
        }
        let mut before: Vec<u64> = at(low).collect();
        // Batches at the same time are ordered by class.
        let mut lacking = batch.min(self.classes.batches) - before.iter().sum::<u64>();
        for (before, next) in before.iter_mut().zip(at(low + 1)) {
            let more = (next - *before).min(lacking);
            *before += more;
            lacking -= more;
        }
        before
    }

    /// The next rows of a class from its batch `batch` on, if each row is served once. Rows that are dropped are included with the last
    /// batch, so that they are random instead of the end of a block.
    fn next_rows(&self, index: usize, batch: u64, count: u64) -> Vec<u64> {
        let class = &self.classes.classes[index];
        let start = self.first_row(index, batch);
        let last = start + count == self.first_row(index, class.batches);
        let end = if last { class.blocks.rows() } else { start + count };
        let mut rng = shuffle::rng(Domain::ClassBlocks, self.sampling.seed, self.epoch, index as u64);
        let order = class.blocks.ordered(Permutation::drawn(class.blocks.count(), &mut rng));
        let mut rows = Vec::with_capacity((end - start) as usize);
        self.classes.members.stretch(index, &order, start..end, &mut rows);
        rows
    }

    /// `count` rows of a class, if classes are drawn.
    fn any_rows(&self, index: usize, fetch: u64, count: u64) -> Vec<u64> {
        let class = &self.classes.classes[index];
        let all = class.blocks.rows();
        let mut rng = shuffle::rng(Domain::ClassFetch, self.sampling.seed, self.epoch, fetch);
        rng.set_stream(index as u64);
        let order = class.blocks.ordered(Permutation::drawn(class.blocks.count(), &mut rng));
        let mut start = below(&mut rng, all);
        let mut rows = Vec::with_capacity(count as usize);
        while (rows.len() as u64) < count {
            let end = all.min(start + count - rows.len() as u64);
            self.classes.members.stretch(index, &order, start..end, &mut rows);
            start = 0;
        }
        rows
    }
}

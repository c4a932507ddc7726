//! Which rows a batch holds, in what order: a pure function of (row counts, sampling, epoch, batch).
//!
//! An epoch is a keyed permutation of the blocks, read as one stream of rows and cut into fetches of
//! `batch_size * fetch_factor` rows; the rows of a fetch are shuffled and cut into batches (scDataset's block
//! sampling with batched fetching, d'Ascenzo and Cultrera di Montesano 2025). Nothing is stored for a row or a block,
//! so batch 1,000,000 of epoch 7 costs the same as the first, and 1e9 rows cost no memory.

pub mod auto;
pub mod permutation;
pub mod rank;
mod shuffle;

use permutation::Permutation;

/// How rows become batches. All sizes are in rows, but `fetch_factor`, which is in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    pub batch_size: u64,
    pub block_size: u64,
    pub fetch_factor: u64,
    pub seed: u64,
    /// Leave out the last batch of an epoch where it is short.
    pub drop_last: bool,
}

impl Sampling {
    /// Rows of one (full) fetch.
    pub fn fetch_rows(&self) -> u64 {
        self.batch_size * self.fetch_factor
    }

    /// Independent blocks mixed in one fetch: what diversity depends on.
    pub fn k(&self) -> f64 {
        self.fetch_rows() as f64 / self.block_size as f64
    }
}

/// One store's share of the row space.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first_row: u64,
    first_block: u64,
    rows: u64,
}

/// The plan of every epoch of one collection.
#[derive(Clone, Debug)]
pub struct Plan {
    sampling: Sampling,
    /// Stores with at least one row.
    segments: Vec<Segment>,
    rows: u64,
    blocks: u64,
}

impl Plan {
    /// Plans over stores of so many rows each. Blocks never span stores, so each store's last block may be short.
    ///
    /// `sampling`'s sizes must be at least 1; the command line checks that.
    pub fn new(store_rows: &[u64], sampling: Sampling) -> Plan {
        let mut segments = Vec::new();
        let (mut first_row, mut first_block) = (0, 0);
        for &rows in store_rows {
            if rows > 0 {
                segments.push(Segment { first_row, first_block, rows });
            }
            first_row += rows;
            first_block += rows.div_ceil(sampling.block_size);
        }
        Plan { sampling, segments, rows: first_row, blocks: first_block }
    }

    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Rows of the collection.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Rows that one epoch serves: all, but for a short last batch that is dropped.
    pub fn served_rows(&self) -> u64 {
        if self.sampling.drop_last { self.rows - self.rows % self.sampling.batch_size } else { self.rows }
    }

    /// Batches of one epoch.
    pub fn batches(&self) -> u64 {
        self.served_rows().div_ceil(self.sampling.batch_size)
    }

    /// Fetches of one epoch.
    pub fn fetches(&self) -> u64 {
        self.batches().div_ceil(self.sampling.fetch_factor)
    }

    /// The fetch that a batch is part of, and its place there.
    pub fn fetch_of(&self, batch: u64) -> (u64, usize) {
        (batch / self.sampling.fetch_factor, (batch % self.sampling.fetch_factor) as usize)
    }

    /// The batches of a fetch.
    pub fn batches_of(&self, fetch: u64) -> std::ops::Range<u64> {
        let first = fetch * self.sampling.fetch_factor;
        first..(first + self.sampling.fetch_factor).min(self.batches())
    }

    /// The order of one epoch's blocks. Costs time and memory for each store, not for each block or row.
    pub fn epoch(&self, epoch: u64) -> EpochOrder<'_> {
        let order = Permutation::new(self.blocks, self.sampling.seed, epoch);
        let mut short: Vec<Short> = self
            .segments
            .iter()
            .filter(|segment| segment.rows % self.sampling.block_size != 0)
            .map(|segment| {
                let block = segment.first_block + segment.rows / self.sampling.block_size;
                let missing = self.sampling.block_size - segment.rows % self.sampling.block_size;
                Short { place: order.place_of(block), missing_through: missing }
            })
            .collect();
        short.sort_unstable_by_key(|short| short.place);
        let mut missing = 0;
        for short in &mut short {
            missing += short.missing_through;
            short.missing_through = missing;
        }
        EpochOrder { plan: self, epoch, order, short }
    }

    /// First row and length of a block.
    fn block(&self, block: u64) -> (u64, u64) {
        let after = self.segments.partition_point(|segment| segment.first_block <= block);
        let segment = &self.segments[after - 1];
        let start = (block - segment.first_block) * self.sampling.block_size;
        (segment.first_row + start, (segment.rows - start).min(self.sampling.block_size))
    }
}

/// A short block's place in the epoch, and how many rows are missing up to and with it against full blocks.
#[derive(Clone, Copy, Debug)]
struct Short {
    place: u64,
    missing_through: u64,
}

/// One epoch's order of blocks.
#[derive(Clone, Debug)]
pub struct EpochOrder<'a> {
    plan: &'a Plan,
    epoch: u64,
    order: Permutation,
    short: Vec<Short>,
}

impl EpochOrder<'_> {
    /// The global row numbers of a fetch, shuffled: batch i of the fetch is the i-th run of `batch_size`.
    /// Empty past the last fetch.
    pub fn fetch(&self, fetch: u64) -> Vec<u64> {
        let sampling = &self.plan.sampling;
        let start = fetch.saturating_mul(sampling.fetch_rows()).min(self.plan.rows);
        let end = start.saturating_add(sampling.fetch_rows()).min(self.plan.rows);
        let mut rows = Vec::with_capacity((end - start) as usize);
        let (mut place, mut skip) = self.locate(start);
        while (rows.len() as u64) < end - start {
            let (first, len) = self.plan.block(self.order.at(place));
            let take = (len - skip).min(end - start - rows.len() as u64);
            rows.extend(first + skip..first + skip + take);
            place += 1;
            skip = 0;
        }
        shuffle::shuffle(&mut rows, sampling.seed, self.epoch, fetch);
        // What drop_last leaves out is cut after the shuffle, so that it is a random few rows, not a block's end.
        rows.truncate(self.plan.served_rows().saturating_sub(start) as usize);
        rows
    }

    /// The place in the block order, and the row within that block, of row `row` of the epoch's stream.
    fn locate(&self, row: u64) -> (u64, u64) {
        let size = self.plan.sampling.block_size;
        let passed = self.short.partition_point(|short| (short.place + 1) * size - short.missing_through <= row);
        let missing = if passed == 0 { 0 } else { self.short[passed - 1].missing_through };
        ((row + missing) / size, (row + missing) % size)
    }
}

#[cfg(test)]
mod tests;

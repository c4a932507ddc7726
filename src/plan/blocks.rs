//! Cuts rows into blocks, and reads permuted blocks as one stream of rows.
//!
//! Blocks never span stores, so the last block of each store may be short. The positions of these few in the permuted order are found by
//! the inverse permutation; row r of the stream is then located by binary search among them. Nothing is stored for each row or block.

use std::ops::Range;

use super::permutation::Permutation;

/// The rows of several stores, cut into blocks.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// The stores that have rows.
    segments: Vec<StoreBlocks>,
    rows: u64,
    blocks: u64,
    size: u64,
}

/// The rows of one store.
#[derive(Clone, Copy, Debug)]
struct StoreBlocks {
    first_row: u64,
    first_block: u64,
    rows: u64,
}

impl Blocks {
    /// Blocks of `size` rows; `store_rows`: number of rows of each store.
    pub fn new(store_rows: impl IntoIterator<Item = u64>, size: u64) -> Blocks {
        let mut segments = Vec::new();
        let (mut first_row, mut first_block) = (0, 0);
        for rows in store_rows {
            if rows > 0 {
                segments.push(StoreBlocks { first_row, first_block, rows });
            }
            first_row += rows;
            first_block += rows.div_ceil(size);
        }
        Blocks { segments, rows: first_row, blocks: first_block, size }
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows of a block, except at the end of a store.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of blocks.
    pub fn count(&self) -> u64 {
        self.blocks
    }

    /// The rows of a block, which must exist.
    pub fn block(&self, block: u64) -> Range<u64> {
        let after = self.segments.partition_point(|segment| segment.first_block <= block);
        let segment = &self.segments[after - 1];
        let start = (block - segment.first_block) * self.size;
        let first = segment.first_row + start;
        first..first + (segment.rows - start).min(self.size)
    }

    /// The blocks in a permuted order. Takes time and memory for each store, not for each block or row.
    pub fn ordered(&self, order: Permutation) -> BlockOrder<'_> {
        let mut short: Vec<Short> = self
            .segments
            .iter()
            .filter(|segment| segment.rows % self.size != 0)
            .map(|segment| {
                let block = segment.first_block + segment.rows / self.size;
                let missing = self.size - segment.rows % self.size;
                Short { place: order.place_of(block), missing_through: missing }
            })
            .collect();
        short.sort_unstable_by_key(|short| short.place);
        let mut missing = 0;
        for short in &mut short {
            missing += short.missing_through;
            short.missing_through = missing;
        }
        BlockOrder { blocks: self, order, short }
    }
}

/// A short block: its position in the order, and how many rows are missing up to and including it.
#[derive(Clone, Copy, Debug)]
struct Short {
    place: u64,
    missing_through: u64,
}

/// Blocks in a permuted order, as a stream of rows.
#[derive(Clone, Debug)]
pub struct BlockOrder<'a> {
    blocks: &'a Blocks,
    order: Permutation,
    short: Vec<Short>,
}

impl BlockOrder<'_> {
    /// Calls `run` with each run of consecutive rows in a range of the stream.
    pub fn stretch(&self, stretch: Range<u64>, mut run: impl FnMut(Range<u64>)) {
        if stretch.is_empty() {
            return;
        }
        let mut left = stretch.end - stretch.start;
        let (mut place, mut skip) = self.locate(stretch.start);
        while left > 0 {
            let block = self.blocks.block(self.order.at(place));
            let start = block.start + skip;
            let end = block.end.min(start + left);
            left -= end - start;
            run(start..end);
            place += 1;
            skip = 0;
        }
    }

    /// The position in the block order, and the row within that block, of row `row` of the stream.
    fn locate(&self, row: u64) -> (u64, u64) {
        let size = self.blocks.size;
        let passed = self.short.partition_point(|short| (short.place + 1) * size - short.missing_through <= row);
        let missing = if passed == 0 { 0 } else { self.short[passed - 1].missing_through };
        ((row + missing) / size, (row + missing) % size)
    }
}

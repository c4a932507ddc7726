//! Every row once: blocks in a permuted order, with the rows of each fetch shuffled. With blocks of one row it is a uniform shuffle.

use super::{EpochOrder, Strategy, Stream, StreamOrder};
use crate::plan::blocks::Blocks;
use crate::plan::permutation::Permutation;
use crate::plan::{Rows, Sampling};

#[derive(Debug)]
pub struct Permuted {
    rows: Rows,
    sampling: Sampling,
    blocks: Blocks,
}

impl Permuted {
    pub fn new(rows: Rows, sampling: Sampling) -> Permuted {
        let blocks = Blocks::new(rows.store_counts().iter().copied(), sampling.block_size);
        Permuted { rows, sampling, blocks }
    }
}

impl Strategy for Permuted {
    fn view(&self) -> &Rows {
        &self.rows
    }

    fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    fn blocks(&self) -> u64 {
        self.blocks.count()
    }

    fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_> {
        let order = self.blocks.ordered(Permutation::new(self.blocks.count(), self.sampling.seed, epoch));
        Box::new(StreamOrder {
            strategy: self,
            epoch,
            shuffled: true,
            stream: Stream::Runs(Box::new(move |stretch, run| order.stretch(stretch, run))),
        })
    }
}

//! Every row once, in stored order; with the rows of each fetch shuffled anew in each epoch, if `shuffled`.

use super::{EpochOrder, Strategy, Stream, StreamOrder};
use crate::plan::blocks::Blocks;
use crate::plan::{Rows, Sampling};

#[derive(Debug)]
pub struct Stored {
    rows: Rows,
    sampling: Sampling,
    blocks: u64,
    shuffled: bool,
}

impl Stored {
    pub fn new(rows: Rows, sampling: Sampling, shuffled: bool) -> Stored {
        let blocks = Blocks::new(rows.store_counts().iter().copied(), sampling.block_size).count();
        Stored { rows, sampling, blocks, shuffled }
    }
}

impl Strategy for Stored {
    fn view(&self) -> &Rows {
        &self.rows
    }

    fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_> {
        Box::new(StreamOrder {
            strategy: self,
            epoch,
            shuffled: self.shuffled,
            stream: Stream::Runs(Box::new(|stretch, run| run(stretch))),
        })
    }
}

//! How an epoch draws a view's rows: the choices, checked where a plan is made.

use super::{PlanError, Sampling};

/// Marks a row that is of no class.
pub const NO_CLASS: u32 = u32::MAX;

/// How an epoch draws the rows of a view. Every list is by row of the view, in stored order.
#[derive(Clone, Debug)]
pub enum Draw {
    /// Every row once, in this order.
    Permuted(Order),
    /// With replacement: blocks by their summed weight, rows within a block by theirs.
    Weighted {
        /// One weight a row, finite and not negative.
        weights: Vec<f32>,
        /// Rows an epoch; `None`: as many as the view has.
        samples: Option<u64>,
    },
    /// Every batch of one class. With neither `weights` nor `samples`: every row of a class once; otherwise classes
    /// are drawn with replacement.
    Classes {
        /// The class of each row, or [`NO_CLASS`]: such rows are never served.
        codes: Vec<u32>,
        /// One weight a class, finite and not negative; `None`: equal. A class without rows is never drawn.
        weights: Option<Vec<f64>>,
        /// Rows an epoch; `None`: as many as have a class.
        samples: Option<u64>,
    },
}

/// In what order every row is drawn once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Blocks in a permuted order, shuffled within each fetch.
    #[default]
    Block,
    /// The same with blocks of one row: a uniform shuffle.
    Random,
    /// Stored order, the same in every epoch.
    Sequential,
    /// Stored order, shuffled within each fetch, anew in each epoch.
    Buffered,
}

impl Order {
    pub const ALL: [Order; 4] = [Order::Block, Order::Sequential, Order::Buffered, Order::Random];

    /// The name in options and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Block => "block",
            Order::Random => "random",
            Order::Sequential => "sequential",
            Order::Buffered => "buffered",
        }
    }
}

impl Draw {
    /// What is left of the sampling once the order is known: `random` is blocks of one row.
    pub(super) fn sampling(&self, sampling: Sampling) -> Sampling {
        match self {
            Draw::Permuted(Order::Random) => Sampling { block_size: 1, ..sampling },
            _ => sampling,
        }
    }
}

/// Class codes end here: more labels than this are no classes, and a count is kept for each.
const CODES: u32 = 1 << 24;

/// Rows of each class.
pub fn class_rows(codes: &[u32]) -> Result<Vec<u64>, PlanError> {
    let mut counts: Vec<u64> = Vec::new();
    for &code in codes.iter().filter(|&&code| code != NO_CLASS) {
        if code >= CODES {
            return Err(PlanError::Code { code, limit: CODES - 1 });
        }
        if counts.len() <= code as usize {
            counts.resize(code as usize + 1, 0);
        }
        counts[code as usize] += 1;
    }
    Ok(counts)
}

/// Weights that give every class the same chance: for each row one over its class's rows, 0 for [`NO_CLASS`].
pub fn balanced(codes: &[u32]) -> Result<Vec<f32>, PlanError> {
    let counts = class_rows(codes)?;
    // A row's own class has at least one row.
    let weight = |&code: &u32| counts.get(code as usize).map_or(0.0, |&count| (1.0 / count as f64) as f32);
    Ok(codes.iter().map(weight).collect())
}

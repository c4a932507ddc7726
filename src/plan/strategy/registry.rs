//! The registry of strategies, one line each.

use std::sync::Arc;

use super::classes::Classes;
use super::weights::Weighted;
use super::{Bags, Inputs, Permuted, Sets, Stored, Strategy};
use crate::plan::labels::{balanced, class_sums};
use crate::plan::{PlanError, Rows, Sampling};

/// One line of the registry.
pub struct Registration {
    /// The name in options and documents. Names of strategies without columns are values of `--order`.
    pub name: &'static str,
    /// Whether it needs [`Inputs::codes`].
    pub labels: bool,
    /// Whether it needs [`Inputs::weights`].
    pub weights: bool,
    /// The block size, if the strategy determines it.
    pub block_size: Option<u64>,
    /// The default fetch factor; `None`: from the collection.
    pub fetch_factor: Option<u64>,
    /// Makes the strategy; missing inputs count as empty.
    pub make: Make,
}

/// Makes a strategy; the sampling has the strategy's own block size, if there is one.
pub type Make = fn(Rows, Sampling, Inputs) -> Result<Arc<dyn Strategy>, PlanError>;

/// All strategies; the first is the default.
pub const STRATEGIES: [Registration; 9] = [
    once("block", None, |rows, sampling, _| Ok(Arc::new(Permuted::new(rows, sampling)))),
    once("sequential", None, |rows, sampling, _| Ok(Arc::new(Stored::new(rows, sampling, false)))),
    once("buffered", None, |rows, sampling, _| Ok(Arc::new(Stored::new(rows, sampling, true)))),
    once("random", Some(1), |rows, sampling, _| Ok(Arc::new(Permuted::new(rows, sampling)))),
    Registration {
        name: "weights",
        labels: false,
        weights: true,
        block_size: None,
        fetch_factor: None,
        make: |rows, sampling, inputs| {
            let weights = inputs.weights.unwrap_or_default();
            Ok(Arc::new(Weighted::new(rows, sampling, weights, inputs.samples)?))
        },
    },
    Registration {
        name: "balance",
        labels: true,
        weights: false,
        block_size: None,
        fetch_factor: None,
        make: |rows, sampling, inputs| {
            let weights = balanced(&inputs.codes.unwrap_or_default())?;
            Ok(Arc::new(Weighted::new(rows, sampling, weights, inputs.samples)?))
        },
    },
    Registration {
        name: "class-batches",
        labels: true,
        weights: false,
        block_size: None,
        fetch_factor: None,
        make: |rows, sampling, inputs| {
            let codes = inputs.codes.unwrap_or_default();
            let weights = inputs.weights.map(|weights| class_sums(&codes, &weights));
            Ok(Arc::new(Classes::new(rows, sampling, &codes, weights, inputs.samples)?))
        },
    },
    Registration {
        name: "sets",
        labels: true,
        weights: false,
        block_size: None,
        fetch_factor: None,
        make: |rows, sampling, inputs| {
            let (codes, shape) = (inputs.codes.unwrap_or_default(), inputs.shape);
            Ok(Arc::new(Sets::new(rows, sampling, &codes, shape.set_size, shape.short)?))
        },
    },
    Registration {
        name: "bags",
        labels: true,
        weights: false,
        block_size: None,
        // The rows of a bag are usually stored together, and many.
        fetch_factor: Some(1),
        make: |rows, sampling, inputs| {
            let codes = inputs.codes.unwrap_or_default();
            Ok(Arc::new(Bags::new(rows, sampling, &codes, inputs.shape.bag_max)?))
        },
    },
];

/// A strategy that serves every row once, without columns.
const fn once(name: &'static str, block_size: Option<u64>, make: Make) -> Registration {
    Registration { name, labels: false, weights: false, block_size, fetch_factor: None, make }
}

/// The strategy with a name.
pub fn by_name(name: &str) -> Option<&'static Registration> {
    STRATEGIES.iter().find(|registered| registered.name == name)
}

impl Registration {
    /// Makes the strategy over a view's rows. The sizes in `sampling` must be at least 1; the command line checks that.
    ///
    /// # Errors
    /// Inputs of the wrong length, invalid weights, too large codes.
    pub fn strategy(&self, rows: Rows, sampling: Sampling, inputs: Inputs) -> Result<Arc<dyn Strategy>, PlanError> {
        let block_size = self.block_size.unwrap_or(sampling.block_size);
        (self.make)(rows, Sampling { block_size, ..sampling }, inputs)
    }
}

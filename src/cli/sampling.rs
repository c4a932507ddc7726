//! Options that each view can have: for all views on the command line and at the top level of a file, for one view in a file's
//! `[view.NAME]`.
//!
//! They have no defaults here, to know where each was given: the command line overrides a view's table, which overrides the top level of
//! the file.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::said;
use super::values::{self, Auto};
use crate::plan::groups::Short;
use crate::plan::strategy::STRATEGIES;
use crate::session::spec::{DrawSpec, WeightSource};
use crate::view::filter::Filter;

/// The name of a strategy. An alias, because serde would deserialize a `&'static str` field by borrowing from the file.
pub type StrategyName = &'static str;

/// Options of views, as given in one place.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingArgs {
    /// Rows in a batch, which is one file; 1 to 16777216 [default: 256]
    #[arg(long, value_name = "ROWS", help_heading = "Sampling",
          value_parser = values::batch_size())]
    #[serde(deserialize_with = "said::batch_size")]
    pub batch_size: Option<u32>,

    /// Consecutive rows that are always read together; 1 to 1048576, or auto (from the store's chunks). Larger is faster,
    /// smaller mixes better: a fetch mixes k = batch-size * fetch-factor / block-size independent blocks, and diversity
    /// depends only on k (16 is poor, 256 good, 1024 as good as random) [default: auto]
    #[arg(long, value_name = "ROWS|auto", help_heading = "Sampling", value_parser = values::block_size)]
    #[serde(deserialize_with = "said::block_size")]
    pub block_size: Option<Auto>,

    /// Batches that are loaded together and shuffled in memory; 1 to 1048576, or auto (k = 1024, less if a fetch would
    /// exceed 1 GiB). k = batch-size * fetch-factor / block-size [default: auto]
    #[arg(long, value_name = "BATCHES|auto", help_heading = "Sampling", value_parser = values::fetch_factor)]
    #[serde(deserialize_with = "said::fetch_factor")]
    pub fetch_factor: Option<Auto>,

    /// Seed of the shuffle and of splits: the same seed gives the same files, byte for byte [default: 0]
    #[arg(long, value_name = "NUMBER", help_heading = "Sampling")]
    #[serde(deserialize_with = "said::seed")]
    pub seed: Option<u64>,

    /// Leave out the last batch of an epoch if it is short [default: kept]
    #[arg(long, value_name = "true|false", help_heading = "Sampling", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    #[serde(deserialize_with = "said::drop_last")]
    pub drop_last: Option<bool>,

    /// Rows for which an expression over obs columns is true, for example tissue == "lung" and n_genes > 500 and donor_id not in
    /// ["D1", "D2"] [default: all rows]
    #[arg(long = "where", value_name = "EXPR", help_heading = "Views", value_parser = Filter::parse)]
    #[serde(deserialize_with = "said::filter", rename = "where")]
    pub filter: Option<Filter>,

    /// Rows listed in a file: global row numbers or STORE:NAME, one in each line, or a .npy array [default: all rows]
    #[arg(long, value_name = "FILE", help_heading = "Views")]
    #[serde(deserialize_with = "said::path")]
    pub rows: Option<PathBuf>,

    /// Order of rows: block (blocks at random, shuffled in each fetch), random (block size 1), sequential
    /// (as stored), buffered (as stored, shuffled in each fetch) [default: block]
    #[arg(long, value_name = "ORDER", help_heading = "Views", value_parser = values::order())]
    #[serde(deserialize_with = "said::order")]
    pub order: Option<StrategyName>,

    /// Draw rows with replacement by weights: an obs column, or a file with one number for each row, as text or .npy; with
    /// --class-batches: draw classes by the sum of their rows' weights [default: none]
    #[arg(long, value_name = "COLUMN|FILE", help_heading = "Views")]
    #[serde(deserialize_with = "said::text")]
    pub weights: Option<String>,

    /// Draw rows with replacement so that each label of an obs column is equally frequent [default: off]
    #[arg(long, value_name = "COLUMN", help_heading = "Views")]
    #[serde(deserialize_with = "said::text")]
    pub balance: Option<String>,

    /// Make each batch of one class, that is, one label of this obs column [default: off]
    #[arg(long, value_name = "COLUMN", help_heading = "Views")]
    #[serde(deserialize_with = "said::text")]
    pub class_batches: Option<String>,

    /// Rows in an epoch if they are drawn with replacement [default: as many as the view has]
    #[arg(long, value_name = "ROWS", help_heading = "Views", value_parser = values::samples())]
    #[serde(deserialize_with = "said::samples")]
    pub samples: Option<u64>,

    /// Make sets: each SET_SIZE consecutive rows have the same labels in these obs columns, comma-separated or repeated. Sets
    /// are shuffled; obs/set is the number of a row's group [default: off]
    #[arg(long, value_name = "COL,...", value_delimiter = ',', help_heading = "Views")]
    #[serde(deserialize_with = "said::columns")]
    pub set_by: Vec<String>,

    /// Rows in a set; a batch is a whole number of sets [default: as many as a batch]
    #[arg(long, value_name = "ROWS", help_heading = "Views", value_parser = values::batch_size())]
    #[serde(deserialize_with = "said::batch_size")]
    pub set_size: Option<u32>,

    /// Rows of a group that do not fill a set: drop (they are left out), repeat (filled with repeated rows of the group), pad
    /// (the same, marked by row -1) [default: repeat]
    #[arg(long, value_name = "drop|repeat|pad", hide_possible_values = true, help_heading = "Views",
          value_parser = values::short())]
    #[serde(deserialize_with = "said::short")]
    pub set_short: Option<Short>,

    /// Make bags: a batch is all rows that have the same labels in these obs columns, such as those of one donor or slide;
    /// batches differ in size. obs/bag is the number of a row's bag [default: off]
    #[arg(long, value_name = "COL,...", value_delimiter = ',', help_heading = "Views")]
    #[serde(deserialize_with = "said::columns")]
    pub bag_by: Vec<String>,

    /// Draw this many rows of each larger bag, in each epoch [default: all]
    #[arg(long, value_name = "ROWS", help_heading = "Views", value_parser = values::batch_size())]
    #[serde(deserialize_with = "said::batch_size")]
    pub bag_max: Option<u32>,

    /// A tab-separated file with a line for each bag: the columns of --bag-by, and others, which become obs columns of its
    /// rows [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Views")]
    #[serde(deserialize_with = "said::path")]
    pub bag_table: Option<PathBuf>,

    /// The directory that a path of weights is relative to: that of the file that names it.
    #[arg(skip)]
    #[serde(skip)]
    pub directory: Option<PathBuf>,
}

impl SamplingArgs {
    /// These options, completed by others. How to draw rows is one decision: if any of its options is given here, the others' are
    /// ignored. Restrictions of rows are not part of it, and are combined.
    pub fn or(self, other: SamplingArgs) -> SamplingArgs {
        let draws = self.draws();
        let drawn = |mine: Option<String>, others: Option<String>| if draws { mine } else { others };
        // Options of sets and bags belong to the decision of how to draw.
        let (sets, bags) = (!draws || !self.set_by.is_empty(), !draws || !self.bag_by.is_empty());
        SamplingArgs {
            batch_size: self.batch_size.or(other.batch_size),
            block_size: self.block_size.or(other.block_size),
            fetch_factor: self.fetch_factor.or(other.fetch_factor),
            seed: self.seed.or(other.seed),
            drop_last: self.drop_last.or(other.drop_last),
            filter: None,
            rows: None,
            samples: self.samples.or(other.samples),
            order: if draws { self.order } else { other.order },
            weights: drawn(self.weights, other.weights),
            balance: drawn(self.balance, other.balance),
            class_batches: drawn(self.class_batches, other.class_batches),
            set_by: if draws { self.set_by } else { other.set_by },
            set_size: self.set_size.or(other.set_size.filter(|_| sets)),
            set_short: self.set_short.or(other.set_short.filter(|_| sets)),
            bag_by: if draws { self.bag_by } else { other.bag_by },
            bag_max: self.bag_max.or(other.bag_max.filter(|_| bags)),
            bag_table: self.bag_table.or(other.bag_table.filter(|_| bags)),
            directory: if draws { self.directory } else { other.directory },
        }
    }

    fn draws(&self) -> bool {
        self.order.is_some()
            || self.weights.is_some()
            || self.balance.is_some()
            || self.class_batches.is_some()
            || !self.set_by.is_empty()
            || !self.bag_by.is_empty()
    }

    /// Makes relative paths relative to the directory of the file that has them.
    pub fn beside(mut self, directory: &Path) -> SamplingArgs {
        self.rows = self.rows.map(|path| directory.join(path));
        self.bag_table = self.bag_table.map(|path| directory.join(path));
        self.directory = Some(directory.to_owned());
        self
    }

    /// How to draw rows; fails if options exclude each other. Paths on the command line are relative to `here`.
    pub fn draw(&self, here: &Path) -> Result<DrawSpec, String> {
        if let Some(groups) = self.groups(here)? {
            return Ok(groups);
        }
        let directory = self.directory.as_deref().unwrap_or(here);
        let source = |name: &String| WeightSource { name: name.clone(), file: directory.join(name) };
        let draw = match (self.order, &self.weights, &self.balance, &self.class_batches) {
            (order, None, None, None) => DrawSpec::once(order.unwrap_or(STRATEGIES[0].name)),
            (None, Some(weights), None, None) => {
                DrawSpec { weights: Some(source(weights)), ..DrawSpec::once("weights") }
            }
            (None, None, Some(column), None) => DrawSpec { labels: Some(column.clone()), ..DrawSpec::once("balance") },
            (None, weights, None, Some(column)) => DrawSpec {
                labels: Some(column.clone()),
                weights: weights.as_ref().map(source),
                ..DrawSpec::once("class-batches")
            },
            (Some(_), ..) => {
                return Err("order is for rows that are drawn once: not with weights, balance or class-batches".into());
            }
            _ => return Err("balance draws by weights of its own: not with weights or class-batches".into()),
        };
        if self.samples.is_some() && !draw.has_inputs() {
            return Err(
                "samples is for rows that are drawn with replacement: add weights, balance or class-batches".into()
            );
        }
        Ok(draw)
    }
}

//! Options of sets and bags.

use std::path::Path;

use super::sampling::SamplingArgs;
use crate::plan::groups::GroupShape;
use crate::session::spec::{DrawSpec, GroupSpec};

impl SamplingArgs {
    /// How to draw rows in groups, if requested. Paths on the command line are relative to `here`.
    ///
    /// # Errors
    /// Options that exclude each other.
    pub(super) fn groups(&self, here: &Path) -> Result<Option<DrawSpec>, String> {
        let (sets, bags) = (!self.set_by.is_empty(), !self.bag_by.is_empty());
        if !sets && (self.set_size.is_some() || self.set_short.is_some()) {
            return Err("set-size and set-short say how sets are made: add set-by, the columns that make them".into());
        }
        if !bags && (self.bag_max.is_some() || self.bag_table.is_some()) {
            return Err("bag-max and bag-table are about bags: add bag-by, the columns that make them".into());
        }
        let others = self.order.is_some()
            || self.weights.is_some()
            || self.balance.is_some()
            || self.class_batches.is_some()
            || self.samples.is_some();
        for (option, columns) in [("set-by", &self.set_by), ("bag-by", &self.bag_by)] {
            if let Some(twice) = columns.iter().enumerate().find(|(at, name)| columns[..*at].contains(name)) {
                return Err(format!("{option}: {} is named twice", twice.1));
            }
        }
        match (sets, bags) {
            (false, false) => Ok(None),
            (true, true) => Err("a batch is made of sets or is a bag: not set-by with bag-by".into()),
            _ if others => {
                Err("set-by and bag-by draw every group once: not with order, weights, balance, class-batches \
                 or samples"
                    .into())
            }
            (true, false) => Ok(Some(self.sets())),
            (false, true) if self.batch_size.is_some() || self.drop_last == Some(true) => {
                Err("a batch is one bag, as large as it is: not bag-by with batch-size or drop-last; bag-max limits it"
                    .into())
            }
            (false, true) => Ok(Some(self.bags(here))),
        }
    }

    fn sets(&self) -> DrawSpec {
        let shape = GroupShape {
            set_size: self.set_size.map(u64::from),
            short: self.set_short.unwrap_or_default(),
            bag_max: None,
        };
        grouped("sets", GroupSpec { column: GroupSpec::SET, by: self.set_by.clone(), shape, table: None })
    }

    fn bags(&self, here: &Path) -> DrawSpec {
        let shape = GroupShape { bag_max: self.bag_max.map(u64::from), ..GroupShape::default() };
        let table = self.bag_table.as_ref().map(|path| here.join(path));
        grouped("bags", GroupSpec { column: GroupSpec::BAG, by: self.bag_by.clone(), shape, table })
    }

    /// Rows of a batch: as given, or else at least `default` and a whole number of sets.
    ///
    /// # Errors
    /// The given number is not a whole number of sets.
    pub(super) fn whole_sets(&self, default: u32) -> Result<u32, String> {
        let size = self.set_size.unwrap_or(1);
        match self.batch_size {
            None => Ok(default.div_ceil(size) * size),
            Some(batch) if batch.is_multiple_of(size) => Ok(batch),
            Some(batch) => Err(format!("a batch of {batch} rows is no whole number of sets of {size}")),
        }
    }
}

fn grouped(strategy: &'static str, groups: GroupSpec) -> DrawSpec {
    DrawSpec { labels: Some(groups.column.to_owned()), groups: Some(groups), ..DrawSpec::once(strategy) }
}

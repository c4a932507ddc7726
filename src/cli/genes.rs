//! Options about genes that `info` shares with mounts, to try whether a mount with them would work.

use std::ffi::OsString;

use clap::Args;

use super::checked::absent_zero;
use super::exit::Failure;
use super::values::{self, Absent};
use crate::anndata::index::IndexDir;
use crate::anndata::names::MatrixName;
use crate::collection::Selection;
use crate::collection::genes::matching::Matching;

#[derive(Debug, Args)]
#[command(next_help_heading = "Genes of the mount")]
pub struct GeneArgs {
    /// A file of names, one a line; var:COLUMN, those for which a boolean column of var is true; or names, comma-separated
    /// [default: all]
    #[arg(long, value_name = "FILE|var:COLUMN|NAME,...")]
    genes: Option<String>,

    /// What counts as one gene: exact, unversioned or case
    #[arg(long, value_name = "exact|unversioned|case", default_value = "exact", hide_possible_values = true,
          value_parser = values::matching())]
    genes_match: Matching,

    /// A text column of var that names genes in place of its index [default: the index]
    #[arg(long, value_name = "COLUMN")]
    genes_column: Option<String>,

    /// Genes that --genes names and the store lacks: refuse or zero
    #[arg(long, value_name = "refuse|zero", default_value = "refuse", hide_possible_values = true,
          value_parser = values::absent())]
    absent: Absent,

    /// With --absent zero: the least share of the named genes that the store must have, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0.3333", value_parser = values::share)]
    min_matched: f64,
}

impl GeneArgs {
    /// What a mount with these options would read; derived arrays are stored in `index`.
    ///
    /// # Errors
    /// No genes are named, or `--absent zero` lacks named genes.
    pub fn selection(&self, index: IndexDir) -> Result<Selection, Failure> {
        let genes = self.genes.as_deref().map(values::genes).transpose();
        let genes = genes.map_err(|cause| Failure::usage(format_args!("--genes: {cause}")))?;
        Ok(Selection {
            matching: self.genes_match,
            genes_column: self.genes_column.clone(),
            absent_zero: absent_zero(self.absent, genes.as_ref(), self.min_matched)?,
            genes,
            ..Selection::of(MatrixName::X, index)
        })
    }

    /// The options as arguments of a child process.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![
            format!("--genes-match={}", self.genes_match.as_str()),
            format!("--absent={}", self.absent.as_str()),
            format!("--min-matched={}", self.min_matched),
        ];
        arguments.extend(self.genes.as_ref().map(|genes| format!("--genes={genes}")));
        arguments.extend(self.genes_column.as_ref().map(|column| format!("--genes-column={column}")));
        arguments.into_iter().map(OsString::from).collect()
    }
}

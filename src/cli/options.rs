//! The options that mounts share, as clap and configuration files parse them. `checked` turns them into checked options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde::Deserialize;

use super::said;
use super::sampling::SamplingArgs;
use super::values::{self, Absent, Fanout, Fractions, MemoryLimit, RankOf};
use super::views::ViewsFile;
use crate::anndata::names::MatrixName;
use crate::array::Dtype;
use crate::collection::genes::matching::Matching;
use crate::collection::genes::{Genes, Join};
use crate::format::Extension;
use crate::plan::RemainderPolicy;
use crate::session::spec::Unmatched;
use crate::storage::name;
use crate::view::filter::Filter;

/// Options of `mount`, `run`, `plan` and others; also the content of a configuration file (`config`).
#[derive(Debug, Clone, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptionArgs {
    #[command(flatten)]
    #[serde(skip)]
    pub sampling: SamplingArgs,

    /// Number of epochs to list; any other epoch can be opened by name. 1 to 10000000
    #[arg(long, value_name = "COUNT", default_value_t = 100, help_heading = "Sampling",
          value_parser = values::epochs())]
    #[serde(deserialize_with = "said::epochs")]
    pub epochs: u32,

    /// Divide the rows into views: NAME=FRACTION,... for example train=0.8,val=0.1,test=0.1. Rows beyond the sum of the
    /// fractions are in no view [default: one view of all rows]
    #[arg(long, value_name = "NAME=FRACTION,...", help_heading = "Views", value_parser = values::fractions)]
    #[serde(deserialize_with = "said::split")]
    pub split: Option<Fractions>,

    /// Keep rows with the same label of this obs column in one view of the split, such as a donor's [default: off]
    #[arg(long, value_name = "COLUMN", help_heading = "Views")]
    #[serde(deserialize_with = "said::text")]
    pub split_by: Option<String>,

    /// Keep the split's fractions within each label of this obs column [default: off]
    #[arg(long, value_name = "COLUMN", help_heading = "Views")]
    #[serde(deserialize_with = "said::text")]
    pub stratify: Option<String>,

    /// Divide the rows by cell line and perturbation according to a TOML file of cell-load (its datasets, training, zeroshot
    /// and fewshot): views train, val and test, which share controls [default: off]
    #[arg(long, value_name = "FILE", help_heading = "Views")]
    #[serde(deserialize_with = "said::path")]
    pub split_toml: Option<PathBuf>,

    /// The obs column of perturbations, for --split-toml
    #[arg(long, value_name = "COLUMN", default_value = "gene", help_heading = "Views")]
    pub pert_col: String,

    /// The obs column of cell lines, for --split-toml
    #[arg(long, value_name = "COLUMN", default_value = "cell_type", help_heading = "Views")]
    pub cell_type_key: String,

    /// The label of controls among perturbations, for --split-toml
    #[arg(long, value_name = "LABEL", default_value = "non-targeting", help_heading = "Views")]
    pub control_pert: String,
    /// Serve controls of each row, as control/X, control/row, control/obs: rows for which an expression is true, such as
    /// perturbation == "control", drawn in each epoch [default: none]
    #[arg(long, value_name = "EXPR", help_heading = "Pairs", value_parser = Filter::parse)]
    #[serde(deserialize_with = "said::filter")]
    pub pair_with: Option<Filter>,

    /// obs columns in which a control has the label of its row, comma-separated or repeated [default: any control matches]
    #[arg(long = "match", value_name = "COL,...", value_delimiter = ',', help_heading = "Pairs")]
    #[serde(deserialize_with = "said::columns", rename = "match")]
    pub match_columns: Vec<String>,

    /// Controls for each row; 1 to 1024 [default: 1]
    #[arg(long, value_name = "COUNT", help_heading = "Pairs", value_parser = values::controls())]
    #[serde(deserialize_with = "said::controls")]
    pub controls: Option<u32>,

    /// Rows without a matching control: refuse, drop (they are left out), or self (their control is the row itself) [default: refuse]
    #[arg(long, value_name = "refuse|drop|self", hide_possible_values = true, help_heading = "Pairs",
          value_parser = values::unmatched())]
    #[serde(deserialize_with = "said::unmatched")]
    pub unmatched: Option<Unmatched>,

    /// Serve the neighbourhood of each batch in a graph of the stores, obsp/NAME, as edge_index, edge_weight, neighbours/X and
    /// neighbours/row, in .npz, .safetensors and .record.npy [default: none]
    #[arg(long, value_name = "obsp/NAME", help_heading = "Neighbours")]
    #[serde(deserialize_with = "said::text")]
    pub neighbours: Option<String>,

    /// Maximum distance of a neighbour in edges; 1 to 8 [default: 1]
    #[arg(long, value_name = "COUNT", help_heading = "Neighbours", value_parser = values::hops())]
    #[serde(deserialize_with = "said::hops")]
    pub hops: Option<u32>,

    /// Maximum number of neighbours of each row, 1 to 1024, drawn in each epoch; or all [default: 10]
    #[arg(long, value_name = "COUNT|all", help_heading = "Neighbours", value_parser = values::fanout)]
    #[serde(deserialize_with = "said::fanout")]
    pub fanout: Option<Fanout>,

    /// A modality and its store, instead of STORE; repeated. Rows are those of the first modality; those of the others are matched
    /// by obs names. In .npz, .safetensors, .record.npy and .h5mu as mod/NAME/X. A MuData as STORE has all of its modalities
    /// [default: one AnnData, or the modalities of a MuData]
    #[arg(long, value_name = "NAME=STORE", help_heading = "Modalities")]
    #[serde(deserialize_with = "said::columns")]
    pub modality: Vec<String>,

    /// An option of a modality other than the first: x, with, obs, join, genes, genes-match, genes-column, absent, min-matched, dense,
    /// normalize, log1p or dtype, such as protein.genes=CD3,CD4; repeated [default: as without modalities]
    #[arg(long, value_name = "NAME.OPTION=VALUE", help_heading = "Modalities")]
    #[serde(deserialize_with = "said::columns")]
    pub modality_option: Vec<String>,

    /// Batches that cannot be dealt evenly to W ranks: drop (at most W - 1 are in no rank) or pad (at most W - 1 are in two)
    #[arg(long, value_name = "drop|pad", default_value = "drop", hide_possible_values = true, help_heading = "Views",
          value_parser = values::uneven())]
    #[serde(deserialize_with = "said::uneven")]
    pub uneven: RemainderPolicy,

    /// Serve only one rank's part of every view: R/W, or auto (from variables of torchrun, Open MPI, MPICH, Intel MPI,
    /// MVAPICH, jsrun, Flux or srun) [default: all; ranks in rank-R-of-W/]
    #[arg(long, value_name = "R/W|auto", help_heading = "Views", value_parser = values::rank)]
    #[serde(deserialize_with = "said::rank")]
    pub rank: Option<RankOf>,

    /// A TOML file with any of these options by name, and views with further options as [view.NAME]; the command line takes
    /// precedence [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Views")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// The options of views in a configuration file.
    #[arg(skip)]
    #[serde(skip)]
    pub file: ViewsFile,

    /// Whether this mount serves all processes of its job on this node, and so uses the whole node instead of a share.
    #[arg(skip)]
    #[serde(skip)]
    pub is_of_node: bool,

    /// Format of the listed files; files of every other format can be opened by name
    #[arg(long, value_name = "FORMAT", default_value = "npz", help_heading = "Output",
          value_parser = values::format())]
    #[serde(deserialize_with = "said::format")]
    pub format: Extension,

    /// The matrix to serve: X, raw/X, layers/NAME or obsm/NAME
    #[arg(long, value_name = "MATRIX", default_value = "X", help_heading = "Output", value_parser = values::matrix)]
    #[serde(deserialize_with = "said::x")]
    pub x: MatrixName,

    /// Further matrices of the same rows, comma-separated or repeated: raw/X, layers/NAME, obsm/NAME; in .npz, .safetensors
    /// and .h5ad [default: none]
    #[arg(long, value_name = "MATRIX,...", value_delimiter = ',', help_heading = "Output",
          value_parser = values::further)]
    #[serde(deserialize_with = "said::with")]
    pub with: Vec<MatrixName>,

    /// obs columns to serve, comma-separated or repeated; empty: none [default: every categorical, boolean and numeric
    /// column]
    #[arg(long, value_name = "COL,...", value_delimiter = ',', help_heading = "Output")]
    #[serde(deserialize_with = "said::obs")]
    pub obs: Option<Vec<String>>,

    /// Genes of several stores: exact (the same in every store, in any order), inner (those that all stores have), outer
    /// (those that any store has; absent values are not stored, and NaN in dense rows)
    #[arg(long, value_name = "JOIN", default_value = "exact", help_heading = "Output", value_parser = values::join())]
    #[serde(deserialize_with = "said::join")]
    pub join: Join,

    /// Genes of X and layers to serve, in this order: a file with a name in each line; var:COLUMN, those for which a
    /// boolean column of the first store's var is true; or comma-separated names [default: all]
    #[arg(long, value_name = "FILE|var:COLUMN|NAME,...", help_heading = "Output", value_parser = values::genes)]
    #[serde(skip)]
    pub genes: Option<Genes>,

    /// Names that mean the same gene: exact (equal names), unversioned (equal without a version suffix,
    /// ENSG00000141510.18), case (equal in lower case). The first spelling is served
    #[arg(long, value_name = "exact|unversioned|case", default_value = "exact", hide_possible_values = true,
          help_heading = "Output", value_parser = values::matching())]
    #[serde(deserialize_with = "said::genes_match")]
    pub genes_match: Matching,

    /// A text column of var with the names of genes, for --genes and several stores [default: the index]
    #[arg(long, value_name = "COLUMN", help_heading = "Output")]
    #[serde(deserialize_with = "said::text")]
    pub genes_column: Option<String>,

    /// Genes of --genes that a store lacks: refuse, or zero (no stored value; 0 in dense rows)
    #[arg(long, value_name = "refuse|zero", default_value = "refuse", hide_possible_values = true,
          help_heading = "Output", value_parser = values::absent())]
    #[serde(deserialize_with = "said::absent")]
    pub absent: Absent,

    /// With --absent zero: the minimum fraction of the named genes that each store must have, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0.3333", help_heading = "Output", value_parser = values::share)]
    #[serde(deserialize_with = "said::min_matched")]
    pub min_matched: f64,

    /// Serve X and further matrices as dense rows, even if stored sparse; combines sparse and dense stores
    /// [default: as stored]
    #[arg(long, help_heading = "Output")]
    #[serde(deserialize_with = "said::flag")]
    pub dense: bool,

    /// Scale each row of X to this total over all of its stored values, before genes are chosen; rows of zeros stay zero
    /// [default: off]
    #[arg(long, value_name = "TOTAL", help_heading = "Output", value_parser = values::total)]
    #[serde(deserialize_with = "said::normalize")]
    pub normalize: Option<f64>,

    /// Serve ln(1 + value) of X, after --normalize [default: off]
    #[arg(long, help_heading = "Output")]
    #[serde(deserialize_with = "said::flag")]
    pub log1p: bool,

    /// Serve X as tokens of a language model, input_ids and expressions: geneformer (genes by normalised expression), scgpt
    /// (values in bins), both with --token-table, or a TOML file with another recipe [default: off]
    #[arg(long, value_name = "geneformer|scgpt|FILE", help_heading = "Output")]
    #[serde(deserialize_with = "said::text")]
    pub tokens: Option<String>,

    /// The genes' tokens, and for geneformer their medians: a line for each gene with name, token, median, tab-separated; or a JSON
    /// object of tokens by name [default: named by the file of --tokens]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    #[serde(deserialize_with = "said::path")]
    pub token_table: Option<PathBuf>,

    /// Type of X's values: f16, f32, f64, i8 to i64, u8 to u64, bool; floats are rounded, any other change of a value is
    /// refused [default: as stored; f32 or f64 after --normalize or --log1p]
    #[arg(long, value_name = "DTYPE", help_heading = "Output", value_parser = values::dtype)]
    #[serde(deserialize_with = "said::dtype")]
    pub dtype: Option<Dtype>,

    /// Type of column numbers: u16, i32 or i64; .h5ad has i32 for u16, as scipy requires [default: i32, or i64 if needed]
    #[arg(long, value_name = "DTYPE", help_heading = "Output", value_parser = values::index_dtype)]
    #[serde(deserialize_with = "said::index_dtype")]
    pub index_dtype: Option<Dtype>,

    /// Maximum memory, including prefetch: a size with unit (512MiB, 2GiB), a fraction of the machine's or container's memory
    /// (25%), or auto (25% of free memory, divided by the processes that the launcher has started on this node)
    #[arg(long, value_name = "SIZE|%|auto", default_value = "auto", help_heading = "Resources",
          value_parser = values::memory)]
    #[serde(deserialize_with = "said::memory")]
    pub memory: MemoryLimit,

    /// Directory for data derived from stores, for later mounts: row indices, transposed matrices (CSC), counts of
    /// inner joins and chosen genes [default: shufflefs in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", help_heading = "Resources")]
    #[serde(deserialize_with = "said::path")]
    pub index_dir: Option<PathBuf>,

    /// Threads that read and decode; 1 to 1024 [default: all cores, divided by the processes that the launcher has started on
    /// this node]
    #[arg(long, value_name = "COUNT", help_heading = "Resources",
          value_parser = values::threads())]
    #[serde(deserialize_with = "said::threads")]
    pub threads: Option<u16>,

    /// Requests to storage in flight, 1 to 512; 1: each decoding thread reads by itself [default: depends on the latency of
    /// the storage; 1 for the page cache]
    #[arg(long, value_name = "COUNT", help_heading = "Resources",
          value_parser = values::io_depth())]
    #[serde(deserialize_with = "said::io_depth")]
    pub io_depth: Option<u16>,

    /// A read that makes no progress for this time fails with an I/O error; seconds, or with a unit: 90s, 2min, 1h
    #[arg(long, value_name = "TIME", default_value = "60s", help_heading = "Resources",
          value_parser = values::timeout)]
    #[serde(deserialize_with = "said::timeout")]
    pub timeout: Duration,

    /// Do not sign requests to remote stores, for public buckets [default: credentials of the environment, ~/.aws or the
    /// instance]
    #[arg(long, help_heading = "Resources")]
    #[serde(deserialize_with = "said::flag")]
    pub anonymous: bool,

    /// Directory for a cache of remote stores, on a disk of this node, for later epochs and other jobs [default: no cache]
    #[arg(long, value_name = "DIR", help_heading = "Resources")]
    #[serde(deserialize_with = "said::path")]
    pub cache_dir: Option<PathBuf>,

    /// Maximum size of --cache-dir; the least recently used data are removed
    #[arg(long, value_name = "SIZE", default_value = "100GiB", help_heading = "Resources", value_parser = values::size)]
    #[serde(deserialize_with = "said::cache_size")]
    pub cache_size: u64,

    /// Keep file contents in the page cache, for readers that read the same files again [default: not kept]
    #[arg(long, help_heading = "Resources")]
    #[serde(deserialize_with = "said::flag")]
    pub cache: bool,

    /// Owner of the files, a number [default: you]
    #[arg(long, value_name = "UID", help_heading = "Permissions")]
    #[serde(deserialize_with = "said::number")]
    pub uid: Option<u32>,

    /// Group of the files, a number [default: yours]
    #[arg(long, value_name = "GID", help_heading = "Permissions")]
    #[serde(deserialize_with = "said::number")]
    pub gid: Option<u32>,

    /// Let other users read the mount [default: only you]; without root this needs user_allow_other in /etc/fuse.conf
    #[arg(long, help_heading = "Permissions")]
    #[serde(deserialize_with = "said::flag")]
    pub allow_other: bool,

    /// Write the log to this file [default: stderr; none in the background]
    #[arg(long, value_name = "FILE", help_heading = "Other")]
    #[serde(deserialize_with = "said::path")]
    pub log: Option<PathBuf>,

    /// Any option above by its name without the dashes, such as -o seed=7,drop_last; options of mount(8) without effect
    /// here are ignored [default: none]
    #[arg(short = 'o', value_name = "NAME=VALUE,...", help_heading = "Other")]
    #[serde(skip)]
    pub mount_options: Vec<OsString>,
}

impl Default for OptionArgs {
    fn default() -> OptionArgs {
        let nothing = OptionArgs::augment_args(Command::new("file")).no_binary_name(true).get_matches_from([""; 0]);
        OptionArgs::from_arg_matches(&nothing).unwrap_or_else(|error| error.exit())
    }
}

impl OptionArgs {
    /// Makes relative paths relative to the directory of the file that has them.
    pub fn beside(mut self, directory: &Path) -> OptionArgs {
        let paths =
            [&mut self.index_dir, &mut self.cache_dir, &mut self.log, &mut self.token_table, &mut self.split_toml];
        for path in paths.into_iter().flatten() {
            *path = directory.join(&*path);
        }
        for said in &mut self.modality {
            if let Some((name, store)) = said.split_once('=').filter(|(_, store)| !name::is_remote(Path::new(store))) {
                *said = format!("{name}={}", directory.join(store).to_string_lossy());
            }
        }
        if let Some(tokens) = self.tokens.as_mut().filter(|tokens| tokens.ends_with(".toml")) {
            *tokens = directory.join(&*tokens).to_string_lossy().into_owned();
        }
        self
    }

    /// Overrides options of a file by those of a command line; `matches` must have no defaults.
    ///
    /// # Errors
    /// Those that the command line had before as well.
    pub fn overridden(mut self, matches: &ArgMatches) -> Result<OptionArgs, clap::Error> {
        let flags = |options: &OptionArgs| {
            [options.dense, options.log1p, options.anonymous, options.cache, options.allow_other]
        };
        let of_file = flags(&self);
        self.update_from_arg_matches(matches)?;
        // On the command line, flags that are not given are false, so they are combined.
        let [dense, log1p, anonymous, cache, allow_other] = of_file;
        self.dense |= dense;
        self.log1p |= log1p;
        self.anonymous |= anonymous;
        self.cache |= cache;
        self.allow_other |= allow_other;
        Ok(self)
    }
}

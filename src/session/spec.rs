//! What a session is to serve: checked, plain data. Paths are absolute.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::anndata::index::IndexDir;
use crate::anndata::names::MatrixName;
use crate::array::Dtype;
use crate::collection::Selection;
use crate::collection::element::Arithmetic;
use crate::collection::genes::matching::Matching;
use crate::collection::genes::{Genes, Join};
use crate::collection::tokens::TokenSpec;
use crate::format::Extension;
use crate::plan::groups::GroupShape;
use crate::plan::rank::Rank;
use crate::plan::strategy::STRATEGIES;
use crate::plan::{RemainderPolicy, Sampling};
use crate::view::assigned::Assigned;
use crate::view::filter::Filter;
use crate::view::split::Fraction;

/// What to serve of which stores, with which resources.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub stores: Vec<PathBuf>,
    /// The name of the modality of these stores, if there are several; `None` if there are none, or if the stores are MuData, whose
    /// names are used.
    pub modality: Option<String>,
    /// Further modalities of the same cells. For MuData, only those with options of their own, without stores.
    pub modalities: Vec<Spec>,
    /// At least one.
    pub views: Vec<ViewSpec>,
    pub split: Option<SplitSpec>,
    /// A split by cell line and perturbation; excludes `split`.
    pub assigned: Option<AssignedSpec>,
    /// Controls to serve beside each row.
    pub pairs: Option<PairSpec>,
    /// Neighbours in a graph to serve beside the rows of a batch.
    pub neighbours: Option<NeighbourSpec>,
    /// Restrictions of all views.
    pub filter: Option<Filter>,
    pub rows: Option<PathBuf>,
    pub uneven: RemainderPolicy,
    /// The rank whose part is shown at the root; `None`: the whole epoch.
    pub rank: Option<Rank>,
    /// The number of epochs to list.
    pub epochs: u32,
    pub format: Extension,
    /// `X`, `raw/X`, `layers/NAME` or `obsm/NAME`.
    pub x: MatrixName,
    /// Further matrices.
    pub with: Vec<MatrixName>,
    /// `None`: every categorical, boolean and numeric column.
    pub obs: Option<Vec<String>>,
    pub join: Join,
    /// `None`: all.
    pub genes: Option<Genes>,
    /// Which gene names count as equal.
    pub matching: Matching,
    /// The column of var with the names of genes; `None`: its index.
    pub genes_column: Option<String>,
    /// Named genes that a store lacks are zeros, if it has at least this share of the genes; `None`: they are an error.
    pub absent_zero: Option<f64>,
    /// Serve all matrices as dense rows.
    pub dense: bool,
    pub arithmetic: Arithmetic,
    /// Serve X as tokens.
    pub tokens: Option<Arc<TokenSpec>>,
    /// `None`: as stored, or as computed.
    pub dtype: Option<Dtype>,
    /// `None`: the narrower of i32 and i64 that fits.
    pub index_dtype: Option<Dtype>,
    /// Where derived arrays are stored; `None`: nothing is derived.
    pub index_dir: Option<PathBuf>,
    /// Memory budget in bytes; `None`: the default share of what is free.
    pub memory: Option<u64>,
    /// Decoding threads.
    pub threads: usize,
    /// Requests to storage in flight; `None`: derived from its latency.
    pub io_depth: Option<usize>,
    /// How long a load, or libhdf5 in the probe, may run without progress.
    pub timeout: Duration,
    /// Do not sign requests to remote stores.
    pub anonymous: bool,
    /// Where data of remote stores is cached, and its maximum bytes.
    pub cache_dir: Option<PathBuf>,
    pub cache_size: u64,
    /// Keep file contents in the kernel's page cache.
    pub cache: bool,
    /// Owner of the files; `None`: this process's.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// One view.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewSpec {
    pub name: String,
    /// The index of its side in the split.
    pub side: Option<usize>,
    /// Restrictions of this view, besides those of all views.
    pub filter: Option<Filter>,
    pub rows: Option<PathBuf>,
    pub draw: DrawSpec,
    /// Rows of an epoch drawn with replacement; `None`: as many as the view has.
    pub samples: Option<u64>,
    pub batch_size: u32,
    /// `None`: derived from the collection.
    pub block_size: Option<u32>,
    /// `None`: derived from the collection.
    pub fetch_factor: Option<u32>,
    pub seed: u64,
    pub drop_last: bool,
}

/// How a view draws its rows: a registered strategy, and its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawSpec {
    /// The name of a [`Registration`](crate::plan::strategy::Registration).
    pub strategy: &'static str,
    /// The obs column of labels.
    pub labels: Option<String>,
    pub weights: Option<WeightSource>,
    /// How rows are grouped into sets or bags; `labels` is then the column made of the groups.
    pub groups: Option<GroupSpec>,
}

/// How to group rows.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSpec {
    /// [`GroupSpec::SET`] or [`GroupSpec::BAG`]: the obs column to make.
    pub column: &'static str,
    /// The obs columns that are constant within a group; at least one.
    pub by: Vec<String>,
    pub shape: GroupShape,
    /// The user's table of groups; an absolute path.
    pub table: Option<PathBuf>,
}

impl GroupSpec {
    pub const SET: &str = "set";
    pub const BAG: &str = "bag";
}

impl DrawSpec {
    /// A strategy without inputs.
    pub fn once(strategy: &'static str) -> DrawSpec {
        DrawSpec { strategy, labels: None, weights: None, groups: None }
    }

    /// Whether the strategy has inputs, so that rows are not drawn once each.
    pub fn has_inputs(&self) -> bool {
        self.labels.is_some() || self.weights.is_some()
    }
}

/// Weights: the name of a column, or of a file if there is no such column.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightSource {
    pub name: String,
    /// The name as an absolute path.
    pub file: PathBuf,
}

/// A split of the rows into views.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitSpec {
    pub fractions: Vec<Fraction>,
    pub by: Option<String>,
    pub stratify: Option<String>,
    pub seed: u64,
}

/// Controls beside each row.
#[derive(Debug, Clone, PartialEq)]
pub struct PairSpec {
    /// Selects the rows that are controls.
    pub controls: Filter,
    /// obs columns in which a control must have the label of its row.
    pub columns: Vec<String>,
    /// Controls for each row, at least 1.
    pub each: u32,
    pub unmatched: Unmatched,
}

/// Sampled neighbourhoods of the rows of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct NeighbourSpec {
    /// `obsp/NAME`.
    pub graph: String,
    /// At least 1.
    pub hops: u32,
    /// Neighbours to draw for a row, at most; at least 1. `None`: all.
    pub fanout: Option<u32>,
}

/// What to do with rows that no control matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// Fail.
    Refuse,
    /// Leave them out of the view.
    Drop,
    /// Pair them with themselves.
    Itself,
}

impl Unmatched {
    pub const ALL: [Unmatched; 3] = [Unmatched::Refuse, Unmatched::Drop, Unmatched::Itself];

    /// The name in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Unmatched::Refuse => "refuse",
            Unmatched::Drop => "drop",
            Unmatched::Itself => "self",
        }
    }
}

/// A split by cell line and perturbation, from a file of cell-load; columns have cell-load's names.
#[derive(Debug, Clone, PartialEq)]
pub struct AssignedSpec {
    /// An absolute path.
    pub file: PathBuf,
    /// In it, the paths of datasets are absolute.
    pub rules: Assigned,
    pub pert_col: String,
    pub cell_type_key: String,
    pub control_pert: String,
    /// Seed of the choice of rows by a fraction in the file.
    pub seed: u64,
}

/// Names in expressions and lists that are not columns: the names of rows, and the number of a row's store.
pub const ROW_NAMES: [&str; 2] = ["_index", "index"];
pub const STORE_NUMBER: &str = "_store";

impl Spec {
    /// All rows of some stores in one view, with the defaults of the command line: all of X as stored, batches of 256.
    pub fn of(stores: Vec<PathBuf>, index_dir: PathBuf) -> Spec {
        Spec {
            stores,
            modality: None,
            modalities: Vec::new(),
            views: vec![ViewSpec::all()],
            split: None,
            pairs: None,
            neighbours: None,
            assigned: None,
            filter: None,
            rows: None,
            uneven: RemainderPolicy::Drop,
            rank: None,
            epochs: 100,
            format: Extension::ALL[0],
            x: MatrixName::X,
            with: Vec::new(),
            obs: None,
            join: Join::Exact,
            genes: None,
            matching: Matching::Exact,
            genes_column: None,
            absent_zero: None,
            dense: false,
            arithmetic: Arithmetic::default(),
            tokens: None,
            dtype: None,
            index_dtype: None,
            index_dir: Some(index_dir),
            memory: None,
            threads: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            io_depth: None,
            timeout: Duration::from_secs(60),
            anonymous: false,
            cache_dir: None,
            cache_size: 100 << 30,
            cache: false,
            uid: None,
            gid: None,
        }
    }

    /// The spec of another modality: the options `said` for its matrices, or the defaults; everything else as for this mount.
    pub fn of_modality(&self, name: &str, stores: Vec<PathBuf>, said: Option<Spec>) -> Spec {
        let index_dir = self.index_dir.clone();
        let said = said.unwrap_or_else(|| Spec::of(Vec::new(), PathBuf::new()));
        Spec {
            stores,
            modality: Some(name.to_owned()),
            modalities: Vec::new(),
            index_dtype: self.index_dtype,
            index_dir,
            timeout: self.timeout,
            anonymous: self.anonymous,
            ..said
        }
    }

    /// What to read of the stores; `also` names obs columns to read besides those of views.
    pub fn selection(&self, also: &[String]) -> Selection {
        Selection {
            x: self.x.clone(),
            with: self.with.clone(),
            obs: self.obs.clone(),
            also: self.view_columns().into_iter().chain(also.iter().cloned()).collect(),
            join: self.join,
            genes: self.genes.clone(),
            matching: self.matching,
            genes_column: self.genes_column.clone(),
            absent_zero: self.absent_zero,
            dense: self.dense,
            arithmetic: self.arithmetic,
            tokens: self.tokens.clone(),
            dtype: self.dtype,
            index_dtype: self.index_dtype,
            index: IndexDir(self.index_dir.clone()),
            looks: false,
        }
    }

    /// The obs columns that views use, sorted.
    pub fn view_columns(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let filters = self.views.iter().map(|view| &view.filter).chain([&self.filter]).flatten();
        names.extend(filters.flat_map(|filter| filter.columns()).map(str::to_owned));
        if let Some(split) = &self.split {
            names.extend(split.by.iter().chain(&split.stratify).cloned());
        }
        if let Some(pairs) = &self.pairs {
            names.extend(pairs.controls.columns().into_iter().map(str::to_owned));
            names.extend(pairs.columns.iter().cloned());
        }
        if let Some(assigned) = &self.assigned {
            names.extend([assigned.pert_col.clone(), assigned.cell_type_key.clone()]);
        }
        for view in &self.views {
            match &view.draw.groups {
                Some(groups) => names.extend(groups.by.iter().cloned()),
                None => names.extend(view.draw.labels.clone()),
            }
            names.extend(view.draw.weights.iter().map(|source| source.name.clone()));
        }
        names.sort();
        names.dedup();
        names
    }

    /// Whether row names are read: a file may list rows by name, and modalities are joined by name.
    pub fn names_rows(&self) -> bool {
        self.modality.is_some() || self.rows.is_some() || self.views.iter().any(|view| view.rows.is_some())
    }
}

impl ViewSpec {
    /// The name of a single view without a name.
    pub const UNNAMED: &str = "all";

    /// All rows, with the given sampling.
    pub fn sampled(sampling: Sampling) -> ViewSpec {
        let Sampling { batch_size, block_size, fetch_factor, seed, drop_last } = sampling;
        let size = |rows: u64| u32::try_from(rows).unwrap_or(u32::MAX);
        ViewSpec {
            batch_size: size(batch_size),
            block_size: Some(size(block_size)),
            fetch_factor: Some(size(fetch_factor)),
            seed,
            drop_last,
            ..ViewSpec::all()
        }
    }

    /// All rows, with the defaults of the command line.
    pub fn all() -> ViewSpec {
        ViewSpec {
            name: ViewSpec::UNNAMED.to_owned(),
            side: None,
            filter: None,
            rows: None,
            draw: DrawSpec::once(STRATEGIES[0].name),
            samples: None,
            batch_size: 256,
            block_size: None,
            fetch_factor: None,
            seed: 0,
            drop_last: false,
        }
    }
}

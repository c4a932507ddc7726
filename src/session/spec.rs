//! What a session is to serve: plain data that has been checked. Paths are absolute.

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

/// What is served of which stores, and with which resources.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub stores: Vec<PathBuf>,
    /// What the matrices of these stores are called, where there are several modalities; `None`: there are none, or the stores are
    /// MuData, which say it.
    pub modality: Option<String>,
    /// The same cells in other modalities: what is served of them, by name. Of a MuData only those that something is said of, without
    /// stores.
    pub modalities: Vec<Spec>,
    /// At least one.
    pub views: Vec<ViewSpec>,
    pub split: Option<SplitSpec>,
    /// A split by cell line and perturbation; not with `split`.
    pub assigned: Option<AssignedSpec>,
    /// Controls that are served beside each row; `None`: none.
    pub pairs: Option<PairSpec>,
    /// Neighbours in a graph that are served beside the rows of a batch; `None`: none.
    pub neighbours: Option<NeighbourSpec>,
    /// Restrictions that hold for every view.
    pub filter: Option<Filter>,
    pub rows: Option<PathBuf>,
    pub uneven: RemainderPolicy,
    /// The rank whose part is shown at the root; `None`: the whole.
    pub rank: Option<Rank>,
    /// How many epochs are listed.
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
    /// What counts as one gene.
    pub matching: Matching,
    /// The column of var that names genes; `None`: its index.
    pub genes_column: Option<String>,
    /// Named genes that a store lacks are zero, if it has at least this share of them; `None`: an error.
    pub absent_zero: Option<f64>,
    /// All matrices are served as dense rows.
    pub dense: bool,
    pub arithmetic: Arithmetic,
    /// X is served as tokens.
    pub tokens: Option<Arc<TokenSpec>>,
    /// `None`: as stored, or as computed.
    pub dtype: Option<Dtype>,
    /// `None`: the narrower of i32 and i64 that fits.
    pub index_dtype: Option<Dtype>,
    /// Where derived arrays are kept; `None`: nothing is derived.
    pub index_dir: Option<PathBuf>,
    /// Bytes. `None`: the default share of what is free.
    pub memory: Option<u64>,
    /// Decoding threads.
    pub threads: usize,
    /// Requests to storage in flight; none: as its latency asks.
    pub io_depth: Option<usize>,
    /// How long a load, or libhdf5 in the probe, may make no progress.
    pub timeout: Duration,
    /// Requests to remote stores are not signed.
    pub anonymous: bool,
    /// Where what is read of remote stores is kept, and bytes of it at most.
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
    /// Which side of the split it is.
    pub side: Option<usize>,
    /// Restrictions of its own, besides those of all views.
    pub filter: Option<Filter>,
    pub rows: Option<PathBuf>,
    pub draw: DrawSpec,
    /// Rows an epoch where they are drawn with replacement; `None`: as many as the view has.
    pub samples: Option<u64>,
    pub batch_size: u32,
    /// `None`: from the collection.
    pub block_size: Option<u32>,
    /// `None`: from the collection.
    pub fetch_factor: Option<u32>,
    pub seed: u64,
    pub drop_last: bool,
}

/// How a view draws its rows: a registered strategy, and where its inputs come from.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawSpec {
    /// The name of a [`Registration`](crate::plan::strategy::Registration).
    pub strategy: &'static str,
    /// An obs column whose values are labels.
    pub labels: Option<String>,
    pub weights: Option<WeightSource>,
    /// How rows are grouped into sets or bags: the labels are then those of the column that is made of it.
    pub groups: Option<GroupSpec>,
}

/// Rows that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSpec {
    /// [`GroupSpec::SET`] or [`GroupSpec::BAG`]: the obs column that is made of it.
    pub column: &'static str,
    /// The obs columns whose labels are alike in a group; at least one.
    pub by: Vec<String>,
    pub shape: GroupShape,
    /// A user's table of the groups: absolute.
    pub table: Option<PathBuf>,
}

impl GroupSpec {
    pub const SET: &str = "set";
    pub const BAG: &str = "bag";
}

impl DrawSpec {
    /// A strategy that needs no column.
    pub fn once(strategy: &'static str) -> DrawSpec {
        DrawSpec { strategy, labels: None, weights: None, groups: None }
    }

    /// Whether it needs a column, and so draws with other chances than once each.
    pub fn has_inputs(&self) -> bool {
        self.labels.is_some() || self.weights.is_some()
    }
}

/// Weights by the name of a column, or of a file if there is no such column.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightSource {
    pub name: String,
    /// The name as a path: absolute, from where it was written.
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
    /// Which rows are controls.
    pub controls: Filter,
    /// obs columns in which a control has the label of its row.
    pub columns: Vec<String>,
    /// Controls a row, at least 1.
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
    /// Neighbours drawn of a row at most, at least 1; `None`: all.
    pub fanout: Option<u32>,
}

/// What becomes of rows that no control matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// There must be none.
    Refuse,
    /// They are left out of the view.
    Drop,
    /// They stand beside themselves.
    Itself,
}

impl Unmatched {
    pub const ALL: [Unmatched; 3] = [Unmatched::Refuse, Unmatched::Drop, Unmatched::Itself];

    /// As in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Unmatched::Refuse => "refuse",
            Unmatched::Drop => "drop",
            Unmatched::Itself => "self",
        }
    }
}

/// A split by cell line and perturbation, from a file of cell-load; the columns by cell-load's names for them.
#[derive(Debug, Clone, PartialEq)]
pub struct AssignedSpec {
    /// Absolute.
    pub file: PathBuf,
    /// Paths of datasets in it are absolute.
    pub rules: Assigned,
    pub pert_col: String,
    pub cell_type_key: String,
    pub control_pert: String,
    /// What decides which rows a fraction of the file takes.
    pub seed: u64,
}

/// Names in expressions and lists that are no columns: the names of the rows, and the number of a row's store.
pub const ROW_NAMES: [&str; 2] = ["_index", "index"];
pub const STORE_NUMBER: &str = "_store";

impl Spec {
    /// All rows of stores in one view, with the command line's defaults: the whole of X as it is stored, batches of 256.
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

    /// What is served of another modality: as is `said` of its matrices, else with the defaults; all else is that of this mount.
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

    /// What is read of the stores; `also` names obs columns that are read besides those of views.
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

    /// The obs columns that views name, sorted.
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

    /// Whether the names of rows are read: a file may list rows by name, and modalities are joined by it.
    pub fn names_rows(&self) -> bool {
        self.modality.is_some() || self.rows.is_some() || self.views.iter().any(|view| view.rows.is_some())
    }
}

impl ViewSpec {
    /// What the only view is called where nobody named it.
    pub const UNNAMED: &str = "all";

    /// All rows, sampled as given.
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

    /// All rows, with the command line's defaults.
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

//! The one place where stores become something that is served: collection, views, plans, engine, tree and documents are
//! composed here and nowhere else.
//!
//! [`Session::builder`] takes a checked [`Spec`] and has one method for each purpose:
//!
//! - [`describe`](describe::describe): what is in a store (`info`); needs no spec.
//! - [`probe::child`]: the child that opens what a mount would open, to see whether libhdf5 survives it.
//! - [`Builder::derive`]: collection and plans, without serving (`plan`).
//! - [`Builder::serve`]: the file system of a mount. [`Session::engine`] is the same without FUSE, for tests and benches.
//!
//! Invariant: whatever opens stores for a mount goes through [`Builder::derive`], and so through the probe.

pub mod address_space;
mod assigned;
pub mod describe;
mod error;
pub mod figures;
mod groups;
pub mod isolate;
pub mod memory;
pub mod modalities;
mod neighbours;
mod obs;
mod pairs;
pub mod probe;
pub mod remote;
mod sandbox;
mod shown;
pub mod spec;
mod threads;
mod views;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::array::Counters;
use crate::collection::genes::ColumnMap;
use crate::collection::{Collection, CollectionError, Store};
use crate::engine::view_file::ViewFiles;
use crate::engine::{Engine, Limits};
use crate::format::Writers;
use crate::format::names::categories_file;
use crate::fuse::page_cache::PageCache;
use crate::fuse::passthrough::Passthrough;
use crate::fuse::{Handles, Ownership, ShuffleFs};
use crate::plan::Plan;
use crate::slab::reserve;
use crate::storage::{name, pattern};
use crate::tree::Tree;
use crate::tree::documents::{Documents, ViewDoc, categorical};
use crate::tree::file_names;
use crate::view::suggest::suggest;

use groups::GroupTable;

pub use crate::anndata::one_line;
pub use error::{About, SessionError};
pub use obs::Obs;
pub use spec::Spec;
pub use views::ViewPlan;

/// Reads the newest lines of the log.
pub type LogText = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

/// Stores opened as one collection, and the plans of their views.
pub struct Session {
    pub spec: Spec,
    pub collection: Collection,
    pub writers: Writers,
    /// At least one, in the order of the spec's views.
    pub views: Vec<ViewPlan>,
    /// Tables of sets and bags.
    groups: Vec<GroupTable>,
    pub counters: Counters,
    /// Who answers what is still asked of the stores' structure.
    probed: Vec<probe::Probed>,
}

/// A session to be.
pub struct Builder {
    spec: Spec,
    also: Vec<String>,
    probed: bool,
    /// Bytes that row bounds and obs columns may take.
    metadata: Option<u64>,
}

impl Session {
    pub fn builder(spec: Spec) -> Builder {
        Builder { spec, also: Vec::new(), probed: true, metadata: memory::metadata() }
    }
}

impl Builder {
    /// Names an obs column that will be read besides those of the spec.
    pub fn also(mut self, column: Option<&str>) -> Builder {
        self.also.extend(column.map(str::to_owned));
        self
    }

    /// Opens HDF5 stores without trying them in a child first: where this process is expendable, or is not our binary.
    pub fn unprobed(mut self) -> Builder {
        self.probed = false;
        self
    }

    /// Refuses stores whose row bounds and obs columns take more than this many bytes, instead of most of the machine's.
    pub fn metadata_limit(mut self, bytes: u64) -> Builder {
        self.metadata = Some(bytes);
        self
    }

    /// Opens the stores and plans the views.
    ///
    /// # Errors
    /// A store that cannot be read, stores that do not fit together, a view without rows, a format that cannot hold them.
    pub fn derive(self) -> Result<Session, SessionError> {
        let mut spec = self.spec;
        remote::of_mount(&spec)?;
        spec.stores = pattern::expand(&spec.stores).map_err(SessionError::Refused)?;
        let counters = Counters { room: self.metadata, ..Counters::default() };
        let named = spec.modality.is_some();
        let (mut collection, mut probed) = open(&mut spec, &self.also, self.probed, &counters)?;
        collection.table.modality = spec.modality.clone();
        let mut modalities = Vec::new();
        let first = spec.modality.clone().unwrap_or_default();
        let mut own = None;
        for modality in &mut spec.modalities {
            let name = modality.modality.clone().unwrap_or_default();
            modality.stores = pattern::expand(&modality.stores).map_err(SessionError::Refused)?;
            let opened = open(modality, &[], self.probed, &counters);
            let (opened, children) = match opened {
                // Of a MuData nobody has asked for this one by name.
                Err(error) if !named => {
                    let others = "to leave it out, name the others: --modality NAME=STORE::mod/NAME for each";
                    return Err(SessionError::Refused(format!("modality {name}: {error}; {others}")));
                }
                opened => opened.about(format_args!("modality {name}"))?,
            };
            probed.extend(children);
            let own = match &own {
                Some(own) => own,
                None => &*own.insert(modalities::numbered((&first, &collection), !named, &counters)?.0),
            };
            modalities.push(modalities::join((&first, &mut collection, own), (&name, opened), !named, &counters)?);
        }
        remote::opened();
        log_differences(&spec, &collection);
        let groups = groups::add(&spec, &mut collection, &counters)?;
        if let Some(pairs) = &spec.pairs {
            collection.with_controls(u64::from(pairs.each));
        }
        let graph = spec.neighbours.as_ref().map(|asked| neighbours::read(asked, &spec, &collection, &counters));
        let graph = graph.transpose()?.map(|(graph, dtype)| (Arc::new(graph), dtype));
        if let (Some((graph, weights)), Some(asked)) = (&graph, &spec.neighbours) {
            collection.with_neighbours(neighbours::about(asked, graph), *weights);
        }
        let writers = Writers::new(&collection.table);
        if let Err(reason) = writers.get(spec.format) {
            return Err(SessionError::Refused(format!("--format {}: {reason}", spec.format.as_str())));
        }
        for (format, reason) in writers.refused() {
            tracing::info!("there are no .{format} files: {reason}");
        }
        let beside = views::InStep { modalities, graph: graph.map(|(graph, _)| graph) };
        let views = views::views(&spec, &collection, &beside, &counters)?;
        Ok(Session { spec, collection, writers, views, groups, counters, probed })
    }

    /// The file system that a mount serves; `config` is the file that the options came from, to be shown.
    ///
    /// # Errors
    /// Those of [`Builder::derive`]; chunks that exceed the memory budget; threads cannot be started.
    pub fn serve(self, config: Option<&str>, log: LogText) -> Result<ShuffleFs, SessionError> {
        threads::suffice(self.spec.threads)?;
        self.derive()?.filesystem(config, log)
    }
}

impl Session {
    /// The options that decide the bytes served, as `dataset.json` shows them.
    pub fn options(&self) -> Value {
        shown::show(&self.spec, &self.views)
    }

    /// The names of the mount.
    pub fn tree(&self) -> Tree {
        let table = &self.collection.table;
        let most_rows = self.views.iter().map(|view| view.plan.drawn_rows()).max().unwrap_or(0);
        // Equal parts may have one batch more than there are.
        let most_batches = self.views.iter().map(|view| view.plan.batches() + 1).max().unwrap_or(0);
        Tree {
            views: self.views.iter().map(ViewPlan::in_tree).collect(),
            rank: self.spec.rank,
            listed_epochs: u64::from(self.spec.epochs),
            listed: self.spec.format,
            extensions: self.writers.extensions(),
            whole: self.writers.whole(table),
            directories: self.writers.directories(),
            numbers: self.writers.numbers(table, most_rows, most_batches),
            labels: categorical(table)
                .map(|column| file_names(column.labels.iter().map(String::as_str), "label"))
                .collect(),
            categories: categorical(table)
                .map(|column| categories_file(&column.served))
                .chain(self.groups.iter().map(GroupTable::file))
                .collect(),
        }
    }

    /// Bytes that images and decoded chunks may take, and the number of decoding threads.
    fn fitting(&self) -> Result<(u64, usize), SessionError> {
        let auto = memory::default_budget(1).unwrap_or(1 << 30);
        address_space::fit(self.spec.memory, auto, self.spec.threads)
    }

    /// Starts the engine that serves the views, in their order.
    ///
    /// # Errors
    /// A chunk exceeds the memory budget; threads cannot be started.
    pub fn engine(mut self) -> Result<Engine, SessionError> {
        // Nothing is asked of the stores' structure from now on.
        self.collection.settle();
        drop(std::mem::take(&mut self.probed));
        // Before what is left is counted.
        reserve::restore();
        let (memory, threads) = self.fitting()?;
        let limits = Limits { memory, threads, io_depth: self.spec.io_depth, timeout: self.spec.timeout };
        room_for_chunks(&self.collection, limits.memory)?;
        let plans: Vec<Plan> = self.views.into_iter().map(|view| view.plan).collect();
        Ok(Engine::new(self.collection, plans, self.writers, self.counters, limits)?)
    }

    fn filesystem(self, config: Option<&str>, log: LogText) -> Result<ShuffleFs, SessionError> {
        let shown = self.options();
        let docs: Vec<ViewDoc<'_>> = self.views.iter().map(ViewPlan::for_documents).collect();
        let groups: Vec<&str> = self.groups.iter().map(|table| table.text.as_str()).collect();
        let documents = Documents::new(&self.collection, &self.writers, &docs, &groups, self.spec.rank, &shown);
        let ownership = self.ownership();
        let tree = Arc::new(self.tree());
        let (keep_cache, listed) = (self.spec.cache, self.spec.format);
        let options = self.resources(shown, config)?;
        let engine = Arc::new(self.engine()?);
        if keep_cache {
            engine.keep_pages();
        }
        Ok(ShuffleFs {
            page_cache: PageCache::new(engine.clone(), tree.clone()),
            passthrough: Arc::new(Passthrough::default()),
            epoch_bytes: engine.epoch_bytes(listed),
            files: ViewFiles::new(engine.clone()),
            engine,
            tree,
            documents,
            ownership,
            keep_cache,
            options: format!("{options:#}\n"),
            log,
            handles: Handles::default(),
            start: Instant::now(),
        })
    }

    /// What `.shufflefs/options.json` shows: the options, and what this process uses.
    fn resources(&self, mut options: Value, config: Option<&str>) -> Result<Value, SessionError> {
        if let Some(config) = config {
            options["config"] = json!(config);
        }
        options["pid"] = json!(std::process::id());
        let (memory, threads) = self.fitting()?;
        options["memory"] = json!(memory);
        options["threads"] = json!(threads);
        options["timeout_seconds"] = json!(self.spec.timeout.as_secs_f64());
        Ok(options)
    }

    fn ownership(&self) -> Ownership {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ownership {
            uid: self.spec.uid.unwrap_or(uid),
            gid: self.spec.gid.unwrap_or(gid),
            mtime: newest(&self.collection),
        }
    }
}

/// Opens the stores of one modality, or those of the first where they are MuData.
fn open(
    spec: &mut Spec,
    also: &[String],
    try_first: bool,
    counters: &Counters,
) -> Result<(Collection, Vec<probe::Probed>), SessionError> {
    let probed = if try_first { probe::stores(spec, also)? } else { probe::Probed::default() };
    let error = match Collection::open(&spec.stores, &spec.selection(also), counters) {
        Ok(collection) => {
            probed.confirm()?;
            if let (None, Some(said)) = (&spec.modality, spec.modalities.first()) {
                let name = said.modality.as_deref().unwrap_or_default();
                let cause = "there are no modalities: the stores are no MuData, and none is named with --modality";
                return Err(SessionError::Refused(format!("--modality-option {name}: {cause}")));
            }
            return Ok((collection, vec![probed]));
        }
        Err(error) => error,
    };
    if spec.modality.is_none() && modalities::of_mudata(spec)? {
        return open(spec, also, try_first, counters);
    }
    Err(match error {
        CollectionError::Unknown { cause, wanted, known } => {
            let known = suggest(&wanted, known.iter().map(String::as_str));
            SessionError::Refused(format!("{cause}; {known}"))
        }
        error => error.into(),
    })
}

/// Logs the columns that are not served and the genes that were aligned.
fn log_differences(spec: &Spec, collection: &Collection) {
    for (column, reason) in &collection.left_out {
        tracing::info!("obs column {column} is not served: {reason}");
    }
    for store in collection.stores.iter().filter(|store| store.x().columns.map.is_some()) {
        let ColumnMap { shared, missing, extra, .. } = &store.x().columns;
        let (path, join) = (store.path.display(), spec.join.as_str());
        tracing::info!("{path}: {shared} genes aligned by name, {missing} missing, {extra} left out (--join {join})");
    }
    let absent = &collection.table.x().absent;
    if let Some(first) = absent.first() {
        let (count, asked) = (absent.len(), collection.table.x().genes.len());
        tracing::info!(
            "{count} of the {asked} genes of --genes are in no store, such as {first}: zero (--absent zero)"
        );
    }
}

/// Every chunk must be decoded as a whole: one that is larger than the budget, or says so, is refused here.
fn room_for_chunks(collection: &Collection, memory: u64) -> Result<(), SessionError> {
    for array in collection.all_stores().flat_map(|store| store.elements.iter().flat_map(|part| part.matrix.arrays())) {
        let bytes = array.chunk_elements().saturating_mul(array.dtype.size() as u64);
        if array.source.is_encoded() && bytes > memory {
            let (store, element) = (&array.store, &array.element);
            let (bytes, memory) = (bytesize::ByteSize(bytes), bytesize::ByteSize(memory));
            return Err(SessionError::Refused(format!(
                "{store}: {element}: one chunk is {bytes} decoded, more than the memory budget of {memory}; raise --memory, \
                 or write it in smaller chunks"
            )));
        }
    }
    Ok(())
}

/// When the newest store was written.
fn newest(collection: &Collection) -> SystemTime {
    let written = |store: &Store| {
        if name::is_remote(store.container.path()) {
            return store.container.identity().iter().filter_map(|object| object.version.modified()).max();
        }
        std::fs::metadata(store.container.path()).ok()?.modified().ok()
    };
    collection.all_stores().filter_map(written).max().unwrap_or(UNIX_EPOCH)
}

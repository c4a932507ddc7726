//! Composes collection, views, plans, engine, tree and documents from stores; no other module does.
//!
//! [`Session::builder`] takes a checked [`Spec`] and has one method for each purpose:
//!
//! - [`describe`](describe::describe): the contents of a store (`info`); needs no spec.
//! - [`probe::child`]: the child process that opens what a mount would open, in case libhdf5 crashes.
//! - [`Builder::derive`]: collection and plans, without serving (`plan`).
//! - [`Builder::serve`]: the file system of a mount. [`Session::engine`] is the same without FUSE, for tests and benches.
//!
//! Invariant: whatever opens stores for a mount does so through [`Builder::derive`], and so through the probe.

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

/// Stores opened as one collection, and the plans of its views.
pub struct Session {
    pub spec: Spec,
    pub collection: Collection,
    pub writers: Writers,
    /// At least one, in the order of the spec.
    pub views: Vec<ViewPlan>,
    /// Tables of sets and bags.
    groups: Vec<GroupTable>,
    pub counters: Counters,
    /// The children that still answer questions about the structure of stores.
    probed: Vec<probe::Probed>,
}

/// Parameters of a session.
pub struct Builder {
    spec: Spec,
    also: Vec<String>,
    probed: bool,
    /// Maximum bytes of row bounds and obs columns.
    metadata: Option<u64>,
}

impl Session {
    pub fn builder(spec: Spec) -> Builder {
        Builder { spec, also: Vec::new(), probed: true, metadata: memory::metadata() }
    }
}

impl Builder {
    /// Also reads an obs column that the spec does not name.
    pub fn also(mut self, column: Option<&str>) -> Builder {
        self.also.extend(column.map(str::to_owned));
        self
    }

    /// Opens HDF5 stores without trying them in a child first: for processes that may crash, or are not our binary.
    pub fn unprobed(mut self) -> Builder {
        self.probed = false;
        self
    }

    /// Sets the maximum bytes of row bounds and obs columns; the default is most of the machine's memory.
    pub fn metadata_limit(mut self, bytes: u64) -> Builder {
        self.metadata = Some(bytes);
        self
    }

    /// Opens the stores and plans the views.
    ///
    /// # Errors
    /// A store cannot be read, stores cannot be combined, a view has no rows, a format cannot hold the stores.
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
                // The user has not asked for this modality by name: the MuData has it.
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

    /// Starts the file system of a mount. `config` is the configuration file, to be shown in the options.
    ///
    /// # Errors
    /// Those of [`Builder::derive`]; chunks that exceed the memory budget; threads cannot be started.
    pub fn serve(self, config: Option<&str>, log: LogText) -> Result<ShuffleFs, SessionError> {
        threads::suffice(self.spec.threads)?;
        self.derive()?.filesystem(config, log)
    }
}

impl Session {
    /// The options that decide the bytes served, as in `dataset.json`.
    pub fn options(&self) -> Value {
        shown::show(&self.spec, &self.views)
    }

    /// The tree of the mount.
    pub fn tree(&self) -> Tree {
        let table = &self.collection.table;
        let most_rows = self.views.iter().map(|view| view.plan.drawn_rows()).max().unwrap_or(0);
        // A rank may have one more batch than an equal part, by padding.
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

    /// Bytes for images and decoded chunks, and the number of decoding threads.
    fn fitting(&self) -> Result<(u64, usize), SessionError> {
        let auto = memory::default_budget(1).unwrap_or(1 << 30);
        address_space::fit(self.spec.memory, auto, self.spec.threads)
    }

    /// Starts the engine that serves the views, in their order.
    ///
    /// # Errors
    /// A chunk exceeds the memory budget; threads cannot be started.
    pub fn engine(mut self) -> Result<Engine, SessionError> {
        // From now on the structure of stores is not read any more.
        self.collection.settle();
        drop(std::mem::take(&mut self.probed));
        // Before the remaining address space is measured.
        reserve::restore();
        let (memory, threads) = self.fitting()?;
        let limits = Limits { memory, threads, io_depth: self.spec.io_depth, timeout: self.spec.timeout };
        room_for_chunks(&self.collection, limits.memory)?;
        let plans: Vec<Plan> = self.views.into_iter().map(|view| view.plan).collect();
        Ok(Engine::new(self.collection, plans, self.writers, self.counters, limits)?)
    }

    /// The file system of a mount: [`Builder::serve`] in two steps, for tests that put something of their own between.
    ///
    /// # Errors
    /// Those of [`Session::engine`].
    pub fn filesystem(self, config: Option<&str>, log: LogText) -> Result<ShuffleFs, SessionError> {
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

    /// The content of `.shufflefs/options.json`: the options, and the resources of this process.
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

/// Opens the stores of one modality; if they are MuData, those of the first modality.
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

/// Logs the columns that are not served, and the alignment of genes.
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

/// Fails if a chunk exceeds the budget, also by a wrong size: chunks are decoded whole.
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

/// The modification time of the newest store.
fn newest(collection: &Collection) -> SystemTime {
    let written = |store: &Store| {
        if name::is_remote(store.container.path()) {
            return store.container.identity().iter().filter_map(|object| object.version.modified()).max();
        }
        std::fs::metadata(store.container.path()).ok()?.modified().ok()
    };
    collection.all_stores().filter_map(written).max().unwrap_or(UNIX_EPOCH)
}

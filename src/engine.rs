//! Demand and prefetch: loads fetches into images within one memory budget, and answers reads.
//!
//! Invariants. An image is absent, loading, unread or read. Any number of readers cause one load (single flight); failed loads are not
//! cached, so the next reader tries again. Only one load task at a time allocates its buffers, and tasks that have theirs need no more, so
//! waiting for memory ends. Readers never block a session thread: their reply object is queued here, and a monitor fails those that wait
//! without progress.

pub mod access;
mod advice;
mod budget;
mod fetch;
mod from_stores;
pub mod lease;
mod lease_table;
mod load;
mod load_task;
mod loader;
mod memory;
#[cfg(test)]
mod models;
mod monitor;
mod notices;
mod parts;
mod plans;
mod readers;
mod stats;
mod store_loader;
mod tmpfs;
pub mod view_file;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::array::cache::ChunkCache;
use crate::array::gather::{Io, under_way};
use crate::array::{ArrayError, Counters};
use crate::collection::Collection;
use crate::format::{Extension, Writers};
use crate::plan::Plan;
use crate::plan::rank::Rank;
use crate::storage::Meter;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Clock, Condvar, Mutex, MutexGuard};

use access::Access;
use budget::{Image, Pool};
use fetch::Fetches;
use lease::Loaded;
use load_task::LoadTask;
use loader::FetchLoader;
use parts::Parts;
use plans::Plans;
use readers::{Answer, Waiter};
use stats::Stats;
use store_loader::StoreLoader;

/// Identifies an image: a batch of a view's epoch in one format, or a part of it. Ranks share images, as they share batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageKey {
    /// Number of the view.
    pub view: u16,
    pub epoch: u64,
    /// Number of the batch in the whole epoch.
    pub batch: u64,
    pub kind: ImageKind,
}

/// What an image has of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageKind {
    /// The batch as a file.
    File(Extension),
    /// Some fields of a matrix, for files of many batches; with the number of the part.
    Part(u8),
}

impl ImageKey {
    /// The image of a batch as a file.
    pub fn file(view: u16, epoch: u64, batch: u64, extension: Extension) -> ImageKey {
        ImageKey { view, epoch, batch, kind: ImageKind::File(extension) }
    }

    /// The image of a batch's first part.
    fn part(view: u16, epoch: u64, batch: u64) -> ImageKey {
        ImageKey { view, epoch, batch, kind: ImageKind::Part(0) }
    }
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// A value that the dtype requested with `--dtype` cannot represent.
    #[error("{store}: {element}: {value} has no place in {dtype}; choose another --dtype, or leave it out")]
    Value { store: String, element: String, value: String, dtype: &'static str },
    #[error("no progress for {0} s; the store's file system may hang (see --timeout)")]
    Timeout(u64),
    /// The system has not this many bytes of memory.
    #[error("no memory for {0} bytes; lower --memory, or raise the limit of this process (`ulimit -v`) or container")]
    NoMemory(u64),
    #[error("internal error: {0}")]
    Internal(String),
}

/// Takes the bytes of a read, or its error. Called once, on any thread.
pub type Reply = Box<dyn FnOnce(Result<&[u8], &ReadError>) + Send>;

/// Takes an image, or its error. As above.
pub type Opened = Box<dyn FnOnce(Result<Loaded, &ReadError>) + Send>;

/// Settings of an engine that do not affect bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum bytes of images and decoded chunks.
    pub memory: u64,
    /// Decoding threads.
    pub threads: usize,
    /// Requests to storage in flight; `None`: derived from its latency.
    pub io_depth: Option<usize>,
    /// How long a load may run without progress.
    pub timeout: Duration,
}

struct Loading {
    task: u64,
    waiters: Vec<Waiter>,
}

struct State {
    /// Images that nobody has read to the end yet.
    unread: LruCache<ImageKey, Arc<Image>>,
    /// Images read to the end: retained for other readers while there is room, evicted first.
    read: LruCache<ImageKey, Arc<Image>>,
    read_bytes: u64,
    loading: HashMap<ImageKey, Loading>,
    tasks: HashMap<u64, LoadTask>,
    demand: VecDeque<u64>,
    prefetch: VecDeque<u64>,
    demand_running: usize,
    /// How many of the next prefetches run on the full pool, after a reader stalled on an in-flight one.
    full_speed_prefetches: u32,
    /// Load tasks that have their buffers: these will become evictable memory.
    admitted: usize,
    next_task: u64,
    access: Access,
    /// Bytes of the last whole fetch loaded: an estimate for the next one.
    fetch_bytes: u64,
    /// Messages already logged, so that a damaged chunk is one line instead of one for each batch.
    logged: HashSet<String>,
}

impl State {
    /// Whether an image is loaded or loading.
    fn has(&self, key: &ImageKey) -> bool {
        self.loading.contains_key(key) || self.unread.contains(key) || self.read.contains(key)
    }

    /// The image, if it is loaded; does not count as a use.
    fn peek(&self, key: &ImageKey) -> Option<Loaded> {
        self.unread.peek(key).or_else(|| self.read.peek(key)).cloned().map(Loaded)
    }
}

/// The state that loaders, monitor and readers share.
struct Shared<S = StoreLoader> {
    loader: S,
    stats: Stats,
    pool: Arc<Pool>,
    limits: Limits,
    start: Clock,
    /// When any load task last progressed: a queued task does not time out while others progress.
    progress: AtomicU64,
    state: Mutex<State>,
    /// Signalled when a load task is queued, or the engine stops.
    work: Condvar,
    /// Signalled when a load task ends or an image is dropped.
    freed: Condvar,
    /// Held while a load task allocates its buffers.
    admission: Mutex<()>,
    stop: AtomicBool,
}

/// Serves the images of one mount.
pub struct Engine<S: FetchLoader = StoreLoader> {
    shared: Arc<Shared<S>>,
    workers: Vec<JoinHandle<()>>,
}

/// Load tasks that run at once: one decodes while the other plans, finishes or waits for a slow disk.
const LOADERS: usize = 2;

impl Engine {
    /// Starts the engine's threads. `plans` has a plan for each view of the tree.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub fn new(
        collection: Collection,
        plans: Vec<Plan>,
        writers: Writers,
        counters: Counters,
        limits: Limits,
    ) -> std::io::Result<Engine> {
        let pool = |name: &'static str, threads: usize| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(move |i| format!("{name}-{i}"))
                .start_handler(|_| yield_to_readers())
                .build()
                .map_err(std::io::Error::other)
        };
        let threads = pool("decode", limits.threads)?;
        let background_pool = pool("ahead", limits.threads.saturating_sub(1).max(1))?;
        // Stored bytes in flight are part of the budget where requests are deep from the beginning.
        let is_slow = {
            let elements = collection.all_stores().flat_map(|store| &store.elements);
            let mut arrays = elements.flat_map(|part| part.matrix.arrays());
            arrays.any(|array| array.source.meter().is_some_and(Meter::is_slow))
        };
        let in_flight = if is_slow { under_way(limits.memory).min(limits.memory / 8) } else { 0 };
        let memory = limits.memory - in_flight;
        let for_chunks = budget::for_chunks(&collection, &plans, memory);
        let loader = StoreLoader {
            plans: Plans::new(plans, &collection.table),
            parts: Parts::new(&collection, &writers),
            collection,
            writers,
            fetches: Fetches::new(),
            counters,
            cache: (for_chunks > 0).then(|| ChunkCache::new(for_chunks)),
            threads,
            io: Io::new(limits.io_depth, limits.threads, under_way(limits.memory)),
            background_pool,
            scratch: Default::default(),
        };
        Engine::start(loader, memory - for_chunks, limits)
    }

    pub fn collection(&self) -> &Collection {
        &self.shared.loader.collection
    }

    /// The formats that can hold this collection.
    pub fn extensions(&self) -> Vec<Extension> {
        self.shared.loader.writers.extensions()
    }

    /// Approximate bytes of one epoch of all views in one format, assuming that batches have the mean size of those in the first fetch;
    /// exact if that is the whole epoch.
    pub fn epoch_bytes(&self, extension: Extension) -> u64 {
        let one = |(view, plan): (u16, &Plan)| {
            let size = |batch| self.size(ImageKey::file(view, 0, batch, extension));
            let sizes: Vec<u64> = plan.batches_of(0).filter_map(size).collect();
            let sum = u128::from(sizes.iter().fold(0_u64, |sum, &size| sum.saturating_add(size)));
            let all = sum * u128::from(plan.batches()) / sizes.len().max(1) as u128;
            u64::try_from(all).unwrap_or(u64::MAX)
        };
        (0..).zip(self.shared.loader.plans.views()).map(one).fold(0, u64::saturating_add)
    }

    /// The content of `.shufflefs/stats.json`.
    pub fn stats(&self) -> serde_json::Value {
        self.shared.stats_json()
    }

    /// What readers wait for, and which option would help: `.shufflefs/advice`.
    pub fn advice(&self) -> String {
        advice::advice(&self.shared.stats_json())
    }

    /// The statistics in Prometheus' text format.
    pub fn prometheus(&self) -> String {
        stats::prometheus(&self.shared.stats_json())
    }
}

impl<S: FetchLoader> Engine<S> {
    /// Starts the threads; `memory`: maximum bytes of images.
    fn start(loader: S, memory: u64, limits: Limits) -> std::io::Result<Engine<S>> {
        let state = State {
            unread: LruCache::unbounded(),
            read: LruCache::unbounded(),
            read_bytes: 0,
            loading: HashMap::new(),
            tasks: HashMap::new(),
            demand: VecDeque::new(),
            prefetch: VecDeque::new(),
            demand_running: 0,
            full_speed_prefetches: 0,
            admitted: 0,
            next_task: 0,
            access: Access::new(),
            fetch_bytes: 0,
            logged: HashSet::new(),
        };
        let shared = Arc::new(Shared {
            loader,
            stats: Stats::default(),
            pool: Arc::new(Pool::new(memory)),
            limits,
            start: Clock::now(),
            progress: AtomicU64::new(0),
            state: Mutex::new(state),
            work: Condvar::new(),
            freed: Condvar::new(),
            admission: Mutex::new(()),
            stop: AtomicBool::new(false),
        });
        let mut engine = Engine { shared, workers: Vec::new() };
        for i in 0..LOADERS {
            let shared = engine.shared.clone();
            engine.workers.push(thread::Builder::new().name(format!("load-{i}")).spawn(move || shared.run_loads())?);
        }
        let shared = engine.shared.clone();
        engine.workers.push(thread::Builder::new().name("monitor".to_owned()).spawn(move || monitor::run(&shared))?);
        Ok(engine)
    }

    /// The plan of a view.
    pub fn plan(&self, view: u16) -> &Plan {
        self.shared.plan(view)
    }

    /// Exact size of a file, from the plan and row lengths alone; `None` if the file does not exist.
    pub fn size(&self, key: ImageKey) -> Option<u64> {
        let loader = &self.shared.loader;
        let fetch = loader.fetch(key.view, key.epoch, loader.plan(key.view).fetch_of(key.batch).0);
        loader.layout(&fetch, key).ok().map(|layout| layout.size)
    }

    /// Number of rows of a batch.
    pub fn rows(&self, key: ImageKey) -> u64 {
        self.shared.loader.rows(key)
    }

    /// Reads `len` bytes at `offset` of an image: replies at once if it is loaded, else when it is. `opened`: when the file was opened,
    /// for the statistics.
    pub fn read(
        &self,
        key: ImageKey,
        rank: Option<Rank>,
        (offset, len): (u64, usize),
        opened: Option<Instant>,
        reply: Reply,
    ) {
        self.shared.read(
            key,
            rank,
            Waiter { offset, len, answer: Answer::Bytes(reply), since: Instant::now(), opened, queued: 0 },
        );
    }

    /// Passes an image to `opened`: at once if it is loaded, else when it is. It then counts as read to the end.
    pub fn open(&self, key: ImageKey, rank: Option<Rank>, opened: Opened) {
        let since = Instant::now();
        let (offset, len, answer) = (0, usize::MAX, Answer::Image(opened));
        self.shared.read(key, rank, Waiter { offset, len, answer, since, opened: Some(since), queued: 0 });
    }
}

impl<S: FetchLoader> Drop for Engine<S> {
    fn drop(&mut self) {
        {
            // Set under the lock: a worker between its check and its wait would otherwise miss the notification.
            let _state = self.shared.lock();
            self.shared.stop.store(true, Ordering::Release);
        }
        self.shared.work.notify_all();
        self.shared.freed.notify_all();
        for worker in self.workers.drain(..) {
            // A panic has been reported already.
            let _ = worker.join();
        }
    }
}

impl<S: FetchLoader> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves the state consistent, as no change to it spans calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, view: u16) -> &Plan {
        self.loader.plan(view)
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn log_once(&self, state: &mut State, error: &ReadError) {
        self.stats.failed();
        let message = error.to_string();
        // Many batches may have values that do not fit: only the first is logged.
        let subject = match error {
            ReadError::Value { store, element, .. } => format!("{store}: {element}: value"),
            _ => message.clone(),
        };
        if state.logged.len() < 10_000 && state.logged.insert(subject) {
            tracing::error!("{message}");
        }
    }
}

/// Lowers the priority of a decoding thread. A reader and the thread that answers it run alternately on one core, and would otherwise have
/// to wait each time for decoding that is not urgent.
fn yield_to_readers() {
    // Affects only this thread, which is a process to Linux. Errors are ignored.
    let _ = rustix::process::setpriority_process(None, 5);
}

/// The capacity of an LRU cache; at least 1.
fn at_most(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

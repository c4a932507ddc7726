//! Demand and prefetch: loads fetches into images, within one memory budget, and answers reads.
//!
//! Invariants. A key is in one place: not here, loading, fresh or consumed. Any number of readers cause one load
//! (single flight); a failed load is not remembered, so the next reader tries again. Only one flight at a time gathers
//! its buffers, and those already running need nothing more, so waiting for memory ends. Readers never wait on a
//! session thread: their reply moves in here, and a monitor ends those that wait without progress.

mod budget;
mod fetch;
mod flight;
pub mod lent;
mod load;
mod memory;
#[cfg(test)]
mod models;
mod monitor;
mod stats;
mod stores;
mod streams;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::array::cache::ChunkCache;
use crate::array::{ArrayError, Counters};
use crate::collection::Collection;
use crate::format::{Extension, Writers};
use crate::plan::Plan;
use crate::plan::rank::Rank;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Clock, Condvar, Mutex, MutexGuard};

use budget::{Image, Pool};
use fetch::Fetches;
use flight::Flight;
use lent::Loaded;
use stats::Stats;
use stores::{Stores, Supply};
use streams::{Stream, Streams};

/// One file's image: a batch of a view's epoch in one format. Ranks share images, as they share batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Number of the view.
    pub view: u16,
    pub epoch: u64,
    /// Number of the batch in the whole epoch.
    pub batch: u64,
    pub extension: Extension,
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// What `--dtype` asked for cannot be given.
    #[error("{store}: {element}: {value} has no place in {dtype}; choose another --dtype, or leave it out")]
    Value { store: String, element: String, value: String, dtype: &'static str },
    #[error("no progress for {0} s; the store's file system may hang (see --timeout)")]
    Timeout(u64),
    #[error("internal error: {0}")]
    Internal(String),
}

/// Takes the bytes of a read, or why there are none. Called once, on any thread.
pub type Reply = Box<dyn FnOnce(Result<&[u8], &ReadError>) + Send>;

/// Takes an image, or why there is none. As above.
pub type Opened = Box<dyn FnOnce(Result<Loaded, &ReadError>) + Send>;

/// Settings of an engine that change no byte.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of images and decoded chunks at most.
    pub memory: u64,
    /// Decoding threads.
    pub threads: usize,
    /// How long a load may make no progress.
    pub timeout: Duration,
}

enum Answer {
    Bytes(Reply),
    Image(Opened),
}

struct Waiter {
    offset: u64,
    len: usize,
    answer: Answer,
    /// When it came, and when its file was opened (if this is the first read of it).
    since: Instant,
    opened: Option<Instant>,
}

struct Loading {
    flight: u64,
    waiters: Vec<Waiter>,
}

struct State {
    /// Loaded and not yet read to the end: what readers are about to want.
    fresh: LruCache<Key, Arc<Image>>,
    /// Read to the end: kept for other jobs while there is room, and the first to go.
    consumed: LruCache<Key, Arc<Image>>,
    consumed_bytes: u64,
    loading: HashMap<Key, Loading>,
    flights: HashMap<u64, Flight>,
    demand: VecDeque<u64>,
    prefetch: VecDeque<u64>,
    demand_running: usize,
    /// Flights that have their buffers and are loading: memory that will be let go.
    admitted: usize,
    next_flight: u64,
    streams: Streams,
    /// Bytes of the last whole fetch loaded: what the next one will about need.
    fetch_bytes: u64,
    /// Messages already logged: one line for each damaged chunk, not one for each batch.
    logged: HashSet<String>,
}

impl State {
    /// Whether an image is loaded, or on its way.
    fn has(&self, key: &Key) -> bool {
        self.loading.contains_key(key) || self.fresh.contains(key) || self.consumed.contains(key)
    }
}

/// What loaders, monitor and readers share.
struct Shared<S = Stores> {
    supply: S,
    stats: Stats,
    pool: Arc<Pool>,
    limits: Limits,
    start: Clock,
    /// Of any flight: a queued one lives as long as others get on.
    progress: AtomicU64,
    state: Mutex<State>,
    /// A flight was queued, or the engine stops.
    work: Condvar,
    /// A flight ended or an image was dropped.
    freed: Condvar,
    /// Held while a flight gathers its buffers.
    admission: Mutex<()>,
    stop: AtomicBool,
}

/// Serves the images of one mount.
pub struct Engine<S: Supply = Stores> {
    shared: Arc<Shared<S>>,
    workers: Vec<JoinHandle<()>>,
}

/// Consumed fetches that are kept for slower jobs.
const KEPT_FETCHES: u64 = 3;

/// Flights at once: one decodes while the other plans, finishes or waits for a slow disk.
const LOADERS: usize = 2;

impl Engine {
    /// Starts the engine's threads. `plans` has one for each view of the tree.
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
        let calm_threads = pool("ahead", limits.threads.saturating_sub(1).max(1))?;
        let for_chunks = budget::for_chunks(&collection, &plans, limits.memory);
        let supply = Stores {
            collection,
            plans,
            writers,
            fetches: Fetches::new(),
            counters,
            cache: (for_chunks > 0).then(|| ChunkCache::new(for_chunks)),
            threads,
            calm_threads,
            scratch: Default::default(),
        };
        Engine::start(supply, limits.memory - for_chunks, limits)
    }

    pub fn collection(&self) -> &Collection {
        &self.shared.supply.collection
    }

    /// The formats that can hold this collection.
    pub fn extensions(&self) -> Vec<Extension> {
        self.shared.supply.writers.extensions()
    }

    /// What `.shufflefs/stats.json` shows.
    pub fn stats(&self) -> serde_json::Value {
        self.shared.stats_json()
    }

    /// The same in Prometheus' text format.
    pub fn prometheus(&self) -> String {
        stats::prometheus(&self.shared.stats_json())
    }
}

impl<S: Supply> Engine<S> {
    /// Starts the threads; `memory`: bytes of images at most.
    fn start(supply: S, memory: u64, limits: Limits) -> std::io::Result<Engine<S>> {
        let state = State {
            fresh: LruCache::unbounded(),
            consumed: LruCache::unbounded(),
            consumed_bytes: 0,
            loading: HashMap::new(),
            flights: HashMap::new(),
            demand: VecDeque::new(),
            prefetch: VecDeque::new(),
            demand_running: 0,
            admitted: 0,
            next_flight: 0,
            streams: Streams::new(),
            fetch_bytes: 0,
            logged: HashSet::new(),
        };
        let shared = Arc::new(Shared {
            supply,
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

    /// Exact size of a file, from the plan and the row lengths alone; `None` where no such file exists.
    pub fn size(&self, key: Key) -> Option<u64> {
        let supply = &self.shared.supply;
        let fetch = supply.fetch(key.view, key.epoch, supply.plan(key.view).fetch_of(key.batch).0);
        supply.layout(&fetch, key).ok().map(|layout| layout.size)
    }

    /// Reads `len` bytes at `offset` of an image: answers at once if it is loaded, else when it is.
    /// `opened`: when the file was, for the statistics.
    pub fn read(
        &self,
        key: Key,
        rank: Option<Rank>,
        (offset, len): (u64, usize),
        opened: Option<Instant>,
        reply: Reply,
    ) {
        self.shared.read(
            key,
            rank,
            Waiter { offset, len, answer: Answer::Bytes(reply), since: Instant::now(), opened },
        );
    }

    /// Gives an image: at once if it is loaded, else when it is. It counts as read to its end.
    pub fn open(&self, key: Key, rank: Option<Rank>, opened: Opened) {
        let since = Instant::now();
        let (offset, len, answer) = (0, usize::MAX, Answer::Image(opened));
        self.shared.read(key, rank, Waiter { offset, len, answer, since, opened: Some(since) });
    }

    /// From now on images are files that can be lent, as far as there are descriptors.
    pub fn use_files(&self) {
        self.shared.pool.use_files(lent::descriptors());
    }

    /// An image, if it is loaded.
    pub fn loaded(&self, key: Key) -> Option<Loaded> {
        let state = self.shared.lock();
        state.fresh.peek(&key).or_else(|| state.consumed.peek(&key)).cloned().map(Loaded)
    }

    /// Notes that an image is in the kernel's page cache: what reads it from there is not seen here.
    pub fn stored(&self, key: Key) {
        let mut state = self.shared.lock();
        if let Some(image) = state.fresh.pop(&key) {
            self.shared.stats.stored(image.len());
            self.shared.consume(&mut state, key, &image);
        }
    }

    /// Notes that a file is opened that will be read from the page cache: its stream gets on as if it were read here.
    pub fn opened(&self, key: Key, rank: Option<Rank>) {
        self.shared.opened(&mut self.shared.lock(), key, rank);
    }
}

impl<S: Supply> Drop for Engine<S> {
    fn drop(&mut self) {
        {
            // With the lock: a worker that has looked and not yet begun to wait would miss the word, and wait for ever.
            let _state = self.shared.lock();
            self.shared.stop.store(true, Ordering::Release);
        }
        self.shared.work.notify_all();
        self.shared.freed.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has said so already.
            let _ = worker.join();
        }
    }
}

impl Waiter {
    /// Whether it reads to the end of the image.
    fn ends(&self, image: &Image) -> bool {
        self.offset.saturating_add(self.len as u64) >= image.len() as u64
    }

    /// Answers; `waited`: for the image to be loaded.
    fn serve(self, image: &Arc<Image>, stats: &Stats, waited: bool) {
        let bytes = image.bytes();
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(self.len).min(bytes.len());
        stats.served(end - start, self.since, waited, self.opened);
        match self.answer {
            Answer::Bytes(reply) => reply(Ok(&bytes[start..end])),
            Answer::Image(opened) => opened(Ok(Loaded(image.clone()))),
        }
    }

    fn fail(self, error: &ReadError) {
        match self.answer {
            Answer::Bytes(reply) => reply(Err(error)),
            Answer::Image(opened) => opened(Err(error)),
        }
    }
}

impl<S: Supply> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked with the lock left the state whole: nothing in it is half-done across a call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, view: u16) -> &Plan {
        self.supply.plan(view)
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// A stream has come to a batch: looks ahead of it.
    fn opened(&self, state: &mut State, key: Key, rank: Option<Rank>) {
        let plan = self.plan(key.view);
        let (fetch, place) = plan.fetch_of(key.batch);
        let stream = Stream { view: key.view, epoch: key.epoch, rank, extension: key.extension };
        for (epoch, fetch) in state.streams.read(plan, stream, fetch, place) {
            self.look_ahead(state, Stream { epoch, ..stream }, fetch);
        }
    }

    fn read(&self, key: Key, rank: Option<Rank>, waiter: Waiter) {
        let plan = self.plan(key.view);
        let (fetch, place) = plan.fetch_of(key.batch);
        let stream = Stream { view: key.view, epoch: key.epoch, rank, extension: key.extension };
        let mut state = self.lock();
        if waiter.offset == 0 && place == 0 && !state.has(&key) {
            state.streams.restarted(&stream);
        }
        // A file is read from its start once: later reads of it say nothing new about where its reader goes.
        let ahead = if waiter.offset == 0 { state.streams.read(plan, stream, fetch, place) } else { Vec::new() };
        let image = self.loaded(&mut state, key, &waiter);
        let (image, waiter) = match image {
            Some(image) => (Some(image), Some(waiter)),
            None => {
                self.demand(&mut state, key, stream, fetch, waiter);
                (None, None)
            }
        };
        for (epoch, fetch) in ahead {
            self.look_ahead(&mut state, Stream { epoch, ..stream }, fetch);
        }
        drop(state);
        if let (Some(image), Some(waiter)) = (image, waiter) {
            waiter.serve(&image, &self.stats, false);
        }
    }

    /// The image, if it is here. Once it is read to its end it is consumed: it may go before those that are not.
    fn loaded(&self, state: &mut State, key: Key, waiter: &Waiter) -> Option<Arc<Image>> {
        let Some(image) = state.fresh.get(&key) else { return state.consumed.get(&key).cloned() };
        let image = image.clone();
        if waiter.ends(&image) {
            state.fresh.pop(&key);
            self.consume(state, key, &image);
        }
        Some(image)
    }

    fn consume(&self, state: &mut State, key: Key, image: &Arc<Image>) {
        state.consumed_bytes += image.capacity();
        state.consumed.push(key, image.clone());
        self.forget_old(state);
        self.stats.consumed(self.supply.rows(key));
    }

    /// Lets go of what was consumed long ago, budget or not: buffers that come back are written to without a page fault,
    /// which fresh memory costs for every 4 KiB (that halves the rate of uncompressed stores). What stays is for other jobs
    /// that read the same epoch a little later.
    fn forget_old(&self, state: &mut State) {
        let most = (KEPT_FETCHES * state.fetch_bytes).min(self.pool.limit() / 4);
        while state.consumed_bytes > most && state.consumed.len() > 1 {
            match state.consumed.pop_lru() {
                Some((_, image)) => state.consumed_bytes -= image.capacity(),
                None => break,
            }
        }
    }

    /// Queues what a reader waits for.
    fn demand(&self, state: &mut State, key: Key, stream: Stream, fetch: u64, waiter: Waiter) {
        if let Some(loading) = state.loading.get_mut(&key) {
            loading.waiters.push(waiter);
            let flight = loading.flight;
            if let Some(at) = state.prefetch.iter().position(|&queued| queued == flight) {
                state.prefetch.remove(at);
                state.demand.push_back(flight);
                self.work.notify_one();
            }
            return;
        }
        let keys = if state.streams.wants_whole(&stream, fetch) {
            self.missing(state, &stream, fetch, Some(key))
        } else {
            vec![key]
        };
        let flight = self.queue(state, fetch, keys);
        state.demand.push_back(flight);
        if let Some(loading) = state.loading.get_mut(&key) {
            loading.waiters.push(waiter);
        }
        self.work.notify_one();
    }

    /// Queues the fetch that a stream will want next, unless it is here or on its way.
    fn look_ahead(&self, state: &mut State, stream: Stream, fetch: u64) {
        let fits = self.pool.room() + state.consumed_bytes;
        if state.fetch_bytes > fits {
            return;
        }
        let keys = self.missing(state, &stream, fetch, None);
        state.streams.queued(&stream, fetch);
        if !keys.is_empty() {
            let flight = self.queue(state, fetch, keys);
            state.prefetch.push_back(flight);
            self.work.notify_one();
        }
    }

    /// The batches of a fetch that are neither loaded nor loading; `first` leads.
    fn missing(&self, state: &State, stream: &Stream, fetch: u64, first: Option<Key>) -> Vec<Key> {
        let &Stream { view, epoch, extension, .. } = stream;
        let others = self
            .plan(view)
            .batches_of(fetch)
            .map(|batch| Key { view, epoch, batch, extension })
            .filter(|key| Some(*key) != first && !state.has(key));
        first.into_iter().chain(others).collect()
    }

    fn queue(&self, state: &mut State, fetch: u64, keys: Vec<Key>) -> u64 {
        let id = state.next_flight;
        state.next_flight += 1;
        for key in &keys {
            // A batch that its flight left out keeps its readers.
            state.loading.entry(*key).or_insert(Loading { flight: id, waiters: Vec::new() }).flight = id;
        }
        let progress = Arc::new(AtomicU64::new(self.now()));
        state.flights.insert(id, Flight { id, fetch, keys, progress, started: false });
        id
    }

    fn log_once(&self, state: &mut State, error: &ReadError) {
        self.stats.failed();
        let message = error.to_string();
        // Of values that do not fit there may be one in every batch: the first is told.
        let subject = match error {
            ReadError::Value { store, element, .. } => format!("{store}: {element}: value"),
            _ => message.clone(),
        };
        if state.logged.len() < 10_000 && state.logged.insert(subject) {
            tracing::error!("{message}");
        }
    }
}

/// Lowers the priority of a decoding thread: a reader and the thread that answers it take turns on one core, and each turn
/// would wait for decoding of what is not needed yet.
fn yield_to_readers() {
    // SAFETY: no memory is touched. It may fail: then the priority stays.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 5) };
}

/// So many of anything that is worth remembering.
fn at_most(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

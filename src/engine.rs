//! Demand and prefetch: loads fetches into images, within one memory budget, and answers reads.
//!
//! Invariants. A key is in one place: not here, loading, fresh or consumed. Any number of readers cause one load
//! (single flight); a failed load is not remembered, so the next reader tries again. Only one flight at a time gathers
//! its buffers, and those already running need nothing more, so waiting for memory ends. Readers never wait on a
//! session thread: their reply moves in here, and a monitor ends those that wait without progress.

mod budget;
mod fetch;
mod load;
mod monitor;
mod stats;
mod streams;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::array::{ArrayError, Counters};
use crate::collection::Collection;
use crate::format::{Extension, Format};
use crate::plan::Plan;
use crate::plan::rank::Rank;

use budget::{Image, Pool};
use fetch::{Fetch, Fetches};
use stats::Stats;
use streams::{Stream, Streams};

/// One file's image: a batch of an epoch in one format. Ranks share images, as they share batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
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
    #[error("no progress for {0} s; the store's file system may hang (see --timeout)")]
    Timeout(u64),
    #[error("internal error: {0}")]
    Internal(String),
}

/// Takes the bytes of a read, or why there are none. Called once, on any thread.
pub type Reply = Box<dyn FnOnce(Result<&[u8], &ReadError>) + Send>;

/// Settings of an engine that change no byte.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of images at most.
    pub memory: u64,
    /// Decoding threads.
    pub threads: usize,
    /// How long a load may make no progress.
    pub timeout: Duration,
}

struct Waiter {
    offset: u64,
    len: usize,
    reply: Reply,
}

struct Loading {
    flight: u64,
    waiters: Vec<Waiter>,
}

/// One load: some batches of one fetch in one format.
struct Flight {
    id: u64,
    fetch: u64,
    keys: Vec<Key>,
    /// Milliseconds since the engine started at which it last got on.
    progress: Arc<AtomicU64>,
    started: bool,
}

struct State {
    /// Loaded and not yet read to the end: what readers are about to want.
    fresh: LruCache<Key, Arc<Image>>,
    /// Read to the end: kept for other jobs while there is room, and the first to go.
    consumed: LruCache<Key, Arc<Image>>,
    loading: HashMap<Key, Loading>,
    flights: HashMap<u64, Flight>,
    demand: VecDeque<u64>,
    prefetch: VecDeque<u64>,
    demand_running: usize,
    running: usize,
    next_flight: u64,
    streams: Streams,
    /// Bytes of the last whole fetch loaded: what the next one will about need.
    fetch_bytes: u64,
    /// Messages already logged: one line for each damaged chunk, not one for each batch.
    logged: HashSet<String>,
}

/// What loaders, monitor and readers share.
struct Shared {
    collection: Collection,
    plan: Plan,
    writers: [OnceLock<Box<dyn Format>>; Extension::ALL.len()],
    fetches: Fetches,
    counters: Counters,
    stats: Stats,
    pool: Arc<Pool>,
    threads: rayon::ThreadPool,
    limits: Limits,
    start: Instant,
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
pub struct Engine {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// Flights at once: one decodes while the other plans, finishes or waits for a slow disk.
const LOADERS: usize = 2;

impl Engine {
    /// Starts the engine's threads.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub fn new(collection: Collection, plan: Plan, counters: Counters, limits: Limits) -> std::io::Result<Engine> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(limits.threads)
            .thread_name(|i| format!("decode-{i}"))
            .build()
            .map_err(std::io::Error::other)?;
        let state = State {
            fresh: LruCache::unbounded(),
            consumed: LruCache::unbounded(),
            loading: HashMap::new(),
            flights: HashMap::new(),
            demand: VecDeque::new(),
            prefetch: VecDeque::new(),
            demand_running: 0,
            running: 0,
            next_flight: 0,
            streams: Streams::new(),
            fetch_bytes: 0,
            logged: HashSet::new(),
        };
        let shared = Arc::new(Shared {
            collection,
            plan,
            writers: [const { OnceLock::new() }; Extension::ALL.len()],
            fetches: Fetches::new(),
            counters,
            stats: Stats::default(),
            pool: Arc::new(Pool::new(limits.memory)),
            threads,
            limits,
            start: Instant::now(),
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
            engine.workers.push(std::thread::Builder::new().name(format!("load-{i}")).spawn(move || shared.run_loads())?);
        }
        let shared = engine.shared.clone();
        engine.workers.push(std::thread::Builder::new().name("monitor".to_owned()).spawn(move || monitor::run(&shared))?);
        Ok(engine)
    }

    pub fn collection(&self) -> &Collection {
        &self.shared.collection
    }

    pub fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// Exact size of a file, from the plan and the row lengths alone.
    pub fn size(&self, key: Key) -> u64 {
        self.shared.size(key)
    }

    /// Reads `len` bytes at `offset` of an image: answers at once if it is loaded, else when it is.
    pub fn read(&self, key: Key, rank: Option<Rank>, offset: u64, len: usize, reply: Reply) {
        self.shared.read(key, rank, Waiter { offset, len, reply });
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

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.work.notify_all();
        self.shared.freed.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has said so already.
            let _ = worker.join();
        }
    }
}

impl Waiter {
    fn serve(self, image: &Image, stats: &Stats) {
        let bytes = image.bytes();
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(self.len).min(bytes.len());
        stats.served(end - start);
        (self.reply)(Ok(&bytes[start..end]));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked with the lock left the state whole: nothing in it is half-done across a call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self, extension: Extension) -> &dyn Format {
        self.writers[extension as usize].get_or_init(|| extension.writer(&self.collection.table)).as_ref()
    }

    fn fetch(&self, epoch: u64, fetch: u64) -> Arc<Fetch> {
        self.fetches.get(&self.collection, &self.plan, epoch, fetch)
    }

    fn size(&self, key: Key) -> u64 {
        let (fetch, place) = self.plan.fetch_of(key.batch);
        let fetch = self.fetch(key.epoch, fetch);
        self.writer(key.extension).layout(&fetch.batch(&self.collection.table, key, place)).size
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn read(&self, key: Key, rank: Option<Rank>, waiter: Waiter) {
        let (fetch, place) = self.plan.fetch_of(key.batch);
        let stream = Stream { epoch: key.epoch, rank, extension: key.extension };
        let mut state = self.lock();
        let ahead = (waiter.offset == 0).then(|| state.streams.read(&self.plan, stream, fetch, place)).flatten();
        let image = match state.fresh.get(&key) {
            Some(image) => {
                let image = image.clone();
                // Read to its end: it may go.
                if waiter.offset.saturating_add(waiter.len as u64) >= image.len() as u64 {
                    state.fresh.pop(&key);
                    state.consumed.push(key, image.clone());
                    let (_, place) = self.plan.fetch_of(key.batch);
                    self.stats.consumed(self.fetch_len(key.batch, place));
                }
                Some(image)
            }
            None => state.consumed.get(&key).cloned(),
        };
        let waiting = match image {
            Some(image) => Err((image, waiter)),
            None => {
                self.demand(&mut state, key, stream, fetch, waiter);
                Ok(())
            }
        };
        if let Some((epoch, fetch)) = ahead {
            self.look_ahead(&mut state, Stream { epoch, ..stream }, fetch);
        }
        drop(state);
        if let Err((image, waiter)) = waiting {
            waiter.serve(&image, &self.stats);
        }
    }

    /// Rows of a batch, without looking at its fetch.
    fn fetch_len(&self, batch: u64, _place: usize) -> u64 {
        let size = self.plan.sampling().batch_size;
        (self.plan.served_rows() - batch * size).min(size)
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
        let fits = self.pool.room() + state.consumed.iter().map(|(_, image)| image.capacity()).sum::<u64>();
        if state.fetch_bytes > fits {
            return;
        }
        let keys = self.missing(state, &stream, fetch, None);
        if !keys.is_empty() {
            let flight = self.queue(state, fetch, keys);
            state.prefetch.push_back(flight);
            self.work.notify_one();
        }
    }

    /// The batches of a fetch that are neither loaded nor loading; `first` leads.
    fn missing(&self, state: &State, stream: &Stream, fetch: u64, first: Option<Key>) -> Vec<Key> {
        let absent = |key: &Key| {
            !state.loading.contains_key(key) && !state.fresh.contains(key) && !state.consumed.contains(key)
        };
        let others = self
            .plan
            .batches_of(fetch)
            .map(|batch| Key { epoch: stream.epoch, batch, extension: stream.extension })
            .filter(|key| Some(*key) != first && absent(key));
        first.into_iter().chain(others).collect()
    }

    fn queue(&self, state: &mut State, fetch: u64, keys: Vec<Key>) -> u64 {
        let id = state.next_flight;
        state.next_flight += 1;
        for key in &keys {
            state.loading.insert(*key, Loading { flight: id, waiters: Vec::new() });
        }
        let progress = Arc::new(AtomicU64::new(self.now()));
        state.flights.insert(id, Flight { id, fetch, keys, progress, started: false });
        id
    }

    /// A loader's life: demand first; prefetch only while no demand runs, as it would halve its speed.
    fn run_loads(&self) {
        let mut state = self.lock();
        loop {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let demanded = !state.demand.is_empty();
            let next = match state.demand.pop_front() {
                None if state.demand_running == 0 => state.prefetch.pop_front(),
                demanded => demanded,
            };
            let Some(flight) = next.and_then(|id| state.flights.get_mut(&id)) else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            flight.started = true;
            flight.progress.store(self.now(), Ordering::Relaxed);
            let (id, fetch, keys, progress) = (flight.id, flight.fetch, flight.keys.clone(), flight.progress.clone());
            state.running += 1;
            state.demand_running += usize::from(demanded);
            drop(state);
            self.fly(id, fetch, keys, &progress, demanded);
            state = self.lock();
            state.running -= 1;
            state.demand_running -= usize::from(demanded);
            state.flights.remove(&id);
            // A prefetch may have waited for this demand; a flight for the memory.
            self.work.notify_all();
            self.freed.notify_all();
        }
    }

    /// Loads the batches of one flight and answers who waits for them.
    fn fly(&self, id: u64, fetch: u64, keys: Vec<Key>, progress: &AtomicU64, demanded: bool) {
        let Some(&Key { epoch, extension, .. }) = keys.first() else { return };
        let planned = self.fetch(epoch, fetch);
        let mut keys = self.trim(id, keys, &planned);
        let Some(mut images) = self.admit(&mut keys, &planned, demanded) else {
            return self.give_up(keys);
        };
        let begun = Instant::now();
        let advance = || {
            let now = self.now();
            progress.store(now, Ordering::Relaxed);
            self.progress.store(now, Ordering::Relaxed);
        };
        let load = |keys: &[Key], images: &mut [Image]| {
            let run = || load::load(self, &planned, keys, images, &advance);
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                Ok(result) => result,
                Err(_) => Err(ReadError::Internal("a load panicked; please report it".to_owned())),
            }
        };
        let whole = load(&keys, &mut images);
        let outcomes: Vec<Result<(), ReadError>> = match whole {
            Ok(()) => vec![Ok(()); keys.len()],
            Err(error) if keys.len() == 1 => vec![Err(error)],
            // Something is wrong with a chunk or more: only the batches that need those may fail.
            Err(_) => keys.iter().zip(&mut images).map(|(key, image)| load(&[*key], std::slice::from_mut(image))).collect(),
        };
        self.stats.loaded(extension, outcomes.len(), begun.elapsed());
        let mut answers = Vec::new();
        let mut state = self.lock();
        if keys.len() > 1 {
            state.fetch_bytes = images.iter().map(Image::capacity).sum();
        }
        for ((key, image), outcome) in keys.iter().zip(images).zip(outcomes) {
            let waiters = state.loading.remove(key).map(|loading| loading.waiters).unwrap_or_default();
            let outcome = outcome.map(|()| Arc::new(image));
            match &outcome {
                Ok(image) => {
                    state.fresh.push(*key, image.clone());
                }
                Err(error) => self.log_once(&mut state, error),
            }
            answers.push((outcome, waiters));
        }
        drop(state);
        for (outcome, waiters) in answers {
            for waiter in waiters {
                match &outcome {
                    Ok(image) => waiter.serve(image, &self.stats),
                    Err(error) => (waiter.reply)(Err(error)),
                }
            }
        }
    }

    /// Leaves out batches that would not fit the budget together: first those that readers wait for stay, then those
    /// that come next. At least one stays.
    fn trim(&self, flight: u64, keys: Vec<Key>, planned: &Fetch) -> Vec<Key> {
        let need = |key: &Key| load::need(self, planned, key);
        if keys.iter().map(need).sum::<u64>() <= self.limits.memory {
            return keys;
        }
        let mut state = self.lock();
        let waited = |state: &State, key: &Key| state.loading.get(key).is_some_and(|loading| !loading.waiters.is_empty());
        let (mut stay, rest): (Vec<Key>, Vec<Key>) = keys.into_iter().partition(|key| waited(&state, key));
        // Half of the budget, so that what is loaded next does not push out what was loaded just now.
        let mut room = (self.limits.memory / 2).saturating_sub(stay.iter().map(need).sum());
        let from = stay.iter().map(|key| key.batch).max().unwrap_or(0);
        for key in rest {
            if key.batch >= from && need(&key) <= room || stay.is_empty() {
                room = room.saturating_sub(need(&key));
                stay.push(key);
            } else {
                state.loading.remove(&key);
            }
        }
        if let Some(flight) = state.flights.get_mut(&flight) {
            flight.keys = stay.clone();
        }
        stay
    }

    /// Buffers for the images of a flight, others' making room; `None` where a prefetch does not fit.
    fn admit(&self, keys: &mut Vec<Key>, planned: &Fetch, demanded: bool) -> Option<Vec<Image>> {
        let _one_at_a_time = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        let mut images = Vec::with_capacity(keys.len());
        for key in keys.iter() {
            let place = self.plan.fetch_of(key.batch).1;
            let size = self.writer(key.extension).layout(&planned.batch(&self.collection.table, *key, place)).size;
            images.push(self.take(size as usize, demanded)?);
        }
        Some(images)
    }

    fn take(&self, size: usize, demanded: bool) -> Option<Image> {
        loop {
            if let Some(image) = self.pool.take(size) {
                return Some(image);
            }
            let mut state = self.lock();
            let victim = state.consumed.pop_lru().or_else(|| if demanded { state.fresh.pop_lru() } else { None });
            if let Some(victim) = victim {
                self.stats.evicted();
                drop(state);
                drop(victim);
            } else if !demanded {
                return None;
            } else if state.running <= 1 || self.stop.load(Ordering::Acquire) {
                // Nothing else is in memory but this flight: a single batch may exceed the budget.
                drop(state);
                return Some(self.pool.take_anyway(size));
            } else {
                let wait = self.freed.wait_timeout(state, Duration::from_millis(100));
                drop(wait.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Ends a prefetch that found no room; readers that came meanwhile get a demand of their own.
    fn give_up(&self, keys: Vec<Key>) {
        let mut state = self.lock();
        for key in keys {
            if let Some(loading) = state.loading.remove(&key) {
                let (fetch, _) = self.plan.fetch_of(key.batch);
                if !loading.waiters.is_empty() {
                    let flight = self.queue(&mut state, fetch, vec![key]);
                    state.loading.insert(key, Loading { flight, waiters: loading.waiters });
                    state.demand.push_back(flight);
                }
            }
        }
        self.work.notify_all();
    }

    fn log_once(&self, state: &mut State, error: &ReadError) {
        self.stats.failed();
        let message = error.to_string();
        if state.logged.len() < 10_000 && state.logged.insert(message.clone()) {
            tracing::error!("{message}");
        }
    }
}

/// So many of anything that is worth remembering.
fn at_most(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

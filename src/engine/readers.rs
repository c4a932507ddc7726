//! Answers readers from memory, or queues what they wait for, and queues what they read next.
//!
//! All of this is done under the engine's lock without waiting; loaders (`load_task`) do the work.

use std::sync::Arc;
use std::time::Instant;

use crate::array::catch_panic::contain_panic;
use crate::plan::rank::Rank;
use crate::sync::atomic::AtomicU64;

use super::access::streams::Stream;
use super::budget::Image;
use super::lease::Loaded;
use super::load_task::LoadTask;
use super::loader::FetchLoader;
use super::stats::Stats;
use super::{ImageKey, Loading, Opened, ReadError, Reply, Shared, State};

/// Fetches of read images to retain for slower readers.
const KEPT_FETCHES: u64 = 3;

/// After a reader stalls on an in-flight prefetch, this many prefetches run on the full pool.
const FULL_SPEED_PREFETCHES: u32 = 4;

/// What a reader gets: bytes, or the image itself.
pub enum Answer {
    Bytes(Reply),
    Image(Opened),
}

/// A reader that wants a part of an image.
pub struct Waiter {
    pub offset: u64,
    pub len: usize,
    pub answer: Answer,
    /// When it came, and when its file was opened (if this is the first read of it).
    pub since: Instant,
    pub opened: Option<Instant>,
    /// When it began to wait for a load, in milliseconds since the engine started.
    pub queued: u64,
}

impl Waiter {
    /// Whether it reads to the end of the image.
    pub fn ends(&self, image: &Image) -> bool {
        self.offset.saturating_add(self.len as u64) >= image.len() as u64
    }

    /// Answers; `waited`: whether it had to wait for the image.
    pub fn serve(self, image: &Arc<Image>, stats: &Stats, waited: bool) {
        let bytes = image.bytes();
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(self.len).min(bytes.len());
        stats.served(end - start, self.since, waited, self.opened);
        contain_panic(|| match self.answer {
            Answer::Bytes(reply) => reply(Ok(&bytes[start..end])),
            Answer::Image(opened) => opened(Ok(Loaded(image.clone()))),
        });
    }

    pub fn fail(self, error: &ReadError) {
        contain_panic(|| match self.answer {
            Answer::Bytes(reply) => reply(Err(error)),
            Answer::Image(opened) => opened(Err(error)),
        });
    }
}

impl<S: FetchLoader> Shared<S> {
    /// A stream has reached a batch: prefetches what follows.
    pub fn opened(&self, state: &mut State, key: ImageKey, rank: Option<Rank>) {
        let (stream, fetch, place) = self.place(key, rank);
        for (epoch, fetch) in state.access.streams.read(self.plan(key.view), stream, fetch, place) {
            self.look_ahead(state, Stream { epoch, ..stream }, fetch);
        }
    }

    /// Answers a reader from memory, or queues what it waits for, and prefetches what follows.
    pub fn read(&self, key: ImageKey, rank: Option<Rank>, waiter: Waiter) {
        let (stream, fetch, place) = self.place(key, rank);
        let mut state = self.lock();
        let mut ahead = Vec::new();
        // Only the read at a file's start tells where its reader is.
        if waiter.offset == 0 {
            if place == 0 && !state.has(&key) {
                state.access.streams.restarted(&stream);
            }
            ahead = state.access.streams.read(self.plan(key.view), stream, fetch, place);
        }
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

    /// The stream of a read and its position: the fetch, and the batch's position in it.
    pub fn place(&self, key: ImageKey, rank: Option<Rank>) -> (Stream, u64, usize) {
        let (fetch, place) = self.plan(key.view).fetch_of(key.batch);
        (Stream { view: key.view, epoch: key.epoch, rank, kind: key.kind }, fetch, place)
    }

    /// The image, if it is in memory. A read to its end makes it a read image, which is evicted before unread ones.
    fn loaded(&self, state: &mut State, key: ImageKey, waiter: &Waiter) -> Option<Arc<Image>> {
        let Some(image) = state.unread.get(&key) else { return state.read.get(&key).cloned() };
        let image = image.clone();
        if waiter.ends(&image) {
            state.unread.pop(&key);
            self.mark_read(state, key, &image);
        }
        Some(image)
    }

    /// Notes that an image was read to its end.
    pub fn mark_read(&self, state: &mut State, key: ImageKey, image: &Arc<Image>) {
        state.read_bytes += image.capacity();
        state.read.push(key, image.clone());
        self.forget_old(state);
        self.stats.read(self.loader.rows(key));
    }

    /// Drops read images beyond a few fetches, even if the budget has room: reused buffers need no page faults, which fresh memory costs
    /// for
    /// every 4 KiB (that halves the rate of uncompressed stores). The retained ones are for readers that read the same epoch a little
    /// later.
    fn forget_old(&self, state: &mut State) {
        let most = (KEPT_FETCHES * state.fetch_bytes).min(self.pool.limit() / 4);
        while state.read_bytes > most && state.read.len() > 1 {
            match state.read.pop_lru() {
                Some((_, image)) => state.read_bytes -= image.capacity(),
                None => break,
            }
        }
    }

    /// Queues what a reader waits for.
    fn demand(&self, state: &mut State, key: ImageKey, stream: Stream, fetch: u64, mut waiter: Waiter) {
        waiter.queued = self.now();
        if let Some(loading) = state.loading.get_mut(&key) {
            loading.waiters.push(waiter);
            let task = loading.task;
            state.full_speed_prefetches = FULL_SPEED_PREFETCHES;
            if let Some(at) = state.prefetch.iter().position(|&queued| queued == task) {
                state.prefetch.remove(at);
                state.demand.push_back(task);
                self.work.notify_one();
            }
            return;
        }
        let keys = if state.access.streams.wants_whole(&stream, fetch) {
            self.missing(state, &stream, fetch, Some(key))
        } else {
            vec![key]
        };
        let task = self.queue(state, fetch, keys);
        state.demand.push_back(task);
        if let Some(loading) = state.loading.get_mut(&key) {
            loading.waiters.push(waiter);
        }
        self.work.notify_one();
    }

    /// Queues the fetch that a stream needs next, unless it is loaded or loading.
    fn look_ahead(&self, state: &mut State, stream: Stream, fetch: u64) {
        let fits = self.pool.room() + state.read_bytes;
        if state.fetch_bytes > fits {
            return;
        }
        let keys = self.missing(state, &stream, fetch, None);
        state.access.streams.queued(&stream, fetch);
        if !keys.is_empty() {
            let task = self.queue(state, fetch, keys);
            state.prefetch.push_back(task);
            self.work.notify_one();
        }
    }

    /// The batches of a fetch that are neither loaded nor loading, `first` in front.
    fn missing(&self, state: &State, stream: &Stream, fetch: u64, first: Option<ImageKey>) -> Vec<ImageKey> {
        let &Stream { view, epoch, kind, .. } = stream;
        let others = self
            .plan(view)
            .batches_of(fetch)
            .map(|batch| ImageKey { view, epoch, batch, kind })
            .filter(|key| Some(*key) != first && !state.has(key));
        first.into_iter().chain(others).collect()
    }

    /// Makes a load task of batches of one fetch; the caller adds its number to a queue.
    pub fn queue(&self, state: &mut State, fetch: u64, keys: Vec<ImageKey>) -> u64 {
        let id = state.next_task;
        state.next_task += 1;
        for key in &keys {
            // A batch that another task left out keeps its waiting readers.
            state.loading.entry(*key).or_insert(Loading { task: id, waiters: Vec::new() }).task = id;
        }
        let progress = Arc::new(AtomicU64::new(self.now()));
        state.tasks.insert(id, LoadTask { id, fetch, keys, progress, started: false });
        id
    }
}

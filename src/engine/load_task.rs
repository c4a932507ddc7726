//! Loaders: threads that take load tasks from the queues, allocate their images, load, and answer waiting readers.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicU64, Ordering};

use super::budget::{Image, capacity};
use super::loader::{FetchLoader, Item};
use super::{ImageKey, ReadError, Shared, State};

/// One load: some batches of one fetch in one format.
pub struct LoadTask {
    pub id: u64,
    pub fetch: u64,
    pub keys: Vec<ImageKey>,
    /// When it last progressed, in milliseconds since the engine started.
    pub progress: Arc<AtomicU64>,
    pub started: bool,
}

impl State {
    /// Eviction order: the least recently used read image; a demand load may also evict the least recently used unread one.
    fn pop_victim(&mut self, demanded: bool) -> Option<Arc<Image>> {
        if let Some((_, image)) = self.read.pop_lru() {
            self.read_bytes -= image.capacity();
            return Some(image);
        }
        if demanded { self.unread.pop_lru().map(|(_, image)| image) } else { None }
    }

    /// Whether a reader waits for a batch that is loading.
    fn is_waited(&self, key: &ImageKey) -> bool {
        self.loading.get(key).is_some_and(|loading| !loading.waiters.is_empty())
    }

    /// Whether the readers of this task have a whole fetch of unread images left. The task can then run in the background, which leaves a
    /// core to a reader (uncompressed h5ad, 2 cores: 1.1 to 1.4 times the rows/s; docs/performance.md).
    fn is_ahead(&self, task: &ImageKey) -> bool {
        let theirs = |key: &ImageKey| {
            let epochs = key.epoch..=key.epoch.saturating_add(1);
            (key.view, key.kind) == (task.view, task.kind) && epochs.contains(&task.epoch)
        };
        let unread = self.unread.iter().filter(|(key, _)| theirs(key)).map(|(_, image)| image.capacity());
        unread.sum::<u64>() >= self.fetch_bytes.max(1)
    }
}

/// Runs a part of a load. A panic becomes an error for its readers, and does not end the loader.
fn caught<T>(run: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    let internal = |_| Err(ReadError::Internal("a load panicked; please report it".to_owned()));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(internal)
}

impl<S: FetchLoader> Shared<S> {
    /// The loop of a loader thread. Demands come first; prefetches run only while no demand does, as they would halve its rate.
    pub fn run_loads(&self) {
        let mut state = self.lock();
        loop {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let demanded = !state.demand.is_empty();
            let next = match state.demand.pop_front() {
                None if state.demand_running == 0 => state.prefetch.pop_front(),
                next => next,
            };
            let Some(task) = next.and_then(|id| state.tasks.get_mut(&id)) else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            task.started = true;
            task.progress.store(self.now(), Ordering::Relaxed);
            let (id, fetch, progress) = (task.id, task.fetch, task.progress.clone());
            let keys = std::mem::take(&mut task.keys);
            state.demand_running += usize::from(demanded);
            let in_background =
                !demanded && state.full_speed_prefetches == 0 && keys.first().is_some_and(|key| state.is_ahead(key));
            if !demanded {
                state.full_speed_prefetches = state.full_speed_prefetches.saturating_sub(1);
            }
            drop(state);
            self.execute(fetch, keys, &progress, (demanded, in_background));
            state = self.lock();
            state.demand_running -= usize::from(demanded);
            state.tasks.remove(&id);
            // A prefetch may wait for this demand to end, another task for memory.
            self.work.notify_all();
            self.freed.notify_all();
        }
    }

    fn execute(&self, number: u64, keys: Vec<ImageKey>, progress: &AtomicU64, (demanded, in_background): (bool, bool)) {
        let publish = |outcomes| self.publish(number, demanded, outcomes);
        let Some(&ImageKey { view, epoch, .. }) = keys.first() else { return };
        let planned = caught(|| {
            self.loader.check_memory()?;
            let fetch = self.loader.fetch(view, epoch, number);
            let item = |&key: &ImageKey| Ok(Item { key, layout: self.loader.layout(&fetch, key)? });
            let items: Vec<Item> = keys.iter().map(item).collect::<Result<_, ReadError>>()?;
            Ok((fetch, items))
        });
        let (fetch, items) = match planned {
            Ok(planned) => planned,
            Err(error) => return publish(keys.into_iter().map(|key| (key, Err(error.clone()))).collect()),
        };
        let mut items = self.trim(items);
        let images = match self.admit(&mut items, demanded) {
            Ok(images) => images,
            Err(error) => return publish(items.into_iter().map(|item| (item.key, Err(error.clone()))).collect()),
        };
        if items.is_empty() {
            return;
        }
        let advance = || {
            let now = self.now();
            progress.store(now, Ordering::Relaxed);
            self.progress.store(now, Ordering::Relaxed);
        };
        let begun = Instant::now();
        let outcomes = self.load_all(&fetch, &items, images, in_background, &advance);
        self.stats.loaded(outcomes.len(), begun.elapsed());
        publish(items.into_iter().map(|item| item.key).zip(outcomes).collect());
        // Decremented after publishing, when its images can be evicted: tasks that wait for memory check `admitted`.
        self.lock().admitted -= 1;
    }

    /// Loads all items together; if that fails, one by one, so that only batches with damaged chunks fail.
    fn load_all(
        &self,
        fetch: &S::Fetch,
        items: &[Item],
        mut images: Vec<Image>,
        in_background: bool,
        advance: &(dyn Fn() + Sync),
    ) -> Vec<Result<Image, ReadError>> {
        let attempt = |items: &[Item], images: &mut [Image]| {
            caught(|| self.loader.load(fetch, items, images, in_background, advance))
        };
        match attempt(items, &mut images) {
            Ok(()) => images.into_iter().map(Ok).collect(),
            Err(error) if items.len() == 1 => vec![Err(error)],
            Err(_) => {
                let alone = |(item, mut image): (&Item, Image)| {
                    attempt(std::slice::from_ref(item), std::slice::from_mut(&mut image)).map(|()| image)
                };
                items.iter().zip(images).map(alone).collect()
            }
        }
    }

    /// Makes images of a fetch available, and answers waiting readers.
    ///
    /// If a load that was not on demand has failed, its cause may be gone when readers come: they get a load of their own.
    fn publish(&self, fetch: u64, demanded: bool, outcomes: Vec<(ImageKey, Result<Image, ReadError>)>) {
        let (mut answers, mut again) = (Vec::new(), Vec::new());
        let mut state = self.lock();
        if outcomes.len() > 1 {
            state.fetch_bytes = outcomes.iter().filter_map(|(_, image)| image.as_ref().ok()).map(Image::capacity).sum();
        }
        for (key, outcome) in outcomes {
            if outcome.is_err() && !demanded && state.is_waited(&key) {
                again.push(key);
                continue;
            }
            let waiters = state.loading.remove(&key).map(|loading| loading.waiters).unwrap_or_default();
            let outcome = outcome.map(Arc::new);
            match &outcome {
                Ok(image) if waiters.iter().any(|waiter| waiter.ends(image)) => self.mark_read(&mut state, key, image),
                Ok(image) => {
                    state.unread.push(key, image.clone());
                }
                Err(error) => self.log_once(&mut state, error),
            }
            answers.push((outcome, waiters));
        }
        self.demand_again(&mut state, fetch, again);
        drop(state);
        for (outcome, waiters) in answers {
            for waiter in waiters {
                match &outcome {
                    Ok(image) => waiter.serve(image, &self.stats, true),
                    Err(error) => waiter.fail(error),
                }
            }
        }
    }

    /// Drops batches if all together exceed the budget: those that readers wait for are kept, then the next ones, up to half of the budget,
    /// so that loading the next ones does not evict these. At least one is kept.
    fn trim(&self, items: Vec<Item>) -> Vec<Item> {
        let mut room = self.pool.limit().saturating_sub(self.pool.leased());
        let need = |item: &Item| capacity(item.layout.size as usize) as u64;
        if items.iter().map(need).sum::<u64>() <= room {
            return items;
        }
        room /= 2;
        let mut state = self.lock();
        let waited: Vec<bool> = items.iter().map(|item| state.is_waited(&item.key)).collect();
        let last = items.iter().zip(&waited).filter(|(_, waited)| **waited).map(|(item, _)| item.key.batch).max();
        let (mut stay, mut left) = (Vec::new(), Vec::new());
        for (item, waited) in items.into_iter().zip(waited) {
            if stay.is_empty() || waited || (Some(item.key.batch) > last && need(&item) <= room) {
                room = room.saturating_sub(need(&item));
                stay.push(item);
            } else {
                left.push(item.key);
            }
        }
        self.leave_out(&mut state, left);
        stay
    }

    /// Allocates buffers, evicting others: for all items of a prefetch or none, for at least one of a demand. Items without a buffer are
    /// left out: readers may wait for more batches of a fetch than the budget holds.
    ///
    /// # Errors
    /// The system has no memory for even one.
    fn admit(&self, items: &mut Vec<Item>, demanded: bool) -> Result<Vec<Image>, ReadError> {
        let _one_at_a_time = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        let mut images: Vec<Image> = Vec::with_capacity(items.len());
        for item in items.iter() {
            let Some(image) = self.take(item.layout.size as usize, demanded, images.is_empty())? else { break };
            images.push(image);
        }
        if !demanded && images.len() < items.len() {
            images.clear();
        }
        let left = items.split_off(images.len());
        let mut state = self.lock();
        state.admitted += usize::from(!images.is_empty());
        self.leave_out(&mut state, left.into_iter().map(|item| item.key).collect());
        Ok(images)
    }

    fn take(&self, size: usize, demanded: bool, first: bool) -> Result<Option<Image>, ReadError> {
        loop {
            if let Some(image) = self.pool.take(size) {
                return Ok(Some(image));
            }
            let mut state = self.lock();
            let victim = state.pop_victim(demanded);
            if let Some(victim) = victim {
                drop(state);
                self.stats.evicted();
                drop(victim);
            } else if !demanded || self.stop.load(Ordering::Acquire) {
                return Ok(None);
            } else if state.admitted == 0 {
                // Only this task's own buffers are in use, so it may exceed the budget by a single batch.
                drop(state);
                if !first {
                    return Ok(None);
                }
                return self.pool.take_anyway(size).map(Some).ok_or(ReadError::NoMemory(size as u64));
            } else {
                let wait = self.freed.wait_timeout(state, Duration::from_millis(100));
                drop(wait.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Ends the loading of batches that found no room; those that readers wait for are queued as a new demand.
    fn leave_out(&self, state: &mut State, keys: Vec<ImageKey>) {
        let Some(first) = keys.first() else { return };
        let fetch = self.plan(first.view).fetch_of(first.batch).0;
        state.access.streams.dropped(first, fetch);
        let (waited, others): (Vec<ImageKey>, Vec<ImageKey>) = keys.into_iter().partition(|key| state.is_waited(key));
        for key in others {
            state.loading.remove(&key);
        }
        self.demand_again(state, fetch, waited);
    }

    /// Queues a demand for those of the batches that readers still wait for.
    fn demand_again(&self, state: &mut State, fetch: u64, keys: Vec<ImageKey>) {
        if !keys.is_empty() {
            let task = self.queue(state, fetch, keys);
            state.demand.push_back(task);
            self.work.notify_all();
        }
    }
}

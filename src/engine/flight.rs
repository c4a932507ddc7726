//! Loaders: take flights from the queues, find room for their images, load, answer who waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::Layout;

use super::budget::{Image, capacity};
use super::fetch::Fetch;
use super::load::load;
use super::{Key, ReadError, Shared, State};

/// One load: some batches of one fetch in one format.
pub struct Flight {
    pub id: u64,
    pub fetch: u64,
    pub keys: Vec<Key>,
    /// Milliseconds since the engine started at which it last got on.
    pub progress: Arc<AtomicU64>,
    pub started: bool,
}

impl State {
    /// What goes first when memory is needed: the longest consumed; for a demand also what nobody has read for longest.
    fn pop_victim(&mut self, demanded: bool) -> Option<Arc<Image>> {
        if let Some((_, image)) = self.consumed.pop_lru() {
            self.consumed_bytes -= image.capacity();
            return Some(image);
        }
        if demanded { self.fresh.pop_lru().map(|(_, image)| image) } else { None }
    }
}

impl State {
    /// Whether readers have a whole fetch before them: what is loaded now is not needed soon, and a core left to a reader is
    /// worth more (uncompressed h5ad, 2 cores: 1.1 to 1.4 times the rows/s; docs/performance.md).
    fn is_ahead(&self) -> bool {
        self.fresh.iter().map(|(_, image)| image.capacity()).sum::<u64>() >= self.fetch_bytes.max(1)
    }
}

/// One batch of a flight, laid out.
pub struct Item {
    pub key: Key,
    pub layout: Layout,
}

impl Shared {
    /// A loader's life: demand first; prefetch only while no demand runs, as it would halve its speed.
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
            let Some(flight) = next.and_then(|id| state.flights.get_mut(&id)) else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            flight.started = true;
            flight.progress.store(self.now(), Ordering::Relaxed);
            let (id, fetch, progress) = (flight.id, flight.fetch, flight.progress.clone());
            let keys = std::mem::take(&mut flight.keys);
            state.demand_running += usize::from(demanded);
            let calm = !demanded && state.is_ahead();
            drop(state);
            self.fly(fetch, keys, &progress, (demanded, calm));
            state = self.lock();
            state.demand_running -= usize::from(demanded);
            state.flights.remove(&id);
            // A prefetch may have waited for this demand, a flight for its memory.
            self.work.notify_all();
            self.freed.notify_all();
        }
    }

    fn fly(&self, fetch: u64, keys: Vec<Key>, progress: &AtomicU64, (demanded, calm): (bool, bool)) {
        let Some(&Key { view, epoch, .. }) = keys.first() else { return };
        let fetch = self.fetch(view, epoch, fetch);
        let layouts: Result<Vec<Layout>, ReadError> = keys.iter().map(|key| self.layout(&fetch, *key)).collect();
        let items = match layouts {
            Ok(layouts) => keys.iter().zip(layouts).map(|(&key, layout)| Item { key, layout }).collect(),
            Err(error) => return self.land(keys.into_iter().map(|key| (key, Err(error.clone()))).collect()),
        };
        let items = self.trim(items);
        let Some(images) = self.admit(&items, demanded) else { return self.give_up(&items) };
        let advance = || {
            let now = self.now();
            progress.store(now, Ordering::Relaxed);
            self.progress.store(now, Ordering::Relaxed);
        };
        let begun = Instant::now();
        let outcomes = self.load_all(&fetch, &items, images, calm, &advance);
        self.stats.loaded(outcomes.len(), begun.elapsed());
        self.land(items.into_iter().map(|item| item.key).zip(outcomes).collect());
        // Not before its images are where they can be evicted: whoever waits for memory waits for them.
        self.lock().admitted -= 1;
    }

    /// Loads all items at once; where that fails, each alone, so that only the batches that need a damaged chunk fail.
    fn load_all(
        &self,
        fetch: &Fetch,
        items: &[Item],
        mut images: Vec<Image>,
        calm: bool,
        advance: &(dyn Fn() + Sync),
    ) -> Vec<Result<Image, ReadError>> {
        let attempt = |items: &[Item], images: &mut [Image]| {
            let run = || load(self, fetch, items, images, calm, advance);
            let internal = |_| Err(ReadError::Internal("a load panicked; please report it".to_owned()));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(internal)
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

    /// Puts images where readers find them, and answers those who wait.
    fn land(&self, outcomes: Vec<(Key, Result<Image, ReadError>)>) {
        let mut answers = Vec::new();
        let mut state = self.lock();
        if outcomes.len() > 1 {
            state.fetch_bytes = outcomes.iter().filter_map(|(_, image)| image.as_ref().ok()).map(Image::capacity).sum();
        }
        for (key, outcome) in outcomes {
            let waiters = state.loading.remove(&key).map(|loading| loading.waiters).unwrap_or_default();
            let outcome = outcome.map(Arc::new);
            match &outcome {
                Ok(image) if waiters.iter().any(|waiter| waiter.ends(image)) => self.consume(&mut state, key, image),
                Ok(image) => {
                    state.fresh.push(key, image.clone());
                }
                Err(error) => self.log_once(&mut state, error),
            }
            answers.push((outcome, waiters));
        }
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

    /// Leaves out batches where all do not fit the budget together: those that readers wait for stay, then those that
    /// come next, in half of the budget, so that loading the next ones does not push out these. At least one stays.
    fn trim(&self, items: Vec<Item>) -> Vec<Item> {
        let mut room = self.pool.limit().saturating_sub(self.pool.lent());
        let need = |item: &Item| capacity(item.layout.size as usize) as u64;
        if items.iter().map(need).sum::<u64>() <= room {
            return items;
        }
        room /= 2;
        let mut state = self.lock();
        let waited = |state: &State, item: &Item| {
            state.loading.get(&item.key).is_some_and(|loading| !loading.waiters.is_empty())
        };
        let from = items.iter().filter(|item| waited(&state, item)).map(|item| item.key.batch).max().unwrap_or(0);
        let mut stay: Vec<Item> = Vec::new();
        for item in items {
            if stay.is_empty() || waited(&state, &item) || (item.key.batch > from && need(&item) <= room) {
                room = room.saturating_sub(need(&item));
                stay.push(item);
            } else {
                let fetch = self.plan(item.key.view).fetch_of(item.key.batch).0;
                state.streams.dropped(&item.key, fetch);
                state.loading.remove(&item.key);
            }
        }
        stay
    }

    /// Buffers for all items, others making room; `None` where a prefetch does not fit.
    fn admit(&self, items: &[Item], demanded: bool) -> Option<Vec<Image>> {
        let _one_at_a_time = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        let images: Option<Vec<Image>> =
            items.iter().map(|item| self.take(item.layout.size as usize, demanded)).collect();
        if images.is_some() {
            self.lock().admitted += 1;
        }
        images
    }

    fn take(&self, size: usize, demanded: bool) -> Option<Image> {
        loop {
            if let Some(image) = self.pool.take(size) {
                return Some(image);
            }
            let mut state = self.lock();
            let victim = state.pop_victim(demanded);
            if let Some(victim) = victim {
                drop(state);
                self.stats.evicted();
                drop(victim);
            } else if !demanded {
                return None;
            } else if state.admitted == 0 || self.stop.load(Ordering::Acquire) {
                // Nothing is in memory but what this flight has taken: a single batch may exceed the budget.
                drop(state);
                return Some(self.pool.take_anyway(size));
            } else {
                let wait = self.freed.wait_timeout(state, Duration::from_millis(100));
                drop(wait.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Ends a prefetch that found no room; readers that came meanwhile get a demand of their own.
    fn give_up(&self, items: &[Item]) {
        let mut state = self.lock();
        for Item { key, .. } in items {
            let fetch = self.plan(key.view).fetch_of(key.batch).0;
            state.streams.dropped(key, fetch);
            let waiters = state.loading.remove(key).map(|loading| loading.waiters).unwrap_or_default();
            if !waiters.is_empty() {
                let flight = self.queue(&mut state, fetch, vec![*key]);
                if let Some(loading) = state.loading.get_mut(key) {
                    loading.waiters = waiters;
                }
                state.demand.push_back(flight);
            }
        }
        self.work.notify_all();
    }
}

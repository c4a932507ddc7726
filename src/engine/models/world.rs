//! The engine in a model: a loader in memory that fails, hangs and panics as a script says, and the invariants to check.

use std::collections::HashMap;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use shuttle::sync::mpsc;
use shuttle::thread;

use crate::batch::Layout;
use crate::engine::budget::{Image, Pool, capacity};
use crate::engine::loader::FetchLoader;
use crate::engine::loader::Item;
use crate::engine::{Engine, ImageKey, LOADERS, Limits, ReadError, Shared};
use crate::format::Extension;
use crate::plan::{Plan, Sampling};

/// What happens in the n-th load of a key (from 0).
pub type Script = Box<dyn Fn(&FakeLoader, ImageKey, usize) -> Result<(), ReadError> + Send + Sync>;

/// A plan with two batches a fetch and two fetches an epoch.
pub struct FakeLoader {
    plan: Plan,
    /// Bytes of the images of even and of odd batches.
    sizes: [usize; 2],
    script: Script,
    loads: Mutex<HashMap<ImageKey, Loads>>,
    pool: OnceLock<Arc<Pool>>,
    /// Number of readers that may hold an evicted image.
    pub holding: AtomicUsize,
    /// How many of the next plans and layouts panic, alternately.
    pub panics: AtomicUsize,
    /// Violations found where a panic would be caught.
    wrong: Mutex<Vec<String>>,
}

#[derive(Clone, Copy, Default)]
pub struct Loads {
    pub begun: usize,
    pub running: usize,
    pub done: usize,
}

impl FakeLoader {
    fn size(&self, key: ImageKey) -> usize {
        self.sizes[key.batch as usize % 2]
    }

    pub fn loads(&self, key: ImageKey) -> Loads {
        self.loads.lock().unwrap().get(&key).copied().unwrap_or_default()
    }

    fn note(&self, key: ImageKey, change: impl FnOnce(&mut Loads)) -> Loads {
        let mut loads = self.loads.lock().unwrap();
        let entry = loads.entry(key).or_default();
        change(entry);
        *entry
    }

    fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.lock().unwrap().push(what());
        }
    }

    /// An even number of panics left is for plans, an odd one for layouts.
    fn panic_if_asked(&self, turn: usize) {
        let left = self.panics.load(Ordering::Relaxed);
        let taken = || self.panics.compare_exchange(left, left - 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if left > 0 && left % 2 == turn && taken() {
            resume_unwind(Box::new("as the model asks"));
        }
    }

    /// Images are within the budget, or a single batch exceeds it; further memory is only what readers hold.
    fn check_budget(&self) {
        let Some(pool) = self.pool.get() else { return };
        let used = pool.used().0;
        // No other thread runs between the two: shuttle switches threads before a lock is taken or released.
        let holding = self.holding.load(Ordering::Relaxed) as u64;
        let one = capacity(self.sizes[0].max(self.sizes[1])) as u64;
        let most = pool.limit().max(one) + holding * one;
        self.check(used <= most, || format!("{used} bytes of images, {most} at most"));
    }
}

impl FetchLoader for FakeLoader {
    type Fetch = ();

    fn plan(&self, _: u16) -> &Plan {
        &self.plan
    }

    fn fetch(&self, _: u16, _: u64, _: u64) -> Arc<()> {
        self.panic_if_asked(0);
        Arc::new(())
    }

    fn rows(&self, _: ImageKey) -> u64 {
        1
    }

    fn layout(&self, (): &(), key: ImageKey) -> Result<Layout, ReadError> {
        self.panic_if_asked(1);
        Ok(Layout { size: self.size(key) as u64, spans: Vec::new() })
    }

    fn load(
        &self,
        (): &(),
        items: &[Item],
        images: &mut [Image],
        _calm: bool,
        advance: &(dyn Fn() + Sync),
    ) -> Result<(), ReadError> {
        self.check_budget();
        for (Item { key, .. }, image) in items.iter().zip(images) {
            let Loads { begun, running, .. } = self.note(*key, |loads| {
                loads.begun += 1;
                loads.running += 1;
            });
            self.check(running == 1, || format!("{key:?} is loaded twice at once"));
            image.bytes_mut().fill(0);
            thread::yield_now();
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.script)(self, *key, begun - 1)));
            image.bytes_mut().fill(byte(*key));
            self.note(*key, |loads| {
                loads.running -= 1;
                loads.done += usize::from(matches!(outcome, Ok(Ok(()))));
            });
            outcome.unwrap_or_else(|payload| resume_unwind(payload))?;
            advance();
        }
        Ok(())
    }
}

/// The byte that fills the image of a batch.
pub fn byte(key: ImageKey) -> u8 {
    (key.epoch * 16 + key.batch + 1) as u8
}

pub fn key(batch: u64) -> ImageKey {
    ImageKey::file(0, 0, batch, Extension::ALL[2])
}

pub fn broken() -> ReadError {
    ReadError::Internal("broken".to_owned())
}

/// An engine in a model.
pub struct World {
    pub engine: Engine<FakeLoader>,
    pub shared: Arc<Shared<FakeLoader>>,
}

impl Deref for World {
    type Target = FakeLoader;

    fn deref(&self) -> &FakeLoader {
        &self.shared.loader
    }
}

/// A timeout longer than any model.
pub const NEVER: Duration = Duration::from_secs(1_000_000);

impl World {
    /// `sizes`: bytes of images of even and of odd batches; `memory`: the budget.
    pub fn new(
        sizes: [usize; 2],
        memory: u64,
        script: impl Fn(&FakeLoader, ImageKey, usize) -> Result<(), ReadError> + Send + Sync + 'static,
    ) -> World {
        World::with_timeout(sizes, memory, NEVER, script)
    }

    pub fn with_timeout(
        sizes: [usize; 2],
        memory: u64,
        timeout: Duration,
        script: impl Fn(&FakeLoader, ImageKey, usize) -> Result<(), ReadError> + Send + Sync + 'static,
    ) -> World {
        let sampling = Sampling { batch_size: 1, block_size: 1, fetch_factor: 2, seed: 0, drop_last: false };
        let batches = FakeLoader {
            plan: Plan::new(&[4], sampling),
            sizes,
            script: Box::new(script),
            loads: Mutex::default(),
            pool: OnceLock::new(),
            holding: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
            wrong: Mutex::default(),
        };
        let engine = Engine::start(batches, memory, Limits { memory, threads: 1, io_depth: None, timeout }).unwrap();
        let shared = engine.shared.clone();
        shared.loader.pool.set(shared.pool.clone()).ok().unwrap();
        World { engine, shared }
    }

    /// Reads half of a file (0 or 1), and waits for the answer.
    pub fn read_half(&self, key: ImageKey, half: usize) -> Result<(), ReadError> {
        let (tell, told) = mpsc::channel();
        let len = self.size(key) / 2;
        let shared = self.shared.clone();
        let reply = move |bytes: Result<&[u8], &ReadError>| {
            shared.loader.check_budget();
            if let Ok(bytes) = bytes {
                // `check_budget` has let other threads run: the buffer must still be ours.
                assert!(bytes.len() == len && bytes.iter().all(|&at| at == byte(key)), "bytes of another batch");
            }
            tell.send(bytes.map(|_| ()).map_err(Clone::clone)).unwrap();
        };
        self.holding.fetch_add(1, Ordering::Relaxed);
        self.engine.read(key, None, ((half * len) as u64, len), None, Box::new(reply));
        self.holding.fetch_sub(1, Ordering::Relaxed);
        let answer = told.recv().expect("an answer");
        self.check_state();
        answer
    }

    /// Reads a file in two halves.
    pub fn read(&self, key: ImageKey) -> Result<(), ReadError> {
        self.read_half(key, 0)?;
        self.read_half(key, 1)
    }

    /// `M` concurrent readers, each of whole files in its order.
    pub fn readers<const N: usize, const M: usize>(&self, batches: [[u64; N]; M]) {
        thread::scope(|scope| {
            for batches in batches {
                scope.spawn(move || batches.map(|batch| self.read(key(batch)).unwrap()));
            }
        });
    }

    /// Checks that each key is in one state, that each loading key has a load task, and the counters.
    pub fn check_state(&self) {
        let state = self.shared.lock();
        for (key, loading) in &state.loading {
            assert!(state.tasks.contains_key(&loading.task), "{key:?} is loaded by nobody");
            assert!(!state.unread.contains(key) && !state.read.contains(key), "{key:?} is here and loading");
        }
        assert!(state.tasks.len() <= state.demand.len() + state.prefetch.len() + LOADERS);
        assert!(state.unread.iter().all(|(key, _)| !state.read.contains(key)));
        assert!(state.demand.iter().chain(&state.prefetch).all(|id| state.tasks.contains_key(id)));
        assert_eq!(state.read_bytes, state.read.iter().map(|(_, image)| image.capacity()).sum::<u64>());
    }

    /// Ends the engine, and checks that nothing runs, no violation was found, and all bytes are returned.
    pub fn end(self) {
        self.check_state();
        let World { engine, shared } = self;
        drop(engine);
        is_over(shared);
    }
}

pub fn is_over(shared: Arc<Shared<FakeLoader>>) {
    {
        let state = shared.lock();
        assert_eq!((state.demand_running, state.admitted), (0, 0));
    }
    assert_eq!(*shared.loader.wrong.lock().unwrap(), [""; 0]);
    let pool = shared.pool.clone();
    drop(Arc::into_inner(shared).expect("no thread holds the engine"));
    let (used, free) = pool.used();
    assert!(used == free && used <= pool.limit() && pool.room() == pool.limit(), "{used} bytes, {free} of them free");
}

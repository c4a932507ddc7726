//! Models of the queue and the budget: the engine's own code over a supply in memory, run in thousands of orders.
//!
//! Asserted in every model: no two flights load a key at once; a key is in one place; bytes are those of their key, also
//! while others take buffers; images take the budget and what readers hold that were just answered, no more; in the end
//! nothing runs and every byte is back. A reader that nobody answers and a thread that nobody wakes are deadlocks, which
//! `shuttle` reports (its waits never time out, so none is saved by a clock).

use std::collections::HashMap;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use shuttle::sync::mpsc;
use shuttle::thread;

use crate::batch::Layout;
use crate::format::Extension;
use crate::plan::{Plan, Sampling};
use crate::sync::check;

use super::budget::{Image, Pool, capacity};
use super::flight::Item;
use super::stores::Supply;
use super::{Engine, Key, LOADERS, Limits, ReadError, Shared};

/// What happens in the n-th load of a key (from 0).
type Script = Box<dyn Fn(&Batches, Key, usize) -> Result<(), ReadError> + Send + Sync>;

/// Two batches a fetch, two fetches an epoch.
struct Batches {
    plan: Plan,
    /// Bytes of the images of even batches and of odd ones.
    sizes: [usize; 2],
    script: Script,
    loads: Mutex<HashMap<Key, Loads>>,
    pool: OnceLock<Arc<Pool>>,
    /// Readers that may hold an image which has gone.
    holding: AtomicUsize,
    /// What went wrong where a panic would be caught.
    wrong: Mutex<Vec<String>>,
}

#[derive(Clone, Copy, Default)]
struct Loads {
    begun: usize,
    running: usize,
    done: usize,
}

impl Batches {
    fn size(&self, key: Key) -> usize {
        self.sizes[key.batch as usize % 2]
    }

    fn loads(&self, key: Key) -> Loads {
        self.loads.lock().unwrap().get(&key).copied().unwrap_or_default()
    }

    fn note(&self, key: Key, change: impl FnOnce(&mut Loads)) -> Loads {
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

    /// Images fit the budget, or are one batch alone that does not; beyond that is only what readers hold.
    fn check_budget(&self) {
        let Some(pool) = self.pool.get() else { return };
        let used = pool.used().0;
        // Nobody runs between the two: a thread is changed before it takes or frees a lock, not after.
        let holding = self.holding.load(Ordering::Relaxed) as u64;
        let one = capacity(self.sizes[0].max(self.sizes[1])) as u64;
        let most = pool.limit().max(one) + holding * one;
        self.check(used <= most, || format!("{used} bytes of images, {most} at most"));
    }
}

impl Supply for Batches {
    type Fetch = ();

    fn plan(&self, _: u16) -> &Plan {
        &self.plan
    }

    fn fetch(&self, _: u16, _: u64, _: u64) -> Arc<()> {
        Arc::new(())
    }

    fn rows(&self, _: Key) -> u64 {
        1
    }

    fn layout(&self, (): &(), key: Key) -> Result<Layout, ReadError> {
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

/// What fills the image of a batch.
fn byte(key: Key) -> u8 {
    (key.epoch * 16 + key.batch + 1) as u8
}

fn key(batch: u64) -> Key {
    Key { view: 0, epoch: 0, batch, extension: Extension::Npy }
}

fn broken() -> ReadError {
    ReadError::Internal("broken".to_owned())
}

/// An engine in a model.
struct World {
    engine: Engine<Batches>,
    shared: Arc<Shared<Batches>>,
}

impl Deref for World {
    type Target = Batches;

    fn deref(&self) -> &Batches {
        &self.shared.supply
    }
}

/// Longer than any model takes.
const NEVER: Duration = Duration::from_secs(1_000_000);

impl World {
    /// Images of `sizes` bytes (of even batches, of odd ones) in a budget of `memory`.
    fn new(
        sizes: [usize; 2],
        memory: u64,
        script: impl Fn(&Batches, Key, usize) -> Result<(), ReadError> + Send + Sync + 'static,
    ) -> World {
        World::with_timeout(sizes, memory, NEVER, script)
    }

    fn with_timeout(
        sizes: [usize; 2],
        memory: u64,
        timeout: Duration,
        script: impl Fn(&Batches, Key, usize) -> Result<(), ReadError> + Send + Sync + 'static,
    ) -> World {
        let sampling = Sampling { batch_size: 1, block_size: 1, fetch_factor: 2, seed: 0, drop_last: false };
        let batches = Batches {
            plan: Plan::new(&[4], sampling),
            sizes,
            script: Box::new(script),
            loads: Mutex::default(),
            pool: OnceLock::new(),
            holding: AtomicUsize::new(0),
            wrong: Mutex::default(),
        };
        let engine = Engine::start(batches, memory, Limits { memory, threads: 1, timeout }).unwrap();
        let shared = engine.shared.clone();
        shared.supply.pool.set(shared.pool.clone()).ok().unwrap();
        World { engine, shared }
    }

    /// Reads half of a file (0 or 1), and waits for the answer.
    fn read_half(&self, key: Key, half: usize) -> Result<(), ReadError> {
        let (tell, told) = mpsc::channel();
        let len = self.size(key) / 2;
        let shared = self.shared.clone();
        let reply = move |bytes: Result<&[u8], &ReadError>| {
            shared.supply.check_budget();
            if let Ok(bytes) = bytes {
                // `check_budget` let others run: the buffer must still be ours.
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

    /// Reads a file as readers do.
    fn read(&self, key: Key) -> Result<(), ReadError> {
        self.read_half(key, 0)?;
        self.read_half(key, 1)
    }

    /// A key is in one place, what loads or is queued has a flight, and what is counted is so.
    fn check_state(&self) {
        let state = self.shared.lock();
        for (key, loading) in &state.loading {
            assert!(state.flights.contains_key(&loading.flight), "{key:?} is loaded by nobody");
            assert!(!state.fresh.contains(key) && !state.consumed.contains(key), "{key:?} is here and loading");
        }
        assert!(state.flights.len() <= state.demand.len() + state.prefetch.len() + LOADERS);
        assert!(state.fresh.iter().all(|(key, _)| !state.consumed.contains(key)));
        assert!(state.demand.iter().chain(&state.prefetch).all(|id| state.flights.contains_key(id)));
        assert_eq!(state.consumed_bytes, state.consumed.iter().map(|(_, image)| image.capacity()).sum::<u64>());
    }

    /// Ends the engine: nothing runs on, nothing went wrong, and every byte is back.
    fn end(self) {
        self.check_state();
        let World { engine, shared } = self;
        drop(engine);
        is_over(shared);
    }
}

fn is_over(shared: Arc<Shared<Batches>>) {
    {
        let state = shared.lock();
        assert_eq!((state.demand_running, state.admitted), (0, 0));
    }
    assert_eq!(*shared.supply.wrong.lock().unwrap(), [""; 0]);
    let pool = shared.pool.clone();
    drop(Arc::into_inner(shared).expect("no thread holds the engine"));
    let (used, free) = pool.used();
    assert!(used == free && used <= pool.limit() && pool.room() == pool.limit(), "{used} bytes, {free} of them free");
}

/// More than all images of a model.
const AMPLE: u64 = 1 << 20;

/// Readers of one file while it loads: one load, the bytes for each of them.
#[test]
fn one_flight_answers_all_readers() {
    check(2000, || {
        let world = World::new([4096; 2], AMPLE, |_, _, _| Ok(()));
        thread::scope(|scope| {
            for half in [0, 1, 0] {
                let world = &world;
                scope.spawn(move || world.read_half(key(1), half).unwrap());
            }
        });
        assert_eq!(world.loads(key(1)).begun, 1);
        world.end();
    });
}

/// The first load fails: those who wait for it get the error, once; it is not remembered, so the next read loads again.
fn a_failure_is_not_remembered(fail: fn() -> Result<(), ReadError>) {
    let world = World::new([4096; 2], AMPLE, move |_, _, n| if n == 0 { fail() } else { Ok(()) });
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for half in [0, 1, 0] {
            let (world, failed) = (&world, &failed);
            scope.spawn(move || {
                let answer = world.read_half(key(1), half);
                failed.fetch_add(usize::from(answer.is_err()), Ordering::Relaxed);
            });
        }
    });
    assert_ne!(failed.into_inner(), 0);
    world.read(key(1)).unwrap();
    assert_eq!(world.loads(key(1)).begun, 2);
    world.end();
}

#[test]
fn an_error_answers_all_who_wait_and_is_not_remembered() {
    check(2000, || a_failure_is_not_remembered(|| Err(broken())));
}

/// A panic in a load is an error of its readers, and its worker lives on.
#[test]
fn a_panic_answers_all_who_wait_and_is_not_remembered() {
    check(2000, || a_failure_is_not_remembered(|| resume_unwind(Box::new("broken"))));
}

/// One batch of a fetch cannot be loaded: readers of the others notice nothing.
#[test]
fn damage_fails_only_the_batch_that_has_it() {
    check(1000, || {
        let world = World::new([4096; 2], AMPLE, |_, at, _| if at == key(1) { Err(broken()) } else { Ok(()) });
        thread::scope(|scope| {
            scope.spawn(|| world.read(key(0)).unwrap());
            scope.spawn(|| world.read(key(1)).unwrap_err());
        });
        world.end();
    });
}

/// Readers go through an epoch in images of which the budget holds one, with fetches that do not fit it and prefetch that
/// finds no room: all get through, and the budget holds.
#[test]
fn images_larger_than_half_the_budget_get_through() {
    check(1000, || {
        let world = World::new([8192; 2], 3 * 4096, |_, _, _| Ok(()));
        thread::scope(|scope| {
            for batches in [[0, 1, 2], [2, 3, 0], [3, 1, 3]] {
                let world = &world;
                scope.spawn(move || batches.map(|batch| world.read(key(batch)).unwrap()));
            }
        });
        world.end();
    });
}

/// The same with a budget that holds not even one: one flight at a time goes beyond it.
#[test]
fn images_larger_than_the_budget_get_through() {
    check(1000, || {
        let world = World::new([8192; 2], 4096, |_, _, _| Ok(()));
        thread::scope(|scope| {
            for batches in [[0, 1], [2, 3], [3, 1]] {
                let world = &world;
                scope.spawn(move || batches.map(|batch| world.read(key(batch)).unwrap()));
            }
        });
        world.end();
    });
}

/// Images of several sizes: one that is given a larger buffer takes more of the budget than it needs, and yet all get
/// through within it.
#[test]
fn images_in_larger_buffers_keep_the_budget() {
    check(1000, || {
        let world = World::new([8192, 4096], 3 * 4096, |_, _, _| Ok(()));
        thread::scope(|scope| {
            for batches in [[0, 1, 2], [1, 3, 0]] {
                let world = &world;
                scope.spawn(move || batches.map(|batch| world.read(key(batch)).unwrap()));
            }
        });
        world.end();
    });
}

/// Failures and scarce memory: a flight that fails lets its buffers go, so those who wait for memory go on.
#[test]
fn failed_flights_give_their_memory_back() {
    check(1000, || {
        let world = World::new(
            [8192; 2],
            3 * 4096,
            |_, at, n| if at.batch % 2 == 1 && n == 0 { Err(broken()) } else { Ok(()) },
        );
        thread::scope(|scope| {
            for batch in [1, 2, 3] {
                let world = &world;
                scope.spawn(move || while world.read(key(batch)).is_err() {});
            }
        });
        world.end();
    });
}

/// A demand that hangs does not hold up a reader of what is queued as prefetch behind it: that becomes a demand as well.
#[test]
fn a_reader_promotes_a_queued_prefetch() {
    check(2000, || {
        let world = World::new([4096; 2], AMPLE, |batches, at, _| {
            while at == key(0) && batches.loads(key(3)).done == 0 {
                thread::yield_now();
            }
            Ok(())
        });
        thread::scope(|scope| {
            scope.spawn(|| world.read(key(0)).unwrap());
            // The end of a file queues nothing ahead, so nothing else wakes a loader.
            scope.spawn(|| world.read_half(key(3), 1).unwrap());
        });
        assert_eq!((world.loads(key(0)).begun, world.loads(key(3)).begun), (1, 1));
        world.end();
    });
}

/// What comes next is loaded before anybody asks for it: once the demand before it has ended, and by both loaders, as the
/// first of two does not end before the second has begun.
#[test]
fn prefetch_follows_a_demand() {
    check(1000, || {
        let world = World::new([4096; 2], AMPLE, |batches, at, _| {
            while at == key(2) && batches.loads(Key { epoch: 1, ..key(0) }).begun == 0 {
                thread::yield_now();
            }
            Ok(())
        });
        world.read(key(0)).unwrap();
        while world.loads(key(3)).done == 0 {
            thread::yield_now();
        }
        world.end();
    });
}

/// Prefetch finds no room beside a fetch that is being read, and leaves it alone.
#[test]
fn prefetch_evicts_nothing_unread() {
    check(1000, || {
        let world = World::new([4096; 2], 3 * 4096, |_, _, _| Ok(()));
        world.read_half(key(0), 0).unwrap();
        for batch in [1, 0] {
            world.read_half(key(batch), 1).unwrap();
        }
        assert_eq!([0, 1].map(|batch| world.loads(key(batch)).begun), [1, 1]);
        world.end();
    });
}

/// What comes next is loaded as well after a read of what is here, when every loader sleeps.
#[test]
fn prefetch_follows_a_read_of_what_is_here() {
    check(1000, || {
        let world = World::new([4096; 2], AMPLE, |_, _, _| Ok(()));
        world.read_half(key(0), 1).unwrap();
        world.read_half(key(0), 0).unwrap();
        while world.loads(key(3)).done == 0 {
            thread::yield_now();
        }
        world.read(key(3)).unwrap();
        assert_eq!(world.loads(key(3)).begun, 1);
        world.end();
    });
}

/// Readers come to a prefetch while it is queued, gathers its buffers, gives up for lack of them, or loads. Room for
/// one fetch and a half.
#[test]
fn a_prefetch_that_gives_up_becomes_a_demand_of_its_readers() {
    check(1500, || {
        let world = World::new([4096; 2], 3 * 4096, |_, _, _| Ok(()));
        thread::scope(|scope| {
            for batches in [[0, 1], [2, 3]] {
                let world = &world;
                scope.spawn(move || batches.map(|batch| world.read(key(batch)).unwrap()));
            }
        });
        world.end();
    });
}

/// Images that go while they are read, are held, or are put into the page cache: what a reader has stays as it is.
#[test]
fn an_image_stays_with_who_holds_it() {
    check(1000, || {
        let world = World::new([8192; 2], 2 * 8192, |_, _, _| Ok(()));
        thread::scope(|scope| {
            scope.spawn(|| [1, 2].map(|batch| world.read(key(batch)).unwrap()));
            scope.spawn(|| [3, 1].map(|batch| world.read(key(batch)).unwrap()));
            scope.spawn(|| {
                for batch in [1, 3] {
                    world.holding.fetch_add(1, Ordering::Relaxed);
                    if let Some(image) = world.engine.loaded(key(batch)) {
                        thread::yield_now();
                        assert!(image.bytes().iter().all(|&at| at == byte(key(batch))));
                        world.engine.stored(key(batch));
                        world.engine.opened(key(batch), None);
                    }
                    world.holding.fetch_sub(1, Ordering::Relaxed);
                }
            });
        });
        world.end();
    });
}

/// Counts a reply that is answered, or dropped because the engine ended.
struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The engine ends at any time, with flights queued, loading and waiting for memory: its threads end, and each reply is
/// answered or dropped, which the file system answers.
#[test]
fn the_engine_ends_at_any_time() {
    check(2000, || {
        let World { engine, shared } = World::new([8192; 2], 3 * 4096, |_, at, _| match at.batch {
            3 => Err(broken()),
            _ => Ok(()),
        });
        let (engine, gone) = (Arc::new(engine), Arc::new(AtomicUsize::new(0)));
        let readers = [[0, 1], [2, 3]].map(|batches| {
            let (engine, gone) = (engine.clone(), gone.clone());
            thread::spawn(move || {
                for batch in batches {
                    let gone = Gone(gone.clone());
                    engine.read(key(batch), None, (0, 8192), None, Box::new(move |_| drop(gone)));
                }
            })
        });
        drop(engine);
        for reader in readers {
            reader.join().unwrap();
        }
        // Those who only just read are not counted: what they hold has gone as well.
        is_over(shared);
        assert_eq!(gone.load(Ordering::Relaxed), 4);
    });
}

/// A load hangs: the monitor answers its readers, who may come again and again. When it gets on, its image is there for
/// the next, and was loaded once.
#[test]
fn readers_of_a_load_that_hangs_are_answered() {
    check(1000, || {
        let told = Arc::new(AtomicUsize::new(0));
        let waits = told.clone();
        let world = World::with_timeout([4096; 2], AMPLE, Duration::from_millis(40), move |_, _, _| {
            while waits.load(Ordering::Relaxed) < 2 {
                thread::yield_now();
            }
            Ok(())
        });
        thread::scope(|scope| {
            for half in [0, 1] {
                let (world, told) = (&world, &told);
                scope.spawn(move || {
                    let answer = world.read_half(key(1), half);
                    assert!(matches!(answer, Err(ReadError::Timeout(_))), "{answer:?}");
                    told.fetch_add(1, Ordering::Relaxed);
                });
            }
            // Time goes by.
            while told.load(Ordering::Relaxed) < 2 {
                world.shared.freed.notify_all();
                thread::yield_now();
            }
        });
        while world.read_half(key(1), 0).is_err() {}
        assert_eq!(world.loads(key(1)).begun, 1);
        world.end();
    });
}

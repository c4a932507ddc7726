//! Models of the queue and the budget: the engine's code with a loader in memory, run with thousands of thread schedules.
//!
//! Every model asserts: no two load tasks load an image at once; an image is in one state; bytes are those of its key, also while others
//! take buffers; images exceed the budget at most by what readers hold that were just answered; at the end nothing runs and all bytes are
//! returned. A reader without an answer, or a thread that is not woken, is a deadlock, which `shuttle` reports (its waits never time out).

mod world;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shuttle::thread;

use crate::sync::check;

use super::{ImageKey, ReadError};
use world::{World, broken, byte, is_over, key};

/// A budget larger than all images of a model.
const AMPLE: u64 = 1 << 20;

/// Several readers of one file while it loads: one load, with an answer for each.
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

/// The first load fails. Its waiting readers get the error once; it is not cached, so the next read loads again.
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

/// A panic in a load is an error for its readers, and the loader continues.
#[test]
fn a_panic_answers_all_who_wait_and_is_not_remembered() {
    check(2000, || a_failure_is_not_remembered(|| resume_unwind(Box::new("broken"))));
}

/// One batch of a fetch cannot be loaded: readers of the others are not affected.
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

/// Readers read an epoch with a budget of one image, so that fetches and prefetches do not fit: all reads succeed, within the budget.
#[test]
fn images_larger_than_half_the_budget_get_through() {
    check(1000, || {
        let world = World::new([8192; 2], 3 * 4096, |_, _, _| Ok(()));
        world.readers([[0, 1, 2], [2, 3, 0], [3, 1, 3]]);
        world.end();
    });
}

/// The same with a budget below one image: one load task at a time exceeds it.
#[test]
fn images_larger_than_the_budget_get_through() {
    check(1000, || {
        let world = World::new([8192; 2], 4096, |_, _, _| Ok(()));
        world.readers([[0, 1], [2, 3], [3, 1]]);
        world.end();
    });
}

/// Images of several sizes: one may get a larger buffer than it needs, and yet all reads succeed within the budget.
#[test]
fn images_in_larger_buffers_keep_the_budget() {
    check(1000, || {
        let world = World::new([8192, 4096], 3 * 4096, |_, _, _| Ok(()));
        world.readers([[0, 1, 2], [1, 3, 0]]);
        world.end();
    });
}

/// Failures with scarce memory: a failed load task releases its buffers, so that waiting ones continue.
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

/// More panics in plans and layouts than there are loaders: readers get errors, and later reads succeed.
#[test]
fn a_panic_before_the_load_ends_no_loader() {
    check(1000, || {
        let world = World::new([4096; 2], AMPLE, |_, _, _| Ok(()));
        world.panics.store(4, Ordering::Relaxed);
        thread::scope(|scope| {
            for batch in [0, 1, 3] {
                let world = &world;
                scope.spawn(move || while world.read(key(batch)).is_err() {});
            }
        });
        world.end();
    });
}

/// A demand hangs. A reader of an image that is queued as a prefetch behind it is not blocked: that becomes a demand.
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
            // The end of a file queues no prefetch, so nothing else wakes a loader.
            scope.spawn(|| world.read_half(key(3), 1).unwrap());
        });
        assert_eq!((world.loads(key(0)).begun, world.loads(key(3)).begun), (1, 1));
        world.end();
    });
}

/// The next fetches are loaded before anybody reads them: after the demand has ended, and by both loaders, as the first prefetch waits for
/// the second to start.
#[test]
fn prefetch_follows_a_demand() {
    check(1000, || {
        let world = World::new([4096; 2], AMPLE, |batches, at, _| {
            while at == key(2) && batches.loads(ImageKey { epoch: 1, ..key(0) }).begun == 0 {
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

/// A prefetch that finds no room beside a fetch being read does not evict it.
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

/// A read of a loaded image also starts a prefetch, when all loaders sleep.
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

/// Readers come while a prefetch is queued, allocates buffers, gives up for lack of memory, or loads. There is memory for one and a half
/// fetches.
#[test]
fn a_prefetch_that_gives_up_becomes_a_demand_of_its_readers() {
    check(1500, || {
        let world = World::new([4096; 2], 3 * 4096, |_, _, _| Ok(()));
        world.readers([[0, 1], [2, 3]]);
        world.end();
    });
}

/// Images that are evicted while they are read, held, or stored in the page cache do not change for those who use them.
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
                        world.engine.stored(key(batch), batch, 1);
                        world.engine.opened(key(batch), None);
                    }
                    world.holding.fetch_sub(1, Ordering::Relaxed);
                }
            });
        });
        world.end();
    });
}

/// Counts replies that are answered, or dropped because the engine ended.
struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The engine ends at any time, with load tasks queued, loading and waiting for memory: its threads end, and each reply is answered or
/// dropped (the file system answers dropped ones).
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
        // The other readers' images are released as well.
        is_over(shared);
        assert_eq!(gone.load(Ordering::Relaxed), 4);
    });
}

/// A load hangs: the monitor answers its readers, also repeated ones. When it continues, its image is available to later readers, and was
/// loaded once.
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
            // Lets time pass.
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

//! The engine without FUSE: a real store whose chunk reads are counted, delayed or made to fail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::support::store;
use shufflefs::anndata::matrix::Matrix;
use shufflefs::array::{Array, ArrayError, ChunkBuf, ChunkSource, Counters, Extent, Scratch};
use shufflefs::engine::{Engine, ImageKey};
use shufflefs::format::Extension;
use shufflefs::plan::Sampling;
use shufflefs::session::spec::ViewSpec;
use shufflefs::session::{Session, Spec};

/// What happens to chunk reads.
#[derive(Default)]
struct Tap {
    decoded: AtomicU64,
    fails: AtomicBool,
}

/// A source with a tap.
struct Tapped {
    inner: Arc<dyn ChunkSource>,
    tap: Arc<Tap>,
}

impl ChunkSource for Tapped {
    fn raw(&self, chunk: u64) -> Result<Option<Extent>, ArrayError> {
        self.inner.raw(chunk)
    }

    fn decode(
        &self,
        chunk: u64,
        stored: Option<&[u8]>,
        out: ChunkBuf<'_>,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        if self.tap.fails.load(Ordering::SeqCst) {
            let (store, element) = ("store".to_owned(), "X/data".to_owned());
            return Err(ArrayError::Damaged { store, element, chunk, cause: "injected".to_owned() });
        }
        self.tap.decoded.fetch_add(1, Ordering::SeqCst);
        self.inner.decode(chunk, stored, out, scratch, counters)
    }

    fn filters(&self) -> Vec<String> {
        self.inner.filters()
    }

    fn is_encoded(&self) -> bool {
        self.inner.is_encoded()
    }
}

const SAMPLING: Sampling = Sampling { batch_size: 8, block_size: 4, fetch_factor: 4, seed: 7, drop_last: false };

/// An engine over a gzip store, its tap, and the number of chunks of its values.
fn engine(memory: u64) -> (Engine, Arc<Tap>, u64) {
    let spec = Spec {
        views: vec![ViewSpec::sampled(SAMPLING)],
        memory: Some(memory),
        threads: 2,
        timeout: Duration::from_secs(20),
        ..Spec::of(vec![store("csr-float32-gzip.h5ad")], std::env::temp_dir())
    };
    let mut session = Session::builder(spec).unprobed().derive().unwrap();
    let tap = Arc::new(Tap::default());
    let mut chunks = 0;
    for store in &mut session.collection.stores {
        let Matrix::Sparse { data, indices, .. } = &mut store.elements[0].matrix else { panic!("not sparse") };
        for array in [data, indices] {
            let whole: &Array = array;
            chunks += whole.grid().iter().product::<u64>();
            array.source = Arc::new(Tapped { inner: array.source.clone(), tap: tap.clone() });
        }
    }
    (session.engine().unwrap(), tap, chunks)
}

fn key(epoch: u64, batch: u64) -> ImageKey {
    ImageKey::file(0, epoch, batch, Extension::ALL[0])
}

/// Reads a whole file, waiting for it.
fn read(engine: &Engine, key: ImageKey) -> Result<Vec<u8>, String> {
    let size = engine.size(key).expect("a file of this plan") as usize;
    let (sender, receiver) = mpsc::channel();
    let reply = move |bytes: Result<&[u8], &shufflefs::engine::ReadError>| {
        let _ = sender.send(bytes.map(<[u8]>::to_vec).map_err(ToString::to_string));
    };
    engine.read(key, None, (0, size), None, Box::new(reply));
    receiver.recv_timeout(Duration::from_secs(30)).expect("every read is answered")
}

fn batches(engine: &Engine) -> u64 {
    engine.plan(0).batches()
}

/// Every file of some epochs by `readers` concurrent readers; `mine` says which files a reader takes.
fn readers(engine: &Engine, readers: u64, epochs: &[u64], mine: impl Fn(u64, u64, u64) -> bool + Sync) {
    std::thread::scope(|scope| {
        for reader in 0..readers {
            let mine = &mine;
            scope.spawn(move || {
                for &epoch in epochs {
                    for batch in (0..batches(engine)).filter(|&batch| mine(reader, epoch, batch)) {
                        read(engine, key(epoch, batch)).unwrap();
                    }
                }
            });
        }
    });
}

/// Unused memory is free, fresh or retained when nothing is loading.
fn settled(engine: &Engine) {
    for _ in 0..1000 {
        let stats = engine.stats();
        if stats["images"]["loading"] == 0 && stats["memory"]["loading_bytes"] == 0 {
            return;
        }
        // A prefetch may be running; it ends by itself.
        std::thread::yield_now();
        let _ = read(engine, key(0, 0));
    }
    panic!("buffers are lost: {:#}", engine.stats());
}

/// Prefetching by earlier readers of an epoch has no effect on readers that read it again.
#[test]
fn an_epoch_is_loaded_ahead_of_its_readers_each_time() {
    let (engine, _, _) = engine(1 << 30);
    let next = key(0, SAMPLING.fetch_factor);
    for pass in 0..3 {
        assert!(engine.loaded(next).is_none(), "pass {pass}: it should have been let go");
        read(&engine, key(0, 0)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while engine.loaded(next).is_none() {
            assert!(Instant::now() < deadline, "pass {pass}: nothing is loaded ahead");
            std::thread::yield_now();
        }
        readers(&engine, 1, &[0], |_, _, _| true);
    }
}

#[test]
fn readers_of_one_fetch_cause_one_load() {
    let (engine, tap, _) = engine(1 << 30);
    let files = SAMPLING.fetch_factor;
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let engine = &engine;
            scope.spawn(move || read(engine, key(0, reader % files)).unwrap());
        }
    });
    let decoded = tap.decoded.load(Ordering::SeqCst);
    // One reader, with prefetch as for the eight.
    let (alone, other, _) = self::engine(1 << 30);
    for batch in 0..files {
        read(&alone, key(0, batch)).unwrap();
    }
    settled(&engine);
    settled(&alone);
    let most = tap.decoded.load(Ordering::SeqCst).max(decoded);
    assert!(most <= other.decoded.load(Ordering::SeqCst), "{most} chunks for eight readers");
}

#[test]
fn a_failure_reaches_all_who_wait_and_is_not_remembered() {
    let (engine, tap, _) = engine(1 << 30);
    tap.fails.store(true, Ordering::SeqCst);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..6)
            .map(|reader| {
                scope.spawn({
                    let engine = &engine;
                    move || read(engine, key(1, reader % 3))
                })
            })
            .collect();
        readers.into_iter().filter_map(|reader| reader.join().unwrap().err()).collect()
    });
    assert_eq!(failed.len(), 6, "{failed:?}");
    assert!(failed.iter().all(|error| error.contains("injected") && error.contains("chunk")), "{failed:?}");
    tap.fails.store(false, Ordering::SeqCst);
    for batch in 0..3 {
        assert_eq!(read(&engine, key(1, batch)).unwrap().len() as u64, engine.size(key(1, batch)).unwrap());
    }
    settled(&engine);
}

#[test]
fn many_readers_in_little_memory_get_the_same_bytes_and_buffers_come_back() {
    let (roomy, _, _) = engine(1 << 30);
    let largest = (0..batches(&roomy)).map(|batch| roomy.size(key(0, batch)).unwrap()).max().unwrap();
    // Room for three files: less than a fetch.
    let (tight, _, _) = engine(3 * largest.next_multiple_of(1 << 16));
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let (tight, roomy) = (&tight, &roomy);
            scope.spawn(move || {
                for batch in 0..batches(tight) {
                    let key = key(reader % 2, (batch * 5 + reader) % batches(tight));
                    assert_eq!(read(tight, key).unwrap(), read(roomy, key).unwrap(), "{key:?}");
                }
            });
        }
    });
    settled(&tight);
    settled(&roomy);
    let memory = tight.stats()["memory"].clone();
    assert!(memory["used_bytes"].as_u64() <= memory["budget_bytes"].as_u64(), "{memory}");
}

/// Concurrent workers and jobs decode hardly more chunks than one reader does.
#[test]
fn readers_at_once_do_not_thrash() {
    // Enough for two fetches a stream, but not also for decoded chunks.
    let budget = |streams: u64| {
        let (engine, _, _) = engine(1 << 30);
        let fetch: u64 =
            (0..SAMPLING.fetch_factor).map(|batch| engine.size(key(0, batch)).unwrap().next_multiple_of(1 << 16)).sum();
        3 * streams * fetch
    };
    let count = |streams: u64, workers: u64, epochs: &[u64], mine: &(dyn Fn(u64, u64, u64) -> bool + Sync)| {
        let (engine, tap, _) = engine(budget(streams));
        readers(&engine, workers, epochs, mine);
        settled(&engine);
        tap.decoded.load(Ordering::SeqCst) as f64
    };
    let all = |_: u64, _: u64, _: u64| true;
    let one = count(1, 1, &[0], &all);
    let n = {
        let (engine, _, _) = engine(1 << 30);
        batches(&engine)
    };
    let interleaved = count(1, 4, &[0], &|reader, _, batch| batch % 4 == reader);
    let quarters = count(4, 4, &[0], &|reader, _, batch| batch * 4 / n == reader);
    let jobs = count(1, 4, &[0], &all);
    let two_epochs = count(2, 2, &[0, 1], &|reader, epoch, _| epoch == reader);
    // Quarters cut fetches, which are then needed by two readers at different times.
    for (name, got, most) in [
        ("interleaved", interleaved, 1.3 * one),
        ("quarters", quarters, 1.3 * one),
        ("jobs", jobs, 1.3 * one),
        ("two epochs", two_epochs, 2.0 * 1.3 * one),
    ] {
        assert!(got <= most, "{name}: {got} chunks were decoded; one reader of one epoch takes {one}");
    }
}

/// If there is room for them, decoded chunks are decoded once for all epochs and readers.
#[test]
fn decoded_chunks_are_kept_where_they_fit() {
    let (engine, tap, chunks) = engine(1 << 30);
    readers(&engine, 3, &[0, 1, 2], |_, _, _| true);
    settled(&engine);
    assert_eq!(tap.decoded.load(Ordering::SeqCst), chunks);
}

const DEEP: [&str; 9] = [
    "csr-float32-none.h5ad",
    "csr-float32-gzip.h5ad",
    "csr-uint16-none.h5ad",
    "dense-float64-none.h5ad",
    "dense-float32-blosc.h5ad",
    "csr-float32-none.v3.zarr",
    "csr-int32-blosc.v2.zarr",
    "csr-int16-zstd.sharded.zarr",
    "csr-int64-none.sharded.zarr",
];

/// However many requests are in flight, files have the bytes that they have when decoding threads read: of HDF5 and zarr,
/// raw and compressed, with and without shards, also with little memory.
#[test]
fn many_requests_in_flight_give_the_same_bytes() {
    for name in DEEP {
        let engine = |io_depth, memory| {
            let spec = Spec {
                views: vec![ViewSpec::sampled(SAMPLING)],
                memory: Some(memory),
                threads: 2,
                io_depth: Some(io_depth),
                timeout: Duration::from_secs(20),
                ..Spec::of(vec![store(name)], std::env::temp_dir())
            };
            Session::builder(spec).unprobed().derive().unwrap().engine().unwrap()
        };
        let expected = engine(1, 1 << 28);
        for deep in [engine(24, 1 << 28), engine(3, 1 << 22)] {
            for batch in 0..batches(&expected).min(40) {
                let (one, other) = (read(&expected, key(0, batch)).unwrap(), read(&deep, key(0, batch)).unwrap());
                assert!(one == other, "{name}: batch {batch}");
            }
        }
    }
}

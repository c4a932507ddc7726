//! The cost of a read below FUSE: decoders, the gather, layouts, and the engine with chunks in memory.
//!
//! `cargo bench --bench read`; stores of 4,096 rows x 1,500 values are made once in `target/bench-stores`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shufflefs::anndata::matrix::Matrix;
use shufflefs::array::gather::{ElementRange, GatherContext, Sink, gather};
use shufflefs::array::{ArrayError, ChunkBuf, ChunkSource, Counters, Scratch};
use shufflefs::engine::{Engine, ImageKey};
use shufflefs::format::Extension;
use shufflefs::plan::Sampling;
use shufflefs::session::spec::ViewSpec;
use shufflefs::session::{Session, Spec};

const FILTERS: [&str; 6] = ["none", "gzip", "shuffle-gzip", "lzf", "zstd", "blosc"];
const SAMPLING: Sampling = Sampling { batch_size: 64, block_size: 16, fetch_factor: 16, seed: 0, drop_last: false };

fn store(filter: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stores = root.join("target/bench-stores");
    if !stores.join("blosc.h5ad").exists() {
        let mut make = Command::new(root.join("target/venv/bin/python"));
        let made = make.arg(root.join("benches/stores.py")).arg(&stores).status();
        assert!(made.is_ok_and(|made| made.success()), "the stores cannot be made: run scripts/setup first");
    }
    stores.join(format!("{filter}.h5ad"))
}

fn session(filter: &str) -> Session {
    let spec = Spec {
        views: vec![ViewSpec::sampled(SAMPLING)],
        // Little memory, so that every epoch is loaded again.
        memory: Some(40 << 20),
        threads: 2,
        ..Spec::of(vec![store(filter)], std::env::temp_dir())
    };
    Session::builder(spec).unprobed().derive().unwrap()
}

/// One chunk of values, for each filter.
fn decoders(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode a chunk of 72 kB");
    for filter in &FILTERS[1..] {
        let collection = session(filter).collection;
        let array = collection.stores[0].x().matrix.arrays()[0];
        let mut out = vec![0; 18_000 * 4];
        let (mut scratch, counters) = (Scratch::default(), Counters::default());
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(*filter, |b| {
            b.iter(|| array.source.decode(7, None, ChunkBuf::whole(&mut out), &mut scratch, &counters).unwrap());
        });
    }
}

/// Discards elements.
struct Nowhere;

// SAFETY: it gives no memory to write to.
unsafe impl Sink for Nowhere {
    fn place(&self, _piece: usize, _at: u64, _len: u64) -> Option<&mut [u8]> {
        None
    }

    fn put(&self, _piece: usize, _at: u64, _elements: &[u8]) {}
}

/// 256 blocks of 16 rows.
fn gathers(c: &mut Criterion) {
    let mut group = c.benchmark_group("gather 2,048 rows");
    for filter in FILTERS {
        let collection = session(filter).collection;
        let array = collection.stores[0].x().matrix.arrays()[0];
        let rows = (0..128).flat_map(|block| block * 32..block * 32 + 16);
        let pieces: Vec<ElementRange> = rows.map(|row| ElementRange { start: row * 1500, len: 1500 }).collect();
        let counters = Counters::default();
        group.throughput(Throughput::Bytes(pieces.len() as u64 * 6000));
        group.bench_function(filter, |b| {
            let work = GatherContext { counters: &counters, progress: &|| {}, cache: None, io: None };
            b.iter(|| gather(array, &pieces, &Nowhere, &work).unwrap());
        });
    }
}

/// Chunks in memory.
struct Memory {
    chunks: Vec<Vec<u8>>,
}

impl ChunkSource for Memory {
    fn decode(
        &self,
        chunk: u64,
        _: Option<&[u8]>,
        out: ChunkBuf<'_>,
        _: &mut Scratch,
        _: &Counters,
    ) -> Result<(), ArrayError> {
        out.bytes.copy_from_slice(&self.chunks[chunk as usize]);
        Ok(())
    }

    fn is_encoded(&self) -> bool {
        true
    }
}

fn engine() -> Engine {
    let mut session = session("none");
    let counters = Counters::default();
    for store in &mut session.collection.stores {
        let Matrix::Sparse { data, indices, .. } = &mut store.elements[0].matrix else { panic!("not sparse") };
        for array in [data, indices] {
            let mut scratch = Scratch::default();
            let bytes = array.chunk_elements() as usize * array.dtype.size();
            let chunk = |number| {
                let mut chunk = vec![0; bytes];
                array.source.decode(number, None, ChunkBuf::whole(&mut chunk), &mut scratch, &counters).unwrap();
                chunk
            };
            let chunks = (0..array.grid().iter().product::<u64>()).map(chunk).collect();
            array.source = Arc::new(Memory { chunks });
        }
    }
    session.engine().unwrap()
}

fn epochs(c: &mut Criterion) {
    let engine = engine();
    let files = engine.plan(0).batches();
    let key = |epoch, batch, extension| ImageKey::file(0, epoch, batch, extension);
    let mut group = c.benchmark_group("engine, chunks in memory");
    group.throughput(Throughput::Elements(4096)).sample_size(20);
    for extension in ["safetensors", "npz", "h5ad"].map(|name| Extension::from_name(name).expect("a format")) {
        let name = extension.as_str();
        let mut epoch = 0;
        group.bench_function(format!("an epoch of {name}"), |b| {
            b.iter_batched(
                || {
                    epoch += 1;
                    epoch
                },
                |epoch| {
                    for batch in 0..files {
                        let (sender, receiver) = mpsc::channel();
                        let key = key(epoch, batch, extension);
                        let size = engine.size(key).unwrap() as usize;
                        let reply = move |bytes: Result<&[u8], &_>| {
                            let _ = sender.send(bytes.is_ok());
                        };
                        engine.read(key, None, (0, size), None, Box::new(reply));
                        assert!(receiver.recv().unwrap());
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    drop(group);
    let mut group = c.benchmark_group("layout");
    for extension in ["npz", "safetensors", "h5ad"].map(|name| Extension::from_name(name).expect("a format")) {
        let name = extension.as_str();
        let mut batch = 0;
        group.bench_function(format!("size of a file of {name}"), |b| {
            b.iter(|| {
                batch = (batch + 1) % files;
                engine.size(key(0, batch, extension))
            });
        });
    }
}

criterion_group!(benches, decoders, gathers, epochs);
criterion_main!(benches);

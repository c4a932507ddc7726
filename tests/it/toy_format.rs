//! Another format in one file, as `ARCHITECTURE.md` describes for the trait `Format`.
//!
//! `.rows` has one record a row: its number of values, then the values. Its layout needs the length of each row, and its size is
//! known before anything is read.

use std::sync::mpsc;
use std::time::Duration;

use shufflefs::anndata::index::IndexDir;
use shufflefs::array::{Counters, Dtype};
use shufflefs::batch::{Batch, Field, Layout, Repr, Span};
use shufflefs::collection::{Collection, Selection};
use shufflefs::engine::{Engine, ImageKey, Limits};
use shufflefs::format::{Extension, Format, FormatEntry, Writers};
use shufflefs::plan::{Plan, RemainderPolicy, Sampling};
use shufflefs::tree::{Node, Tree, View};

use crate::support;

struct Rows;

/// Bytes of the number before the values.
const COUNT: usize = 4;

impl Format for Rows {
    /// The values are first filled in after room for all counts; `finish` moves each row forward to its place.
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let start = (batch.rows.len() * COUNT) as u64;
        let dtype = batch.element(0).kind.dtype();
        let len = batch.lengths(0).iter().sum::<u64>() * dtype.size() as u64;
        Layout {
            size: start + len,
            spans: vec![Span { companion: 0, field: Field::Data(0), repr: Repr::Number(dtype), start, len }],
        }
    }

    fn finish(&self, batch: &Batch<'_>, layout: &Layout, image: &mut [u8]) {
        let size = batch.element(0).kind.dtype().size();
        let (mut from, mut to) = (layout.spans[0].start as usize, 0);
        for &length in batch.lengths(0) {
            let len = length as usize * size;
            image.copy_within(from..from + len, to + COUNT);
            image[to..to + COUNT].copy_from_slice(&(length as u32).to_le_bytes());
            (from, to) = (from + len, to + COUNT + len);
        }
    }
}

const ROWS: Extension = Extension::new(&FormatEntry {
    code: 14,
    name: "rows",
    readers: "this test",
    companions: false,
    open: |table| if table.x().is_sparse() { Ok(Box::new(Rows)) } else { Err("X is dense".to_owned()) },
});

fn collection(store: &str) -> (Collection, Counters) {
    let counters = Counters::default();
    let selection = Selection::of(shufflefs::anndata::names::MatrixName::X, IndexDir(Some(std::env::temp_dir())));
    (Collection::open(&[support::store(store)], &selection, &counters).unwrap(), counters)
}

#[test]
fn a_format_is_one_file_and_one_line() {
    let (collection, counters) = collection("sparse.h5ad");
    let writers = Writers::of(&collection.table, &[Extension::ALL[0], ROWS]);
    assert_eq!(writers.extensions(), [Extension::ALL[0], ROWS]);
    let sampling = Sampling { batch_size: 17, block_size: 4, fetch_factor: 3, seed: 5, drop_last: false };
    let plan = Plan::new(&collection.store_rows(), sampling);
    let (batches, rows) = (plan.batches(), collection.table.n_rows);
    let view = View { name: "all".to_owned(), batches, uneven: RemainderPolicy::Drop };
    let tree = Tree {
        views: vec![view],
        rank: None,
        listed_epochs: 1,
        listed: ROWS,
        extensions: writers.extensions(),
        whole: Vec::new(),
        directories: Vec::new(),
        numbers: 0,
        categories: Vec::new(),
        labels: Vec::new(),
    };
    let epoch = tree.lookup(&Node::Root, "epoch-0000").unwrap();
    let limits = Limits { memory: 1 << 28, threads: 2, io_depth: None, timeout: Duration::from_secs(20) };
    let engine = Engine::new(collection, vec![plan], writers, counters, limits).unwrap();
    let (mut seen, mut values) = (0, 0);
    for batch in 0..batches {
        let (name, node) = tree.entry(&epoch, batch).unwrap();
        assert!(name.ends_with(".rows") && tree.lookup(&epoch, &name) == Some(node));
        assert_eq!(tree.ino(&node).and_then(|ino| tree.node(ino)), Some(node));
        let key = ImageKey::file(0, 0, batch, ROWS);
        let (sender, receiver) = mpsc::channel();
        let reply = move |bytes: Result<&[u8], &_>| {
            sender.send(bytes.map(<[u8]>::to_vec).is_ok_and(|b| !b.is_empty())).unwrap()
        };
        engine.read(key, None, (0, usize::MAX), None, Box::new(reply));
        assert!(receiver.recv().unwrap());
        let image = engine.loaded(key).unwrap();
        let mut bytes = image.bytes();
        assert_eq!(bytes.len() as u64, engine.size(key).unwrap());
        while let Some((count, rest)) = bytes.split_first_chunk::<COUNT>() {
            let len = u32::from_le_bytes(*count) as usize * Dtype::F32.size();
            values += bits(&rest[..len]);
            (bytes, seen) = (&rest[len..], seen + 1);
        }
    }
    assert_eq!((seen, values), (rows, total(&engine)));
}

/// The sum of the values' bits, as some values are NaN.
fn bits(values: &[u8]) -> u64 {
    values.as_chunks::<4>().0.iter().map(|value| u64::from(u32::from_le_bytes(*value))).sum()
}

/// The same for all values of the store.
fn total(engine: &Engine) -> u64 {
    let x = &engine.collection().stores[0].x().matrix;
    let shufflefs::anndata::matrix::Matrix::Sparse { data, .. } = x else { panic!("dense") };
    assert_eq!(data.dtype, Dtype::F32);
    bits(&data.read_all(u64::MAX, &Counters::default()).unwrap())
}

#[test]
fn a_format_that_cannot_hold_the_data_says_why() {
    let (collection, _) = collection("dense.h5ad");
    let writers = Writers::of(&collection.table, &[Extension::ALL[0], ROWS]);
    assert_eq!(writers.extensions(), [Extension::ALL[0]]);
    assert_eq!(writers.refused(), [(ROWS.as_str(), "X is dense".to_owned())]);
}

//! `.parquet` with many pages a column, which otherwise only batches beyond a gibibyte have, read by independent readers.

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use shufflefs::anndata::index::IndexDir;
use shufflefs::anndata::names::MatrixName;
use shufflefs::array::Counters;
use shufflefs::collection::{Collection, Selection};
use shufflefs::engine::{Engine, ImageKey, Limits};
use shufflefs::format::{Extension, FormatEntry, Writers, paged_parquet};
use shufflefs::plan::{Plan, Sampling};

use crate::support::{python, store, succeed};

/// Pages of 2 KiB: a row or two each.
const PAGED: Extension = Extension::new(&FormatEntry {
    code: 14,
    name: "paged.parquet",
    readers: "this test",
    companions: false,
    open: |table| paged_parquet(table, 2048),
});

#[test]
fn pyarrow_duckdb_and_polars_read_many_pages() {
    let (path, directory, counters) = (store("sparse.h5ad"), tempfile::tempdir().unwrap(), Counters::default());
    let selection = Selection::of(MatrixName::X, IndexDir(Some(std::env::temp_dir())));
    let collection = Collection::open(std::slice::from_ref(&path), &selection, &counters).unwrap();
    let writers = Writers::of(&collection.table, &[PAGED]);
    let sampling = Sampling { batch_size: 400, block_size: 16, fetch_factor: 2, seed: 5, drop_last: false };
    let plan = Plan::new(&collection.store_rows(), sampling);
    let batches = plan.batches();
    let limits = Limits { memory: 1 << 28, threads: 2, io_depth: None, timeout: Duration::from_secs(20) };
    let engine = Engine::new(collection, vec![plan], writers, counters, limits).unwrap();
    for batch in 0..batches {
        let (sender, receiver) = mpsc::channel();
        let reply = move |bytes: Result<&[u8], &_>| sender.send(bytes.unwrap().to_vec()).unwrap();
        engine.read(ImageKey::file(0, 0, batch, PAGED), None, (0, usize::MAX), None, Box::new(reply));
        fs::write(directory.path().join(format!("{batch}.parquet")), receiver.recv().unwrap()).unwrap();
    }
    succeed(python("check_pages.py").arg(directory.path()).arg(&path));
}

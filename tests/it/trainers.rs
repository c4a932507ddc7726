//! Programs of the field on a mount, unmodified: each is a file of `examples/trainers` that holds nothing of ours but a path, and
//! compares what it reads with the store.

use crate::support::{Mount, example, python, store, stores, succeed};

/// Runs one on a path of a mount that lists a format.
fn trains(script: &str, format: &str, path: &str) {
    let store = store("sparse.h5ad");
    let options =
        ["--format", format, "--epochs", "1", "--batch-size", "128", "--block-size", "16", "--obs", "cell_type,plate"];
    let mount = Mount::new(std::slice::from_ref(&store), &options);
    let cache = tempfile::tempdir().unwrap();
    let mut command = example(script);
    command.env("HF_HOME", cache.path()).env("HF_HUB_OFFLINE", "1").env("HF_DATASETS_DISABLE_PROGRESS_BARS", "1");
    let said = succeed(command.arg(mount.join(path)).arg(&store).arg("cell_type"));
    assert!(said.contains(&format!("{} rows", mount.json("dataset.json")["rows"])), "{said}");
    mount.unmount();
}

#[test]
fn webdataset_reads_shards() {
    trains("webdataset_shards.py", "tar", "epoch-0000");
}

#[test]
fn polars_scans_parquet() {
    trains("polars_parquet.py", "parquet", "epoch-0000");
}

#[test]
fn duckdb_asks_parquet() {
    trains("duckdb_parquet.py", "parquet", "epoch-0000");
}

#[test]
fn hugging_face_loads_parquet() {
    trains("huggingface_parquet.py", "parquet", "epoch-0000");
}

#[test]
fn hugging_face_loads_shards() {
    trains("huggingface_webdataset.py", "tar", "epoch-0000");
}

#[test]
fn hugging_face_loads_an_epoch_from_disk() {
    trains("huggingface_disk.py", "npz", "epoch-0000.dataset");
}

/// Every column of an epoch, of sparse, dense and joined stores, of ranks and views.
#[test]
fn a_dataset_has_the_columns_of_the_batches() {
    let parts = ["part-a.h5ad", "part-b.zarr", "part-c.h5ad"];
    for (names, options) in [
        (&["sparse.h5ad"][..], &["--index-dtype", "i64"][..]),
        (&["dense.h5ad"], &["--where", "plate != \"plate1\""]),
        (&parts, &["--log1p"]),
    ] {
        let mount = Mount::new(&stores(names), &[&["--batch-size", "96", "--block-size", "16"], options].concat());
        for epoch in ["epoch-0000", "rank-1-of-3/epoch-0007"] {
            let mut command = python("check_dataset.py");
            command.arg(mount.join(format!("{epoch}.dataset"))).arg(mount.join(epoch)).env("HF_HUB_OFFLINE", "1");
            succeed(&mut command);
        }
        mount.unmount();
    }
}

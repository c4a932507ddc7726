//! Unmodified programs on a mount: each is a file of `examples/trainers` that uses nothing of shufflefs except a path, and compares
//! what it reads with the store.

use std::fs;
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::support::{Mount, example, list, python, store, stores, succeed};

/// Runs a script on a path of a mount that lists a format.
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

/// The shards of an epoch, of a rank and of a view with drawn rows are its batches, and the index has the size of each; it is the same
/// in one read and in many.
#[test]
fn shards_are_the_batches_of_their_epoch() {
    let options = ["--batch-size", "48", "--block-size", "16", "--fetch-factor", "2"];
    let views = ["--split", "train=0.7,val=0.3"];
    let drawn = ["--balance", "cell_type"];
    for (more, directories) in [
        (&views[..], ["train/epoch-0003", "val/rank-1-of-3/epoch-0000"]),
        (&drawn, ["epoch-0001", "rank-2-of-4/epoch-0005"]),
    ] {
        let mount = Mount::new(&[store("sparse.h5ad")], &[&options[..], more].concat());
        for directory in directories {
            for (kind, entries, described) in [("mds", "shards", "samples"), ("litdata", "chunks", "chunk_size")] {
                let shards = mount.join(format!("{directory}.{kind}"));
                let whole = fs::read(shards.join("index.json")).unwrap();
                let file = fs::File::open(shards.join("index.json")).unwrap();
                assert_eq!(file.metadata().unwrap().len(), whole.len() as u64);
                let mut parts = Vec::new();
                for at in (0..whole.len()).step_by(997) {
                    let mut part = vec![0; 997.min(whole.len() - at)];
                    file.read_exact_at(&mut part, at as u64).unwrap();
                    parts.extend(part);
                }
                assert!(parts == whole, "{directory}: parts of the index differ");
                let index: Value = serde_json::from_slice(&whole).unwrap();
                let entries = index[entries].as_array().unwrap();
                let batches = list(&mount.join(directory));
                assert_eq!(
                    (entries.len(), list(&shards).len()),
                    (batches.len(), batches.len() + 1),
                    "{directory}.{kind}"
                );
                for (entry, batch) in entries.iter().zip(batches) {
                    let name = if kind == "mds" { &entry["raw_data"]["basename"] } else { &entry["filename"] };
                    let shard = fs::read(shards.join(name.as_str().unwrap())).unwrap();
                    let batch = mount.join(directory).join(batch).with_extension(kind);
                    assert!(shard == fs::read(&batch).unwrap(), "{}: {name} differs", batch.display());
                    let rows = u32::from_le_bytes(shard[..4].try_into().unwrap());
                    assert_eq!(entry[described], u64::from(rows));
                    let bytes = if kind == "mds" { &entry["raw_data"]["bytes"] } else { &entry["chunk_bytes"] };
                    let header = if kind == "mds" { 0 } else { 4 * (u64::from(rows) + 2) };
                    assert_eq!(bytes.as_u64().unwrap() + header, shard.len() as u64);
                }
            }
        }
        mount.unmount();
    }
}

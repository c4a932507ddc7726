//! Epochs as zarr stores: `epoch-0000.zarr/` has the same content as `epoch-0000.h5ad`, for every reader of zarr.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::support::{Mount, list, python, stores, succeed, walk};

const SMALL: [&str; 8] = ["--epochs", "2", "--batch-size", "48", "--block-size", "8", "--fetch-factor", "5"];

fn check(mount: &Mount, epochs: &[&str]) -> Vec<Value> {
    let said = succeed(python("check_zarr.py").arg(mount.path()).args(epochs));
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Two epochs of a mount, each row once.
fn whole(names: &[&str], more: &[&str]) {
    let mount = Mount::new(&stores(names), &[&SMALL[..], more].concat());
    let rows = mount.json("dataset.json")["rows_per_epoch"].clone();
    for said in check(&mount, &["epoch-0000", "epoch-0007"]) {
        assert_eq!((&said["rows"], &said["distinct"]), (&rows, &rows), "{said}");
    }
    mount.unmount();
}

#[test]
fn sparse_and_dense_stores() {
    whole(&["sparse.h5ad"], &[]);
    whole(&["dense.h5ad"], &[]);
    whole(&["csr-float16-shuffle+gzip.h5ad"], &["--index-dtype", "i64"]);
}

#[test]
fn several_plates() {
    whole(&["part-a.h5ad", "part-b.zarr", "part-c.h5ad"], &[]);
}

#[test]
fn aligned_genes_and_arithmetic() {
    whole(&["join-a.h5ad", "join-b.h5ad", "join-c.zarr"], &["--join", "inner"]);
    whole(&["join-a.h5ad", "join-permuted.zarr"], &["--normalize", "10000", "--log1p"]);
}

#[test]
fn a_filter() {
    whole(&["sparse.h5ad"], &["--where", "cell_type != 'T cell'"]);
}

/// Many chunks of each array, and columns of every kind.
#[test]
fn columns_and_elements_of_every_kind() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("kinds.h5ad");
    succeed(python("check_zarr.py").arg("--make").arg(&store));
    let obs = "kind,number,grade,count,share,good,age,known,text";
    let with = ["--with", "layers/counts,layers/whole,obsm/X_pca,raw/X", "--obs", obs, "--batch-size", "512"];
    let mount = Mount::new(&[store], &with);
    let said = check(&mount, &["epoch-0000"]);
    assert_eq!((&said[0]["rows"], &said[0]["distinct"]), (&40_000.into(), &40_000.into()), "{}", said[0]);
    mount.unmount();
}

#[test]
fn ranks_views_and_draws() {
    let parts = ["train/rank-1-of-3/epoch-0000", "train/rank-2-of-3/epoch-0002", "train/epoch-0001", "val/epoch-0000"];
    let mount = Mount::new(&stores(&["sparse.h5ad"]), &[&SMALL[..], &["--split", "train=0.7,val=0.3"]].concat());
    let said = check(&mount, &parts);
    assert_eq!(said[2]["distinct"], mount.json("dataset.json")["views"]["train"]["rows_per_epoch"]);
    mount.unmount();
    for more in [&["--drop-last"][..], &["--class-batches", "cell_type"], &["--balance", "cell_type"]] {
        let mount = Mount::new(&stores(&["sparse.h5ad"]), &[&SMALL[..], more].concat());
        let said = check(&mount, &["epoch-0000", "rank-0-of-2/epoch-0003"]);
        assert_eq!(said[0]["rows"], mount.json("dataset.json")["rows_per_epoch"]);
        mount.unmount();
    }
}

#[test]
fn they_are_there_and_not_listed() {
    let mount = Mount::new(&stores(&["sparse.h5ad"]), &SMALL);
    assert!(!list(mount.path()).iter().any(|name| name.ends_with(".zarr")));
    let top = mount.join("epoch-0000.zarr");
    assert!(fs::metadata(&top).unwrap().is_dir());
    assert_eq!(list(&top), ["dataset_0", "zarr.json"]);
    let inodes = || -> Vec<u64> { walk(&top).keys().map(|path| fs::metadata(top.join(path)).unwrap().ino()).collect() };
    let (first, again) = (inodes(), inodes());
    assert_eq!(first, again);
    let mut distinct = first.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), first.len());
    for name in ["epoch-0000.zarr/dataset_1", "epoch-0000.zarr/dataset_0/X/data/c.00", "epoch-0.zarr", "stored.zarr"] {
        assert_eq!(fs::metadata(mount.join(name)).unwrap_err().raw_os_error(), Some(libc::ENOENT), "{name}");
    }
    let up = fs::canonicalize(top.join("dataset_0/obs/../..")).unwrap();
    assert_eq!(up, fs::canonicalize(&top).unwrap());
    mount.unmount();
}

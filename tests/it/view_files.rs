//! Files of many batches, such as `epoch-0000.h5ad`, have the rows of the batches, in their order, for every reader.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::support::{Mount, example, list, python, stores, succeed};

/// Small fetches, so that a file spans many.
const SMALL: [&str; 8] = ["--epochs", "2", "--batch-size", "48", "--block-size", "8", "--fetch-factor", "5"];
const PARTS: [&str; 3] = ["part-a.h5ad", "part-b.zarr", "part-c.h5ad"];

fn mount(names: &[&str], more: &[&str]) -> Mount {
    Mount::new(&stores(names), &[&SMALL[..], more].concat())
}

/// Compares files with directories of batches; returns the report of each.
fn check(mount: &Mount, jobs: &[&str]) -> Vec<Value> {
    let said = succeed(python("check_view_files.py").arg(mount.path()).args(jobs));
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All rows of the view, each once.
fn each_once(said: &Value, rows: &Value) {
    assert_eq!((&said["rows"], &said["distinct"]), (rows, rows), "{said}");
}

fn whole(names: &[&str], more: &[&str]) {
    let mount = mount(names, more);
    let rows = mount.json("dataset.json")["rows_per_epoch"].clone();
    let files = ["epoch-0000.h5ad=epoch-0000", "epoch-0007.h5ad=epoch-0007", "stored.h5ad="];
    for said in check(&mount, &files) {
        each_once(&said, &rows);
    }
    mount.unmount();
}

#[test]
fn a_sparse_store() {
    whole(&["sparse.h5ad"], &[]);
}

#[test]
fn a_dense_store() {
    whole(&["dense.h5ad"], &[]);
}

#[test]
fn several_plates() {
    whole(&PARTS, &[]);
}

#[test]
fn aligned_genes_and_arithmetic() {
    whole(&["join-a.h5ad", "join-b.h5ad", "join-c.zarr"], &["--join", "inner"]);
    whole(&["join-a.h5ad", "join-permuted.zarr"], &["--normalize", "10000", "--log1p"]);
}

#[test]
fn promoted_dtypes_and_half_floats() {
    whole(&["join-a.h5ad", "join-b.h5ad"], &["--join", "outer"]);
    whole(&["csr-float16-shuffle+gzip.h5ad"], &[]);
}

#[test]
fn a_filter() {
    whole(&["sparse.h5ad"], &["--where", "cell_type != 'T cell'"]);
}

#[test]
fn further_elements() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("elements.h5ad");
    succeed(python("check_view_files.py").arg("--make").arg(&store));
    let with = ["--with", "layers/spliced,layers/whole,obsm/X_pca,raw/X"];
    let mount = Mount::new(&[store], &[&SMALL[..], &with].concat());
    let said = check(&mount, &["epoch-0000.h5ad=epoch-0000", "stored.h5ad=", "by-kind.h5ad=by:kind"]);
    said.iter().for_each(|said| each_once(said, &700.into()));
    mount.unmount();
}

#[test]
fn ranks_and_views() {
    let mount = mount(&["sparse.h5ad"], &["--split", "train=0.7,val=0.3"]);
    let said = check(
        &mount,
        &[
            "train/epoch-0001.h5ad=train/epoch-0001",
            "val/epoch-0000.h5ad=val/epoch-0000",
            "train/rank-1-of-3/epoch-0000.h5ad=train/rank-1-of-3/epoch-0000",
            "train/rank-2-of-3/epoch-0000.h5ad=train/rank-2-of-3/epoch-0000",
            "val/stored.h5ad=",
        ],
    );
    let dataset = mount.json("dataset.json");
    each_once(&said[0], &dataset["views"]["train"]["rows_per_epoch"]);
    each_once(&said[1], &dataset["views"]["val"]["rows_per_epoch"]);
    each_once(&said[4], &dataset["views"]["val"]["rows_per_epoch"]);
    mount.unmount();
}

#[test]
fn drawn_rows_and_short_batches() {
    for more in [&["--drop-last"][..], &["--class-batches", "cell_type"], &["--balance", "cell_type"]] {
        let mount = mount(&["sparse.h5ad"], more);
        let said = check(&mount, &["epoch-0000.h5ad=epoch-0000", "rank-0-of-2/epoch-0003.h5ad=rank-0-of-2/epoch-0003"]);
        assert_eq!(said[0]["rows"], mount.json("dataset.json")["rows_per_epoch"]);
        mount.unmount();
    }
}

#[test]
fn by_label() {
    let mount = mount(&PARTS, &[]);
    let said = check(&mount, &["by-cell_type.h5ad=by:cell_type"]);
    each_once(&said[0], &mount.json("dataset.json")["rows_per_epoch"]);
    let labels = list(&mount.join("by-cell_type"));
    assert_eq!(labels.len() as u64, said[0]["labels"].as_u64().unwrap(), "{labels:?}");
    mount.unmount();
}

#[test]
fn a_trainer_reads_an_epoch_as_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("elements.h5ad");
    succeed(python("check_view_files.py").arg("--make").arg(&store));
    let mount = Mount::new(&[store], &SMALL);
    let said = succeed(example("read_h5ad.py").arg(mount.path()).args(["kind", "3"]));
    let losses: Vec<f64> = said.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(losses.len() == 3 && losses[2] < losses[0], "{said}");
    let rows = mount.json("dataset.json")["rows"].as_u64().unwrap();
    assert!(said.lines().all(|line| line.contains(&format!("{rows} rows"))), "{said}");
    mount.unmount();
}

#[test]
fn they_are_there_and_not_listed() {
    let mount = mount(&["sparse.h5ad"], &[]);
    let listed = list(mount.path());
    assert!(
        listed.iter().filter(|name| name.starts_with("epoch-")).all(|name| mount.join(name).is_dir()),
        "{listed:?}"
    );
    let file = fs::metadata(mount.join("epoch-0000.h5ad")).unwrap();
    assert!(file.is_file() && file.size() > 0);
    for name in [
        "epoch-0000.npz",
        "epoch-00000.h5ad",
        "epoch-0000.h5ad.h5ad",
        "stored.npz",
        "stored",
        "rank-0-of-2/stored.h5ad",
    ] {
        let error = fs::metadata(mount.join(name)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{name}");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
    mount.unmount();
}

//! Several stores whose genes differ: the served values equal those of anndata.concat.

use std::path::PathBuf;

use crate::support::{Checker, Mount, stores, text};
use serde_json::json;

const SMALL: [&str; 6] = ["--batch-size", "64", "--block-size", "16", "--fetch-factor", "4"];
const FORMATS: [&str; 6] = ["npz", "safetensors", "npy", "h5ad", "tsv", "arrow"];

fn every_format(names: &[&str], join: &str) {
    let mount = Mount::new(&stores(names), &[&SMALL[..], &["--join", join]].concat());
    let mut checker = Checker::start();
    let check =
        |format: &&str| checker.check(&mount, format, json!({"join": join})).err().map(|e| format!("{format}: {e}"));
    let wrong: Vec<String> = FORMATS.iter().filter_map(check).collect();
    assert!(wrong.is_empty(), "{names:?} --join {join}:\n{}", wrong.join("\n"));
    mount.unmount();
}

/// The error line of the refused mount.
fn refused(paths: &[PathBuf], options: &[&str]) -> String {
    let Err(output) = Mount::try_new(paths, options) else { panic!("{paths:?} {options:?} was mounted") };
    let message = text(&output.stderr);
    assert_eq!((output.status.code(), message.trim_end().lines().count()), (Some(3), 1), "{message}");
    message
}

#[test]
fn another_order_of_genes_is_aligned_by_name() {
    every_format(&["join-a.h5ad", "join-permuted.zarr"], "exact");
    every_format(&["join-dense-a.h5ad", "join-dense-permuted.zarr"], "exact");
}

#[test]
fn inner_join_of_sparse_stores() {
    every_format(&["join-a.h5ad", "join-b.h5ad", "join-c.zarr"], "inner");
    every_format(&["join-permuted.zarr", "join-a.h5ad", "join-c.zarr"], "inner");
}

#[test]
fn outer_join_of_sparse_stores() {
    every_format(&["join-c.zarr", "join-b.h5ad", "join-permuted.zarr"], "outer");
}

#[test]
fn joins_of_dense_stores() {
    for join in ["inner", "outer"] {
        every_format(&["join-dense-a.h5ad", "join-dense-b.zarr", "join-dense-c.h5ad"], join);
    }
    every_format(&["join-dense-c.h5ad", "join-dense-b.zarr"], "outer");
}

#[test]
fn genes_are_counted_for_each_store() {
    let mount = Mount::new(&stores(&["join-a.h5ad", "join-b.h5ad"]), &["--join", "inner"]);
    let genes = |store: usize| mount.json("dataset.json")["stores"][store]["genes"].clone();
    assert_eq!(genes(0), json!({"shared": 40, "missing": 0, "extra": 20, "aligned": true}));
    assert_eq!(genes(1), json!({"shared": 40, "missing": 0, "extra": 20, "aligned": true}));
    assert_eq!(mount.json("dataset.json")["options"]["join"], "inner");
    let mount = Mount::new(&stores(&["join-a.h5ad", "join-b.h5ad"]), &["--join", "outer"]);
    assert_eq!(
        mount.json("dataset.json")["stores"][1]["genes"],
        json!({"shared": 60, "missing": 20, "extra": 0, "aligned": true})
    );
}

#[test]
fn other_genes_are_refused_counted_and_named() {
    let line = refused(&stores(&["join-a.h5ad", "join-b.h5ad"]), &[]);
    for word in
        ["join-b.h5ad", "join-a.h5ad", "40 are shared", "20 are missing (such as gene0)", "20 are new", "--join inner"]
    {
        assert!(line.contains(word), "{word}: {line}");
    }
    let line = refused(&stores(&["join-a.h5ad", "join-none.h5ad"]), &["--join", "inner"]);
    assert!(line.contains("no gene is in all stores"), "{line}");
}

#[test]
fn names_that_stand_twice_align_with_nothing_else() {
    let [a, twice] = <[PathBuf; 2]>::try_from(stores(&["join-a.h5ad", "join-twice.h5ad"])).unwrap();
    for join in ["inner", "outer"] {
        let line = refused(&[a.clone(), twice.clone()], &["--join", join]);
        assert!(line.contains("join-twice.h5ad") && line.contains("stands twice"), "{line}");
    }
    // Equal lists need no alignment.
    let mount = Mount::new(&[twice.clone(), twice], &SMALL);
    assert_eq!(mount.json("dataset.json")["genes"], 60);
}

//! Every served value against anndata, scipy, numpy, safetensors and pandas as independent readers.

use crate::support::{Checker, Mount, store, store_table, stores};
use serde_json::{Value, json};

const FORMATS: [&str; 13] = [
    "npz",
    "safetensors",
    "npy",
    "h5ad",
    "h5ad-backed",
    "tsv",
    "arrow",
    "parquet",
    "tar",
    "tfrecord",
    "mds",
    "litdata",
    "record.npy",
];
const PARTS: [&str; 3] = ["part-a.h5ad", "part-b.zarr", "part-c.h5ad"];

/// One mount read through every format; `--batch-size 96` divides no store, so the last batch is short.
fn every_format(names: &[&str], options: &[&str]) {
    let mount = Mount::new(&stores(names), &[&["--batch-size", "96"], options].concat());
    let mut checker = Checker::start();
    let wrong: Vec<String> = FORMATS
        .iter()
        .filter_map(|format| checker.check(&mount, format, json!({})).err().map(|e| format!("{format}: {e}")))
        .collect();
    assert!(wrong.is_empty(), "{names:?} {options:?}:\n{}", wrong.join("\n"));
    mount.unmount();
}

#[test]
fn every_format_of_a_sparse_store() {
    every_format(&["sparse.h5ad"], &[]);
}

/// The schema of Tahoe-100M has no dense rows.
#[test]
fn every_row_in_the_schema_of_tahoe() {
    for names in [&["sparse.h5ad"][..], &PARTS] {
        let mount = Mount::new(&stores(names), &["--batch-size", "96", "--format", "tahoe.parquet", "--epochs", "1"]);
        Checker::start().check(&mount, "tahoe.parquet", json!({})).unwrap();
        mount.unmount();
    }
}

#[test]
fn every_format_of_a_dense_store() {
    every_format(&["dense.h5ad"], &["--seed", "3"]);
}

#[test]
fn every_format_of_a_sharded_store() {
    every_format(&["sharded.zarr"], &["--block-size", "16"]);
}

#[test]
fn every_format_of_three_stores() {
    every_format(&PARTS, &[]);
}

#[test]
fn many_small_fetches_of_three_stores() {
    every_format(&PARTS, &["--block-size", "16", "--fetch-factor", "2"]);
}

/// Mounts each store in turn; reports all failures at once, by name.
fn table(wanted: impl Fn(&str, &Value) -> bool) {
    let names: Vec<String> =
        store_table().into_iter().filter(|(name, spec)| wanted(name, spec)).map(|(name, _)| name).collect();
    assert!(names.len() > 5, "the table is empty");
    let mut checker = Checker::start();
    let mut wrong = Vec::new();
    for (name, path) in names.iter().zip(stores(&names)) {
        let options = ["--batch-size", "64", "--block-size", "16", "--fetch-factor", "4"];
        match Mount::try_new(&[path], &options) {
            Ok(mount) => wrong.extend(checker.check(&mount, "npz", json!({})).err().map(|e| format!("{name}: {e}"))),
            Err(output) => wrong.push(format!("{name}: mount: {}", crate::support::text(&output.stderr).trim())),
        }
    }
    assert!(wrong.is_empty(), "{} of {} stores:\n{}", wrong.len(), names.len(), wrong.join("\n"));
}

fn in_matrix(container: &str) -> impl Fn(&str, &Value) -> bool {
    // Stores of the main table have a dtype and a filter in each name; each special store has a separate test.
    move |name, spec| spec["container"] == container && (name.starts_with("csr-") || name.starts_with("dense-"))
}

#[test]
fn every_dtype_and_filter_in_h5ad() {
    table(in_matrix("h5ad"));
}

#[test]
fn every_dtype_and_filter_in_zarr_v2() {
    table(in_matrix("v2.zarr"));
}

#[test]
fn every_dtype_and_filter_in_zarr_v3() {
    table(in_matrix("v3.zarr"));
}

#[test]
fn every_dtype_and_filter_in_sharded_zarr() {
    table(in_matrix("sharded.zarr"));
}

#[test]
fn stores_as_anndata_writes_them() {
    table(|_, spec| spec.get("anndata").is_some());
}

#[test]
fn odd_stores() {
    let odd = [
        "odd.h5ad",
        "big-endian-csr.h5ad",
        "big-endian-dense.h5ad",
        "contiguous.h5ad",
        "nested.v2.zarr",
        "nullable-text.h5ad",
    ];
    table(|name, _| odd.contains(&name));
}

#[test]
fn raw_layers_and_obsm() {
    let path = [store("layers.h5ad")];
    let mut checker = Checker::start();
    for element in ["X", "raw/X", "layers/counts", "layers/scaled", "layers/raw", "obsm/X_pca"] {
        let mount = Mount::new(&path, &["--x", element, "--batch-size", "100"]);
        for format in ["npz", "safetensors", "npy"] {
            let result = checker.check(&mount, format, json!({"x": element}));
            assert!(result.is_ok(), "{element} as {format}: {}", result.unwrap_err());
        }
    }
}

#[test]
fn chosen_columns_and_text() {
    let columns = ["barcode", "score", "note", "cell_type", "passage"];
    let mount = Mount::new(&[store("nullable-text.h5ad")], &["--obs", &columns.join(","), "--batch-size", "100"]);
    let mut checker = Checker::start();
    for format in FORMATS {
        let result = checker.check(&mount, format, json!({"obs": columns}));
        assert!(result.is_ok(), "{format}: {}", result.unwrap_err());
    }
}

#[test]
fn drop_last_leaves_out_the_short_batch_only() {
    let mount = Mount::new(&[store("sparse.h5ad")], &["--drop-last", "--batch-size", "96", "--block-size", "16"]);
    let result = Checker::start().check(&mount, "npz", json!({"drop_last": true})).unwrap();
    assert_eq!(result["rows"], 2000 / 96 * 96);
}

#[test]
fn later_epochs_are_whole_too() {
    let mount = Mount::new(&stores(&PARTS), &["--epochs", "3", "--batch-size", "96"]);
    let mut checker = Checker::start();
    let mut first = Vec::new();
    for epoch in [0, 1, 2, 3, 9999] {
        let result =
            checker.check(&mount, "npz", json!({"epoch": epoch})).unwrap_or_else(|e| panic!("epoch {epoch}: {e}"));
        first.push(result["first"].clone());
    }
    first.dedup();
    assert_eq!(first.len(), 5, "two epochs begin with the same rows: {first:?}");
}

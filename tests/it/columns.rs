//! obs columns, dtypes and shapes that differ between stores or are unusual: the rules of docs/columns.md.

use crate::support::{Checker, Mount, store, stores, text};
use serde_json::{Value, json};

const PARTS: [&str; 3] = ["columns-a.h5ad", "columns-b.zarr", "columns-c.h5ad"];
const DTYPES: [&str; 12] =
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"];
const FORMATS: [&str; 7] = ["npz", "safetensors", "h5ad", "tsv", "arrow", "parquet", "tar"];
const SMALL: [&str; 4] = ["--batch-size", "64", "--block-size", "16"];

fn check(mount: &Mount, formats: &[&str], more: Value) {
    let mut checker = Checker::start();
    let wrong: Vec<String> = formats
        .iter()
        .filter_map(|format| checker.check(mount, format, more.clone()).err().map(|e| format!("{format}: {e}")))
        .collect();
    assert!(wrong.is_empty(), "{more}:\n{}", wrong.join("\n"));
}

fn told(mount: &Mount, list: &str, field: &str) -> Vec<(String, String)> {
    let dataset = mount.json("dataset.json");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    dataset[list].as_array().unwrap().iter().map(|one| (text(&one["name"]), text(&one[field]))).collect()
}

#[test]
fn every_rule_in_every_format() {
    for parts in [PARTS, ["columns-c.h5ad", "columns-a.h5ad", "columns-b.zarr"]] {
        let mount = Mount::new(&stores(&parts), &SMALL);
        check(&mount, &FORMATS, json!({}));
    }
    let columns = ["text", "a text", "text nullable", "mixed text", "a nullable"];
    let mount = Mount::new(&stores(&PARTS), &[&SMALL[..], &["--obs", &columns.join(",")]].concat());
    check(&mount, &FORMATS, json!({"obs": columns}));
}

#[test]
fn every_rule_is_told() {
    let mount = Mount::new(&stores(&PARTS), &SMALL);
    let joined = told(&mount, "columns_joined", "rule");
    for (name, words) in [
        ("a label", "absent in"),
        ("number", "int32 and float32 and uint8: float64"),
        ("big", "int64 and uint64: float64"),
        ("flag", "bool and int8: int8"),
        ("nullable flag", "nullable in some: nullable"),
        ("order", "ordered in some: unordered"),
        ("order other", "ordered, with other categories: unordered"),
        ("category width", "categories of int64 and int8 and uint16: int64"),
        ("category kind", "categories of strings and int64 and bool: strings"),
        ("category float", "categories of int64 and float64: strings"),
        ("mixed text", "the texts are labels"),
    ] {
        let rule = joined.iter().find(|(other, _)| other == name);
        assert!(rule.is_some_and(|(_, rule)| rule.contains(words)), "{name}: {rule:?}");
    }
    assert!(joined.iter().all(|(name, _)| name != "text"), "{joined:?}");
    let left_out = told(&mount, "columns_left_out", "reason");
    for (name, words) in [("mixed number", "categorical in"), ("text number", "text in"), ("text", "--obs")] {
        let reason = left_out.iter().find(|(other, _)| other == name);
        assert!(reason.is_some_and(|(_, reason)| reason.contains(words)), "{name}: {reason:?}");
    }
}

#[test]
fn what_does_not_fit_is_an_error_when_named() {
    for (column, word) in
        [("mixed number", "columns-b.zarr"), ("text number", "columns-a.h5ad"), ("nothing", "no store")]
    {
        let Err(output) = Mount::try_new(&stores(&PARTS), &["--obs", column]) else { panic!("{column}") };
        let message = text(&output.stderr);
        assert!(message.contains(column) && message.contains(word), "{message}");
        assert_eq!((output.status.code(), message.trim_end().lines().count()), (Some(3), 1), "{message}");
    }
}

/// All pairs of dtypes, sparse and dense: promoted as numpy does.
#[test]
fn every_pair_of_dtypes() {
    let names: Vec<String> = DTYPES.iter().map(|dtype| format!("dtype-{dtype}.h5ad")).collect();
    let paths = stores(&names);
    let mut checker = Checker::start();
    let mut wrong = Vec::new();
    for (i, a) in paths.iter().enumerate() {
        for b in &paths[i + 1..] {
            let pair = [a.clone(), b.clone()];
            let names = pair.clone().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
            // scipy, which writes these, has no float16.
            let sparse = !names.iter().any(|name| name == "dtype-float16");
            for element in ["layers/dense", "X"].into_iter().filter(|element| *element != "X" || sparse) {
                let mount = Mount::new(&pair, &["--x", element]);
                wrong.extend(
                    checker.check(&mount, "npz", json!({"x": element})).err().map(|e| format!("{names:?}: {e}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn images_keep_their_shape() {
    for name in ["images-uint8.h5ad", "images-uint16.v2.zarr", "images-float16.v3.zarr", "images-uint8.sharded.zarr"] {
        let mount = Mount::new(&[store(name)], &[&SMALL[..], &["--x", "obsm/images"]].concat());
        assert_eq!(mount.json("dataset.json")["x"]["row_shape"], json!([3, 17, 13]));
        crate::support::succeed(crate::support::python("check_images.py").arg(mount.path()).arg(store(name)));
    }
    // Two stores of one shape, of other dtypes.
    let paths = stores(&["images-uint8.h5ad", "images-float16.v3.zarr"]);
    let mount = Mount::new(&paths, &[&SMALL[..], &["--x", "obsm/images"]].concat());
    crate::support::succeed(crate::support::python("check_images.py").arg(mount.path()).args(&paths));
}

/// 120,000 columns: i32 indices, and nothing is made dense on the way.
#[test]
fn genotypes() {
    let mount = Mount::new(&[store("wide-csr.h5ad")], &["--memory", "16MiB"]);
    check(&mount, &["npz", "safetensors", "npy", "h5ad", "arrow", "parquet", "tfrecord"], json!({}));
    mount.unmount();
    let mount = Mount::new(&[store("wide-dense.zarr")], &["--memory", "64MiB"]);
    check(&mount, &["npz", "npy", "h5ad"], json!({}));
}

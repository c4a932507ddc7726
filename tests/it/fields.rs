//! Further elements, chosen genes, arithmetic and dtypes: compared with numpy's results for what anndata reads.

use std::fs;
use std::path::PathBuf;

use crate::support::{Mount, made_by, python, shufflefs, succeed, text};
use serde_json::{Value, json};

const SMALL: [&str; 6] = ["--batch-size", "64", "--block-size", "8", "--fetch-factor", "4"];
const FORMATS: [&str; 6] = ["npz", "safetensors", "npy", "h5ad", "arrow", "tar"];
const ALL: &str = "layers/spliced,obsm/X_pca,raw/X,layers/whole,obsm/image,obsm/links";

/// Paths of stores with every kind of element.
fn stores(names: &[&str]) -> Vec<PathBuf> {
    let directory = made_by("check_fields.py");
    names.iter().map(|name| directory.join(name)).collect()
}

/// Mounts and compares an epoch in these formats.
fn check(names: &[&str], options: &[&str], formats: &[&str], job: Value) {
    let mount = Mount::new(&stores(names), &[&SMALL[..], options].concat());
    let mut job = job;
    job["mount"] = json!(mount.path());
    job["stores"] = json!(mount.stores);
    job["formats"] = json!(formats);
    let output = python("check_fields.py").arg("check").arg(job.to_string()).output().unwrap();
    assert!(output.status.success(), "{names:?} {options:?}:\n{}", text(&output.stderr));
    mount.unmount();
}

/// The error line of the refused mount.
fn refused(names: &[&str], options: &[&str], code: i32) -> String {
    let Err(output) = Mount::try_new(&stores(names), options) else { panic!("{names:?} {options:?} was mounted") };
    let message = text(&output.stderr);
    assert_eq!((output.status.code(), message.trim_end().lines().count()), (Some(code), 1), "{message}");
    message
}

fn list(names: &str) -> Vec<&str> {
    names.split(',').collect()
}

#[test]
fn further_elements_in_every_format() {
    for x in [&["a.h5ad"][..], &["b.zarr"], &["dense.h5ad"], &["a.h5ad", "b.zarr"], &["dense-b.zarr", "dense.h5ad"]] {
        check(x, &["--with", ALL], &FORMATS, json!({"with": list(ALL)}));
    }
    let others = "layers/spliced,raw/X,obsm/X_pca";
    let job = json!({"x": "layers/whole", "with": list(others)});
    check(&["b.zarr", "a.h5ad"], &["--x", "layers/whole", "--with", others], &FORMATS, job);
    // Without images.
    let job = json!({"with": list("layers/spliced,raw/X,obsm/X_pca,obsm/links")});
    check(&["a.h5ad", "b.zarr"], &["--with", "layers/spliced,raw/X,obsm/X_pca,obsm/links"], &["parquet"], job);
    // Layers have other columns than raw: tensors, but no AnnData.
    let job = json!({"x": "raw/X", "with": ["layers/spliced"]});
    check(&["a.h5ad"], &["--x", "raw/X", "--with", "layers/spliced"], &["npz", "safetensors"], job);
}

#[test]
fn chosen_genes_in_the_asked_order() {
    let some = "gene40,gene3,gene79,gene0,gene41";
    let with = "layers/spliced,layers/whole,raw/X,obsm/X_pca";
    for names in [&["a.h5ad", "b.zarr"][..], &["dense.h5ad", "dense-b.zarr"], &["b.zarr"]] {
        let job = json!({"genes": list(some), "with": list(with)});
        check(names, &["--genes", some, "--with", with], &FORMATS, job);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let all: Vec<String> = (0..80).rev().map(|gene| format!("gene{gene}")).collect();
    fs::write(file.path(), all.join("\n")).unwrap();
    check(&["a.h5ad", "b.zarr"], &["--genes", file.path().to_str().unwrap()], &FORMATS, json!({"genes": all}));
    // The first store decides; the second does not have the column.
    let flagged: Vec<String> = (0..80).filter(|gene| gene % 7 == 2).map(|gene| format!("gene{gene}")).collect();
    for names in [&["a.h5ad", "b.zarr"][..], &["dense.h5ad"]] {
        check(names, &["--genes", "var:highly_variable"], &FORMATS, json!({"genes": flagged}));
    }
    let mount = Mount::new(&stores(&["a.h5ad"]), &["--genes", "var:highly_variable", "--with", "obsm/X_pca"]);
    let told = mount.json("dataset.json");
    assert_eq!((told["genes"].as_u64(), &told["options"]["genes"]), (Some(12), &json!({"var": "highly_variable"})));
    assert_eq!(
        told["with"][0],
        json!({"element": "obsm/X_pca", "kind": "dense", "dtype": "float32", "row_shape": [5]})
    );
    assert_eq!(told["stores"][0]["genes"], json!({"shared": 12, "missing": 0, "extra": 68, "aligned": true}));
}

#[test]
fn arithmetic_is_numpys() {
    let some = "gene40,gene3,gene79,gene0";
    let all = &["--normalize", "1e4", "--log1p"];
    for names in [&["a.h5ad", "b.zarr"][..], &["dense.h5ad", "dense-b.zarr"], &["float.h5ad"], &["ints.h5ad"]] {
        check(names, &["--normalize", "1e4"], &FORMATS, json!({"normalize": 1e4}));
        check(names, &["--log1p"], &FORMATS, json!({"log1p": true}));
        check(names, all, &FORMATS, json!({"normalize": 1e4, "log1p": true}));
        let job = json!({"normalize": 1e4, "log1p": true, "genes": list(some), "with": ["layers/spliced"]});
        check(names, &[all, &["--genes", some, "--with", "layers/spliced"][..]].concat(), &FORMATS, job);
        let job = json!({"normalize": 1e4, "log1p": true, "dtype": "float16"});
        check(names, &[all, &["--dtype", "f16"][..]].concat(), &FORMATS, job);
    }
    let job = json!({"normalize": 500, "dtype": "float64"});
    check(&["dense.h5ad"], &["--normalize", "500", "--dtype", "f64"], &FORMATS, job);
}

#[test]
fn dtypes_and_index_dtypes() {
    for (dtype, name) in [("i32", "int32"), ("f64", "float64"), ("uint8", "uint8"), ("f16", "float16")] {
        for names in [&["a.h5ad", "b.zarr"][..], &["dense.h5ad"]] {
            check(names, &["--dtype", dtype], &FORMATS, json!({"dtype": name}));
        }
    }
    check(&["float.h5ad"], &["--dtype", "f32"], &FORMATS, json!({"dtype": "float32"}));
    for (dtype, name) in [("u16", "uint16"), ("i64", "int64"), ("i32", "int32")] {
        let job = json!({"index": name, "with": ["layers/spliced"], "genes": ["gene9", "gene1"]});
        let options = ["--index-dtype", dtype, "--with", "layers/spliced"];
        check(&["a.h5ad", "b.zarr"], &[&options[..], &["--genes", "gene9,gene1"]].concat(), &FORMATS, job);
        check(&["a.h5ad", "b.zarr"], &["--index-dtype", dtype], &FORMATS, json!({"index": name}));
    }
}

/// Only the batches with the value fail, with one line that names it.
#[test]
fn a_value_that_does_not_fit_costs_its_batches_only() {
    for (name, dtype, value) in
        [("float.h5ad", "i32", "1.5"), ("ints.h5ad", "i16", "100000"), ("ints.h5ad", "f16", "100000")]
    {
        for format in ["npz", "npy", "h5ad"] {
            let log = tempfile::NamedTempFile::new().unwrap();
            let options = ["--dtype", dtype, "--log", log.path().to_str().unwrap()];
            let mount = Mount::new(&stores(&[name]), &[&SMALL[..], &options].concat());
            let mut failed = 0;
            for batch in 0..4 {
                let path = mount.join(format!("epoch-0000/batch-{batch:06}.{format}"));
                match fs::read(&path) {
                    Ok(bytes) => assert_eq!(bytes.len() as u64, fs::metadata(&path).unwrap().len()),
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
                        failed += 1;
                    }
                }
            }
            assert_eq!(failed, 1, "{name} {dtype} {format}");
            let logged = fs::read_to_string(log.path()).unwrap();
            let lines: Vec<&str> = logged.lines().filter(|line| line.contains("has no place in")).collect();
            assert!(lines.len() == 1 && [name, "X", value].iter().all(|word| lines[0].contains(word)), "{logged}");
            mount.unmount();
        }
    }
}

#[test]
fn what_cannot_be_served_is_one_line() {
    for (names, options, code, words) in [
        (
            &["bare.h5ad"][..],
            &["--with", "layers/spliced"][..],
            3,
            &["bare.h5ad", "layers/spliced", "layers/whole"][..],
        ),
        (
            &["a.h5ad", "bare.h5ad"],
            &["--with", "layers/spliced"],
            3,
            &["not in ", "bare.h5ad, but in ", "--join outer"],
        ),
        (&["a.h5ad", "wide.h5ad"], &["--with", "obsm/X_pca"], 3, &["wide.h5ad", "obsm/X_pca", "[6]", "[5]"]),
        (&["a.h5ad"], &["--with", "X"], 2, &["--with", "X"]),
        (&["a.h5ad"], &["--with", "obsm/X_pca,obsm/X_pca"], 2, &["named twice"]),
        (&["a.h5ad"], &["--genes", "gene1,gen2,nogene"], 3, &["gen2", "2 of the 3", "near: gene2"]),
        (&["a.h5ad"], &["--genes", "gene1,gene2,gene1"], 3, &["gene1 is asked for twice"]),
        (&["a.h5ad"], &["--genes", "var:rank"], 3, &["var/rank is number, not boolean"]),
        (&["a.h5ad"], &["--genes", "var:highly_varible"], 3, &["no column highly_varible", "near: highly_variable"]),
        (&["a.h5ad"], &["--x", "obsm/X_pca", "--genes", "gene1"], 3, &["--genes", "obsm/X_pca"]),
        (&["a.h5ad"], &["--normalize", "0"], 2, &["--normalize"]),
        (&["a.h5ad"], &["--dtype", "f8"], 2, &["--dtype", "f16"]),
        (
            &["a.h5ad"],
            &["--x", "raw/X", "--with", "layers/spliced", "--format", "h5ad"],
            3,
            &["layers/spliced", "raw/X"],
        ),
    ] {
        let line = refused(names, options, code);
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    }
}

#[test]
fn sizes_need_no_matrix_data_once_counted() {
    let index = tempfile::tempdir().unwrap();
    let options = ["--genes", "gene5,gene6", "--index-dir", index.path().to_str().unwrap()];
    let chunks = |mount: &Mount| mount.json(".shufflefs/stats.json")["store"]["chunks"].as_u64().unwrap();
    let first = Mount::new(&stores(&["a.h5ad"]), &[&SMALL[..], &options].concat());
    first.unmount();
    let again = Mount::new(&stores(&["a.h5ad"]), &[&SMALL[..], &options].concat());
    let before = chunks(&again);
    for entry in fs::read_dir(again.join("epoch-0000")).unwrap() {
        assert!(entry.unwrap().metadata().unwrap().len() > 0);
    }
    assert_eq!(chunks(&again), before);
    again.unmount();
    let told = succeed(shufflefs().args(["info", "--json"]).args(stores(&["a.h5ad"])));
    assert!(["layers/spliced", "obsm/X_pca", "raw/X"].iter().all(|name| told.contains(name)), "{told}");
}

//! AnnData of all kinds: the stores of `../shared/data`, by other software, and those that tests write.
//!
//! Each usable matrix of each store is mounted and compared, value for value, with anndata's values and with `expected.json`, from
//! independent tools; the others must be refused with the message given here.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Checker, Mount, store_table, stores, text};
use serde_json::{Value, json};

/// The error for a matrix stored by column. `None`: they are served, and compared like all others.
const CSC: Option<&str> = None;

/// Stores (and groups inside) with a refused X, and words of the error.
const REFUSED: [(&str, &str); 7] = [
    ("scLucid_lfs_pointer.h5ad", "not an HDF5 file; it is a Git LFS pointer: run `git lfs pull`"),
    ("vitessce_invalidmeta.zarr", "its .zmetadata describes no group or array: the store is damaged or incomplete"),
    ("anndata_v0.11.4_noX.h5ad", "X: there is none in this store, and it holds no other matrix to serve"),
    ("anndata_v0.11.4_noX.zarr.zip", "X: there is none in this store, and it holds no other matrix to serve"),
    (
        "anndatajs_0.10_no-X.zarr",
        "X: there is none in this store; choose one of these with --x or --with: layers/float32_cs",
    ),
    ("spatialdata_0.7_blobs_v3.zarr::tables/table_points", "X: there is none in this store, and it holds no other"),
    ("spatialdata_blobs_v2.zarr", "AnnData inside; name {}::tables/table"),
];

const SMALL: [&str; 6] = ["--batch-size", "64", "--block-size", "16", "--fetch-factor", "4"];

fn data() -> Option<PathBuf> {
    let data = Path::new(crate::support::ROOT).join("../shared/data");
    if data.join("expected.json").exists() {
        return Some(data);
    }
    println!("{} is not there: nothing is tested", data.display());
    None
}

/// One matrix of one store, and what is expected of it.
struct Case {
    path: PathBuf,
    x: String,
    /// Its entry in `expected.json`.
    expected: Value,
    /// Part of the error, if it must be refused.
    refused: Option<String>,
}

/// Every matrix that `expected.json` names.
fn cases(data: &Path) -> Vec<Case> {
    let all: Value = serde_json::from_str(&fs::read_to_string(data.join("expected.json")).unwrap()).unwrap();
    let mut cases = Vec::new();
    for store in all.as_array().unwrap() {
        let file = store["file"].as_str().unwrap();
        let refused = |name: &str| {
            let line = REFUSED.iter().find(|(refused, _)| *refused == name)?.1;
            Some(line.replace("{}", data.join(file).to_str().unwrap()))
        };
        let Some(groups) = store["open"].as_object() else {
            cases.push(Case { path: data.join(file), x: "X".into(), expected: Value::Null, refused: refused(file) });
            continue;
        };
        // Whole MuData are mounted (`modalities`).
        if !groups.contains_key("/") && !groups.keys().all(|group| group.starts_with("mod/")) {
            // If a file only contains AnnData, the error names them.
            let refused = refused(file).or(Some("AnnData inside; name".to_owned()));
            cases.push(Case { path: data.join(file), x: "X".into(), expected: Value::Null, refused });
        }
        for (group, open) in groups {
            let name = if group == "/" { file.to_owned() } else { format!("{file}::{group}") };
            let mut add = |x: String, matrix: &Value| {
                let kind = matrix["type"].as_str().or(matrix.as_str()).unwrap_or_default();
                let refused = match kind {
                    _ if x == "X" && refused(&name).is_some() => refused(&name),
                    _ if kind.starts_with("csc") => CSC.map(str::to_owned),
                    _ if kind.starts_with("Array") => Some("its encoding is awkward-array".to_owned()),
                    _ => None,
                };
                let mut expected = if matrix.is_object() { matrix.clone() } else { json!({}) };
                expected["obs"] = open["obs_names_first_last"].clone();
                if x == "X" || x.starts_with("layers/") {
                    expected["var"] = open["var_names_first_last"].clone();
                }
                cases.push(Case { path: data.join(&name), x, expected, refused });
            };
            add("X".to_owned(), &open["X"]);
            if open["raw"].is_object() {
                add("raw/X".to_owned(), &open["raw"]);
            }
            for part in ["layers", "obsm"] {
                for (key, matrix) in open[part].as_object().into_iter().flatten() {
                    add(format!("{part}/{key}"), matrix);
                }
            }
        }
    }
    cases
}

/// Mounts one matrix; returns how it differs from what is expected.
fn check(checker: &mut Checker, case: &Case) -> Result<(), String> {
    let options = [&["--x", case.x.as_str()], &SMALL[..]].concat();
    match (Mount::try_new(std::slice::from_ref(&case.path), &options), &case.refused) {
        (Ok(_), Some(_)) => Err("is mounted, and should be refused".to_owned()),
        (Ok(mount), None) => {
            let job = json!({"x": case.x, "expected": case.expected});
            checker.check(&mount, "npz", job).map(|_| ())
        }
        (Err(output), refused) => {
            let line = text(&output.stderr);
            match refused {
                None => Err(format!("is refused: {line}")),
                Some(part) if !line.contains(part.as_str()) => Err(format!("is refused with other words: {line}")),
                Some(_) if line.trim_end().lines().count() != 1 => Err(format!("more than one line: {line}")),
                Some(_) if output.status.code() != Some(3) => Err(format!("{}: {line}", output.status)),
                Some(_) => Ok(()),
            }
        }
    }
}

#[test]
fn every_matrix_of_every_real_store() {
    let Some(data) = data() else { return };
    let cases = cases(&data);
    assert!(cases.len() > 180, "only {} cases", cases.len());
    let (mut wrong, mut refused) = (Vec::new(), 0);
    let mut checker = Checker::start();
    for case in &cases {
        refused += usize::from(case.refused.is_some());
        let name = case.path.strip_prefix(&data).unwrap().display().to_string();
        wrong.extend(check(&mut checker, case).err().map(|error| format!("{name}: {}: {error}", case.x)));
    }
    println!("{} matrices: {} served, {refused} refused", cases.len(), cases.len() - refused);
    assert!(wrong.is_empty(), "{} of {} matrices:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn every_refusal_is_of_a_store_that_is_there() {
    let Some(data) = data() else { return };
    for (name, _) in REFUSED {
        let file = name.split("::").next().unwrap();
        assert!(data.join(file).exists(), "{name}");
    }
}

/// Unusual stores written by tests, each with twins that anndata wrote: the path within the store, and the served matrices.
const ODD: [(&str, &[&str]); 31] = [
    ("r-like.h5ad", &["X"]),
    ("r-like-no-shape.h5ad", &["X"]),
    ("matrix-alone.h5ad", &["X"]),
    ("strange-neighbours.h5ad", &["X"]),
    ("categories.h5ad", &["X"]),
    ("anndata-0.6.h5ad", &["X", "raw/X", "obsm/X_pca", "obsm/X_umap"]),
    ("anndata-0.6.zarr", &["X", "raw/X", "obsm/X_pca", "obsm/X_umap"]),
    ("anndata-0.7.h5ad", &["X"]),
    ("anndata-0.7.zarr", &["X"]),
    ("anndata-0.7-inside.h5mu::mod/rna", &["X"]),
    ("one-row.h5ad", &["X"]),
    ("one-gene.h5ad", &["X"]),
    ("no-genes.h5ad", &["X"]),
    ("no-genes-dense.h5ad", &["X"]),
    ("no-values.h5ad", &["X"]),
    ("no-values.zarr", &["X"]),
    ("images.zarr", &["X", "obsm/images"]),
    ("stored.zarr.zip", &["X"]),
    ("mixed-in-folder.zarr.zip", &["X"]),
    ("zip64.zarr.zip", &["X"]),
    ("replaced.zarr.zip", &["X"]),
    ("written-by-zarr.zarr.zip", &["X"]),
    ("zip-of-two.zarr.zip::b.zarr", &["X"]),
    ("nested.zarr::tables/table", &["X"]),
    ("colons::in::name.h5ad", &["X"]),
    ("filter-masks.h5ad", &["X"]),
    ("zstd-strings.h5ad", &["X"]),
    ("index-at-start.zarr", &["X"]),
    ("f-order.zarr", &["X"]),
    ("stale-metadata.zarr", &["X"]),
    ("collection.zarr", &["X"]),
];

/// Unusual stores that are refused, and words of the error.
const REFUSED_ODD: [(&str, &str); 14] = [
    ("no-rows.h5ad", "no rows: there is nothing to serve"),
    ("zip-header.zarr.zip", "its local header is damaged"),
    ("zip-huge.zarr.zip", "cannot hold the 4026531840 that are declared"),
    ("zip-beyond.zarr.zip", "reaches into the central directory"),
    ("zip-encrypted.zarr.zip", "it is encrypted"),
    ("zip-method.zarr.zip", "compression 93 is not read"),
    ("zip-crc.zarr.zip", "its checksum does not match"),
    ("zip-truncated.zarr.zip", "the zip archive has no end record"),
    ("zip-of-two.zarr.zip", "a zip archive of 2 zarr stores; name one of them, such as STORE::a.zarr"),
    ("elsewhere.h5ad", "X: lies in another file (an external link)"),
    ("stored.zarr.zip::obs/../X", "without `.` and `..`"),
    ("anndata-0.7.h5ad::mod/rna", "there is no group mod/rna in the file"),
    ("anndata-0.7.zarr::X/data", "X/data is an array, not a group"),
    ("nested.zarr", "AnnData inside; name "),
];

/// The paths of unusual stores, including `::`; missing ones are made first.
fn odd(names: &[&str]) -> Vec<PathBuf> {
    let files: Vec<&str> = names.iter().map(|name| file_of(name)).collect();
    let made = stores(&files);
    names.iter().zip(made).map(|(name, path)| format!("{}/{name}", path.parent().unwrap().display()).into()).collect()
}

/// The file or directory of STORE::INNER.
fn file_of(name: &str) -> &str {
    if name.starts_with("colons") { name } else { name.split("::").next().unwrap_or(name) }
}

/// The AnnData equal to a store.
fn twins(name: &str, path: &Path) -> Vec<PathBuf> {
    let file = file_of(name);
    let directory = path.to_str().unwrap().strip_suffix(name).unwrap();
    let parts: Vec<String> = match name {
        "collection.zarr" => (0..3).map(|i| format!("{file}.twin.{i}.h5ad")).collect(),
        _ => vec![format!("{file}.twin.h5ad")],
    };
    parts.iter().map(|part| Path::new(directory).join(part)).collect()
}

#[test]
fn odd_stores_are_what_anndata_would_hold() {
    let names: Vec<&str> = ODD.iter().map(|(name, _)| *name).collect();
    let mut checker = Checker::start();
    let mut wrong = Vec::new();
    for ((name, matrices), path) in ODD.iter().zip(odd(&names)) {
        for x in *matrices {
            let named: Vec<String> = match *name {
                "collection.zarr" => [0, 2, 10].map(|i| format!("{name}::dataset_{i}")).to_vec(),
                _ => vec![name.rsplit('/').next().unwrap().to_owned()],
            };
            let options = [&["--x", *x], &SMALL[..]].concat();
            let job = json!({"x": x, "stores": twins(name, &path), "named": named});
            match Mount::try_new(std::slice::from_ref(&path), &options) {
                Ok(mount) => wrong.extend(checker.check(&mount, "npz", job).err().map(|e| format!("{name}: {x}: {e}"))),
                Err(output) => wrong.push(format!("{name}: {x}: mount: {}", text(&output.stderr).trim())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn odd_stores_that_cannot_be_served_are_refused_in_one_line() {
    let names: Vec<&str> = REFUSED_ODD.iter().map(|(name, _)| *name).collect();
    let mut checker = Checker::start();
    let mut wrong = Vec::new();
    for ((name, line), path) in REFUSED_ODD.iter().zip(odd(&names)) {
        let case = Case { path, x: "X".to_owned(), expected: Value::Null, refused: Some((*line).to_owned()) };
        wrong.extend(check(&mut checker, &case).err().map(|error| format!("{name}: {error}")));
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_store_without_rows_among_others() {
    let paths = odd(&["one-row.h5ad", "no-rows.h5ad", "no-values.h5ad"]);
    let mount = Mount::new(&paths, &SMALL);
    Checker::start().check(&mount, "npz", json!({})).unwrap();
}

#[test]
fn every_dtype_in_zip_archives() {
    let names: Vec<String> = store_table()
        .into_iter()
        .filter(|(_, spec)| spec["container"].as_str().is_some_and(|container| container.ends_with(".zip")))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() > 40, "{}", names.len());
    let mut checker = Checker::start();
    let mut wrong = Vec::new();
    for (name, path) in names.iter().zip(stores(&names)) {
        match Mount::try_new(&[path], &SMALL) {
            Ok(mount) => wrong.extend(checker.check(&mount, "npz", json!({})).err().map(|e| format!("{name}: {e}"))),
            Err(output) => wrong.push(format!("{name}: mount: {}", text(&output.stderr).trim())),
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

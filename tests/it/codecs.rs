//! zarr's and numcodecs' codecs on every kind of array, as zarr-python writes them and anndata reads them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Checker, Mount, ROOT, python, succeed, text};

const SMALL: [&str; 4] = ["--batch-size", "16", "--block-size", "8"];

/// Stores with one layout of X.
fn of(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut stores: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    stores.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix));
    stores.sort();
    stores
}

/// Mounts all at once; if that fails, each separately, to find the failing ones.
fn check(checker: &mut Checker, stores: &[PathBuf]) -> Vec<String> {
    let mut one = |stores: &[PathBuf]| match Mount::try_new(stores, &SMALL) {
        Ok(mount) => checker.check(&mount, "npz", json!({})).err(),
        Err(output) => Some(text(&output.stderr)),
    };
    if one(stores).is_none() {
        return Vec::new();
    }
    let alone = stores
        .iter()
        .filter_map(|store| one(std::slice::from_ref(store)).map(|error| format!("{}: {error}", store.display())));
    alone.collect()
}

#[test]
fn every_codec_on_every_array() {
    let dir = tempfile::tempdir().unwrap();
    let left_out = succeed(python("codec_stores.py").arg(dir.path()));
    let mut checker = Checker::start();
    let mut wrong = Vec::new();
    for (prefix, least) in [("dense-", 60), ("csr-", 12)] {
        let stores = of(dir.path(), prefix);
        assert!(stores.len() >= least, "{prefix}: {} stores; {left_out}", stores.len());
        wrong.extend(check(&mut checker, &stores));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // A truncated chunk: an error that names the array, and the mount continues.
    for store in of(dir.path(), "dense-") {
        for chunk in ["X/c/1/0", "X/1.0", "X/1/0", "X/c.1.0"] {
            if let Ok(bytes) = fs::read(store.join(chunk)) {
                fs::write(store.join(chunk), &bytes[..bytes.len() / 2]).unwrap();
            }
        }
    }
    for store in of(dir.path(), "dense-3-") {
        if !store.join("X/c/1/0").exists() {
            continue;
        }
        let mount = Mount::new(std::slice::from_ref(&store), &[&SMALL[..], &["--order", "sequential"]].concat());
        let error = fs::read(mount.join("epoch-0000/batch-000000.npz")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{}", store.display());
        fs::read(mount.join("epoch-0000/batch-000002.npz")).unwrap();
    }
}

/// The stores of `../shared/reports`, compared with anndata 0.13 and zarr 3.4.
#[test]
fn reported_stores() {
    let reports = Path::new(ROOT).join("../shared/reports");
    let Ok(expected) = fs::read(reports.join("expected.json")) else { return };
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let (mut wrong, mut mounts, mut jobs) = (Vec::new(), Vec::new(), Vec::new());
    for (name, want) in expected.as_object().unwrap().iter().filter(|(name, _)| name.ends_with(".zarr")) {
        match Mount::try_new(&[reports.join(name)], &SMALL) {
            Ok(mount) => {
                jobs.push(json!({"mount": mount.path(), "name": name, "x": want["X"], "shape": want["shape"], "dtype": want["dtype"]}));
                mounts.push(mount);
            }
            Err(output) => wrong.push(format!("{name}: {}", text(&output.stderr))),
        }
    }
    let output = python("check_values.py").args(jobs.iter().map(Value::to_string)).output().unwrap();
    if !output.status.success() {
        wrong.push(text(&output.stderr));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

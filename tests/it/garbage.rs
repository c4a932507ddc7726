//! Paths that are not stores, and damaged stores: one clear line, an errno, and nothing left behind.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Mount, python, store, stores, succeed, text};
use serde_json::Value;

/// The mount is refused with exit code 3 and one line that names the store; returns the line.
fn refused(paths: &[PathBuf], named: &Path) -> String {
    let Err(output) = Mount::try_new(paths, &[]) else { panic!("{paths:?} was mounted") };
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "exit code for {paths:?}: {message}");
    assert_eq!(message.trim_end().lines().count(), 1, "one line for {paths:?}:\n{message}");
    let name = named.file_name().unwrap().to_str().unwrap();
    assert!(message.contains(name), "the line does not name {name}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

#[test]
fn what_is_no_store_is_refused_in_one_line() {
    for name in ["truncated.h5ad", "text.h5ad", "empty.h5ad", "hdf5.h5ad", "no-zarr.zarr", "text.zarr"] {
        let path = store(name);
        refused(std::slice::from_ref(&path), &path);
    }
}

#[test]
fn a_missing_store_is_refused_in_one_line() {
    let missing = PathBuf::from("/nonexistent/missing.h5ad");
    let message = refused(std::slice::from_ref(&missing), &missing);
    assert!(message.to_lowercase().contains("no such file"), "{message}");
}

#[test]
fn the_bad_one_of_several_stores_is_named() {
    let good = stores(&["part-a.h5ad", "part-b.zarr"]);
    for name in ["text.h5ad", "no-zarr.zarr", "join-b.h5ad"] {
        let bad = store(name);
        refused(&[good[0].clone(), bad.clone(), good[1].clone()], &bad);
    }
}

#[test]
fn an_unknown_element_or_column_is_named() {
    for (option, value) in [("--x", "layers/nothing"), ("--obs", "cell_type,nothing")] {
        let Err(output) = Mount::try_new(&[store("sparse.h5ad")], &[option, value]) else { panic!("{option} {value}") };
        let message = text(&output.stderr);
        assert!(message.contains("nothing") && message.trim_end().lines().count() == 1, "{option} {value}: {message}");
    }
}

/// EIO only for the batches that need the chunk; one log line names store, element and chunk.
fn damaged(name: &str) {
    let path = store(name);
    let beside = |file: String| path.with_file_name(file);
    let (good, report) = (beside(format!("good-{name}")), beside(format!("{name}.json")));
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("log");
    let options = ["--batch-size", "32", "--block-size", "16", "--fetch-factor", "4", "--log", log.to_str().unwrap()];
    let mount = Mount::new(std::slice::from_ref(&path), &options);
    // The descriptions equal those of the undamaged store except the name.
    succeed(python("check_damage.py").arg(mount.path()).arg(&good).arg(&report));
    let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    let (element, chunk) = (report["element"].as_str().unwrap(), report["chunk"].to_string());
    let mut lines = fs::read_to_string(mount.join(".shufflefs/log")).unwrap();
    lines.push_str(&fs::read_to_string(&log).unwrap_or_default());
    let telling: std::collections::BTreeSet<&str> = lines
        .lines()
        .filter(|line| line.contains(name) && line.contains(element) && line.contains(&format!("chunk {chunk}")))
        .collect();
    assert!(!telling.is_empty(), "no line names {name}, {element} and chunk {chunk}:\n{lines}");
    let in_file = fs::read_to_string(&log).unwrap_or_default();
    let told = in_file.lines().filter(|line| line.contains(element) && line.contains("chunk")).count();
    assert!(told <= 1, "the damage is told {told} times:\n{in_file}");
    mount.unmount();
}

#[test]
fn a_damaged_chunk_of_a_sparse_h5ad_costs_its_batches_only() {
    damaged("damaged-csr.h5ad");
}

#[test]
fn a_damaged_chunk_of_a_dense_h5ad_costs_its_batches_only() {
    damaged("damaged-dense.h5ad");
}

#[test]
fn a_damaged_chunk_of_a_zarr_costs_its_batches_only() {
    damaged("damaged.zarr");
}

/// A store that is replaced under the mount: ESTALE, never a mixture, one line.
#[test]
fn a_changed_store_is_stale() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("store.h5ad");
    fs::copy(store("sparse.h5ad"), &path).unwrap();
    let mount =
        Mount::new(std::slice::from_ref(&path), &["--batch-size", "32", "--block-size", "16", "--fetch-factor", "2"]);
    fs::read(mount.join("epoch-0000/batch-000000.npz")).unwrap();
    fs::File::options().append(true).open(&path).unwrap().set_len(fs::metadata(&path).unwrap().len() + 1).unwrap();
    let error = fs::read(mount.join("epoch-0005/batch-000030.npz")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    let log = fs::read_to_string(mount.join(".shufflefs/log")).unwrap();
    assert!(log.contains("store.h5ad") && log.contains("changed"), "{log}");
}

/// A chunk file that is removed under the mount: ESTALE, not the fill value of an absent chunk.
#[test]
fn a_removed_chunk_is_stale() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("store.zarr");
    let status =
        std::process::Command::new("cp").arg("-r").arg(store("good-damaged.zarr")).arg(&path).status().unwrap();
    assert!(status.success());
    let mount = Mount::new(std::slice::from_ref(&path), &["--batch-size", "32", "--block-size", "16"]);
    let mut removed = 0;
    for directory in ["X/data", "X/data/c"] {
        for file in fs::read_dir(path.join(directory)).into_iter().flatten().map(Result::unwrap) {
            if file.file_name().to_string_lossy().parse::<u32>().is_ok() {
                fs::remove_file(file.path()).unwrap();
                removed += 1;
            }
        }
    }
    assert!(removed > 0);
    let error = fs::read(mount.join("epoch-0000/batch-000000.npz")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    let log = fs::read_to_string(mount.join(".shufflefs/log")).unwrap();
    assert!(log.contains("store.zarr") && log.contains("removed"), "{log}");
}

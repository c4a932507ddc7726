//! Stores made to harm the process that opens them, in addition to `damage::stores_that_lie`: devices in place of files, endless
//! metadata. Each is served, or gives one line or EIO, in a short time.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::damage::tiny;
use crate::support::{Mount, succeed, text};

const PATIENCE: Duration = Duration::from_secs(30);

/// A copy of a tiny store, changed.
fn changed(place: &Path, change: impl FnOnce(&Path)) -> PathBuf {
    let store = place.join("odd.zarr");
    succeed(Command::new("cp").arg("-r").arg(tiny().join("plain.v3.zarr")).arg(&store));
    change(&store);
    store
}

/// Changes the attributes of an element.
fn attributes(store: &Path, element: &str, change: impl FnOnce(&mut Value)) {
    let file = store.join(element).join("zarr.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut document["attributes"]);
    fs::write(file, document.to_string()).unwrap();
}

/// Mounts the store and reads all batches: the errnos of unreadable batches, or None if it was not mounted.
fn served(store: &Path) -> Option<Vec<i32>> {
    let began = Instant::now();
    let tried = Mount::try_new(&[store.to_owned()], &["--batch-size", "8", "--block-size", "8", "--timeout", "10s"]);
    let errnos = match tried {
        Err(output) => {
            let line = text(&output.stderr);
            let name = store.file_name().unwrap().to_str().unwrap();
            assert_eq!(output.status.code(), Some(3), "{line}");
            assert!(line.trim_end().lines().count() == 1 && line.contains(name) && line.len() < 2000, "{line}");
            None
        }
        Ok(mount) => {
            let read = |batch| fs::read(mount.join(format!("epoch-0000/batch-{batch:06}.npz")));
            let errnos = (0..6).map(read).filter_map(Result::err).map(|error| error.raw_os_error().unwrap()).collect();
            mount.unmount();
            Some(errnos)
        }
    };
    assert!(began.elapsed() < PATIENCE, "took {:?}", began.elapsed());
    errnos
}

#[test]
fn what_is_no_file_is_not_opened() {
    for device in ["/dev/zero", "/dev/null", "/dev/tty", "/dev/fuse"] {
        assert_eq!(served(Path::new(device)), None, "{device}");
        let link = |at: &str| {
            let place = tempfile::tempdir().unwrap();
            let store = changed(place.path(), |store| {
                fs::remove_file(store.join(at)).unwrap();
                symlink(device, store.join(at)).unwrap();
            });
            served(&store)
        };
        assert_eq!(link("X/data/zarr.json"), None, "{device}");
        let errnos = link("X/data/c/1").unwrap();
        assert!(!errnos.is_empty() && errnos.iter().all(|&errno| errno == libc::EIO), "{device}: {errnos:?}");
    }
}

#[test]
fn huge_attributes_deep_groups_and_many_columns() {
    // Elements that are not served may have any size.
    let whole: &[fn(&Path)] = &[
        |store| {
            let deep = store.join("uns").join("a/".repeat(1500));
            fs::create_dir_all(&deep).unwrap();
            fs::copy(store.join("zarr.json"), deep.join("zarr.json")).unwrap();
        },
        |store| attributes(store, "X", |attributes| attributes["note"] = json!("x".repeat(8 << 20))),
        |store| attributes(store, "obs", |attributes| attributes["notes"] = json!(vec![[[1]]; 100_000])),
        // Ten thousand columns, none of which exists.
        |store| {
            let names: Vec<String> = (0..10_000).map(|number| format!("column-{number}")).collect();
            attributes(store, "obs", |attributes| attributes["column-order"] = json!(names));
        },
    ];
    for (number, change) in whole.iter().enumerate() {
        let place = tempfile::tempdir().unwrap();
        let got = served(&changed(place.path(), change));
        assert!(got.as_ref().is_none_or(Vec::is_empty), "{number}: {got:?}");
    }
    let refused: &[fn(&Path)] = &[
        |store| fs::write(store.join("X/zarr.json"), "[".repeat(1_000_000)).unwrap(),
        |store| fs::write(store.join("X/zarr.json"), vec![b' '; 16 << 20]).unwrap(),
    ];
    for (number, change) in refused.iter().enumerate() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(served(&changed(place.path(), change)), None, "{number}");
    }
}

//! Matrices stored by column: transposed once into the index directory, then served as `tocsr()` gives them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Checker, Mount, list, store, stores, text};
use serde_json::{Value, json};

const SMALL: [&str; 6] = ["--batch-size", "64", "--block-size", "16", "--fetch-factor", "4"];

fn mount(paths: &[PathBuf], index: &Path, more: &[&str]) -> Mount {
    Mount::new(paths, &[&SMALL[..], &["--index-dir", index.to_str().unwrap()], more].concat())
}

fn check(mount: &Mount, more: Value) {
    let mut checker = Checker::start();
    for format in ["npz", "npy", "h5ad"] {
        let result = checker.check(mount, format, more.clone());
        assert!(result.is_ok(), "{format} {more}: {}", result.unwrap_err());
    }
}

fn bytes_read(mount: &Mount) -> u64 {
    mount.json(".shufflefs/stats.json")["store"]["bytes_read"].as_u64().unwrap()
}

#[test]
fn every_element_equals_tocsr() {
    let index = tempfile::tempdir().unwrap();
    for name in ["csc-unsorted.h5ad", "csc-int64.zarr", "csc-gzip.h5ad"] {
        for element in ["X", "raw/X", "layers/by_column"] {
            let mount = mount(&[store(name)], index.path(), &["--x", element]);
            check(&mount, json!({"x": element}));
            mount.unmount();
        }
    }
    assert_eq!(list(index.path()).len(), 9, "{:?}", list(index.path()));
}

#[test]
fn by_column_and_by_row_in_one_collection() {
    let index = tempfile::tempdir().unwrap();
    for join in ["inner", "outer"] {
        let paths = stores(&["csc-unsorted.h5ad", "join-c.zarr", "csc-int64.zarr", "csc-gzip.h5ad"]);
        for _ in 0..2 {
            let mount = mount(&paths, index.path(), &["--join", join]);
            check(&mount, json!({"join": join}));
        }
    }
}

#[test]
fn the_index_is_used_again_and_rebuilt_when_it_must_be() {
    let place = tempfile::tempdir().unwrap();
    let (index, path) = (place.path().join("deep/index"), place.path().join("csc.h5ad"));
    fs::copy(store("csc-unsorted.h5ad"), &path).unwrap();
    let paths = [path.clone()];
    let none = ["--obs", ""];
    let first = bytes_read(&mount(&paths, &index, &none));
    let file = index.join(list(&index).remove(0));
    assert_eq!(list(&index).len(), 1, "{:?}", list(&index));
    let built = |file: &Path| fs::metadata(file).map(|m| std::os::unix::fs::MetadataExt::ino(&m)).unwrap();
    let inode = built(&file);
    let second = mount(&paths, &index, &none);
    // Row bounds of columns and rows, and obs, but no values.
    assert!(bytes_read(&second) < first / 2, "{} of {first} bytes were read again", bytes_read(&second));
    check(&second, json!({"obs": []}));
    second.unmount();
    assert_eq!(built(&file), inode, "built twice");
    // A changed byte in the middle, then truncated, then nonsense: rebuilt each time.
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() - 40], b"nonsense"] {
        fs::write(&file, damaged).unwrap();
        check(&mount(&paths, &index, &[]), json!({}));
        assert_eq!(fs::read(&file).unwrap().len(), whole.len());
    }
    // Touched but intact: reused.
    let inode = built(&file);
    fs::File::options().write(true).open(&file).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    check(&mount(&paths, &index, &[]), json!({}));
    assert_eq!(built(&file), inode);
    // Another store under the same name replaces it.
    fs::copy(store("csc-gzip.h5ad"), &path).unwrap();
    check(&mount(&paths, &index, &[]), json!({}));
    assert_eq!(list(&index).len(), 1, "{:?}", list(&index));
}

#[test]
fn an_index_directory_that_cannot_be_written_is_one_line() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = |directory: &Path| {
        let options = ["--index-dir", directory.to_str().unwrap()];
        let Err(output) = Mount::try_new(&[store("csc-unsorted.h5ad")], &options) else { panic!("mounted") };
        let message = text(&output.stderr);
        assert_eq!((output.status.code(), message.trim_end().lines().count()), (Some(3), 1), "{message}");
        for word in ["csc-unsorted.h5ad", "CSC", directory.to_str().unwrap(), "--index-dir"] {
            assert!(message.contains(word), "{word}: {message}");
        }
    };
    refused(&file.join("below"));
    refused(Path::new("/proc/index"));
    // Root may write anywhere.
    let closed = place.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    // SAFETY: always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        refused(&closed);
    }
}

/// Inner joins count the values that remain; they also work if the counts cannot be stored.
#[test]
fn inner_joins_need_no_index_directory() {
    let paths = stores(&["join-a.h5ad", "join-b.h5ad"]);
    let mount = mount(&paths, Path::new("/proc/index"), &["--join", "inner"]);
    check(&mount, json!({"join": "inner"}));
}

#[test]
fn mounts_at_once_build_it_once() {
    let index = tempfile::tempdir().unwrap();
    let path = [store("csc-unsorted.h5ad")];
    let read: Vec<u64> = std::thread::scope(|scope| {
        let one = || {
            let mount = mount(&path, index.path(), &["--obs", ""]);
            let read = bytes_read(&mount);
            check(&mount, json!({"obs": []}));
            read
        };
        let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(list(index.path()).len(), 1, "{:?}", list(index.path()));
    let most = read.iter().max().unwrap();
    assert!(read.iter().filter(|bytes| **bytes > most / 2).count() <= 1, "{read:?}");
}

#[test]
fn the_default_is_the_users_cache() {
    let cache = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mountpoint = directory.path().join("mnt");
    crate::support::succeed(
        crate::support::shufflefs()
            .env("XDG_CACHE_HOME", cache.path())
            .args(["mount"])
            .arg(store("csc-unsorted.h5ad"))
            .arg(&mountpoint),
    );
    crate::support::succeed(crate::support::shufflefs().arg("umount").arg(&mountpoint));
    assert_eq!(list(&cache.path().join("shufflefs")).len(), 1);
}

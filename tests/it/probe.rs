//! The child that opens HDF5 stores before a mount does: it gets only these, and opens all of them that the mount opens.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use shufflefs::anndata::index::IndexDir;
use shufflefs::anndata::names::MatrixName;
use shufflefs::collection::Selection;

use crate::support::{shufflefs, store, succeed, text};

/// What a child answers about one store.
fn answers(store: &Path, selection: &Selection) -> String {
    let path = store.as_os_str().as_encoded_bytes();
    let walk = json!({"selection": selection, "columns": ["cell_type"]});
    let request = json!({"Store": {"path": path, "file": path, "seen": null}});
    let mut child = shufflefs().arg("probe").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    write!(child.stdin.take().unwrap(), "{walk}\n{request}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    text(&output.stdout)
}

/// Elements that only other stores of a collection have must not end the child's check of a store.
#[test]
fn what_other_stores_have_ends_no_look() {
    let path = store("csr-float32-gzip.h5ad");
    let served = Selection { obs: Some(vec!["cell_type".into()]), ..Selection::of(MatrixName::X, IndexDir(None)) };
    let elsewhere = Selection {
        with: vec![MatrixName::Layer("elsewhere".into())],
        obs: Some(vec!["elsewhere".into(), "cell_type".into()]),
        ..served.clone()
    };
    for selection in [served, elsewhere] {
        let told = answers(&path, &selection);
        for question in ["X/data", "obs/cell_type/codes", "obs/cell_type/categories", "var/_index"] {
            assert!(told.contains(&format!("\"{question}\"")), "{question}: {told}");
        }
    }
}

/// The number of opens of files in a directory while a command runs.
fn opens(directory: &Path, command: &mut Command) -> usize {
    let path = CString::new(directory.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a C string; the descriptor is new and owned here.
    let mut events = unsafe {
        let watch = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
        assert!(watch >= 0 && libc::inotify_add_watch(watch, path.as_ptr(), libc::IN_OPEN) >= 0);
        File::from_raw_fd(watch)
    };
    succeed(command);
    let (mut opened, mut buffer) = (0, [0_u8; 1 << 16]);
    while let Ok(len) = events.read(&mut buffer) {
        let mut rest = &buffer[..len];
        while !rest.is_empty() {
            // An event is four numbers and a name; the last number is the length of the name.
            let event = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
            opened += usize::from(event(4) & libc::IN_ISDIR == 0);
            rest = &rest[16 + event(12) as usize..];
        }
    }
    opened
}

/// A store without HDF5 is not given to the child: it is opened as often as if there were no HDF5 store.
#[test]
fn only_hdf5_stores_are_tried() {
    let (hdf5, zarr) = (store("columns-a.h5ad"), store("columns-b.zarr"));
    let plan = |stores: &[&Path]| {
        let mut plan = shufflefs();
        plan.arg("plan").args(stores).args(["--join", "outer", "--obs", "number"]);
        plan
    };
    let alone = opens(&zarr, &mut plan(&[&zarr]));
    assert!(alone > 0);
    assert_eq!(opens(&zarr, &mut plan(&[&hdf5, &zarr])), alone);
}

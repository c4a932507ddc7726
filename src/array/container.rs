//! One open store: an HDF5 file, a zarr directory or a zarr zip archive, told apart by content; or a group inside.
//!
//! `STORE::INNER` names a group inside: `file.h5mu::mod/rna`. A path that exists with `::` in it is that path.
//!
//! Only the named element is ever read, so that an odd or broken neighbour (a dtype that no library knows, in `uns`)
//! never matters.

use std::ffi::OsStr;
use std::io::{Error, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::hdf5::{Hdf5, TypeClass};
use super::zarr::Zarr;
use super::{Array, ArrayError, RecordField};
use crate::storage::{self, Address, Identity, Kind, Object};

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Group,
    Array,
}

/// One open store. Elements are named by path, `obs/_index`; the empty name is the root.
pub struct Container {
    kind: Backend,
    address: Address,
}

enum Backend {
    Hdf5(Hdf5),
    Zarr(Zarr),
}

/// Takes `STORE::INNER` apart; INNER is empty where a whole store is named.
fn split(path: &Path) -> (&Path, &str) {
    let bytes = path.as_os_str().as_bytes();
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    if exists(path) {
        return (path, "");
    }
    let cuts = (0..bytes.len().saturating_sub(1)).rev().filter(|&at| bytes.get(at..at + 2) == Some(b"::"));
    for at in cuts {
        let (store, inner) = bytes.split_at_checked(at).unwrap_or((bytes, b""));
        let store = Path::new(OsStr::from_bytes(store));
        let inner = inner.get(2..).and_then(|inner| std::str::from_utf8(inner).ok());
        if let (Some(inner), true) = (inner, exists(store)) {
            return (store, inner.trim_matches('/'));
        }
    }
    (path, "")
}

/// The file or directory of a store that may be named inside of it.
pub fn file_of(path: &Path) -> &Path {
    split(path).0
}

impl Container {
    /// Opens a store, or a group in it: `STORE::INNER`.
    ///
    /// # Errors
    /// `Open`, in words for the user: what is there instead, and what to do.
    pub fn open(path: &Path) -> Result<Container, ArrayError> {
        let name: Arc<str> = path.display().to_string().into();
        let (path, inner) = split(path);
        let unreached = |error: Error| ArrayError::Open { store: name.to_string(), cause: error.to_string() };
        let address = storage::locate(path).map_err(unreached)?;
        Container::open_at(&address, Arc::clone(&name), inner)
    }

    /// Opens the store at an address, or the group `inner` in it (`""`: the root); `name` is what messages call it.
    ///
    /// # Errors
    /// `Open`, in words for the user: what is there instead, and what to do.
    pub fn open_at(address: &Address, name: Arc<str>, inner: &str) -> Result<Container, ArrayError> {
        let fail = |cause: &str| ArrayError::Open { store: name.to_string(), cause: cause.to_owned() };
        if inner.split('/').any(|part| matches!(part, "." | "..")) || inner.contains("//") || inner.contains('\0') {
            return Err(fail("what stands behind `::` is a group's path without `.` and `..`"));
        }
        let refused = |error: Error| match error.kind() {
            ErrorKind::NotFound => fail("no such file or directory"),
            ErrorKind::PermissionDenied => fail("permission denied; it must be readable by this user"),
            _ => fail(&error.to_string()),
        };
        let opened = |kind: Backend| Container { kind, address: address.clone() };
        match address.kind().map_err(refused)? {
            Kind::Folder => {
                return Zarr::open(address.clone(), Arc::clone(&name), inner).map(Backend::Zarr).map(opened);
            }
            // Before it is opened: a pipe without a writer would be waited for.
            Kind::Other => return Err(fail("neither a file nor a directory")),
            Kind::Object => {}
        }
        let object = address.open().map_err(refused)?;
        let start = object.start(512).map_err(|e| fail(&e.to_string()))?;
        if has_signature(&object) {
            return Hdf5::open(object, Arc::clone(&name), inner).map(Backend::Hdf5).map(opened);
        }
        // A local header, or the end record of an archive without members; something may precede the archive.
        if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
            return Zarr::open_zip(object, Arc::clone(&name), inner).map(Backend::Zarr).map(opened);
        }
        Err(fail(&not_hdf5(&start)))
    }

    /// The file or directory that holds the store.
    pub fn path(&self) -> &Path {
        self.address.path()
    }

    /// Where the store lies.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The store, as the user named it.
    pub fn name(&self) -> &str {
        match &self.kind {
            Backend::Hdf5(file) => file.name(),
            Backend::Zarr(zarr) => zarr.name(),
        }
    }

    /// What an element is; `None` where there is none.
    pub fn kind(&self, element: &str) -> Result<Option<NodeKind>, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => file.kind(element),
            Backend::Zarr(zarr) => zarr.kind(element),
        }
    }

    /// Names of a group's members, sorted.
    pub fn members(&self, group: &str) -> Result<Vec<String>, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => file.members(group),
            Backend::Zarr(zarr) => zarr.members(group),
        }
    }

    /// Attributes of a group or an array as JSON; what JSON cannot represent is left out.
    pub fn attributes(&self, element: &str) -> Result<Map<String, Value>, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => file.attributes(element),
            Backend::Zarr(zarr) => zarr.attributes(element),
        }
    }

    /// Opens an array of numbers or booleans.
    pub fn array(&self, element: &str) -> Result<Array, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => file.array(element),
            Backend::Zarr(zarr) => zarr.array(element),
        }
    }

    /// The shape of any array, strings included.
    pub fn shape(&self, element: &str) -> Result<Vec<u64>, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => file.shape(element),
            Backend::Zarr(zarr) => zarr.shape(element),
        }
    }

    /// The element type of any array, for messages: `float32`, `string`, `compound`.
    pub fn dtype_name(&self, element: &str) -> Result<String, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => Ok(match file.class(element)? {
                TypeClass::Number { dtype, .. } => dtype.name(),
                TypeClass::VariableText | TypeClass::FixedText { .. } => "string",
                TypeClass::Other(what) => what,
            }
            .to_owned()),
            Backend::Zarr(zarr) => zarr.dtype_name(element),
        }
    }

    /// Whether an array holds strings.
    pub fn is_text(&self, element: &str) -> Result<bool, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => {
                Ok(matches!(file.class(element)?, TypeClass::VariableText | TypeClass::FixedText { .. }))
            }
            Backend::Zarr(zarr) => zarr.is_text(element),
        }
    }

    /// All strings of an array, in C order.
    pub fn strings(&self, element: &str) -> Result<Vec<String>, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => file.strings(element),
            Backend::Zarr(zarr) => zarr.strings(element),
        }
    }

    /// The fields of an array of records (a compound dataset, a structured array); none for any other.
    pub fn fields(&self, element: &str) -> Result<Vec<RecordField>, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => file.fields(element),
            Backend::Zarr(zarr) => zarr.fields(element),
        }
    }

    /// A field of numbers of every record, held in memory: shape rows x the field's own axes.
    pub fn field_numbers(&self, element: &str, field: &str) -> Result<Array, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => file.field_numbers(element, field),
            Backend::Zarr(zarr) => zarr.field_numbers(element, field),
        }
    }

    /// A field of strings of every record.
    pub fn field_strings(&self, element: &str, field: &str) -> Result<Vec<String>, ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => file.field_strings(element, field),
            Backend::Zarr(zarr) => zarr.field_strings(element, field),
        }
    }

    /// The one string of an array of one element.
    pub fn scalar_text(&self, element: &str) -> Result<String, ArrayError> {
        let mut texts = if self.shape(element)?.iter().all(|&n| n == 1) { self.strings(element)? } else { Vec::new() };
        match (texts.pop(), texts.is_empty()) {
            (Some(text), true) => Ok(text),
            _ => Err(ArrayError::Element {
                store: self.name().to_owned(),
                element: element.to_owned(),
                cause: "is not one string".to_owned(),
            }),
        }
    }

    /// The files whose change is noticed: the `.h5ad`, or the metadata files read so far.
    pub fn identity(&self) -> Vec<Identity> {
        match &self.kind {
            Backend::Hdf5(file) => file.identity(),
            Backend::Zarr(zarr) => zarr.identity(),
        }
    }

    /// Compares these files with what they were.
    ///
    /// # Errors
    /// `Stale`.
    pub fn check_unchanged(&self) -> Result<(), ArrayError> {
        match &self.kind {
            Backend::Hdf5(file) => file.check_unchanged(),
            Backend::Zarr(zarr) => zarr.check_unchanged(),
        }
    }
}

/// HDF5's signature at 0, or after a user block of 512, 1024, 2048, ... bytes.
fn has_signature(object: &Object) -> bool {
    let mut at = 0;
    while at < object.len() {
        let mut signature = [0; 8];
        if object.read_exact_at(at, &mut signature).is_err() {
            return false;
        }
        if &signature == b"\x89HDF\r\n\x1a\n" {
            return true;
        }
        at = if at == 0 { 512 } else { at.saturating_mul(2) };
    }
    false
}

/// What a file is that is not HDF5, and the remedy.
fn not_hdf5(start: &[u8]) -> String {
    if start.is_empty() {
        return "not an HDF5 file; it is empty: copy or download it again".to_owned();
    }
    let what = if start.starts_with(b"version https://git-lfs.github.com/spec/") {
        "it is a Git LFS pointer: run `git lfs pull`"
    } else if start.starts_with(&[0x1f, 0x8b]) {
        "it is gzip-compressed: run `gunzip` first"
    } else if start.starts_with(b"CDF") {
        "it is a netCDF-3 file: convert it to .h5ad"
    } else if start.trim_ascii_start().starts_with(b"<") {
        "it is HTML or XML, perhaps the error page of a failed download: download it again"
    } else if std::str::from_utf8(start).is_ok() {
        "it is text: perhaps a failed download"
    } else {
        "its start is unknown: it may be damaged, or of another format (.h5ad and .zarr are read)"
    };
    format!("not an HDF5 file; {what}")
}

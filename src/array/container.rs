//! One open store, whatever it lies in: an HDF5 file, a zarr directory, a zarr zip archive; or a group inside.
//!
//! A kind of container is one implementation of [`Container`] and one line in [`KINDS`], which says how it is recognised
//! (by the path and the first bytes) and opened. Everything above reads through the trait.
//!
//! `STORE::INNER` names a group inside: `file.h5mu::mod/rna`. A path that exists with `::` in it is that path.
//!
//! Only the named element is ever read, so that an odd or broken neighbour (a dtype that no library knows, in `uns`)
//! never matters.

mod foreign;

use std::ffi::OsStr;
use std::io::{Error, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::handed::{Answer, Question};
use super::meaning::Meaning;
use super::{Array, ArrayError, RecordField, file, hdf5, zarr};
use crate::storage::{self, Address, Identity, Object, name};

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NodeKind {
    Group,
    Array,
}

/// One open store. Elements are named by path, `obs/_index`; the empty name is the root.
pub trait Container: Send + Sync {
    /// The store, as the user named it.
    fn name(&self) -> &str;

    /// The file or directory that holds the store.
    fn path(&self) -> &Path;

    /// The group in it that elements are named from; empty for the root.
    fn inner(&self) -> &str;

    /// What an element is; `None` where the store has no such element.
    ///
    /// # Errors
    /// Its metadata cannot be read.
    fn kind(&self, element: &str) -> Result<Option<NodeKind>, ArrayError>;

    /// Names of a group's members, sorted.
    ///
    /// # Errors
    /// There is no such group.
    fn members(&self, group: &str) -> Result<Vec<String>, ArrayError>;

    /// Attributes of a group or an array as JSON; what JSON cannot represent is left out.
    ///
    /// # Errors
    /// There is no such element, or its attributes cannot be read.
    fn attributes(&self, element: &str) -> Result<Map<String, Value>, ArrayError>;

    /// Opens an array of numbers or booleans.
    ///
    /// # Errors
    /// There is none, or it is of a type or layout that is not read.
    fn array(&self, element: &str) -> Result<Array, ArrayError>;

    /// The shape of any array, strings included.
    ///
    /// # Errors
    /// There is none.
    fn shape(&self, element: &str) -> Result<Vec<u64>, ArrayError>;

    /// The element type of any array, for messages: `float32`, `string`, `compound`.
    ///
    /// # Errors
    /// There is none.
    fn dtype_name(&self, element: &str) -> Result<String, ArrayError>;

    /// What the integers of an array stand for.
    ///
    /// # Errors
    /// There is none.
    fn meaning(&self, _element: &str) -> Result<Meaning, ArrayError> {
        Ok(Meaning::Numbers)
    }

    /// Whether an array holds strings.
    ///
    /// # Errors
    /// There is none.
    fn is_text(&self, element: &str) -> Result<bool, ArrayError>;

    /// All strings of an array, in C order.
    ///
    /// # Errors
    /// There is none, or it holds no strings.
    fn strings(&self, element: &str) -> Result<Vec<String>, ArrayError>;

    /// The fields of an array of records (a compound dataset, a structured array); none for any other.
    ///
    /// # Errors
    /// There is no such array.
    fn fields(&self, _element: &str) -> Result<Vec<RecordField>, ArrayError> {
        Ok(Vec::new())
    }

    /// A field of numbers of every record, held in memory: shape rows x the field's own axes.
    ///
    /// # Errors
    /// There is no such field, or it holds no numbers.
    fn field_numbers(&self, element: &str, field: &str) -> Result<Array, ArrayError> {
        Err(no_records(self.name(), element, field))
    }

    /// A field of strings of every record.
    ///
    /// # Errors
    /// There is no such field, or it holds no strings.
    fn field_strings(&self, element: &str, field: &str) -> Result<Vec<String>, ArrayError> {
        Err(no_records(self.name(), element, field))
    }

    /// The answer to a question about elements, as it is handed to another process; none of an error, and where there is no
    /// such thing.
    fn answer(&self, _question: &Question) -> Option<Answer> {
        None
    }

    /// Closes what is needed only to find elements. They are found nevertheless: it is opened again then.
    fn settle(&self) {}

    /// The files whose change is noticed: the `.h5ad`, or the metadata files read so far.
    fn identity(&self) -> Vec<Identity>;

    /// Compares these files with what they were.
    ///
    /// # Errors
    /// `Stale`.
    fn check_unchanged(&self) -> Result<(), ArrayError> {
        file::check_unchanged(self.name(), &self.identity())
    }

    /// The one string of an array of one element.
    ///
    /// # Errors
    /// It is not one string.
    fn scalar_text(&self, element: &str) -> Result<String, ArrayError> {
        let mut texts = if self.shape(element)?.iter().all(|&n| n == 1) { self.strings(element)? } else { Vec::new() };
        match (texts.pop(), texts.is_empty()) {
            (Some(text), true) => Ok(text),
            _ => Err(element_error(self.name(), element, "is not one string".to_owned())),
        }
    }
}

fn element_error(store: &str, element: &str, cause: String) -> ArrayError {
    ArrayError::Element { store: store.to_owned(), element: element.to_owned(), cause }
}

fn no_records(store: &str, element: &str, field: &str) -> ArrayError {
    element_error(store, element, format!("holds no records, so there is no field {field}"))
}

/// What lies at an address, for a kind of container to recognise.
pub struct Candidate<'a> {
    pub address: &'a Address,
    /// The object; `None` of a directory.
    pub object: Option<Object>,
    /// Its first bytes.
    pub start: Vec<u8>,
    /// The store, as the user named it.
    pub name: Arc<str>,
    /// The group asked for; empty for the root.
    pub inner: &'a str,
}

/// One kind of container.
pub struct Kind {
    /// Whether it is of this kind, by what a candidate shows without being parsed.
    pub recognises: fn(&Candidate<'_>) -> bool,
    /// Opens it, or the group asked for.
    pub open: fn(Candidate<'_>) -> Result<Box<dyn Container>, ArrayError>,
    /// Whether a C library parses it, which may crash on damage: then a child process tries it first.
    pub needs_trial: bool,
}

/// All kinds; the first that recognises a path opens it.
pub const KINDS: &[Kind] = &[hdf5::KIND, zarr::ZIP, zarr::DIRECTORY];

/// Takes `STORE::INNER` apart; INNER is empty where a whole store is named.
fn split(path: &Path) -> (&Path, &str) {
    if name::is_remote(path) {
        // Nothing is asked over a network to tell what a name means: the last `::` is the one.
        let (store, inner) = path.to_str().and_then(|name| name.rsplit_once("::")).unwrap_or(("", ""));
        return if store.is_empty() { (path, "") } else { (Path::new(store), inner.trim_matches('/')) };
    }
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

/// Opens a store, or a group in it: `STORE::INNER`.
///
/// # Errors
/// `Open`, in words for the user: what is there instead, and what to do.
pub fn open(path: &Path) -> Result<Box<dyn Container>, ArrayError> {
    open_as(KINDS, path)
}

/// The same as one of these kinds.
///
/// # Errors
/// Those of `open`.
pub fn open_as(kinds: &[Kind], path: &Path) -> Result<Box<dyn Container>, ArrayError> {
    let (address, name, inner) = located(path)?;
    opened(kinds, Candidate::new(&address, name, inner)?)
}

/// Opens the store at an address, or the group `inner` in it (`""`: the root); `name` is what messages call it.
///
/// # Errors
/// Those of `open`.
pub fn open_at(address: &Address, name: Arc<str>, inner: &str) -> Result<Box<dyn Container>, ArrayError> {
    opened(KINDS, Candidate::new(address, name, inner)?)
}

fn opened(kinds: &[Kind], candidate: Candidate<'_>) -> Result<Box<dyn Container>, ArrayError> {
    match kinds.iter().find(|kind| (kind.recognises)(&candidate)) {
        Some(kind) => (kind.open)(candidate),
        None => Err(candidate.fail(&foreign::told(&candidate))),
    }
}

/// The address of a path, its name, and the group in it.
fn located(path: &Path) -> Result<(Address, Arc<str>, &str), ArrayError> {
    let name: Arc<str> = path.display().to_string().into();
    let (path, inner) = split(path);
    let unreached = |error: Error| ArrayError::Open { store: name.to_string(), cause: error.to_string() };
    let address = storage::locate(path).map_err(unreached)?;
    Ok((address, name, inner))
}

/// Whether a C library would parse what is there. What cannot be opened at all is parsed by none.
pub fn needs_trial(path: &Path) -> bool {
    let Ok((address, name, inner)) = located(path) else { return false };
    let Ok(candidate) = Candidate::new(&address, name, inner) else { return false };
    KINDS.iter().find(|kind| (kind.recognises)(&candidate)).is_some_and(|kind| kind.needs_trial)
}

impl<'a> Candidate<'a> {
    fn new(address: &'a Address, name: Arc<str>, inner: &'a str) -> Result<Candidate<'a>, ArrayError> {
        let mut candidate = Candidate { address, object: None, start: Vec::new(), name, inner };
        if inner.split('/').any(|part| matches!(part, "." | "..")) || inner.contains("//") || inner.contains('\0') {
            return Err(candidate.fail("what stands behind `::` is a group's path without `.` and `..`"));
        }
        let failed = |error: Error| match error.kind() {
            // The storage's own words.
            _ if error.get_ref().is_some() => error.to_string(),
            ErrorKind::NotFound => foreign::dangling(address).unwrap_or_else(|| "no such file or directory".to_owned()),
            ErrorKind::PermissionDenied => "permission denied; it must be readable by this user".to_owned(),
            _ => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => format!("{error}: raise `ulimit -n`"),
                _ => error.to_string(),
            },
        };
        match address.kind().map_err(|error| candidate.fail(&failed(error)))? {
            storage::Kind::Folder => return Ok(candidate),
            // Before it is opened: a pipe without a writer would be waited for.
            storage::Kind::Other => return Err(candidate.fail("neither a file nor a directory")),
            storage::Kind::Object => {}
        }
        let object = address.open().map_err(|error| candidate.fail(&failed(error)))?;
        candidate.start = object.start(FIRST_BYTES).map_err(|error| candidate.fail(&failed(error)))?;
        candidate.object = Some(object);
        Ok(candidate)
    }

    /// Whether it has HDF5's signature at 0, or after a user block of 512, 1024, 2048, ... bytes.
    pub fn is_hdf5(&self) -> bool {
        let Some(object) = &self.object else { return false };
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

    /// An error about it.
    pub fn fail(&self, cause: &str) -> ArrayError {
        ArrayError::Open { store: self.name.to_string(), cause: cause.to_owned() }
    }
}

/// Bytes that a candidate shows.
const FIRST_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zip_archives_and_directories_need_no_libhdf5() {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = place.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        assert!(needs_trial(&file("a.h5ad", b"\x89HDF\r\n\x1a\n")));
        assert!(needs_trial(&place.path().join("a.h5ad::mod/rna")));
        assert!(!needs_trial(&file("a.zip", b"PK\x03\x04...")));
        assert!(!needs_trial(place.path()) && !needs_trial(Path::new("/nonexistent")));
    }
}

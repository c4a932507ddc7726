//! One open store, whatever it lies in: an HDF5 file, a zarr directory, a zarr zip archive; or a group inside.
//!
//! A kind of container is one implementation of [`Container`] and one line in [`kinds`](super::kinds), which says how it is
//! recognised (by the path and the first bytes) and opened. Everything above reads through the trait.
//!
//! Only the named element is ever read, so that an odd or broken neighbour (a dtype that no library knows, in `uns`)
//! never matters.

mod foreign;

use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::handed::{Answer, Question};
use super::meaning::Meaning;
use super::{Array, ArrayError, RecordField, file};
use crate::storage::{self, Address, Identity, Object};

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

impl<'a> Candidate<'a> {
    /// What lies at an address, looked at.
    ///
    /// # Errors
    /// `Open`: nothing is there, or it cannot be read.
    pub fn new(address: &'a Address, name: Arc<str>, inner: &'a str) -> Result<Candidate<'a>, ArrayError> {
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

    /// Why no kind of container is recognised in it.
    pub fn unknown(&self) -> ArrayError {
        self.fail(&foreign::told(self))
    }

    /// An error about it.
    pub fn fail(&self, cause: &str) -> ArrayError {
        ArrayError::Open { store: self.name.to_string(), cause: cause.to_owned() }
    }
}

/// Bytes that a candidate shows.
const FIRST_BYTES: usize = 4096;

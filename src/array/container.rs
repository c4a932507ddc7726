//! An open store in any kind of container (HDF5 file, zarr directory, zarr zip archive), or a group inside one.
//!
//! To add a kind, implement [`Container`] and add a line to [`kinds`](super::kinds), which says how to recognise it (by path and first
//! bytes) and how to open it. All rooms above use the trait.
//!
//! Only named elements are read, so damaged or unsupported elements elsewhere (such as in `uns`) have no effect.

mod foreign;

use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::handed::{Answer, Question};
use super::meaning::Meaning;
use super::{Array, ArrayError, RecordField, file};
use crate::storage::{self, Address, Identity, Object};

/// The type of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NodeKind {
    Group,
    Array,
}

/// One open store. Elements are named by path, `obs/_index`; the empty name is the root.
pub trait Container: Send + Sync {
    /// The name of the store, as given by the user.
    fn name(&self) -> &str;

    /// The file or directory of the store.
    fn path(&self) -> &Path;

    /// The group that paths of elements are relative to; empty for the root.
    fn inner(&self) -> &str;

    /// The type of an element; `None` if it does not exist.
    ///
    /// # Errors
    /// Its metadata cannot be read.
    fn kind(&self, element: &str) -> Result<Option<NodeKind>, ArrayError>;

    /// Sorted names of a group's members.
    ///
    /// # Errors
    /// The group does not exist.
    fn members(&self, group: &str) -> Result<Vec<String>, ArrayError>;

    /// Attributes of a group or array as JSON; values that JSON cannot represent are left out.
    ///
    /// # Errors
    /// The element does not exist, or its attributes cannot be read.
    fn attributes(&self, element: &str) -> Result<Map<String, Value>, ArrayError>;

    /// Opens a numeric or boolean array.
    ///
    /// # Errors
    /// It does not exist, or its dtype or layout is not supported.
    fn array(&self, element: &str) -> Result<Array, ArrayError>;

    /// The shape of any array, including strings.
    ///
    /// # Errors
    /// The array does not exist.
    fn shape(&self, element: &str) -> Result<Vec<u64>, ArrayError>;

    /// The element type of any array, for messages: `float32`, `string`, `compound`.
    ///
    /// # Errors
    /// The array does not exist.
    fn dtype_name(&self, element: &str) -> Result<String, ArrayError>;

    /// The meaning of an array's integers.
    ///
    /// # Errors
    /// The array does not exist.
    fn meaning(&self, _element: &str) -> Result<Meaning, ArrayError> {
        Ok(Meaning::Numbers)
    }

    /// Whether an array holds strings.
    ///
    /// # Errors
    /// The array does not exist.
    fn is_text(&self, element: &str) -> Result<bool, ArrayError>;

    /// All strings of an array, in C order.
    ///
    /// # Errors
    /// The array does not exist, or does not hold strings.
    fn strings(&self, element: &str) -> Result<Vec<String>, ArrayError>;

    /// The fields of a record array (compound dataset, structured array); empty for other arrays.
    ///
    /// # Errors
    /// The array does not exist.
    fn fields(&self, _element: &str) -> Result<Vec<RecordField>, ArrayError> {
        Ok(Vec::new())
    }

    /// A numeric field of all records, in memory; its shape is [records, axes of the field...].
    ///
    /// # Errors
    /// The field does not exist, or is not numeric.
    fn field_numbers(&self, element: &str, field: &str) -> Result<Array, ArrayError> {
        Err(no_records(self.name(), element, field))
    }

    /// A string field of all records.
    ///
    /// # Errors
    /// The field does not exist, or does not hold strings.
    fn field_strings(&self, element: &str, field: &str) -> Result<Vec<String>, ArrayError> {
        Err(no_records(self.name(), element, field))
    }

    /// The answer to a question about the structure, for another process; `None` for errors, and for containers without questions.
    fn answer(&self, _question: &Question) -> Option<Answer> {
        None
    }

    /// Closes what is needed only to find elements; it is opened again if needed.
    fn settle(&self) {}

    /// The files to watch for changes: the `.h5ad`, or the metadata files read so far.
    fn identity(&self) -> Vec<Identity>;

    /// Compares these files with their state at opening.
    ///
    /// # Errors
    /// `Stale` if one has changed.
    fn check_unchanged(&self) -> Result<(), ArrayError> {
        file::check_unchanged(self.name(), &self.identity())
    }

    /// The string in an array of one element.
    ///
    /// # Errors
    /// It does not hold exactly one string.
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

/// What exists at an address, for kinds of containers to recognise.
pub struct Candidate<'a> {
    pub address: &'a Address,
    /// The object; `None` for a directory.
    pub object: Option<Object>,
    /// Its first bytes.
    pub start: Vec<u8>,
    /// The name of the store, as given by the user.
    pub name: Arc<str>,
    /// The requested group; empty for the root.
    pub inner: &'a str,
}

/// A kind of container.
pub struct Kind {
    /// Whether a candidate is of this kind, judged without parsing it.
    pub recognises: fn(&Candidate<'_>) -> bool,
    /// Opens the store, or the requested group in it.
    pub open: fn(Candidate<'_>) -> Result<Box<dyn Container>, ArrayError>,
    /// Whether a C library parses it, which may crash on damaged files: then a child process tries it first.
    pub needs_trial: bool,
}

impl<'a> Candidate<'a> {
    /// Inspects what exists at an address.
    ///
    /// # Errors
    /// `Open`: it does not exist, or cannot be read.
    pub fn new(address: &'a Address, name: Arc<str>, inner: &'a str) -> Result<Candidate<'a>, ArrayError> {
        let mut candidate = Candidate { address, object: None, start: Vec::new(), name, inner };
        if inner.split('/').any(|part| matches!(part, "." | "..")) || inner.contains("//") || inner.contains('\0') {
            return Err(candidate.fail("what stands behind `::` is a group's path without `.` and `..`"));
        }
        let failed = |error: Error| match error.kind() {
            // The message of the storage.
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
            // Checked before opening, as opening a pipe would wait for a writer.
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

    /// The error that no kind recognises it.
    pub fn unknown(&self) -> ArrayError {
        self.fail(&foreign::told(self))
    }

    /// An error about the candidate.
    pub fn fail(&self, cause: &str) -> ArrayError {
        ArrayError::Open { store: self.name.to_string(), cause: cause.to_owned() }
    }
}

/// Bytes of `start`.
const FIRST_BYTES: usize = 4096;

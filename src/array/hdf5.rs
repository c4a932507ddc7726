//! HDF5: libhdf5 finds the chunks, our storage and our decoders read them.
//!
//! libhdf5 holds one global lock, so it is asked once, when an array is opened; afterwards only arrays with a filter
//! that is not decoded here come back to it.

mod attribute;
mod dataset;
mod library;
mod native;
mod record;
mod source;
mod text;
mod zstd_filter;

use std::sync::Arc;

use ::hdf5::{Dataset, Group};
use serde_json::{Map, Value};

use super::container::NodeKind;
use super::{Array, ArrayError, RecordField, file};
use crate::storage::{Identity, Object};
pub use native::TypeClass;

/// An open `.h5ad`, or a group inside of an HDF5 file.
pub struct Hdf5 {
    name: Arc<str>,
    /// The group that elements are named from; empty for the root.
    inner: String,
    /// Ours, for the bytes of chunks.
    object: Object,
    /// The library's.
    root: ::hdf5::File,
}

impl Hdf5 {
    /// Opens a file that begins like HDF5, or the group `inner` of it (`""`: the root).
    pub fn open(object: Object, name: Arc<str>, inner: &str) -> Result<Hdf5, ArrayError> {
        let fail = |cause: String| ArrayError::Open { store: name.to_string(), cause };
        let path = object.address().local_path();
        let path = path.ok_or_else(|| fail("HDF5 is read from local files only: copy it first".to_owned()))?;
        zstd_filter::register();
        let root = ::hdf5::File::with_options()
            // Nothing is written, and a lock would fail on file systems without locks.
            .with_fapl(|fapl| fapl.file_locking(false))
            .open(&path)
            .map_err(|e| fail(open_failure(&e)))?;
        // The library opened the path, not our descriptor: they must be one file.
        file::check_unchanged(&name, &[object.identity()])?;
        let hdf5 = Hdf5 { name, inner: String::new(), object, root };
        if hdf5.kind(inner)? != Some(NodeKind::Group) {
            let cause = format!("there is no group {inner} in the file");
            return Err(ArrayError::Open { store: hdf5.name.to_string(), cause });
        }
        Ok(Hdf5 { inner: inner.to_owned(), ..hdf5 })
    }

    /// The library's path of an element.
    fn at(&self, element: &str) -> String {
        match (self.inner.as_str(), element) {
            ("", element) => element.to_owned(),
            (inner, "") => inner.to_owned(),
            (inner, element) => format!("{inner}/{element}"),
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn identity(&self) -> Vec<Identity> {
        vec![self.object.identity()]
    }

    pub fn check_unchanged(&self) -> Result<(), ArrayError> {
        file::check_unchanged(&self.name, &self.identity())
    }

    fn error(&self, element: &str, cause: impl Into<String>) -> ArrayError {
        ArrayError::Element { store: self.name.to_string(), element: element.to_owned(), cause: cause.into() }
    }

    fn library_error(&self, element: &str, error: &::hdf5::Error) -> ArrayError {
        self.error(element, words(error))
    }

    pub fn kind(&self, element: &str) -> Result<Option<NodeKind>, ArrayError> {
        let path = self.at(element);
        if path.is_empty() {
            return Ok(Some(NodeKind::Group));
        }
        native::kind(&self.root, &path).map_err(|cause| self.error(element, cause))
    }

    fn group(&self, element: &str) -> Result<Group, ArrayError> {
        match self.kind(element)? {
            Some(NodeKind::Group) if self.at(element).is_empty() => self.root.as_group(),
            Some(NodeKind::Group) => self.root.group(&self.at(element)),
            Some(NodeKind::Array) => return Err(self.error(element, "is an array, not a group")),
            None => return Err(self.error(element, "is not in the file")),
        }
        .map_err(|e| self.library_error(element, &e))
    }

    fn dataset(&self, element: &str) -> Result<Dataset, ArrayError> {
        match self.kind(element)? {
            Some(NodeKind::Array) => {
                let failed = |e| self.library_error(element, &e);
                let dataset = self.root.dataset(&self.at(element)).map_err(failed)?;
                let home = self.root.loc_info().map_err(failed)?.fileno;
                if dataset.loc_info().map_err(failed)?.fileno != home {
                    // Its chunks would be looked for in this file.
                    return Err(self.error(element, "lies in another file (an external link); copy it into this one"));
                }
                Ok(dataset)
            }
            Some(NodeKind::Group) => Err(self.error(element, "is a group, not an array")),
            None => Err(self.error(element, "is not in the file")),
        }
    }

    pub fn members(&self, group: &str) -> Result<Vec<String>, ArrayError> {
        let mut names = self.group(group)?.member_names().map_err(|e| self.library_error(group, &e))?;
        names.sort();
        Ok(names)
    }

    pub fn attributes(&self, element: &str) -> Result<Map<String, Value>, ArrayError> {
        let read = if self.kind(element)? == Some(NodeKind::Array) {
            let dataset = self.dataset(element)?;
            attribute::all(&dataset, &self.inner)
        } else {
            let group = self.group(element)?;
            attribute::all(&group, &self.inner)
        };
        read.map_err(|e| self.library_error(element, &e))
    }

    pub fn shape(&self, element: &str) -> Result<Vec<u64>, ArrayError> {
        native::shape(&self.dataset(element)?).map_err(|cause| self.error(element, cause))
    }

    pub fn class(&self, element: &str) -> Result<TypeClass, ArrayError> {
        native::class_of(&self.dataset(element)?).map_err(|cause| self.error(element, cause))
    }

    pub fn strings(&self, element: &str) -> Result<Vec<String>, ArrayError> {
        text::dataset(&self.dataset(element)?).map_err(|cause| self.error(element, cause))
    }

    /// The fields of the records of a dataset; none where it holds no records.
    pub fn fields(&self, element: &str) -> Result<Vec<RecordField>, ArrayError> {
        record::fields(&self.dataset(element)?).map_err(|cause| self.error(element, cause))
    }

    pub fn field_numbers(&self, element: &str, field: &str) -> Result<Array, ArrayError> {
        record::numbers(self, element, &self.dataset(element)?, field)
    }

    pub fn field_strings(&self, element: &str, field: &str) -> Result<Vec<String>, ArrayError> {
        record::strings(&self.dataset(element)?, field).map_err(|cause| self.error(element, cause))
    }

    pub fn array(&self, element: &str) -> Result<Array, ArrayError> {
        dataset::open(self, element, self.dataset(element)?)
    }
}

/// One line of an error of the library.
fn words(error: &::hdf5::Error) -> String {
    error.to_string().replace('\n', " ")
}

fn open_failure(error: &::hdf5::Error) -> String {
    let words = words(error);
    if words.contains("truncated") || words.contains("eof") {
        format!("the HDF5 file is truncated ({words}); copy or download it again")
    } else {
        format!("the HDF5 file cannot be opened ({words}); it may be damaged or still open for writing")
    }
}

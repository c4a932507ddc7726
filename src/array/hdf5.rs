//! HDF5: libhdf5 finds the chunks, our storage and our decoders read them.
//!
//! libhdf5 holds one global lock, so it is asked once, when an array is opened; afterwards only arrays with a filter
//! that is not decoded here come back to it.

mod attribute;
mod boolean;
mod dataset;
mod driver;
mod files;
mod library;
mod native;
mod record;
mod source;
mod text;
mod types;
mod zstd_filter;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::hdf5::{Dataset, Group};
use serde_json::{Map, Value};

use super::container::{Candidate, Container, Kind, NodeKind};
use super::meaning::Meaning;
use super::{Array, ArrayError, Dtype, RecordField};
use crate::storage::{Identity, Object};
use files::LibraryFile;
pub use types::TypeClass;

/// An open `.h5ad`, or a group inside of an HDF5 file.
pub struct Hdf5 {
    name: Arc<str>,
    /// The group that elements are named from; empty for the root.
    inner: String,
    /// Ours, for the bytes of chunks.
    object: Object,
    /// The library's.
    library: LibraryFile,
    /// What was asked of elements: each question costs the library some tenths of a millisecond, and most are asked often.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    kinds: HashMap<String, Option<NodeKind>>,
    attributes: HashMap<String, Map<String, Value>>,
}

/// Files that begin with HDF5's signature, also behind a user block.
pub const KIND: Kind = Kind {
    recognises: |candidate| candidate.is_hdf5(),
    open: |candidate| Hdf5::open(candidate).map(|file| Box::new(file) as Box<dyn Container>),
    needs_trial: true,
};

impl Hdf5 {
    /// Opens a file that begins like HDF5, or the group asked for in it.
    fn open(mut candidate: Candidate<'_>) -> Result<Hdf5, ArrayError> {
        let Some(object) = candidate.object.take() else { return Err(candidate.fail("a directory, not a file")) };
        let fail = |cause: &str| candidate.fail(cause);
        zstd_filter::register();
        let hdf5 = Hdf5 {
            name: Arc::clone(&candidate.name),
            inner: String::new(),
            object,
            library: LibraryFile::new(),
            known: Mutex::default(),
        };
        hdf5.root()?;
        if hdf5.kind(candidate.inner)? != Some(NodeKind::Group) {
            return Err(fail(&format!("there is no group {} in the file", candidate.inner)));
        }
        Ok(Hdf5 { inner: candidate.inner.to_owned(), ..hdf5 })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The library's file.
    fn root(&self) -> Result<::hdf5::File, ArrayError> {
        self.library.get(&self.name, &self.object)
    }

    /// The library's path of an element.
    fn at(&self, element: &str) -> String {
        match (self.inner.as_str(), element) {
            ("", element) => element.to_owned(),
            (inner, "") => inner.to_owned(),
            (inner, element) => format!("{inner}/{element}"),
        }
    }

    fn error(&self, element: &str, cause: impl Into<String>) -> ArrayError {
        ArrayError::Element { store: self.name.to_string(), element: element.to_owned(), cause: cause.into() }
    }

    fn library_error(&self, element: &str, error: &::hdf5::Error) -> ArrayError {
        self.error(element, words(error))
    }

    fn group(&self, element: &str) -> Result<Group, ArrayError> {
        match self.kind(element)? {
            Some(NodeKind::Group) if self.at(element).is_empty() => self.root()?.as_group(),
            Some(NodeKind::Group) => self.root()?.group(&self.at(element)),
            Some(NodeKind::Array) => return Err(self.error(element, "is an array, not a group")),
            None => return Err(self.error(element, "is not in the file")),
        }
        .map_err(|e| self.library_error(element, &e))
    }

    fn dataset(&self, element: &str) -> Result<Dataset, ArrayError> {
        match self.kind(element)? {
            Some(NodeKind::Array) => {
                let failed = |e| self.library_error(element, &e);
                let root = self.root()?;
                let dataset = root.dataset(&self.at(element)).map_err(failed)?;
                let home = root.loc_info().map_err(failed)?.fileno;
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

    fn class(&self, element: &str) -> Result<TypeClass, ArrayError> {
        types::class_of(&self.dataset(element)?).map_err(|cause| self.error(element, cause))
    }
}

impl Container for Hdf5 {
    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> &Path {
        self.object.address().path()
    }

    fn inner(&self) -> &str {
        &self.inner
    }

    fn identity(&self) -> Vec<Identity> {
        vec![self.object.identity()]
    }

    fn kind(&self, element: &str) -> Result<Option<NodeKind>, ArrayError> {
        let path = self.at(element);
        if path.is_empty() {
            return Ok(Some(NodeKind::Group));
        }
        if let Some(kind) = self.known().kinds.get(&path) {
            return Ok(*kind);
        }
        let kind = native::kind(&self.root()?, &path).map_err(|cause| self.error(element, cause))?;
        if let (None, Some(cause)) = (kind, driver::cause()) {
            // To the library, what cannot be read is not there.
            return Err(self.error(element, cause));
        }
        self.known().kinds.insert(path, kind);
        Ok(kind)
    }

    fn members(&self, group: &str) -> Result<Vec<String>, ArrayError> {
        let mut names = self.group(group)?.member_names().map_err(|e| self.library_error(group, &e))?;
        names.sort();
        Ok(names)
    }

    fn attributes(&self, element: &str) -> Result<Map<String, Value>, ArrayError> {
        if let Some(attributes) = self.known().attributes.get(element) {
            return Ok(attributes.clone());
        }
        let read = if self.kind(element)? == Some(NodeKind::Array) {
            let dataset = self.dataset(element)?;
            attribute::all(&dataset, &self.inner)
        } else {
            let group = self.group(element)?;
            attribute::all(&group, &self.inner)
        };
        let attributes = read.map_err(|e| self.library_error(element, &e))?;
        self.known().attributes.insert(element.to_owned(), attributes.clone());
        Ok(attributes)
    }

    fn array(&self, element: &str) -> Result<Array, ArrayError> {
        dataset::open(self, element, self.dataset(element)?)
    }

    fn shape(&self, element: &str) -> Result<Vec<u64>, ArrayError> {
        native::shape(&self.dataset(element)?).map_err(|cause| self.error(element, cause))
    }

    fn settle(&self) {
        self.library.close();
        *self.known() = Known::default();
    }

    fn dtype_name(&self, element: &str) -> Result<String, ArrayError> {
        Ok(match self.class(element)? {
            TypeClass::Time(time) => return Ok(time.to_string()),
            TypeClass::Enum { .. } if self.meaning(element)? == Meaning::Numbers => Dtype::Bool.name(),
            TypeClass::Number { dtype, .. } | TypeClass::Enum { dtype, .. } => dtype.name(),
            TypeClass::VariableText | TypeClass::FixedText { .. } => "string",
            TypeClass::Other(what) => what,
        }
        .to_owned())
    }

    fn meaning(&self, element: &str) -> Result<Meaning, ArrayError> {
        let dataset = self.dataset(element)?;
        Ok(match types::class_of(&dataset).map_err(|cause| self.error(element, cause))? {
            TypeClass::Time(time) => Meaning::Time(time),
            TypeClass::Enum { .. } => match dataset::names(&dataset).map_err(|cause| self.error(element, cause))? {
                names if names.two_valued().is_some() => Meaning::Numbers,
                names => Meaning::Names(names),
            },
            _ => Meaning::Numbers,
        })
    }

    fn is_text(&self, element: &str) -> Result<bool, ArrayError> {
        Ok(matches!(self.class(element)?, TypeClass::VariableText | TypeClass::FixedText { .. }))
    }

    fn strings(&self, element: &str) -> Result<Vec<String>, ArrayError> {
        text::dataset(&self.dataset(element)?).map_err(|cause| self.error(element, cause))
    }

    fn fields(&self, element: &str) -> Result<Vec<RecordField>, ArrayError> {
        record::fields(&self.dataset(element)?).map_err(|cause| self.error(element, cause))
    }

    fn field_numbers(&self, element: &str, field: &str) -> Result<Array, ArrayError> {
        record::numbers(self, element, &self.dataset(element)?, field)
    }

    fn field_strings(&self, element: &str, field: &str) -> Result<Vec<String>, ArrayError> {
        record::strings(&self.dataset(element)?, field).map_err(|cause| self.error(element, cause))
    }
}

/// One line of an error of the library; of the storage, where that is the reason.
fn words(error: &::hdf5::Error) -> String {
    driver::cause().unwrap_or_else(|| error.to_string().replace('\n', " "))
}

//! HDF5: libhdf5 finds the chunks; our storage reads them and our decoders decode them.
//!
//! libhdf5 has one global lock, so it is called only when an array is opened; afterwards only for arrays with a filter that has no
//! decoder here.

mod attribute;
mod boolean;
mod dataset;
mod driver;
mod files;
pub mod handed;
mod library;
mod native;
mod record;
mod source;
mod structure;
mod text;
mod times;
mod types;
mod zstd_filter;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::hdf5::{Dataset, Group};
use serde_json::{Map, Value};

use super::container::{Candidate, Container, Kind, NodeKind};
use super::meaning::Meaning;
use super::{Array, ArrayError, Dtype, RecordField};
use crate::storage::{Identity, Object};
use files::LibraryFile;
use handed::Parser;
use native::Node;
use structure::{Answer, Answers, Facts, Question, Shared};
use types::TypeClass;

/// An open `.h5ad`, or a group in an HDF5 file.
pub struct Hdf5 {
    name: Arc<str>,
    /// The group that paths of elements are relative to; empty for the root.
    inner: String,
    /// The opened file, to read bytes of chunks.
    object: Object,
    /// The file as libhdf5 has it open.
    library: LibraryFile,
    /// The other process that parses the file, if there is one.
    parser: Option<Arc<dyn Parser>>,
    /// Known answers: each question costs the library 0.1 ms, and most are asked repeatedly.
    known: Mutex<Answers>,
}

/// Files with HDF5's signature, at the start or behind a user block.
pub const KIND: Kind = Kind {
    recognises: |candidate| candidate.is_hdf5(),
    open: |candidate| Hdf5::open(candidate).map(|file| Box::new(file) as Box<dyn Container>),
    needs_trial: true,
};

impl Hdf5 {
    /// Opens a file that has HDF5's signature, or the requested group in it.
    fn open(mut candidate: Candidate<'_>) -> Result<Hdf5, ArrayError> {
        let Some(object) = candidate.object.take() else { return Err(candidate.fail("a directory, not a file")) };
        zstd_filter::register();
        let (parser, known) = handed::of(candidate.address.path(), candidate.inner).unzip();
        let hdf5 = Hdf5 {
            name: Arc::clone(&candidate.name),
            inner: candidate.inner.to_owned(),
            object,
            library: LibraryFile::new(),
            parser,
            known: Mutex::new(known.unwrap_or_default()),
        };
        hdf5.ask(Question::Open)?;
        Ok(hdf5)
    }

    fn known(&self) -> MutexGuard<'_, Answers> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a question: from known answers, or else by the process that parses the file, or else by our own library.
    fn ask(&self, question: Question) -> Result<Answer, ArrayError> {
        let known = match question {
            Question::Strings(_) if !handed::is_recording() => self.known().remove(&question),
            _ => self.known().get(&question).cloned(),
        };
        let answer = match (known, &self.parser) {
            (Some(answer), _) => Some(answer),
            (None, Some(parser)) => {
                let asked = parser.ask(self.path(), &self.inner, &question);
                let answer = asked.map_err(|cause| ArrayError::Open { store: self.name.to_string(), cause })?;
                if !matches!(answer, Answer::Strings(_)) {
                    self.known().insert(question.clone(), answer.clone());
                }
                Some(answer)
            }
            (None, None) => None,
        };
        match answer {
            None | Some(Answer::Tried) => {}
            Some(answer) => return Ok(answer),
        }
        let answer = self.look(&question);
        let hands_over = handed::is_recording();
        let kept = match &answer {
            // Strings are large, and are asked for once.
            Ok(Answer::Strings(all)) if !hands_over || all.0.len() > MOST_STRINGS => {
                hands_over.then_some(Answer::Tried)
            }
            Ok(answer) => Some(answer.clone()),
            Err(_) => hands_over.then_some(Answer::Tried),
        };
        if let Some(kept) = kept {
            self.known().insert(question, kept);
        }
        answer
    }

    /// Asks the library.
    fn look(&self, question: &Question) -> Result<Answer, ArrayError> {
        Ok(match question {
            Question::Open => {
                self.root()?;
                if !self.inner.is_empty() && !matches!(self.node("")?, Some(Node::Group(_))) {
                    let cause = format!("there is no group {} in the file", self.inner);
                    return Err(ArrayError::Open { store: self.name.to_string(), cause });
                }
                Answer::Open
            }
            Question::Kind(element) => Answer::Kind(self.node(element)?.map(|node| node.kind())),
            Question::Members(group) => {
                let mut names = self.group(group)?.member_names().map_err(|e| self.library_error(group, &e))?;
                names.sort();
                Answer::Members(Shared::new(names))
            }
            Question::Attributes(element) => {
                let read = match self.node(element)? {
                    Some(Node::Group(group)) => attribute::all(&group, &self.inner),
                    _ => attribute::all(&*self.dataset(element)?, &self.inner),
                };
                Answer::Attributes(Shared::new(read.map_err(|cause| self.error(element, cause))?))
            }
            Question::Facts(element) => {
                let dataset = self.dataset(element)?;
                Answer::Facts(facts(&dataset).map_err(|cause| self.error(element, cause))?)
            }
            Question::Array(element) => Answer::Array(dataset::describe(self, element, &*self.dataset(element)?)?),
            Question::Strings(element) => {
                let strings = text::dataset(&*self.dataset(element)?);
                Answer::Strings(Shared::new(strings.map_err(|cause| self.error(element, cause))?))
            }
            Question::Fields(element) => {
                let fields = record::fields(&*self.dataset(element)?);
                Answer::Fields(Shared::new(fields.map_err(|cause| self.error(element, cause))?))
            }
        })
    }

    /// The answer has another type than the question; impossible with two processes of one program.
    fn mixed(&self, element: &str) -> ArrayError {
        self.error(element, "the process that parses it answers another question: please report it")
    }

    fn facts(&self, element: &str) -> Result<Facts, ArrayError> {
        match self.ask(Question::Facts(element.to_owned()))? {
            Answer::Facts(facts) => Ok(facts),
            _ => Err(self.mixed(element)),
        }
    }

    /// The library's file.
    fn root(&self) -> Result<::hdf5::File, ArrayError> {
        self.library.get(&self.name, &self.object)
    }

    /// The path of an element in the file.
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

    /// The library's object at an element's path.
    fn node(&self, element: &str) -> Result<Option<Node>, ArrayError> {
        let path = self.at(element);
        // Only groups have children, so parents are checked first.
        if let Some((parent, _)) = element.trim_matches('/').rsplit_once('/')
            && self.kind(parent)? != Some(NodeKind::Group)
        {
            return Ok(None);
        }
        let node = self.library.node(&self.name, &self.object, &path);
        let node = node.map_err(|failed| failed.of(self, element))?;
        if let (None, Some(cause)) = (&node, driver::cause()) {
            // The library would report an unreadable object as missing.
            return Err(self.error(element, cause));
        }
        Ok(node)
    }

    fn group(&self, element: &str) -> Result<Arc<Group>, ArrayError> {
        match self.node(element)? {
            Some(Node::Group(group)) => Ok(group),
            Some(Node::Dataset(_)) => Err(self.error(element, "is an array, not a group")),
            _ => Err(self.error(element, "is not in the file")),
        }
    }

    fn dataset(&self, element: &str) -> Result<Arc<Dataset>, ArrayError> {
        match self.node(element)? {
            Some(Node::Dataset(dataset)) => Ok(dataset),
            // Its chunks would be looked up in this file.
            Some(Node::Elsewhere) => {
                Err(self.error(element, "lies in another file (an external link); copy it into this one"))
            }
            Some(Node::Group(_)) => Err(self.error(element, "is a group, not an array")),
            None => Err(self.error(element, "is not in the file")),
        }
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
        if element.is_empty() {
            return Ok(Some(NodeKind::Group));
        }
        match self.ask(Question::Kind(element.to_owned()))? {
            Answer::Kind(kind) => Ok(kind),
            _ => Err(self.mixed(element)),
        }
    }

    fn members(&self, group: &str) -> Result<Vec<String>, ArrayError> {
        match self.ask(Question::Members(group.to_owned()))? {
            Answer::Members(names) => Ok(names.into_inner()),
            _ => Err(self.mixed(group)),
        }
    }

    fn attributes(&self, element: &str) -> Result<Map<String, Value>, ArrayError> {
        match self.ask(Question::Attributes(element.to_owned()))? {
            Answer::Attributes(attributes) => Ok(attributes.into_inner()),
            _ => Err(self.mixed(element)),
        }
    }

    fn array(&self, element: &str) -> Result<Array, ArrayError> {
        match self.ask(Question::Array(element.to_owned()))? {
            Answer::Array(description) => description.array(self, element),
            _ => Err(self.mixed(element)),
        }
    }

    fn shape(&self, element: &str) -> Result<Vec<u64>, ArrayError> {
        self.facts(element)?.shape.map_err(|cause| self.error(element, cause))
    }

    fn answer(&self, question: &Question) -> Option<Answer> {
        match self.ask(question.clone()) {
            Ok(Answer::Strings(all)) if all.0.len() > MOST_STRINGS => None,
            answer => answer.ok(),
        }
    }

    fn settle(&self) {
        self.library.close();
        *self.known() = Answers::default();
    }

    fn dtype_name(&self, element: &str) -> Result<String, ArrayError> {
        Ok(self.facts(element)?.dtype)
    }

    fn meaning(&self, element: &str) -> Result<Meaning, ArrayError> {
        Ok(self.facts(element)?.meaning)
    }

    fn is_text(&self, element: &str) -> Result<bool, ArrayError> {
        Ok(self.facts(element)?.is_text)
    }

    fn strings(&self, element: &str) -> Result<Vec<String>, ArrayError> {
        match self.ask(Question::Strings(element.to_owned()))? {
            Answer::Strings(strings) => Ok(strings.into_inner()),
            _ => Err(self.mixed(element)),
        }
    }

    fn fields(&self, element: &str) -> Result<Vec<RecordField>, ArrayError> {
        match self.ask(Question::Fields(element.to_owned()))? {
            Answer::Fields(fields) => Ok(fields.into_inner()),
            _ => Err(self.mixed(element)),
        }
    }

    fn field_numbers(&self, element: &str, field: &str) -> Result<Array, ArrayError> {
        record::numbers(self, element, &*self.dataset(element)?, field)
    }

    fn field_strings(&self, element: &str, field: &str) -> Result<Vec<String>, ArrayError> {
        record::strings(&*self.dataset(element)?, field).map_err(|cause| self.error(element, cause))
    }
}

impl Drop for Hdf5 {
    fn drop(&mut self) {
        if handed::is_recording() {
            handed::keep(&self.inner, std::mem::take(&mut *self.known()));
        }
    }
}

/// Maximum number of strings of one array to hand over; gene names are fewer.
const MOST_STRINGS: usize = 1 << 18;

/// Shape, type and meaning of a dataset.
fn facts(dataset: &Dataset) -> Result<Facts, String> {
    let class = types::class_of(dataset)?;
    let meaning = match class {
        TypeClass::Time { time, .. } => Meaning::Time(time),
        TypeClass::Enum { .. } => match dataset::names(dataset)? {
            names if names.two_valued().is_some() => Meaning::Numbers,
            names => Meaning::Names(names),
        },
        _ => Meaning::Numbers,
    };
    let dtype = match class {
        TypeClass::Time { time, .. } => time.to_string(),
        TypeClass::Enum { .. } if meaning == Meaning::Numbers => Dtype::Bool.name().to_owned(),
        TypeClass::Number { dtype, .. } | TypeClass::Enum { dtype, .. } => dtype.name().to_owned(),
        TypeClass::VariableText | TypeClass::FixedText { .. } => "string".to_owned(),
        TypeClass::Other(what) => what.to_owned(),
    };
    let is_text = matches!(class, TypeClass::VariableText | TypeClass::FixedText { .. });
    Ok(Facts { shape: native::shape(dataset), dtype, meaning, is_text })
}

/// An error of the library in one line; if the storage caused it, the storage's error.
fn words(error: &::hdf5::Error) -> String {
    driver::cause().unwrap_or_else(|| error.to_string().replace('\n', " "))
}

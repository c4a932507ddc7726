//! Questions about the structure of a file, and the library's answers as values: stored, and passed between processes.
//!
//! A file that a child has parsed ([`handed`]) is not parsed again here: its container uses the child's answers, and asks the child
//! further questions.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::library::Hdf5Library;
use super::source::{ChunkMap, Chunked, Contiguous, stage};
use super::{Hdf5, boolean, times};
use crate::array::constant::{self, InMemory, Unwritten};
use crate::array::container::NodeKind;
use crate::array::meaning::{Booleans, Meaning};
use crate::array::{Array, ArrayError, ChunkSource, Dtype, RecordField};

/// A question about an element, whose path is relative to the container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Question {
    /// Whether the file can be opened, and has the group of the container.
    Open,
    Kind(String),
    Members(String),
    Attributes(String),
    Facts(String),
    Array(String),
    Strings(String),
    Fields(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Open,
    Kind(Option<NodeKind>),
    Members(Shared<Vec<String>>),
    Attributes(Shared<Map<String, Value>>),
    Facts(Facts),
    Array(Description),
    Strings(Shared<Vec<String>>),
    Fields(Shared<Vec<RecordField>>),
    /// The library survived the question in the child. The answer is an error, or too large to hand over, and must be found here.
    Tried,
}

/// All answers about a file, or a group in it.
pub type Answers = HashMap<Question, Answer>;

/// Facts about a dataset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub shape: Result<Vec<u64>, String>,
    /// The name of the type, for messages.
    pub dtype: String,
    pub meaning: Meaning,
    pub is_text: bool,
}

/// A numeric dataset: everything needed to read it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// The stored dtype.
    pub dtype: Dtype,
    pub big: bool,
    /// Set for an enum that is read as booleans.
    pub booleans: Option<Booleans>,
    /// For times: units a tick.
    pub multiple: i64,
    pub shape: Vec<u64>,
    pub chunk_shape: Vec<u64>,
    pub place: Place,
}

/// The location of its elements.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Place {
    Memory {
        bytes: Vec<u8>,
    },
    /// Never written.
    Unwritten {
        fill: Vec<u8>,
    },
    Contiguous {
        offset: u64,
        len: u64,
    },
    Chunked {
        map: Shared<ChunkMap>,
        /// Number and first parameter of each filter.
        filters: Vec<(i32, usize)>,
        chunk_bytes: u64,
        fill: Vec<u8>,
    },
    /// The library must read it; the names of its filters.
    Library {
        filters: Vec<String>,
    },
}

impl Description {
    /// Makes the array.
    ///
    /// # Errors
    /// The library must read it and cannot open it.
    pub fn array(self, file: &Hdf5, element: &str) -> Result<Array, ArrayError> {
        let Description { dtype, big, booleans, multiple, shape, chunk_shape, place } = self;
        let (store, element): (Arc<str>, Arc<str>) = (Arc::clone(&file.name), element.into());
        let object = || file.object.clone();
        let size = dtype.size();
        let source: Arc<dyn ChunkSource> = match place {
            Place::Memory { bytes } => Arc::new(InMemory { bytes }),
            Place::Unwritten { fill } => Arc::new(Unwritten { fill }),
            Place::Contiguous { offset, len } => Arc::new(Contiguous {
                store: Arc::clone(&store),
                element: Arc::clone(&element),
                object: object(),
                offset,
                len,
                big,
                size,
            }),
            Place::Chunked { map, filters, chunk_bytes, fill } => Arc::new(Chunked {
                store: Arc::clone(&store),
                element: Arc::clone(&element),
                object: object(),
                map: map.0,
                stages: filters.into_iter().filter_map(|(id, parameter)| stage(id, parameter)).collect(),
                big,
                size,
                chunk_bytes,
                fill,
            }),
            Place::Library { filters } => Arc::new(Hdf5Library {
                store: Arc::clone(&store),
                element: Arc::clone(&element),
                dataset: (*file.dataset(&element)?).clone(),
                _file: file.root()?,
                shape: shape.clone(),
                chunk_shape: chunk_shape.clone(),
                size,
                filters,
            }),
        };
        let array = Array::new((store, element), dtype, (shape, chunk_shape), source);
        Ok(match booleans {
            Some(booleans) => boolean::booleans(array, booleans),
            None if multiple != 1 => times::multiplied(array, multiple),
            None => array,
        })
    }
}

/// The chunk shape of a dataset in memory or never written.
pub fn parts(shape: &[u64], dtype: Dtype) -> Vec<u64> {
    constant::parts(shape, dtype.size())
}

/// A value that clones share.
#[derive(Debug)]
pub struct Shared<T>(pub Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    pub fn new(value: T) -> Shared<T> {
        Shared(Arc::new(value))
    }
}

impl<T: Clone> Shared<T> {
    pub fn into_inner(self) -> T {
        Arc::unwrap_or_clone(self.0)
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Shared::new)
    }
}

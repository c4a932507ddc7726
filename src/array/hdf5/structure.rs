//! What the library tells of a file's elements, as values: asked once, kept, and handed from one process to another.
//!
//! A file that a child has parsed ([`handed`]) is not parsed again here: its container has the child's answers, and asks
//! the child for what is missing.

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

/// What is asked of an element, named as the container names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Question {
    /// Whether the file opens, and the group of the container is there.
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
    /// The child lived through it; it is an error, or too large to be handed over, and is found out here as well.
    Tried,
}

/// All answers about one file, or a group in it.
pub type Answers = HashMap<Question, Answer>;

/// What a dataset holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub shape: Result<Vec<u64>, String>,
    /// For messages.
    pub dtype: String,
    pub meaning: Meaning,
    pub is_text: bool,
}

/// A dataset of numbers: all that reading it needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// As stored.
    pub dtype: Dtype,
    pub big: bool,
    /// Of an enum that is read as booleans.
    pub booleans: Option<Booleans>,
    /// Of times: units a tick.
    pub multiple: i64,
    pub shape: Vec<u64>,
    pub chunk_shape: Vec<u64>,
    pub place: Place,
}

/// Where its elements are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Place {
    Memory {
        bytes: Vec<u8>,
    },
    /// Declared and never written.
    Unwritten {
        fill: Vec<u8>,
    },
    Contiguous {
        offset: u64,
        len: u64,
    },
    Chunked {
        map: Shared<ChunkMap>,
        /// Number and first parameter of each.
        filters: Vec<(i32, usize)>,
        chunk_bytes: u64,
        fill: Vec<u8>,
    },
    /// The library reads it; names of its filters.
    Library {
        filters: Vec<String>,
    },
}

impl Description {
    /// The array.
    ///
    /// # Errors
    /// The library, where it is what reads it, does not open it.
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

/// The chunks of a dataset that is held in memory or never written: they are as large as is handy.
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

//! On-disk arrays, their chunks, and how to decode them.
//!
//! libhdf5 reads the structure, attributes, strings and chunk map of an HDF5 file; zarr metadata is parsed here. Chunks are read through
//! `storage` and decoded here, because libhdf5 has one global lock. Arrays with an HDF5 filter that has no decoder here are read by
//! libhdf5; that is decided when an array is opened.

// Numbers from a store are converted by checked conversions, or by `number`.
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap))]

pub mod cache;
pub mod cast;
pub mod catch_panic;
pub mod codec;
pub mod constant;
pub mod container;
pub mod cost;
mod dest;
pub mod dtype;
mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod gather;
#[cfg(feature = "hdf5")]
mod hdf5;
#[cfg(not(feature = "hdf5"))]
#[path = "array/no_hdf5.rs"]
mod hdf5;
pub mod kinds;
pub mod meaning;
pub mod plain;
mod read;
mod transposed;
mod zarr;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::storage::{Meter, Object};

pub use container::{Container, NodeKind};
pub use dest::DestSlice;
pub use dtype::Dtype;
pub use hdf5::handed;
use meaning::Names;

/// Errors between an array on disk and its decoded elements.
///
/// Every message names the store and the element; `fuse` maps them to errnos.
#[derive(Debug, thiserror::Error, Clone)]
pub enum ArrayError {
    /// The store cannot be opened at all: missing, not HDF5, not zarr, no permission.
    #[error("{store}: {cause}")]
    Open { store: String, cause: String },
    /// The element is missing, or not of the requested kind.
    #[error("{store}: {element}: {cause}")]
    Element { store: String, element: String, cause: String },
    /// An unsupported layout, dtype or filter; `cause` says what to do instead.
    #[error("{store}: {element}: {cause}")]
    Unsupported { store: String, element: String, cause: String },
    /// A chunk that cannot be decoded, or decodes to another size than declared.
    #[error("{store}: {element}: chunk {chunk}: {cause}")]
    Damaged { store: String, element: String, chunk: u64, cause: String },
    /// The storage failed. `what` names the element and the chunk; the error kind of the source is kept.
    #[error("{store}: {what}: {source}")]
    Io { store: String, what: String, source: Arc<io::Error> },
    /// The files have changed since the mount.
    #[error("{store}: changed since it was mounted ({cause}); unmount and mount it again")]
    Stale { store: String, cause: String },
}

/// Bytes of the largest chunk to decode: HDF5's own limit, which also bounds the cost of a wrong shape.
const MAX_CHUNK: u64 = 4 << 30;

/// Whether a chunk size is plausible: a small array with huge chunks has a wrong shape, and would take their memory.
fn is_chunk(chunk_bytes: u64, array_bytes: u64) -> bool {
    const FREE: u64 = 64 << 20;
    chunk_bytes <= MAX_CHUNK.min(array_bytes.saturating_mul(8).max(FREE))
}

/// Number of chunks along each axis.
fn grid(shape: &[u64], chunk: &[u64]) -> Vec<u64> {
    shape.iter().zip(chunk).map(|(&n, &c)| n.div_ceil(c.max(1))).collect()
}

/// Counters of what was read from stores since the mount, for `.shufflefs/stats.json`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Chunks decoded, or for raw arrays runs read straight to their destinations.
    pub chunks: AtomicU64,
    /// Read calls on store files.
    pub reads: AtomicU64,
    /// Bytes read from store files.
    pub bytes: AtomicU64,
    /// Nanoseconds spent reading and decoding chunks, summed over threads.
    pub decode_ns: AtomicU64,
    /// Nanoseconds spent copying decoded elements to their destinations.
    pub scatter_ns: AtomicU64,
    /// Nanoseconds spent reading raw runs straight to their destinations.
    pub read_ns: AtomicU64,
    /// Bytes of arrays read whole into memory: row bounds, obs columns.
    pub whole: AtomicU64,
    /// Maximum of `whole`; `None`: unlimited.
    pub room: Option<u64>,
}

impl Counters {
    /// Adds to a counter. Relaxed: counters order nothing.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds the time since `began` to a counter of nanoseconds.
    pub fn time(counter: &AtomicU64, began: Instant) {
        Counters::add(counter, u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}

/// A byte range of a stored object.
#[derive(Clone, Debug)]
pub struct Extent {
    pub object: Object,
    pub offset: u64,
    pub len: u64,
}

/// Grows a buffer to at least `len` bytes.
///
/// # Errors
/// Out of memory. This costs one batch, where a failed `resize` would abort the process.
pub(crate) fn grow(buffer: &mut Vec<u8>, len: usize) -> std::io::Result<()> {
    if buffer.len() < len {
        let no_memory = |_| std::io::Error::other(format!("no memory for {len} bytes; lower --memory"));
        buffer.try_reserve_exact(len - buffer.len()).map_err(no_memory)?;
        buffer.resize(len, 0);
    }
    Ok(())
}

/// Reusable buffers of one decoding thread.
#[derive(Default)]
pub struct Scratch {
    /// Stored bytes.
    pub stored: Vec<u8>,
    /// Output of one filter and input of the next, in turn.
    pub filter: [Vec<u8>; 2],
    /// The decoded chunk.
    pub chunk: Vec<u8>,
}

/// The destination of a decoded chunk.
pub struct ChunkBuf<'a> {
    /// All bytes of the chunk.
    pub bytes: &'a mut [u8],
    /// The range that must be decoded; other bytes may stay arbitrary, which is less work with some filters.
    pub part: Range<usize>,
}

impl<'a> ChunkBuf<'a> {
    /// For decoding the whole chunk.
    pub fn whole(bytes: &'a mut [u8]) -> ChunkBuf<'a> {
        ChunkBuf { part: 0..bytes.len(), bytes }
    }
}

/// Finds and decodes the chunks of one array. There is an implementation for each container and layout.
pub trait ChunkSource: Send + Sync {
    /// Where the chunk is, if its stored bytes are its elements (no filter, native byte order); else `None`. A contiguous array is
    /// one raw chunk.
    ///
    /// # Errors
    /// `Stale` or `Io` if it must be looked up and that fails.
    fn raw(&self, _chunk: u64) -> Result<Option<Extent>, ArrayError> {
        Ok(None)
    }

    /// Where a chunk's stored bytes are, so that they can be read in advance, together with those of others. `None` if `decode` must do
    /// all the work: nothing was written, or a library reads it.
    ///
    /// # Errors
    /// As `decode`.
    fn stored(&self, _chunk: u64, _counters: &Counters) -> Result<Option<Extent>, ArrayError> {
        Ok(None)
    }

    /// Whether `stored` may have to read from the storage.
    fn looks_up(&self) -> bool {
        false
    }

    /// Whether each chunk is a separate object.
    fn is_scattered(&self) -> bool {
        false
    }

    /// The meter that counts its reads, if they go through a storage.
    fn meter(&self) -> Option<&Meter> {
        None
    }

    /// Decodes a chunk, in C order and native byte order, with the fill value where nothing was written. Edge chunks have full size.
    /// `stored`: the bytes of [`ChunkSource::stored`], if the caller has read them.
    ///
    /// # Errors
    /// `Damaged` if the bytes do not decode to exactly `out.bytes.len()` bytes, `Stale` if the object has changed, `Io` if it cannot be
    /// read. Damage outside of `out.part` may go unnoticed.
    fn decode(
        &self,
        chunk: u64,
        stored: Option<&[u8]>,
        out: ChunkBuf<'_>,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError>;

    /// The filters for `info`, innermost first, such as `["shuffle", "gzip"]`; the last is `"(library)"` if libhdf5 decodes.
    fn filters(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether chunks must be decoded, so that reading a block costs whole chunks.
    fn is_encoded(&self) -> bool {
        false
    }
}

/// Identifies an array while the process lives. Clones have the same number, as they have the same elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArrayId(u64);

impl ArrayId {
    /// A new number.
    fn next() -> ArrayId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ArrayId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// An array of a store: numbers or booleans, any number of dimensions.
#[derive(Clone)]
pub struct Array {
    id: ArrayId,
    /// The name of the store, as given by the user.
    pub store: Arc<str>,
    /// The path of the element, such as `X/data`.
    pub element: Arc<str>,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Shape of a chunk; for a contiguous array that of the array.
    pub chunk_shape: Vec<u64>,
    pub source: Arc<dyn ChunkSource>,
}

impl Array {
    /// An opened array; `chunk_shape` has as many axes as `shape`, and no zeros.
    pub fn new(
        (store, element): (Arc<str>, Arc<str>),
        dtype: Dtype,
        (shape, chunk_shape): (Vec<u64>, Vec<u64>),
        source: Arc<dyn ChunkSource>,
    ) -> Array {
        Array { id: ArrayId::next(), store, element, dtype, shape, chunk_shape, source }
    }

    /// The number that identifies its chunks in the cache.
    pub fn id(&self) -> ArrayId {
        self.id
    }

    /// Number of chunks along each axis.
    pub fn grid(&self) -> Vec<u64> {
        grid(&self.shape, &self.chunk_shape)
    }

    /// Elements in a full chunk.
    pub fn chunk_elements(&self) -> u64 {
        self.chunk_shape.iter().product()
    }

    /// An error about one chunk of this array.
    pub fn damaged(&self, chunk: u64, cause: impl Into<String>) -> ArrayError {
        ArrayError::Damaged {
            store: self.store.to_string(),
            element: self.element.to_string(),
            chunk,
            cause: cause.into(),
        }
    }
}

/// A field of a record array, as tables were stored before anndata 0.7.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecordField {
    pub name: String,
    pub kind: RecordFieldKind,
    /// The names of an enum, unless it is a plain boolean.
    pub names: Option<Names>,
    /// Shape of each record's value; empty for scalars.
    pub shape: Vec<u64>,
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum RecordFieldKind {
    Number(Dtype),
    Text,
    /// An unsupported type, named for messages.
    Other(String),
}

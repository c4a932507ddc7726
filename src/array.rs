//! An on-disk array as chunks: where they lie, how they decode.
//!
//! libhdf5 finds the structure, attributes, strings and chunk map of an HDF5 file; zarr metadata is read here. The stored
//! bytes of a chunk are read through `storage` and decoded here, because libhdf5 holds one global lock. An HDF5 filter that
//! is not decoded here falls back to libhdf5, chosen for each array at open.

// Numbers of a store are converted by what tells an error, or by `number`.
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

/// What can go wrong between an array on disk and its decoded elements.
///
/// Every message names the store and the element; `fuse` maps them to errnos.
#[derive(Debug, thiserror::Error, Clone)]
pub enum ArrayError {
    /// The store cannot be opened at all: missing, not HDF5, not zarr, no permission.
    #[error("{store}: {cause}")]
    Open { store: String, cause: String },
    /// The element is absent, or is not of the kind that was asked for.
    #[error("{store}: {element}: {cause}")]
    Element { store: String, element: String, cause: String },
    /// A layout, dtype or filter that is not read; `cause` says what to do instead.
    #[error("{store}: {element}: {cause}")]
    Unsupported { store: String, element: String, cause: String },
    /// A chunk that does not decode, or decodes to another size than declared.
    #[error("{store}: {element}: chunk {chunk}: {cause}")]
    Damaged { store: String, element: String, chunk: u64, cause: String },
    /// The storage did not give the bytes. `what` names the element and the chunk; the kind of the cause is kept.
    #[error("{store}: {what}: {source}")]
    Io { store: String, what: String, source: Arc<io::Error> },
    /// The files are not those that were mounted.
    #[error("{store}: changed since it was mounted ({cause}); unmount and mount it again")]
    Stale { store: String, cause: String },
}

/// Bytes of the largest chunk that is decoded: HDF5's own limit, and a bound on what a lying shape can cost.
const MAX_CHUNK: u64 = 4 << 30;

/// Whether a chunk may be so large: a little array in huge chunks is a shape that lies, and costs their memory.
fn is_chunk(chunk_bytes: u64, array_bytes: u64) -> bool {
    const FREE: u64 = 64 << 20;
    chunk_bytes <= MAX_CHUNK.min(array_bytes.saturating_mul(8).max(FREE))
}

/// Counts what was read from stores since the mount; shown in `.shufflefs/stats.json`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Chunks decoded (or, for raw arrays, runs read straight into place).
    pub chunks: AtomicU64,
    /// Read calls on store files.
    pub reads: AtomicU64,
    /// Bytes read from store files.
    pub bytes: AtomicU64,
    /// Nanoseconds spent reading and decoding chunks, summed over threads.
    pub decode_ns: AtomicU64,
    /// Nanoseconds spent copying decoded elements to their places.
    pub scatter_ns: AtomicU64,
    /// Nanoseconds spent reading raw runs straight into place.
    pub read_ns: AtomicU64,
    /// Bytes of arrays that were read whole into memory: row bounds, obs columns.
    pub whole: AtomicU64,
    /// Most that `whole` may become; none: no bound.
    pub room: Option<u64>,
}

impl Counters {
    /// Adds to one counter; relaxed, as nothing is ordered by it.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds the time since `began` to a counter of nanoseconds.
    pub fn time(counter: &AtomicU64, began: Instant) {
        Counters::add(counter, u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}

/// A run of bytes of a stored object.
#[derive(Clone, Debug)]
pub struct Extent {
    pub object: Object,
    pub offset: u64,
    pub len: u64,
}

/// Makes a buffer at least so long.
///
/// # Errors
/// The system has no memory: that costs one batch, where a failed `resize` would end the process.
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
    /// Bytes as stored.
    pub stored: Vec<u8>,
    /// Output of one filter, input of the next.
    pub filter: [Vec<u8>; 2],
    /// The decoded chunk.
    pub chunk: Vec<u8>,
}

/// Where a decoded chunk goes.
pub struct ChunkBuf<'a> {
    /// As many as the chunk has.
    pub bytes: &'a mut [u8],
    /// What of them must be right afterwards; the rest may be anything, which is less work for some filters.
    pub part: Range<usize>,
}

impl<'a> ChunkBuf<'a> {
    /// All of the chunk.
    pub fn whole(bytes: &'a mut [u8]) -> ChunkBuf<'a> {
        ChunkBuf { part: 0..bytes.len(), bytes }
    }
}

/// How one array's chunks are found and decoded. One implementation a container and layout.
pub trait ChunkSource: Send + Sync {
    /// Where the chunk lies, if its stored bytes are its elements (no filter, native byte order); `None` otherwise.
    /// A contiguous array is one raw chunk.
    ///
    /// # Errors
    /// `Stale` or `Io` where it must be looked for and cannot be found.
    fn raw(&self, _chunk: u64) -> Result<Option<Extent>, ArrayError> {
        Ok(None)
    }

    /// Where a chunk's stored bytes lie, so that they may be read before, beside those of others; none where `decode` must
    /// do all of it (nothing was written, or a library reads).
    ///
    /// # Errors
    /// As `decode`.
    fn stored(&self, _chunk: u64, _counters: &Counters) -> Result<Option<Extent>, ArrayError> {
        Ok(None)
    }

    /// Whether `stored` may have to read.
    fn looks_up(&self) -> bool {
        false
    }

    /// Whether each chunk is an object of its own.
    fn is_scattered(&self) -> bool {
        false
    }

    /// What counts its reads, if they are made through a storage.
    fn meter(&self) -> Option<&Meter> {
        None
    }

    /// Decodes a chunk (`stored`: its bytes, where the caller has read what `stored` says): C order, native byte order, fill value where nothing was written. Edge chunks have full size.
    ///
    /// # Errors
    /// `Damaged` if the bytes do not decode to exactly `out.bytes.len()` bytes, `Stale` if the object changed, `Io` if it
    /// cannot be read. Damage outside of `out.part` may go unseen.
    fn decode(
        &self,
        chunk: u64,
        stored: Option<&[u8]>,
        out: ChunkBuf<'_>,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError>;

    /// The filters as `info` prints them, innermost first, e.g. `["shuffle", "gzip"]`; ends with `"(library)"` where
    /// the fallback is used.
    fn filters(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether stored bytes are smaller than or unlike the decoded ones, so that a block pays for whole chunks.
    fn is_encoded(&self) -> bool {
        false
    }
}

/// Tells arrays apart for as long as the process lives. Clones of an array have its number, as they have its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArrayId(u64);

impl ArrayId {
    /// A number that no other array has.
    fn next() -> ArrayId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ArrayId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// One array of a store: numbers or booleans of any dimension.
#[derive(Clone)]
pub struct Array {
    id: ArrayId,
    /// The store, as the user named it.
    pub store: Arc<str>,
    /// The element, e.g. `X/data`.
    pub element: Arc<str>,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Shape of one chunk; for a contiguous array the array's own shape.
    pub chunk_shape: Vec<u64>,
    pub source: Arc<dyn ChunkSource>,
}

impl Array {
    /// An array that was opened; `chunk_shape` has as many axes as `shape`, and no zeros.
    pub fn new(
        (store, element): (Arc<str>, Arc<str>),
        dtype: Dtype,
        (shape, chunk_shape): (Vec<u64>, Vec<u64>),
        source: Arc<dyn ChunkSource>,
    ) -> Array {
        Array { id: ArrayId::next(), store, element, dtype, shape, chunk_shape, source }
    }

    /// The number that decoded chunks are kept by.
    pub fn id(&self) -> ArrayId {
        self.id
    }

    /// Chunks along each axis.
    pub fn grid(&self) -> Vec<u64> {
        self.shape.iter().zip(&self.chunk_shape).map(|(&n, &c)| n.div_ceil(c.max(1))).collect()
    }

    /// Elements in one (full) chunk.
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

/// One field of an array of records, as tables were written before anndata 0.7.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecordField {
    pub name: String,
    pub kind: RecordFieldKind,
    /// Of integers with names: an enum that is no plain boolean.
    pub names: Option<Names>,
    /// Axes that each record's value has; empty for a plain one.
    pub shape: Vec<u64>,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum RecordFieldKind {
    Number(Dtype),
    Text,
    /// Named for messages.
    Other(String),
}

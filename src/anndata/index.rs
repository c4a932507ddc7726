//! The index directory: arrays derived from a store, built once and used by all later mounts.
//!
//! A file has the arrays (raw little-endian, 64-byte aligned), a JSON header, its length and CRC, and a magic number; arrays with a value
//! for each row are in an Arrow IPC file around that (`arrow`). The header identifies the source (path, size, mtime and inode of the
//! store's files): a file with another source is stale and built again. It also has the CRC-32 of each array, and the file's own mtime: if
//! that differs, the file was touched, and is valid only if the CRCs are right. A file gets its name when it is complete (temporary name,
//! fsync, rename); a lock on the temporary file ensures that only one process builds.

pub mod arrow;
pub(super) mod build;
pub(super) mod key;

use std::borrow::Cow;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Value, json};

use super::bytes::Bounds;
use super::mapping::Mapping;
use super::shared::Shared;
use crate::array::{Array, ArrayError, Container, Dtype, plain};
use crate::number::as_usize;
use crate::storage::{Object, local};
use arrow::Envelope;

pub use build::{Appender, Building};

/// To be increased whenever the format of files changes.
const FORMAT: u32 = 2;
const MAGIC: &[u8; 8] = b"SHUFIDX\n";
/// Length and CRC of the header (u32 each), and the magic number.
const TAIL: u64 = 16;
const ALIGN: u64 = 64;
/// The end of an Arrow file: the length of its footer (i32) and its magic number.
const FOOT: u64 = 10;
/// Headers are shorter than this.
const MAX_HEADER: u64 = 16 << 20;

/// Where derived arrays are stored; `None`: nowhere.
#[derive(Clone, Debug, Default)]
pub struct IndexDir(pub Option<PathBuf>);

/// One array of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexPart {
    pub name: Cow<'static, str>,
    pub dtype: Dtype,
    pub len: u64,
}

impl IndexPart {
    /// `None` on overflow.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.len.checked_mul(self.dtype.size() as u64)
    }

    fn to_json(&self) -> Value {
        json!({"name": self.name, "dtype": self.dtype.name(), "len": self.len})
    }

    fn from_json(json: &Value) -> Option<IndexPart> {
        let dtype = Dtype::from_name(json.get("dtype")?.as_str()?)?;
        Some(IndexPart { name: json.get("name")?.as_str()?.to_owned().into(), dtype, len: json.get("len")?.as_u64()? })
    }
}

/// What an entry is derived from, and its content.
pub struct IndexRequest<'a> {
    pub store: &'a dyn Container,
    pub element: &'a str,
    /// Elements of the store whose files it depends on.
    pub sources: Vec<String>,
    /// The derivation: `csr`, `kept`, `rows`.
    pub kind: &'static str,
    /// Other parameters that it depends on.
    pub more: String,
    pub parts: Vec<IndexPart>,
    /// If the parts are columns with this many rows, the file is an Arrow file, and may have more columns than requested.
    pub rows: Option<u64>,
}

/// An opened entry.
pub struct Index {
    pub(super) parts: Vec<IndexPart>,
    /// Offset of each part in the file.
    pub(super) starts: Vec<u64>,
    /// The file, to map and to read.
    pub(super) file: Arc<File>,
    object: Object,
    store: String,
    element: String,
    path: PathBuf,
}

impl Index {
    /// The arrays, in the order of the parts.
    pub fn arrays(&self) -> Vec<Array> {
        let array = |(part, &start): (&IndexPart, &u64)| {
            let element = format!("{}/{} (in {})", self.element, part.name, self.path.display());
            plain::array(&self.store, &element, part.dtype, part.len, self.object.clone(), start)
        };
        self.parts.iter().zip(&self.starts).map(array).collect()
    }

    /// A part with row bounds, mapped.
    pub fn bounds(&self, name: &str) -> Option<Bounds> {
        let mapping = Mapping::new(&self.file).ok()?;
        let (part, &start) = self.parts.iter().zip(&self.starts).find(|(part, _)| part.name == name)?;
        let bytes = Shared::mapped(&mapping, start, part.bytes()?)?;
        if part.dtype == Dtype::U64 { Bounds::mapped(&bytes, mapping) } else { None }
    }
}

impl IndexDir {
    /// Opens the entry, or builds it first.
    ///
    /// # Errors
    /// The directory is not writable (the message has a remedy); those of `build`.
    pub fn get(
        &self,
        entry: &IndexRequest<'_>,
        build: impl FnOnce(&mut Building<'_>) -> Result<(), ArrayError>,
    ) -> Result<Index, ArrayError> {
        let key = key::IndexKey::of(entry)?;
        let directory = self.path(entry)?;
        let path = directory.join(&key.name);
        if let Some(index) = open(&path, entry, &key) {
            return Ok(index);
        }
        // Another process may have built it first.
        let needed = || open(&path, entry, &key).is_none().then(|| entry.parts.clone());
        build::build(directory, &path, entry, &key, needed, build)?;
        open(&path, entry, &key).ok_or_else(|| failed(directory, entry, &"the index just written is not there"))
    }

    /// The path of the directory.
    pub(super) fn path(&self, entry: &IndexRequest<'_>) -> Result<&Path, ArrayError> {
        self.0.as_deref().ok_or_else(|| entry.error("there is no index directory; name one with --index-dir"))
    }
}

impl IndexRequest<'_> {
    fn error(&self, cause: impl std::fmt::Display) -> ArrayError {
        let what = if self.kind == "csr" { "stored by column (CSC); its copy by row" } else { "its index" };
        ArrayError::Element {
            store: self.store.name().to_owned(),
            element: self.element.to_owned(),
            cause: format!("{what} cannot be written: {cause}"),
        }
    }
}

/// An error with the directory, and its remedy.
pub(super) fn failed(directory: &Path, entry: &IndexRequest<'_>, cause: &dyn std::fmt::Display) -> ArrayError {
    let directory = directory.display();
    entry.error(format_args!("{directory}: {cause}; name a directory that you can write with --index-dir"))
}

/// Offset of each part, and that of the header.
fn offsets(parts: &[IndexPart]) -> Option<(Vec<u64>, u64)> {
    let mut at = 0u64;
    let mut offsets = Vec::with_capacity(parts.len());
    for part in parts {
        offsets.push(at);
        at = at.checked_add(part.bytes()?)?.checked_next_multiple_of(ALIGN)?;
    }
    Some((offsets, at))
}

/// The Arrow envelope of these parts.
fn envelope(entry: &IndexRequest<'_>, parts: &[IndexPart]) -> Option<Envelope> {
    entry.rows.map_or_else(|| Some(Envelope::default()), |rows| arrow::envelope(rows, parts))
}

/// The header, without the fields that are known only when the arrays have been written.
fn header(entry: &IndexRequest<'_>, key: &key::IndexKey) -> Value {
    json!({
        "format": FORMAT,
        "store": entry.store.name(),
        "element": entry.element,
        "kind": entry.kind,
        "more": entry.more,
        "rows": entry.rows,
        "files": key.files,
    })
}

/// Opens an entry's file if it is complete and belongs to the store. `None` in any other case: it is built again.
pub(super) fn open(path: &Path, entry: &IndexRequest<'_>, key: &key::IndexKey) -> Option<Index> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::info!("{}: {error}", path.display());
            }
            return None;
        }
    };
    let validated = validate(&file, entry, key).and_then(|found| {
        let object = file.try_clone().and_then(|file| local::object(file, path)).map_err(|error| error.to_string())?;
        Ok((found, object))
    });
    match validated {
        Ok(((parts, starts), object)) => Some(Index {
            parts,
            starts,
            file: Arc::new(file),
            object,
            store: entry.store.name().to_owned(),
            element: entry.element.to_owned(),
            path: path.to_owned(),
        }),
        Err(cause) => {
            tracing::info!("{}: {cause}; it is built anew", path.display());
            None
        }
    }
}

/// Validates a file; returns its parts and their offsets.
fn validate(file: &File, entry: &IndexRequest<'_>, key: &key::IndexKey) -> Result<(Vec<IndexPart>, Vec<u64>), String> {
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    let damaged = || "damaged".to_owned();
    let read = |at: u64, len: u64| {
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| damaged())?];
        file.read_exact_at(&mut bytes, at).map_err(|_| damaged()).map(|()| bytes)
    };
    let mut end = metadata.len();
    if entry.rows.is_some() {
        let foot = read(end.checked_sub(FOOT).ok_or_else(damaged)?, FOOT)?;
        let length = u32::from_le_bytes(std::array::from_fn(|i| foot[i]));
        end = end.checked_sub(FOOT + u64::from(length)).ok_or_else(damaged)?;
    }
    let tail = read(end.checked_sub(TAIL).ok_or_else(damaged)?, TAIL)?;
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| tail[at + i]));
    let (length, crc) = (u64::from(number(0)), number(4));
    if &tail[8..] != MAGIC || length > MAX_HEADER {
        return Err(damaged());
    }
    let bytes = read(end.checked_sub(TAIL + length).ok_or_else(damaged)?, length)?;
    let mut found: Value = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let fields = found.as_object_mut().filter(|_| crc32fast::hash(&bytes) == crc).ok_or_else(damaged)?;
    let (crcs, mtime, parts) = (fields.remove("crc32"), fields.remove("mtime_seconds"), fields.remove("parts"));
    if found != header(entry, key) {
        return Err("of the store as it was".to_owned());
    }
    let parts: Option<Vec<IndexPart>> =
        parts.as_ref().and_then(Value::as_array).and_then(|all| all.iter().map(IndexPart::from_json).collect());
    let parts = parts.ok_or_else(damaged)?;
    if entry.rows.is_none() && parts != entry.parts {
        return Err("of another matrix".to_owned());
    }
    let (mut starts, body) = offsets(&parts).ok_or_else(damaged)?;
    let Envelope { head, foot } = envelope(entry, &parts).ok_or_else(damaged)?;
    let first = head.len() as u64;
    let gap = if foot.is_empty() { 0 } else { arrow::END.len() as u64 };
    if first + body + gap + length + TAIL + foot.len() as u64 != metadata.len() {
        return Err("of another matrix, or damaged".to_owned());
    }
    if read(0, first)? != head || read(end, foot.len() as u64)? != foot {
        return Err(damaged());
    }
    starts.iter_mut().for_each(|start| *start += first);
    if mtime.and_then(|mtime| mtime.as_i64()) == Some(metadata.mtime()) && metadata.mtime_nsec() == 0 {
        return Ok((parts, starts));
    }
    for (number, (part, &start)) in parts.iter().zip(&starts).enumerate() {
        let crc = crcs.as_ref().and_then(|crcs| crcs.get(number)).and_then(Value::as_u64);
        if crc != Some(sum(file, start, part.bytes().unwrap_or_default())?.into()) {
            return Err(damaged());
        }
    }
    Ok((parts, starts))
}

/// The CRC-32 of a byte range of a file. It is read and not mapped, as all of it would become resident.
fn sum(file: &File, at: u64, bytes: u64) -> Result<u32, String> {
    const PIECE: u64 = 4 << 20;
    let piece = |number: u64| {
        let start = number * PIECE;
        let mut buffer = vec![0; as_usize(PIECE.min(bytes - start))];
        file.read_exact_at(&mut buffer, at + start).map_err(|error| error.to_string())?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&buffer);
        Ok(hasher)
    };
    let pieces: Vec<crc32fast::Hasher> =
        (0..bytes.div_ceil(PIECE)).into_par_iter().map(piece).collect::<Result<_, String>>()?;
    Ok(combined(&pieces))
}

/// Combines the CRC-32 of consecutive byte ranges.
pub(super) fn combined(pieces: &[crc32fast::Hasher]) -> u32 {
    let mut all = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| all.combine(piece));
    all.finalize()
}

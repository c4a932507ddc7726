//! Arrays derived from a store, kept in the index directory: built once, used by every later mount.
//!
//! A file is the arrays (raw little-endian, 64-byte aligned), a JSON header, its length and CRC, and a magic word. The
//! header says what the file was made of (path, size, mtime and inode of the store's files): one that says anything
//! else is stale and built anew. It also holds each array's CRC-32 and the mtime given to the file at the end: a file
//! with another mtime was touched, and is believed only if the CRCs of its arrays hold. A file appears under its name
//! only when it is complete (temporary name, fsync, rename); a lock on the temporary file lets one process build.

mod build;
mod key;

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::array::{Array, ArrayError, Container, Dtype, plain};

pub use build::{Appender, Building};

/// Changes whenever what is written does.
const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"SHUFIDX\n";
/// Header length and CRC (u32 each) and the magic word.
const TAIL: u64 = 16;
const ALIGN: u64 = 64;
/// No header is longer.
const MAX_HEADER: u64 = 16 << 20;

/// Where derived arrays are kept.
#[derive(Clone, Debug)]
pub struct IndexDir(pub PathBuf);

/// One array of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub dtype: Dtype,
    pub len: u64,
}

/// What an entry is derived from, and what it holds.
pub struct Entry<'a> {
    pub store: &'a Container,
    pub element: &'a str,
    /// What was done: `csr`, `kept`.
    pub kind: &'static str,
    /// Whatever else it depends on.
    pub more: String,
    pub parts: Vec<Part>,
}

/// An entry, opened.
pub struct Index {
    arrays: Vec<Array>,
}

impl Index {
    /// The arrays, in the order of the parts.
    pub fn into_arrays(self) -> Vec<Array> {
        self.arrays
    }
}

impl IndexDir {
    /// The entry from the directory, or built there first.
    ///
    /// # Errors
    /// The directory cannot be written (the message says what to do); those of `build`.
    pub fn get(
        &self,
        entry: &Entry<'_>,
        build: impl FnOnce(&mut Building<'_>) -> Result<(), ArrayError>,
    ) -> Result<Index, ArrayError> {
        let key = key::Key::of(entry)?;
        let path = self.0.join(&key.name);
        if let Some(index) = open(&path, entry, &key) {
            return Ok(index);
        }
        build::build(&self.0, &path, entry, &key, build)?;
        open(&path, entry, &key).ok_or_else(|| self.failed(entry, &"the index just written is not there"))
    }

    fn failed(&self, entry: &Entry<'_>, cause: &dyn std::fmt::Display) -> ArrayError {
        failed(&self.0, entry, cause)
    }
}

/// An error of the directory, with its remedy.
fn failed(directory: &Path, entry: &Entry<'_>, cause: &dyn std::fmt::Display) -> ArrayError {
    let what = if entry.kind == "csr" { "stored by column (CSC); its copy by row" } else { "its index" };
    ArrayError::Element {
        store: entry.store.name().to_owned(),
        element: entry.element.to_owned(),
        cause: format!(
            "{what} cannot be written to {}: {cause}; name a directory that you can write with --index-dir",
            directory.display()
        ),
    }
}

/// Where each part begins, and where the header does.
fn offsets(parts: &[Part]) -> Option<(Vec<u64>, u64)> {
    let mut at = 0u64;
    let mut offsets = Vec::with_capacity(parts.len());
    for part in parts {
        offsets.push(at);
        let bytes = part.len.checked_mul(part.dtype.size() as u64)?;
        at = at.checked_add(bytes)?.checked_next_multiple_of(ALIGN)?;
    }
    Some((offsets, at))
}

/// The header but for what is known only when the arrays are written.
fn header(entry: &Entry<'_>, key: &key::Key) -> Value {
    let parts: Vec<Value> = entry
        .parts
        .iter()
        .map(|part| json!({"name": part.name, "dtype": part.dtype.name(), "len": part.len}))
        .collect();
    json!({
        "format": FORMAT,
        "store": entry.store.name(),
        "element": entry.element,
        "kind": entry.kind,
        "more": entry.more,
        "files": key.files,
        "parts": parts,
    })
}

/// The entry in a file, if it is whole and of this very store. Anything else is the same as none: it is built anew.
fn open(path: &Path, entry: &Entry<'_>, key: &key::Key) -> Option<Index> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::info!("{}: {error}", path.display());
            }
            return None;
        }
    };
    match believe(&file, entry, key) {
        Ok(offsets) => {
            let file = Arc::new(file);
            let array = |(part, offset): (&Part, u64)| {
                let element = format!("{}/{} (in {})", entry.element, part.name, path.display());
                plain::array(entry.store.name(), &element, part.dtype, part.len, file.clone(), offset)
            };
            Some(Index { arrays: entry.parts.iter().zip(offsets).map(array).collect() })
        }
        Err(cause) => {
            tracing::info!("{}: {cause}; it is built anew", path.display());
            None
        }
    }
}

fn believe(file: &File, entry: &Entry<'_>, key: &key::Key) -> Result<Vec<u64>, String> {
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    let (offsets, end) = offsets(&entry.parts).ok_or("too large")?;
    let damaged = || "damaged".to_owned();
    let read = |at: u64, len: u64| {
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| damaged())?];
        file.read_exact_at(&mut bytes, at).map_err(|_| damaged()).map(|()| bytes)
    };
    let tail = read(metadata.len().checked_sub(TAIL).ok_or_else(damaged)?, TAIL)?;
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| tail[at + i]));
    let (length, crc) = (u64::from(number(0)), number(4));
    if &tail[8..] != MAGIC || length > MAX_HEADER {
        return Err(damaged());
    }
    if end + length + TAIL != metadata.len() {
        return Err("of another matrix, or damaged".to_owned());
    }
    let bytes = read(end, length)?;
    let mut found: Value = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let fields = found.as_object_mut().filter(|_| crc32fast::hash(&bytes) == crc).ok_or_else(damaged)?;
    let (crcs, mtime) = (fields.remove("crc32"), fields.remove("mtime_seconds"));
    if found != header(entry, key) {
        return Err("of the store as it was".to_owned());
    }
    if mtime.and_then(|mtime| mtime.as_i64()) == Some(metadata.mtime()) && metadata.mtime_nsec() == 0 {
        return Ok(offsets);
    }
    for (number, (part, &offset)) in entry.parts.iter().zip(&offsets).enumerate() {
        let crc = crcs.as_ref().and_then(|crcs| crcs.get(number)).and_then(Value::as_u64);
        if crc != Some(sum(file, offset, part.len * part.dtype.size() as u64)?.into()) {
            return Err(damaged());
        }
    }
    Ok(offsets)
}

/// The CRC-32 of a run of a file.
fn sum(file: &File, mut at: u64, bytes: u64) -> Result<u32, String> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let end = at + bytes;
    while at < end {
        let len = (end - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..len], at).map_err(|error| error.to_string())?;
        hasher.update(&buffer[..len]);
        at += len as u64;
    }
    Ok(hasher.finalize())
}

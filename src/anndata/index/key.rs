//! Identifies the state of a store, to compare with the state that an index was built from.
//!
//! For a file: path, size, mtime and inode. For a zarr directory: number, sizes and times of all files of the source elements, as chunks
//! may be rewritten without the metadata.

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::array::ArrayError;
use crate::storage::{Identity, Stamp};

use super::IndexRequest;

/// The name of an entry and the state of its store.
pub struct IndexKey {
    /// Independent of the store's state: the index of a changed store is replaced.
    pub name: String,
    pub files: Value,
}

impl IndexKey {
    pub fn of(entry: &IndexRequest<'_>) -> Result<IndexKey, ArrayError> {
        let mut files = entry.store.identity();
        files.sort_by(|a, b| a.address.path().cmp(b.address.path()));
        let mut all: Vec<Value> = files.iter().map(identity).collect();
        if entry.store.path().is_dir() {
            let root = entry.store.path();
            let inner = entry.store.inner();
            let elements: Vec<_> = entry.sources.iter().map(|source| root.join(inner).join(source)).collect();
            let mut tree = FileTree::default();
            // An older layout may have an element elsewhere: then the whole store counts.
            let walked = if elements.iter().all(|element| element.is_dir()) {
                elements.iter().try_for_each(|element| tree.walk(element))
            } else {
                tree.walk(root)
            };
            walked.map_err(|error| ArrayError::Element {
                store: entry.store.name().to_owned(),
                element: entry.element.to_owned(),
                cause: format!("its files cannot be listed: {error}"),
            })?;
            // Which metadata files `all` names depends on what was read so far; the walk above includes those of the elements.
            all.clear();
            all.push(
                json!({"root": root.to_string_lossy(), "files": tree.files, "bytes": tree.bytes, "state": tree.state}),
            );
        }
        let about = format!("{}\0{}\0{}\0{}", entry.store.name(), entry.element, entry.kind, entry.more);
        let stem = Path::new(entry.store.name()).file_name().map_or("store".into(), |name| name.to_string_lossy());
        let clean = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let stem: String = stem.chars().take(80).map(clean).collect();
        let (a, b) = (crc32fast::hash(about.as_bytes()), crc32c::crc32c(about.as_bytes()));
        Ok(IndexKey { name: format!("{stem}-{a:08x}{b:08x}.{}", entry.kind), files: Value::Array(all) })
    }
}

fn identity(file: &Identity) -> Value {
    let (name, size) = (file.address.path().to_string_lossy(), file.version.size);
    match &file.version.stamp {
        Stamp::File { mtime_ns, inode } => json!([name, size, mtime_ns.to_string(), inode]),
        Stamp::Tag { tag, .. } => json!([name, size, tag]),
    }
}

/// Hashes the files below a directory, independently of the order of listing.
#[derive(Default)]
struct FileTree {
    files: u64,
    bytes: u64,
    state: u64,
}

impl FileTree {
    fn walk(&mut self, directory: &Path) -> std::io::Result<()> {
        let mut todo = vec![directory.to_path_buf()];
        while let Some(directory) = todo.pop() {
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    todo.push(entry.path());
                    continue;
                }
                let time = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                let about = format!("{}\0{}\0{}", entry.path().display(), metadata.len(), time.as_nanos());
                let (a, b) = (crc32fast::hash(about.as_bytes()), crc32c::crc32c(about.as_bytes()));
                self.files += 1;
                self.bytes = self.bytes.wrapping_add(metadata.len());
                self.state = self.state.wrapping_add(u64::from(a) << 32 | u64::from(b));
            }
        }
        Ok(())
    }
}

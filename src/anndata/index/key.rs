//! What a store is, for comparison with what an index was made of.
//!
//! For a file its path, size, mtime and inode. For a zarr directory the number, sizes and times of all files
//! of the elements that it was made of: chunks may be written again without the metadata.

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::array::ArrayError;
use crate::storage::{Identity, Stamp};

use super::IndexRequest;

/// An entry's name and the state of its store.
pub struct IndexKey {
    /// Not of the store's state: a changed store replaces its index.
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
            // An older layout may keep an element elsewhere: then all of the store counts.
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
            // Metadata of other elements may or may not have been read yet: the tree has this one's.
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

/// All files below a directory, in one number that does not depend on the order of listing.
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

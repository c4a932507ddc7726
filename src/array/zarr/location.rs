//! Where a store's keys are: files of a directory, or members of a zip archive.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use zarrs::filesystem::FilesystemStore;
use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator};
use zarrs::storage::{Bytes, MaybeBytesIterator, ReadableStorageTraits, StorageError, StoreKey};

use super::blob::Blob;
use super::zip::Zip;
use crate::array::{Counters, Identity, MAX_CHUNK};

/// Most bytes of a metadata file: consolidated metadata of a hundred thousand arrays.
const MAX_METADATA: u64 = 1 << 30;

/// A group or an array: a directory, or a folder of an archive.
#[derive(Clone)]
pub enum Location {
    Directory(PathBuf),
    Zip { zip: Arc<Zip>, folder: String },
}

/// Why a key cannot be read.
pub enum Trouble {
    /// Written after the store was opened.
    Written(String),
    Damaged(String),
}

impl Location {
    /// A node below; the empty path is this place.
    pub fn join(&self, path: &str) -> Location {
        match self {
            Location::Directory(root) if path.is_empty() => Location::Directory(root.clone()),
            Location::Directory(root) => Location::Directory(root.join(path)),
            Location::Zip { zip, folder } => Location::Zip { zip: Arc::clone(zip), folder: below(folder, path) },
        }
    }

    /// A key here, for messages.
    pub fn show(&self, key: &str) -> String {
        match self {
            Location::Directory(root) => root.join(key).display().to_string(),
            Location::Zip { folder, .. } => below(folder, key),
        }
    }

    pub fn has(&self, key: &str) -> bool {
        match self {
            Location::Directory(root) => root.join(key).is_file(),
            Location::Zip { zip, folder } => zip.contains(&below(folder, key)),
        }
    }

    /// A whole metadata file; none if there is no such file. Its identity is added to `files`.
    pub fn metadata(&self, key: &str, files: &mut Vec<Identity>) -> Result<Option<Vec<u8>>, String> {
        match self {
            Location::Directory(root) => {
                let path = root.join(key);
                let metadata = match fs::metadata(&path) {
                    // A pipe would be waited for, and a file without end read for ever.
                    Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_METADATA => {
                        return Err(format!("not a metadata file ({} bytes)", metadata.len()));
                    }
                    Ok(metadata) => metadata,
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error.to_string()),
                };
                let text = fs::read(&path).map_err(|e| e.to_string())?;
                files.push(Identity::of(&path, &metadata));
                Ok(Some(text))
            }
            // The archive itself is what must not change.
            Location::Zip { zip, folder } => match zip.read(&below(folder, key))? {
                Some(blob) => blob.all(MAX_METADATA).map(Some).map_err(|e| e.to_string()),
                None => Ok(None),
            },
        }
    }

    /// Names of files and folders here.
    pub fn names(&self) -> Result<Vec<String>, String> {
        match self {
            Location::Directory(root) => {
                let mut names = Vec::new();
                for entry in fs::read_dir(root).map_err(|e| e.to_string())? {
                    if let Ok(name) = entry.map_err(|e| e.to_string())?.file_name().into_string() {
                        names.push(name);
                    }
                }
                names.sort();
                Ok(names)
            }
            Location::Zip { zip, folder } => Ok(zip.below(folder)),
        }
    }

    /// Bytes of the files below, so many levels deep; of an archive, its length.
    pub fn stored(&self, levels: u32) -> u64 {
        let root = match self {
            Location::Directory(root) => root,
            Location::Zip { zip, .. } => return zip.len(),
        };
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let sizes = entries.map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() && levels > 0 => Location::Directory(entry.path()).stored(levels - 1),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// The bytes of a chunk or shard; none where it was never written.
    pub fn chunk(&self, key: &str, opened: SystemTime) -> Result<Option<Blob>, Trouble> {
        let root = match self {
            Location::Directory(root) => root,
            Location::Zip { zip, folder } => {
                let name = below(folder, key);
                return zip.read(&name).map_err(|cause| Trouble::Damaged(format!("{name}: {cause}")));
            }
        };
        let path = root.join(key);
        let damaged = |cause: String| Trouble::Damaged(format!("{}: {cause}", path.display()));
        // A pipe must not be waited for; for files the flag means nothing.
        let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return never_written(&path, opened),
            Err(error) => return Err(damaged(error.to_string())),
        };
        let metadata = file.metadata().map_err(|e| damaged(e.to_string()))?;
        if metadata.modified().is_ok_and(|written| written > opened) {
            return Err(Trouble::Written(format!("{}: written since", path.display())));
        }
        if !metadata.is_file() {
            return Err(damaged("not a file".to_owned()));
        }
        Ok(Some(Blob::File { file: Arc::new(file), offset: 0, len: metadata.len() }))
    }

    /// This place as a storage of zarrs.
    pub fn storage(&self) -> Result<Arc<dyn ReadableStorageTraits>, String> {
        Ok(match self {
            Location::Directory(root) => Arc::new(FilesystemStore::new(root).map_err(|e| e.to_string())?),
            Location::Zip { zip, folder } => Arc::new(Members { zip: Arc::clone(zip), folder: folder.clone() }),
        })
    }
}

/// A chunk without a file holds fill values, unless its file was there at the mount: then the directory it was in (or, if
/// that went with it, the one above) was changed since.
fn never_written(path: &Path, opened: SystemTime) -> Result<Option<Blob>, Trouble> {
    let directory = path.ancestors().skip(1).find_map(|directory| fs::metadata(directory).ok());
    if directory.and_then(|directory| directory.modified().ok()).is_some_and(|changed| changed > opened) {
        return Err(Trouble::Written(format!("{}: removed, or its directory written to since", path.display())));
    }
    Ok(None)
}

fn below(folder: &str, path: &str) -> String {
    match (folder, path) {
        ("", path) => path.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, path) => format!("{folder}/{path}"),
    }
}

/// A folder of an archive.
struct Members {
    zip: Arc<Zip>,
    folder: String,
}

impl Members {
    fn blob(&self, key: &StoreKey) -> Result<Option<Blob>, StorageError> {
        self.zip.read(&below(&self.folder, key.as_str())).map_err(StorageError::Other)
    }
}

impl ReadableStorageTraits for Members {
    fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        byte_ranges: ByteRangeIterator<'a>,
    ) -> Result<MaybeBytesIterator<'a>, StorageError> {
        let Some(blob) = self.blob(key)? else { return Ok(None) };
        let parts = byte_ranges.map(move |range| {
            let outside = || StorageError::Other(format!("{range:?} lies outside its {} bytes", blob.len()));
            let (start, len) = match range {
                ByteRange::FromStart(start, None) => (start, blob.len().checked_sub(start).ok_or_else(outside)?),
                ByteRange::FromStart(start, Some(len)) => (start, len),
                ByteRange::Suffix(len) => (blob.len().checked_sub(len).ok_or_else(outside)?, len),
            };
            if start.checked_add(len).is_none_or(|end| end > blob.len()) || len > MAX_CHUNK {
                return Err(outside());
            }
            let size = usize::try_from(len).map_err(|e| StorageError::Other(e.to_string()))?;
            let mut bytes = vec![0; size];
            blob.read(start, &mut bytes, &Counters::default()).map_err(|e| StorageError::Other(e.to_string()))?;
            Ok(Bytes::from(bytes))
        });
        Ok(Some(Box::new(parts)))
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        Ok(self.blob(key)?.map(|blob| blob.len()))
    }

    fn supports_get_partial(&self) -> bool {
        true
    }
}

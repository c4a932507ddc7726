//! Locations of a store's keys: in a folder of a storage, or in a zip archive.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::SystemTime;

use super::blob::Blob;
use super::zip::Zip;
use crate::storage::{Address, Identity, Kind, Meter};

/// Maximum bytes of a metadata file: consolidated metadata of a hundred thousand arrays.
const MAX_METADATA: u64 = 1 << 30;

/// A group or array: a folder of a storage, or of an archive.
#[derive(Clone)]
pub enum Location {
    Folder(Address),
    Zip { zip: Arc<Zip>, folder: String },
}

/// Why a key cannot be read.
pub enum Trouble {
    /// Written after the store was opened.
    Written(String),
    Damaged(String),
    /// The storage failed: the name of the object, and the error.
    Unreadable(String, std::io::Error),
}

impl Location {
    /// The location of a node below; of this one if `path` is empty.
    pub fn join(&self, path: &str) -> Location {
        match self {
            Location::Folder(root) => Location::Folder(root.join(path)),
            Location::Zip { zip, folder } => Location::Zip { zip: Arc::clone(zip), folder: below(folder, path) },
        }
    }

    /// The meter of reads from here.
    pub fn meter(&self) -> &Meter {
        match self {
            Location::Folder(root) => root.meter(),
            Location::Zip { zip, .. } => zip.meter(),
        }
    }

    /// The name of a key here, for messages.
    pub fn show(&self, key: &str) -> String {
        match self {
            Location::Folder(root) => root.join(key).to_string(),
            Location::Zip { folder, .. } => below(folder, key),
        }
    }

    pub fn has(&self, key: &str) -> bool {
        match self {
            Location::Folder(root) => matches!(root.join(key).kind(), Ok(Kind::Object)),
            Location::Zip { zip, folder } => zip.contains(&below(folder, key)),
        }
    }

    /// Reads a whole metadata file, if it exists. Its identity is added to `files`.
    pub fn metadata(&self, key: &str, files: &mut Vec<Identity>) -> Result<Option<Vec<u8>>, String> {
        match self {
            Location::Folder(root) => {
                let object = match root.join(key).open() {
                    Ok(object) => object,
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                        return Ok(None);
                    }
                    Err(error) => return Err(no_metadata(&error)),
                };
                let text = object.read_all(MAX_METADATA).map_err(|error| no_metadata(&error))?;
                files.push(object.identity());
                Ok(Some(text))
            }
            // The archive itself is watched for changes.
            Location::Zip { zip, folder } => match zip.read(&below(folder, key)).map_err(|e| e.to_string())? {
                Some(blob) => blob.all(MAX_METADATA).map(Some).map_err(|e| e.to_string()),
                None => Ok(None),
            },
        }
    }

    /// Names of the files and folders here.
    pub fn names(&self) -> Result<Vec<String>, String> {
        match self {
            Location::Folder(root) => root.list().map_err(|e| e.to_string()),
            Location::Zip { zip, folder } => Ok(zip.below(folder)),
        }
    }

    /// The total size of the files below, down to `levels` levels; for an archive, its length.
    pub fn stored(&self, levels: u32) -> u64 {
        let root = match self {
            Location::Folder(root) => root,
            Location::Zip { zip, .. } => return zip.len(),
        };
        let sizes = root.list().unwrap_or_default().into_iter().map(|name| {
            let below = root.join(&name);
            match below.kind() {
                Ok(Kind::Folder) if levels > 0 => Location::Folder(below).stored(levels - 1),
                Ok(Kind::Object) => below.version().map_or(0, |version| version.size),
                _ => 0,
            }
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// The bytes of a chunk or shard; `None` if it was never written.
    pub fn chunk(&self, key: &str, opened: SystemTime) -> Result<Option<Blob>, Trouble> {
        let root = match self {
            Location::Folder(root) => root,
            Location::Zip { zip, folder } => {
                let name = below(folder, key);
                return zip.read(&name).map_err(|error| match error.kind() {
                    ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Trouble::Damaged(format!("{name}: {error}")),
                    _ => Trouble::Unreadable(name, error),
                });
            }
        };
        let address = root.join(key);
        match address.open() {
            Ok(object) if object.version().is_after(opened) => {
                Err(Trouble::Written(format!("{address}: written since")))
            }
            Ok(object) => Ok(Some(Blob::whole(object))),
            // A missing chunk has fill values, unless it existed at the mount.
            Err(error) if error.kind() == ErrorKind::NotFound => match address.removed_since(opened) {
                Some(change) => Err(Trouble::Written(format!("{address}: {change}"))),
                None => Ok(None),
            },
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                Err(Trouble::Damaged(format!("{address}: {error}")))
            }
            Err(error) => Err(Trouble::Unreadable(address.to_string(), error)),
        }
    }
}

/// Why a metadata file cannot be read.
fn no_metadata(error: &Error) -> String {
    match error.kind() {
        // A pipe or a device, or too large for metadata.
        ErrorKind::InvalidInput | ErrorKind::FileTooLarge => format!("{error}: this is not a metadata file"),
        _ => error.to_string(),
    }
}

fn below(folder: &str, path: &str) -> String {
    match (folder, path) {
        ("", path) => path.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, path) => format!("{folder}/{path}"),
    }
}

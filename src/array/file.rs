//! Reads of store files, and what they were at the mount.
//!
//! A file that ends before a run that it held at the mount has been cut meanwhile: that is staleness, not damage.

use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::{ArrayError, Counters, Identity};

impl Identity {
    /// What a file is now.
    pub fn of(path: &Path, metadata: &Metadata) -> Identity {
        Identity {
            path: path.to_path_buf(),
            size: metadata.len(),
            mtime_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// How the file of that path differs now, if it does.
    pub fn changed(&self) -> Option<String> {
        let path = self.path.display();
        match std::fs::metadata(&self.path) {
            Err(error) => Some(format!("{path}: {error}")),
            Ok(metadata) => {
                let now = Identity::of(&self.path, &metadata);
                if now.size != self.size {
                    Some(format!("{path}: {} bytes, it had {}", now.size, self.size))
                } else if now.inode != self.inode {
                    Some(format!("{path}: another file is in its place"))
                } else if now.mtime_ns != self.mtime_ns {
                    Some(format!("{path}: written since"))
                } else {
                    None
                }
            }
        }
    }
}

/// Compares every file with what it was.
///
/// # Errors
/// `Stale`, for the first that differs.
pub fn check_unchanged(store: &str, files: &[Identity]) -> Result<(), ArrayError> {
    match files.iter().find_map(Identity::changed) {
        None => Ok(()),
        Some(cause) => Err(ArrayError::Stale { store: store.to_owned(), cause }),
    }
}

/// Fills `buffer` from `offset` on.
pub fn read_exact(file: &File, offset: u64, buffer: &mut [u8], counters: &Counters) -> Result<(), Error> {
    Counters::add(&counters.reads, 1);
    Counters::add(&counters.bytes, buffer.len() as u64);
    file.read_exact_at(buffer, offset)
}

/// The error of a read that failed: an end before its time means a file cut short.
pub fn read_error(store: &str, element: &str, chunk: u64, error: &Error) -> ArrayError {
    if error.kind() == ErrorKind::UnexpectedEof {
        return ArrayError::Stale {
            store: store.to_owned(),
            cause: format!("{element}: chunk {chunk}: the file ends before it"),
        };
    }
    ArrayError::Damaged {
        store: store.to_owned(),
        element: element.to_owned(),
        chunk,
        cause: format!("cannot be read: {error}"),
    }
}

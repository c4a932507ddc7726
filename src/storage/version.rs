//! Which state of an object is meant.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The state of an object: equal states have equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// Bytes of the object.
    pub size: u64,
    pub stamp: Stamp,
}

/// What differs when an object was replaced by one of its size.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Stamp {
    /// Of a file.
    File { mtime_ns: i128, inode: u64 },
    /// Of an object behind a network, such as its ETag.
    Tag { tag: String, modified: Option<SystemTime> },
}

impl Version {
    /// That of a local file.
    pub fn of_file(metadata: &Metadata) -> Version {
        let mtime_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Version { size: metadata.len(), stamp: Stamp::File { mtime_ns, inode: metadata.ino() } }
    }

    /// When it was written, if that is known.
    pub fn modified(&self) -> Option<SystemTime> {
        match &self.stamp {
            Stamp::File { mtime_ns, .. } => {
                let nanos = u64::try_from(*mtime_ns).ok()?;
                UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))
            }
            Stamp::Tag { modified, .. } => *modified,
        }
    }

    /// Whether it was written after a moment. Servers tell whole seconds, and some round up.
    pub fn is_after(&self, moment: SystemTime) -> bool {
        let slack = if matches!(self.stamp, Stamp::Tag { .. }) { Duration::from_secs(2) } else { Duration::ZERO };
        self.modified().is_some_and(|written| written > moment + slack)
    }

    /// How `now` differs, if it does.
    pub fn difference(&self, now: &Version) -> Option<String> {
        if now.size != self.size {
            return Some(format!("{} bytes, it had {}", now.size, self.size));
        }
        match (&self.stamp, &now.stamp) {
            (was, now) if was == now => None,
            (Stamp::File { inode: was, .. }, Stamp::File { inode: now, .. }) if was == now => {
                Some("written since".to_owned())
            }
            (Stamp::File { .. }, Stamp::File { .. }) => Some("another file is in its place".to_owned()),
            _ => Some("another version is in its place".to_owned()),
        }
    }
}

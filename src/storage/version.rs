//! Versions of objects.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The version of an object: equal versions have equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// Bytes of the object.
    pub size: u64,
    pub stamp: Stamp,
}

/// What differs when an object was replaced by another of the same size.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Stamp {
    /// For a file.
    File { mtime_ns: i128, inode: u64 },
    /// For an object behind a network: its ETag or the like.
    Tag { tag: String, modified: Option<SystemTime> },
}

impl Version {
    /// The version of a local file.
    pub fn of_file(metadata: &Metadata) -> Version {
        let mtime_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Version { size: metadata.len(), stamp: Stamp::File { mtime_ns, inode: metadata.ino() } }
    }

    /// The time of modification, if known.
    pub fn modified(&self) -> Option<SystemTime> {
        match &self.stamp {
            Stamp::File { mtime_ns, .. } => {
                let nanos = u64::try_from(*mtime_ns).ok()?;
                UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))
            }
            Stamp::Tag { modified, .. } => *modified,
        }
    }

    /// Whether it was modified after a time. Servers report whole seconds, and some round up, so there is some slack.
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

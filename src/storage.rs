//! Storages and their objects: reads byte ranges into given slices, and identifies versions of objects.
//!
//! Invariant: an [`Object`] never mixes versions. A read of another version fails with `ErrorKind::StaleNetworkFileHandle`, one beyond
//! the end with `ErrorKind::UnexpectedEof`; no read is short. The rooms above name objects by [`Address`] and read them through
//! [`Object`], which counts requests (`meter`), so an implementation of [`Storage`] only fetches bytes. Reads block; many ranges are in
//! flight when many threads read.

// Numbers from a store are converted by checked conversions, or by `number`.
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap))]

mod address;
#[cfg(feature = "remote")]
mod cache;
pub mod descriptors;
pub mod in_flight;
pub mod local;
mod meter;
pub mod name;
pub mod pattern;
#[cfg(feature = "remote")]
pub mod remote;
mod version;

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use address::{Address, Identity, Object, WeakObject};
pub use meter::Meter;
pub use version::{Stamp, Version};

/// Names of metadata files, one of which marks a zarr store, group or array.
pub const ZARR_MARKERS: [&str; 4] = ["zarr.json", ".zgroup", ".zmetadata", ".zarray"];

/// What exists at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes that can be read by range.
    Object,
    /// Something that can be listed.
    Folder,
    /// Something else, such as a pipe or a device, which is not read.
    Other,
}

/// A newly opened object.
pub struct Opened {
    pub version: Version,
    pub ranges: Box<dyn Ranges>,
}

/// A file system or an object store: whatever serves one scheme of names. To add one, implement this trait and extend [`locate`].
///
/// Errors are those of the system, with its `ErrorKind`. `NotFound` must mean that there is no such object.
pub trait Storage: Debug + Send + Sync {
    /// Opens an object, in at most one round trip.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` if the path is not an object.
    fn open(&self, path: &Path, meter: &Arc<Meter>) -> io::Result<Opened>;

    /// Opens an object that was opened before, in that version; without a round trip if every read is conditional on the version.
    ///
    /// # Errors
    /// Those of `open`; `StaleNetworkFileHandle` if the version differs.
    fn reopen(&self, path: &Path, was: &Version, meter: &Arc<Meter>) -> io::Result<Opened> {
        let opened = self.open(path, meter)?;
        match was.difference(&opened.version) {
            None => Ok(opened),
            Some(change) => Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, change)),
        }
    }

    /// What exists at a path.
    ///
    /// # Errors
    /// `NotFound`.
    fn kind(&self, path: &Path) -> io::Result<Kind>;

    /// Names of the objects and folders directly below a folder, sorted.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`; `Unsupported` if the storage cannot list.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// The current version of an object.
    ///
    /// # Errors
    /// `NotFound`.
    fn version(&self, path: &Path) -> io::Result<Version>;

    /// The current version, without any cache.
    ///
    /// # Errors
    /// Those of `version`.
    fn version_now(&self, path: &Path) -> io::Result<Version> {
        self.version(path)
    }

    /// How an object differs from a version, if it does. A storage whose reads are all conditional on the version answers `None`
    /// without a request.
    ///
    /// # Errors
    /// Those of `version`.
    fn changed(&self, path: &Path, was: &Version) -> io::Result<Option<String>> {
        self.version(path).map(|now| was.difference(&now))
    }

    /// For an object that does not exist: why it may have existed at `since`, if it may.
    fn removed_since(&self, _path: &Path, _since: SystemTime) -> Option<String> {
        None
    }

    /// Expected latency of a read, before any was made; `None` where most reads are answered at once, as from the page cache.
    fn usual_latency(&self) -> Option<Duration> {
        None
    }

    /// The path in the local file system, if there is one, for libraries that open files themselves.
    fn local_path(&self, _path: &Path) -> Option<PathBuf> {
        None
    }
}

/// An open object, to be read by range.
pub trait Ranges: Send + Sync {
    /// Fills the slices, in order, with the bytes from `offset` on. Called from many threads at once. The slices keep their lengths.
    ///
    /// # Errors
    /// Those of the module documentation; the content of the slices is then unspecified.
    fn read(&self, offset: u64, places: &mut [IoSliceMut<'_>]) -> io::Result<()>;
}

/// The address of a name.
///
/// # Errors
/// The storage cannot be reached.
pub fn locate(name: &Path) -> io::Result<Address> {
    if name::is_remote(name) {
        return remote_address(name);
    }
    if let Some(cause) = name.to_str().and_then(name::unknown_scheme).filter(|_| !name.exists()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, cause));
    }
    Ok(Address::new(Arc::new(local::Local), name.to_path_buf()))
}

/// Remembers the version of a remote object that another process has just seen, so that opening it needs no request.
pub fn recall(name: &Path, version: Version) {
    #[cfg(feature = "remote")]
    if let Some(name) = name.to_str() {
        remote::recall(name, version);
    }
    #[cfg(not(feature = "remote"))]
    let _ = (name, version);
}

/// Hits and misses of the node's cache for remote objects; zeros without a cache.
pub fn cache_counts() -> (u64, u64) {
    #[cfg(feature = "remote")]
    return remote::cache_counts().unwrap_or_default();
    #[cfg(not(feature = "remote"))]
    (0, 0)
}

#[cfg(feature = "remote")]
fn remote_address(name: &Path) -> io::Result<Address> {
    Ok(Address::new(Arc::new(remote::Remote), name.to_path_buf()))
}

#[cfg(not(feature = "remote"))]
fn remote_address(_: &Path) -> io::Result<Address> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this build reads local files only: build it with the feature `remote`",
    ))
}

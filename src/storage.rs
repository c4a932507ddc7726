//! Bytes of stored objects, wherever they lie: ranges read into given places, and a version that says whether an object is
//! still the same.
//!
//! Invariant: an [`Object`] never mixes versions. A read that meets another version fails with
//! `ErrorKind::StaleNetworkFileHandle`, one that meets an early end with `ErrorKind::UnexpectedEof`; no read is short.
//! Everything above names objects by [`Address`] and reads them through [`Object`], which counts (`meter`), so an
//! implementation of [`Storage`] has no other duty than to fetch bytes. Reads block: many ranges are in flight when many
//! threads read, and each is answered when it is there, in any order.

// Numbers of a store are converted by what tells an error, or by `number`.
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

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes that can be read by range.
    Object,
    /// Something that can be listed.
    Folder,
    /// A pipe, a device: not read.
    Other,
}

/// An object that was opened.
pub struct Opened {
    pub version: Version,
    pub ranges: Box<dyn Ranges>,
}

/// A file system, an object store: what is behind one scheme of names. To add one, implement this and let
/// [`locate`] know it.
///
/// Errors are those of the system, with its `ErrorKind`: `NotFound` means that there is no such object, and nothing else.
pub trait Storage: Debug + Send + Sync {
    /// Opens an object: one round trip at most.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where a thing lies there that is no object.
    fn open(&self, path: &Path, meter: &Arc<Meter>) -> io::Result<Opened>;

    /// Opens the version of an object that was open before: without a round trip where every read is conditional on it.
    ///
    /// # Errors
    /// Those of `open`; `StaleNetworkFileHandle` where it is another now.
    fn reopen(&self, path: &Path, was: &Version, meter: &Arc<Meter>) -> io::Result<Opened> {
        let opened = self.open(path, meter)?;
        match was.difference(&opened.version) {
            None => Ok(opened),
            Some(change) => Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, change)),
        }
    }

    /// What lies at a path.
    ///
    /// # Errors
    /// `NotFound`.
    fn kind(&self, path: &Path) -> io::Result<Kind>;

    /// Names of objects and folders directly below a folder, sorted.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`; `Unsupported` where nothing can be listed.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// What an object is now.
    ///
    /// # Errors
    /// `NotFound`.
    fn version(&self, path: &Path) -> io::Result<Version>;

    /// The same, asked for anew: nothing that was known before counts.
    ///
    /// # Errors
    /// Those of `version`.
    fn version_now(&self, path: &Path) -> io::Result<Version> {
        self.version(path)
    }

    /// How an object differs from what it was, if it does. A storage whose every read is conditional on the version
    /// answers `None` without asking.
    ///
    /// # Errors
    /// Those of `version`.
    fn changed(&self, path: &Path, was: &Version) -> io::Result<Option<String>> {
        self.version(path).map(|now| was.difference(&now))
    }

    /// Why an object that is not there may have been there at `since`, if it may.
    fn removed_since(&self, _path: &Path, _since: SystemTime) -> Option<String> {
        None
    }

    /// How long a read usually takes, before any was made; none where most are answered at once, from the page cache.
    fn usual_latency(&self) -> Option<Duration> {
        None
    }

    /// The path in the local file system, where there is one: for libraries that open files themselves.
    fn local_path(&self, _path: &Path) -> Option<PathBuf> {
        None
    }
}

/// Ranges of one open object.
pub trait Ranges: Send + Sync {
    /// Fills the places, one after the other, with the bytes from `offset` on. Called from many threads at once. The places
    /// stay as long as they are: callers look at what came.
    ///
    /// # Errors
    /// As the module says; what the places hold is then unspecified.
    fn read(&self, offset: u64, places: &mut [IoSliceMut<'_>]) -> io::Result<()>;
}

/// Where a name points to.
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

/// Takes the version of a remote object from another process, which has just seen it: then it is not asked for again.
pub fn recall(name: &Path, version: Version) {
    #[cfg(feature = "remote")]
    if let Some(name) = name.to_str() {
        remote::recall(name, version);
    }
    #[cfg(not(feature = "remote"))]
    let _ = (name, version);
}

/// Reads of remote objects that the node's cache answered, and those that it did not; zeros without one.
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

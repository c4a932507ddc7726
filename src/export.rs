//! Writes an epoch to disk: `shufflefs shuffle`. What is written are the files that a mount shows: those of many batches
//! (`engine::view_file`), a `.h5ad` as it is and a zarr collection with its chunks compressed and packed into shards, and for parquet
//! files of one batch, which is a whole fetch.
//!
//! Nothing stands under its final name before it is whole and on the disk. What a run that was stopped has written is kept beside it
//! and used by the next one, if that would write the same bytes: stores, options, seed and version are in a file with it.

mod collection;
mod files;
mod h5ad;
mod parts;
mod requests;
mod shard;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::anndata::progress::Progress;
use crate::engine::Engine;
use crate::engine::view_file::{DealtEpoch, ViewFile, ViewFiles};

pub use collection::{finish, write as collection};
pub use files::{finish as finish_files, write as files};
pub use h5ad::write as h5ad;
pub use shard::Compression;

/// What is written, and how.
pub struct Export {
    pub engine: Arc<Engine>,
    pub files: Arc<ViewFiles>,
    pub view: u16,
    pub epoch: u64,
    /// Batches of the epoch.
    pub batches: u64,
    pub out: PathBuf,
    /// What decides the bytes: two runs with the same write the same.
    pub identity: Value,
    pub compression: Compression,
    /// Reads all of it again and compares.
    pub verify: bool,
}

/// One of `of` parts of an epoch that are written each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub index: u64,
    pub of: u64,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{path} exists already: name another place, or remove it")]
    Exists { path: PathBuf },
    #[error("{path}: another process is writing this; wait for it, or end it")]
    Busy { path: PathBuf },
    #[error("{path}: {cause}; what is written is kept: the same command goes on from there")]
    Write { path: PathBuf, cause: io::Error },
    #[error("{path}: {needed} are needed, and the disk has {free} free")]
    Space { path: PathBuf, needed: bytesize::ByteSize, free: bytesize::ByteSize },
    #[error("{0}; what is written is kept: the same command goes on from there")]
    Read(String),
    #[error(
        "{path} differs from what was written, at byte {at}: the disk or the memory of this machine is faulty; remove {path}"
    )]
    Differs { path: PathBuf, at: u64 },
    #[error("{0}")]
    Parts(String),
}

impl ExportError {
    fn write(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
        move |cause| ExportError::Write { path: path.to_owned(), cause }
    }
}

impl Export {
    /// A file of the epoch, or of a part of it.
    fn file(&self, part: Option<Part>, file: impl FnOnce(DealtEpoch) -> ViewFile) -> ViewFile {
        let all = file(DealtEpoch { view: self.view, rank: None, epoch: self.epoch });
        ViewFile { batches: part.map(|part| self.cut(part)), ..all }
    }

    /// The batches of a part, from and to.
    fn cut(&self, part: Part) -> (u64, u64) {
        let at = |i: u64| (u128::from(self.batches) * u128::from(i) / u128::from(part.of)) as u64;
        (at(part.index), at(part.index + 1))
    }

    /// The name of what is not whole yet: hidden, beside the place where it will be.
    fn partial(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.out.file_name().unwrap_or_default());
        name.push(suffix);
        self.out.with_file_name(name)
    }

    /// The directory that the result will be in.
    fn directory(&self) -> PathBuf {
        self.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
    }

    fn refuse_existing(&self) -> Result<(), ExportError> {
        match fs::symlink_metadata(&self.out) {
            Ok(_) => Err(ExportError::Exists { path: self.out.clone() }),
            Err(_) => Ok(()),
        }
    }

    /// Refuses to begin what the disk cannot hold.
    fn room(&self, needed: u64) -> Result<(), ExportError> {
        let directory = self.directory();
        let Ok(about) = rustix::fs::statvfs(&directory) else { return Ok(()) };
        let free = about.f_bavail.saturating_mul(about.f_frsize);
        let sizes = (bytesize::ByteSize(needed), bytesize::ByteSize(free));
        if needed > free { Err(ExportError::Space { path: directory, needed: sizes.0, free: sizes.1 }) } else { Ok(()) }
    }
}

/// A lock that only one process has; it ends with the process.
fn lock(path: &Path) -> Result<File, ExportError> {
    let file = File::options().create(true).append(true).open(path).map_err(ExportError::write(path))?;
    file.try_lock().map_err(|_| ExportError::Busy { path: path.to_owned() })?;
    Ok(file)
}

/// Replaces a file: whole or not at all, and on the disk.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(ExportError::write(path))
}

/// Puts the entries of a directory on the disk.
fn sync_directory(path: &Path) -> Result<(), ExportError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(ExportError::write(path))
}

/// A bar of bytes.
fn progress(what: &Path, total: u64) -> Progress {
    Progress::new(what.display().to_string(), total.max(1))
}

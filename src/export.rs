//! Writes an epoch to disk: `shufflefs shuffle`. It writes the files of many batches that a mount shows (`engine::view_file`): a `.h5ad`
//! unchanged; a zarr collection with its chunks compressed and packed into shards; for parquet, one file a fetch.
//!
//! Nothing has its final name before it is complete and synced. What an interrupted run has written stays beside the final name; the
//! next run continues it if it would write the same bytes, which a file with the stores, options, seed and version tells.

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

/// What to write, and how.
pub struct Export {
    pub engine: Arc<Engine>,
    pub files: Arc<ViewFiles>,
    pub view: u16,
    pub epoch: u64,
    /// Batches of the epoch.
    pub batches: u64,
    pub out: PathBuf,
    /// All that decides the bytes: two runs with equal identities write equal bytes.
    pub identity: Value,
    pub compression: Compression,
    /// Read everything again after writing, and compare.
    pub verify: bool,
}

/// One of `of` parts of an epoch, each of which is written on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub index: u64,
    pub of: u64,
}

/// Why an export failed; nothing has its final name then.
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
    /// A file of many batches over the epoch, or over one part of it.
    fn file(&self, part: Option<Part>, file: impl FnOnce(DealtEpoch) -> ViewFile) -> ViewFile {
        let all = file(DealtEpoch { view: self.view, rank: None, epoch: self.epoch });
        ViewFile { batches: part.map(|part| self.cut(part)), ..all }
    }

    /// The batches of a part: first, and the one after the last.
    fn cut(&self, part: Part) -> (u64, u64) {
        let at = |i: u64| (u128::from(self.batches) * u128::from(i) / u128::from(part.of)) as u64;
        (at(part.index), at(part.index + 1))
    }

    /// The hidden name of an unfinished result, in the directory of the final one.
    fn partial(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.out.file_name().unwrap_or_default());
        name.push(suffix);
        self.out.with_file_name(name)
    }

    /// The directory of the result.
    fn directory(&self) -> PathBuf {
        self.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
    }

    fn refuse_existing(&self) -> Result<(), ExportError> {
        match fs::symlink_metadata(&self.out) {
            Ok(_) => Err(ExportError::Exists { path: self.out.clone() }),
            Err(_) => Ok(()),
        }
    }

    /// Fails if the disk has less than `needed` bytes free.
    fn room(&self, needed: u64) -> Result<(), ExportError> {
        let directory = self.directory();
        let Ok(about) = rustix::fs::statvfs(&directory) else { return Ok(()) };
        let free = about.f_bavail.saturating_mul(about.f_frsize);
        let sizes = (bytesize::ByteSize(needed), bytesize::ByteSize(free));
        if needed > free { Err(ExportError::Space { path: directory, needed: sizes.0, free: sizes.1 }) } else { Ok(()) }
    }
}

/// Takes a lock for this process; it ends with the process.
fn lock(path: &Path) -> Result<File, ExportError> {
    let file = File::options().create(true).append(true).open(path).map_err(ExportError::write(path))?;
    file.try_lock().map_err(|_| ExportError::Busy { path: path.to_owned() })?;
    Ok(file)
}

/// Replaces a file atomically, and syncs it.
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

/// Syncs the entries of a directory.
fn sync_directory(path: &Path) -> Result<(), ExportError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(ExportError::write(path))
}

/// A progress bar that counts bytes.
fn progress(what: &Path, total: u64) -> Progress {
    Progress::new(what.display().to_string(), total.max(1))
}

//! Builds an entry of the index directory. One process builds; others wait for it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::array::ArrayError;
use crate::storage::local;

use super::arrow::{self, Envelope};
use super::key::IndexKey;
use super::{IndexPart, IndexRequest, MAGIC, envelope, failed, header, offsets};

/// An entry that is being written.
pub struct Building<'a> {
    file: File,
    directory: &'a Path,
    entry: &'a IndexRequest<'a>,
    temporary: PathBuf,
    parts: Vec<IndexPart>,
    starts: Vec<u64>,
    /// The end of the last part.
    end: u64,
    envelope: Envelope,
    crcs: Vec<u32>,
}

/// Bytes collected before a write.
const BUFFER: usize = 1 << 20;

/// Writes one part sequentially.
pub struct Appender {
    part: usize,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    hasher: crc32fast::Hasher,
}

impl Building<'_> {
    /// A writer for a part, by number.
    pub fn part(&self, part: usize) -> Appender {
        let at = self.starts.get(part).copied().unwrap_or_default();
        let bytes = self.parts.get(part).and_then(IndexPart::bytes).unwrap_or_default();
        Appender { part, at, end: at + bytes, buffer: Vec::new(), hasher: crc32fast::Hasher::new() }
    }

    /// The parts to write.
    pub fn parts(&self) -> &[IndexPart] {
        &self.parts
    }

    /// Writes elements of a part from element `first` on; callable in any order, from any thread. Returns their checksum.
    pub fn put(&self, part: usize, first: u64, bytes: &[u8]) -> Result<crc32fast::Hasher, ArrayError> {
        let place = self.parts.get(part).zip(self.starts.get(part)).and_then(|(part, start)| {
            let at = first.checked_mul(part.dtype.size() as u64)?;
            (at.checked_add(bytes.len() as u64)? <= part.bytes()?).then(|| start + at)
        });
        let place = place.ok_or_else(|| self.failed(&"more values than were counted"))?;
        self.file.write_all_at(bytes, place).map_err(|error| self.failed(&error))?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(bytes);
        Ok(hasher)
    }

    /// Completes a part written with `put`; `crc` is its checksum.
    pub fn seal(&mut self, part: usize, crc: u32) {
        if let Some(place) = self.crcs.get_mut(part) {
            *place = crc;
        }
    }

    /// Appends bytes to a part.
    pub fn write(&self, part: &mut Appender, bytes: &[u8]) -> Result<(), ArrayError> {
        part.buffer.extend_from_slice(bytes);
        if part.buffer.len() >= BUFFER { self.flush(part) } else { Ok(()) }
    }

    fn flush(&self, part: &mut Appender) -> Result<(), ArrayError> {
        let end = part.at + part.buffer.len() as u64;
        if end > part.end {
            return Err(self.failed(&"more values than were counted"));
        }
        self.file.write_all_at(&part.buffer, part.at).map_err(|error| self.failed(&error))?;
        part.hasher.update(&part.buffer);
        part.at = end;
        part.buffer.clear();
        Ok(())
    }

    /// Completes a part written with `write`, which must be full.
    pub fn finish(&mut self, mut part: Appender) -> Result<(), ArrayError> {
        self.flush(&mut part)?;
        if part.at != part.end {
            return Err(self.failed(&"fewer values than were counted"));
        }
        if let Some(crc) = self.crcs.get_mut(part.part) {
            *crc = part.hasher.finalize();
        }
        Ok(())
    }

    /// An unnamed file for data that do not fit memory, on the same disk; it is deleted when closed.
    pub fn scratch(&self) -> Result<File, ArrayError> {
        let path = self.temporary.with_extension("scratch");
        let open = || -> Result<File, Error> {
            let file = for_writing().truncate(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        };
        open().map_err(|error| self.failed(&error))
    }

    /// An error with the directory.
    pub fn failed(&self, cause: &dyn std::fmt::Display) -> ArrayError {
        failed(self.directory, self.entry, cause)
    }

    /// Writes the header, syncs, and renames to the final name.
    fn complete(&self, path: &Path, key: &IndexKey) -> Result<(), Error> {
        let mtime = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut header = header(self.entry, key);
        header["parts"] = self.parts.iter().map(IndexPart::to_json).collect();
        header["crc32"] = json!(self.crcs);
        header["mtime_seconds"] = json!(mtime);
        let mut bytes = header.to_string().into_bytes();
        let (len, crc) = (u32::try_from(bytes.len()).map_err(|_| ErrorKind::InvalidInput)?, crc32fast::hash(&bytes));
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        let Envelope { head, foot } = &self.envelope;
        if !foot.is_empty() {
            bytes.splice(..0, arrow::END);
            bytes.extend_from_slice(foot);
        }
        self.file.write_all_at(head, 0)?;
        self.file.write_all_at(&bytes, self.end)?;
        // Whole seconds, which every file system stores; any other write leaves a different time.
        self.file.set_modified(UNIX_EPOCH + Duration::from_secs(mtime))?;
        self.file.sync_all()?;
        std::fs::rename(&self.temporary, path)?;
        File::open(self.directory)?.sync_all()
    }
}

/// Builds the entry. `needed` is called while other processes are locked out: it returns the parts, or `None` if they exist by then.
pub fn build(
    directory: &Path,
    path: &Path,
    entry: &IndexRequest<'_>,
    key: &IndexKey,
    needed: impl FnOnce() -> Option<Vec<IndexPart>>,
    fill: impl FnOnce(&mut Building<'_>) -> Result<(), ArrayError>,
) -> Result<(), ArrayError> {
    // Stores are opened concurrently, but each build uses all cores, and memory for one build.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = |error: Error| failed(directory, entry, &error);
    local::make_private(directory).map_err(failed)?;
    let (file, temporary) = lock(path).map_err(failed)?;
    let Some(parts) = needed() else { return std::fs::remove_file(&temporary).map_err(failed) };
    let large = || failed(ErrorKind::InvalidInput.into());
    let (mut starts, mut end) = offsets(&parts).ok_or_else(large)?;
    let envelope = envelope(entry, &parts).ok_or_else(large)?;
    let first = envelope.head.len() as u64;
    starts.iter_mut().for_each(|start| *start += first);
    end += first;
    let crcs = vec![0; parts.len()];
    let mut building = Building { file, directory, entry, temporary, parts, starts, end, envelope, crcs };
    let filled = building.file.set_len(0).map_err(failed).and_then(|()| fill(&mut building));
    let done =
        filled.and_then(|()| entry.store.check_unchanged()).and_then(|()| building.complete(path, key).map_err(failed));
    if done.is_err() {
        let _ = std::fs::remove_file(&building.temporary);
    }
    done
}

/// Options for opening temporary files; symbolic links are not followed.
fn for_writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).custom_flags(libc::O_NOFOLLOW);
    options
}

/// Opens and locks the temporary file. A process that has waited for the lock finds the file renamed, and opens the path again.
fn lock(path: &Path) -> Result<(File, PathBuf), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let temporary = PathBuf::from(name);
    loop {
        let file = for_writing().truncate(false).open(&temporary)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tracing::warn!("waiting for another process that writes {}", path.display());
                file.lock()?;
            }
            Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                // The file system has no locks: use a unique name; two processes may then do the same work.
                drop(file);
                let mut name = temporary.clone().into_os_string();
                name.push(format!("-{}", std::process::id()));
                let own = PathBuf::from(name);
                let file = for_writing().truncate(true).open(&own)?;
                return Ok((file, own));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let ours = file.metadata()?;
        match std::fs::metadata(&temporary) {
            Ok(there) if (there.ino(), there.dev()) == (ours.ino(), ours.dev()) => return Ok((file, temporary)),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_unsupported(error: &Error) -> bool {
    error.kind() == ErrorKind::Unsupported || matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::ENOSYS))
}

//! The mountpoint: checked before mounting, created if absent, and then removed again when the value is dropped.
//!
//! Only directories that we created are removed, and only by `rmdir`, so no data of the user can be lost. A lock on the directory from
//! the check to the mount keeps a second shufflefs from mounting on top.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::MountError;
use super::{table, unmount};

/// How long to wait for another process that clears the same mountpoint: two seconds.
const LOCK_ATTEMPTS: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Dead mounts on one directory to clear, at most.
const MOST_DEAD: usize = 16;

/// What to do with a dead mount of ours (its daemon is gone) at the mountpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dead {
    /// Unmount it.
    Clear,
    Refuse,
}

/// A directory to mount on, or a `/dev/fuse` descriptor that another program has mounted.
#[derive(Debug)]
pub struct Mountpoint {
    path: PathBuf,
    /// Directories that we created, outermost first.
    made: Vec<PathBuf>,
    lock: Option<File>,
    descriptor: Option<OwnedFd>,
}

impl Mountpoint {
    /// Checks the path, and creates the directory if it is absent.
    pub fn prepare(path: &Path, dead: Dead) -> Result<Self, MountError> {
        if let Some(number) = descriptor_number(path) {
            return Self::from_descriptor(path, number);
        }
        let path = std::path::absolute(path).map_err(|cause| failure(path, cause))?;
        let place = table::resolve(&path).unwrap_or_else(|_| path.clone());
        if dead == Dead::Clear {
            clear_dead(&place)?;
        }
        refuse_mount(&place)?;
        let made = match fs::metadata(&path) {
            Ok(metadata) if !metadata.is_dir() => return Err(MountError::NotADirectory { path }),
            Ok(_) => Vec::new(),
            Err(error) if error.kind() == ErrorKind::NotFound => make(&path)?,
            Err(error) => return Err(failure(&path, error)),
        };
        // From here on, dropping `this` removes what was created.
        let mut this = Self { path: path.clone(), made, lock: None, descriptor: None };
        this.path = table::resolve(&path).map_err(|cause| failure(&path, cause))?;
        let directory = File::open(&this.path).map_err(|cause| failure(&path, cause))?;
        match directory.try_lock() {
            // Some network file systems have no locks: they are used without.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => return Err(MountError::Contended { path }),
        }
        this.lock = Some(directory);
        // Checked again under the lock: another process may have mounted between the check and the lock.
        refuse_mount(&this.path)?;
        let mut entries = fs::read_dir(&this.path).map_err(|cause| failure(&path, cause))?;
        if entries.next().is_some() {
            return Err(MountError::NotEmpty { path });
        }
        Ok(this)
    }

    /// An empty directory that is known not to be a mount; `made` are the directories to remove at the end.
    pub(super) fn fresh(path: PathBuf, made: Vec<PathBuf>) -> Self {
        Self { path, made, lock: None, descriptor: None }
    }

    /// Follows libfuse's convention: `/dev/fd/N` is a descriptor of `/dev/fuse` that is already mounted (Apptainer).
    fn from_descriptor(path: &Path, number: i32) -> Result<Self, MountError> {
        // SAFETY: F_SETFD only changes a flag, and fails with EBADF if the number is not open.
        if number <= 2 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            return Err(MountError::NoDescriptor { path: path.to_owned() });
        }
        // SAFETY: it is open (just checked), and the program's caller passed it to us by name; nothing else owns it, because this runs
        // before any other file is opened and kept.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Self { path: path.to_owned(), made: Vec::new(), lock: None, descriptor: Some(descriptor) })
    }

    /// The path, absolute and without symbolic links; for a descriptor, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the descriptor, if there is one.
    pub(super) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Unlocks the directory; called once it is mounted.
    pub(super) fn unlock(&mut self) {
        self.lock = None;
    }
}

impl Drop for Mountpoint {
    fn drop(&mut self) {
        self.unlock();
        for directory in self.made.iter().rev() {
            if let Err(error) = fs::remove_dir(directory) {
                tracing::debug!("{} stays: {error}", directory.display());
            }
        }
    }
}

/// Unmounts dead mounts of ours. The directory itself cannot be locked, as the mount hides it, so its parent is locked: otherwise, of two
/// processes that start at the same time, one could detach the new mount of the other.
fn clear_dead(path: &Path) -> Result<(), MountError> {
    let is_dead_here = || {
        let entry = table::at(path).map_err(MountError::system("reading /proc/self/mountinfo"))?;
        Ok::<bool, MountError>(entry.is_some_and(|entry| table::is_ours(&entry)) && table::is_dead(path))
    };
    if !is_dead_here()? {
        return Ok(());
    }
    let parent = path.parent().and_then(|parent| File::open(parent).ok());
    for _ in 0..LOCK_ATTEMPTS {
        if let Some(Err(TryLockError::WouldBlock)) = parent.as_ref().map(File::try_lock) {
            std::thread::sleep(LOCK_PAUSE);
            continue;
        }
        // Several mounts can be stacked.
        for _ in 0..MOST_DEAD {
            if !is_dead_here()? {
                break;
            }
            unmount::force(path);
            tracing::warn!("{}: unmounted what a daemon that was killed had left", path.display());
        }
        return Ok(());
    }
    Err(MountError::Contended { path: path.to_owned() })
}

fn refuse_mount(path: &Path) -> Result<(), MountError> {
    let Some(entry) = table::at(path).map_err(MountError::system("reading /proc/self/mountinfo"))? else {
        return Ok(());
    };
    let path = path.to_owned();
    if entry.kind.starts_with("fuse") && table::is_dead(&path) {
        return Err(MountError::Dead { path });
    }
    let kind = entry.kind;
    Err(MountError::AlreadyMounted { path, kind })
}

fn failure(path: &Path, cause: io::Error) -> MountError {
    let path = path.to_owned();
    match cause.raw_os_error() {
        Some(libc::ENOTCONN) => MountError::Dead { path },
        Some(libc::ENOTDIR) => MountError::NotADirectory { path },
        _ => MountError::Mountpoint { path, cause },
    }
}

/// Creates the directory and its missing parents; returns those created, outermost first.
fn make(path: &Path) -> Result<Vec<PathBuf>, MountError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|place| !place.exists()).collect();
    let mut made = Mountpoint::fresh(path.to_owned(), Vec::new());
    for place in missing.into_iter().rev() {
        match fs::create_dir(place) {
            Ok(()) => made.made.push(place.to_owned()),
            // Created by another process in the meantime, so it is not ours to remove.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && place.is_dir() => {}
            Err(error) => return Err(failure(path, error)),
        }
    }
    Ok(std::mem::take(&mut made.made))
}

fn descriptor_number(path: &Path) -> Option<i32> {
    path.to_str()?.strip_prefix("/dev/fd/")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_directory_is_made_and_removed_with_its_parents() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b");
        let mountpoint = Mountpoint::prepare(&path, Dead::Clear).unwrap();
        assert!(path.is_dir());
        drop(mountpoint);
        assert!(!base.path().join("a").exists());
    }

    #[test]
    fn an_existing_directory_stays() {
        let base = tempfile::tempdir().unwrap();
        drop(Mountpoint::prepare(base.path(), Dead::Clear).unwrap());
        assert!(base.path().is_dir());
    }

    #[test]
    fn refusals() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(Mountpoint::prepare(&file, Dead::Clear), Err(MountError::NotADirectory { .. })));
        assert!(matches!(Mountpoint::prepare(&file.join("below"), Dead::Clear), Err(MountError::NotADirectory { .. })));
        assert!(matches!(Mountpoint::prepare(base.path(), Dead::Clear), Err(MountError::NotEmpty { .. })));
        assert!(matches!(Mountpoint::prepare(Path::new("/proc"), Dead::Clear), Err(MountError::AlreadyMounted { .. })));
        assert!(matches!(
            Mountpoint::prepare(Path::new("/dev/fd/987"), Dead::Clear),
            Err(MountError::NoDescriptor { .. })
        ));
    }

    #[test]
    fn two_at_once_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let _first = Mountpoint::prepare(base.path(), Dead::Clear).unwrap();
        assert!(matches!(Mountpoint::prepare(base.path(), Dead::Clear), Err(MountError::Contended { .. })));
    }
}

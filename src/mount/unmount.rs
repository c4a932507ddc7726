//! How a mount goes: from inside by its daemon, from outside by `shufflefs umount`.
//!
//! An unmount never waits for readers. A mount that is in use is detached: its name is gone at once, and those who
//! hold files keep them, until they close them (outside) or until the daemon's end gives them an error (inside).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::MountError;
use super::mountpoint::resolve;
use super::{helper, signals, table};

/// How long to wait for a daemon to end once its mount is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an unmount came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing holds it any more.
    Clean,
    /// These still hold files; the mount is detached and ends with them.
    Detached { holders: Vec<String> },
}

/// `shufflefs umount`: unmounts, and waits until the daemon is gone.
pub fn unmount(path: &Path) -> Result<Left, MountError> {
    let not_mounted = || MountError::NotMounted { path: path.to_owned() };
    let place = resolve(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => not_mounted(),
        _ => MountError::Mountpoint { path: path.to_owned(), cause },
    })?;
    let entry =
        table::at(&place).map_err(MountError::system("reading /proc/self/mountinfo"))?.ok_or_else(not_mounted)?;
    if !table::is_ours(&entry) {
        return Err(MountError::NotOurs { path: place, kind: entry.kind });
    }
    // The process descriptor is opened while the mount shows that the daemon lives, so the number cannot be reused.
    let daemon = daemon_of(&place);
    let left = detach(&place)?;
    if let (Left::Clean, Some((pid, descriptor))) = (&left, daemon) {
        let ended = signals::wait(&[descriptor.as_fd()], Some(PATIENCE)).map_err(MountError::system("waiting"))?;
        if ended != [true] {
            return Err(MountError::StillRunning { path: place, pid, seconds: PATIENCE.as_secs() });
        }
    }
    Ok(left)
}

/// Unmounts if nothing holds it, detaches otherwise. A `stat` that is just going on holds it too, so busy is believed
/// only after a few looks.
pub(super) fn detach(path: &Path) -> Result<Left, MountError> {
    let mut looks = 3;
    loop {
        match unmount_once(path, false) {
            Ok(()) => return Ok(Left::Clean),
            Err(MountError::Unmount { cause, .. }) if cause.raw_os_error() == Some(libc::EBUSY) => {
                looks -= 1;
                if looks > 0 {
                    std::thread::sleep(Duration::from_millis(30));
                    continue;
                }
                let holders = holders(path);
                unmount_once(path, true)?;
                return Ok(Left::Detached { holders });
            }
            Err(error) => return Err(error),
        }
    }
}

/// Detaches whatever is there, without a word; the last resort of a process that is about to end.
pub(super) fn force(path: &Path) {
    if let Err(error) = unmount_once(path, true) {
        tracing::debug!("{error}");
    }
}

fn unmount_once(path: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
    let fail = |cause| MountError::Unmount { path: path.to_owned(), cause, hint: String::new() };
    let target = CString::new(path.as_os_str().as_bytes()).map_err(|error| fail(error.into()))?;
    // SAFETY: a string that ends with zero and lives through the call.
    if unsafe { libc::umount2(target.as_ptr(), flags) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EPERM) {
        return helper::unmount(path, lazy);
    }
    Err(fail(error))
}

/// The pid that the mount itself tells, and a descriptor of the process. None if the mount is dead, hangs, is not
/// readable to us, or its daemon lives in another pid namespace.
fn daemon_of(mountpoint: &Path) -> Option<(i32, OwnedFd)> {
    let file = mountpoint.join(".shufflefs/options.json");
    let (sender, receiver) = std::sync::mpsc::channel();
    // In a thread, because a daemon that is stopped would keep the read waiting for ever.
    std::thread::spawn(move || sender.send(fs::read(file)));
    let text = receiver.recv_timeout(Duration::from_secs(2)).ok()?.ok()?;
    let options: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let pid = i32::try_from(options.get("pid")?.as_i64()?).ok()?;
    // A number from another pid namespace names a stranger here.
    if !fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.starts_with("shufflefs") {
        return None;
    }
    // SAFETY: a system call without pointers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = i32::try_from(descriptor).ok().filter(|&number| number >= 0)?;
    // SAFETY: a fresh descriptor that nothing else owns.
    Some((pid, unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

/// The processes that hold files or directories below a mountpoint, as far as we may see.
fn holders(mountpoint: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<(u32, String)> = processes
        .flatten()
        .filter_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let path = process.path();
            holds(&path, mountpoint).then(|| {
                let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
                (pid, format!("{} (pid {pid})", name.trim_end()))
            })
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, holder)| holder).collect()
}

fn holds(process: &Path, mountpoint: &Path) -> bool {
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    // map_files would need CAP_SYS_ADMIN; a file that is only mapped is held by somebody without a name.
    let places: [PathBuf; 3] = ["cwd", "root", "exe"].map(|name| process.join(name));
    open.chain(places).any(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(mountpoint)))
}

//! Unmounts: the daemon its own mount, `shufflefs umount` that of another process.
//!
//! An unmount never waits for readers. A mount in use is detached: its name is gone at once, and open files stay usable until they are
//! closed (`umount`) or until the daemon ends, which gives their readers an error.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::MountError;
use super::{helper, list, signals, table};

/// Time after which an idle daemon without a mount counts as hanging. After millions of lookups the kernel forgets each inode, which
/// takes longer, but uses processor time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Interval of checking for that.
const TICK: Duration = Duration::from_secs(1);

/// The result of an unmount.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing used the mount.
    Clean,
    /// The holders still have open files; the mount is detached and ends when they close them.
    Detached { holders: Vec<String> },
}

/// `shufflefs umount`: unmounts, and waits for the daemon's end.
pub fn unmount(path: &Path) -> Result<Left, MountError> {
    let not_mounted = || MountError::NotMounted { path: path.to_owned() };
    let place = table::resolve(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => not_mounted(),
        _ => MountError::Mountpoint { path: path.to_owned(), cause },
    })?;
    let entry =
        table::at(&place).map_err(MountError::system("reading /proc/self/mountinfo"))?.ok_or_else(not_mounted)?;
    if !table::is_ours(&entry) {
        return Err(MountError::NotOurs { path: place, kind: entry.kind });
    }
    // The pidfd is opened while the mount proves that the daemon lives, so the pid cannot have been reused.
    let daemon = daemon_of(&place);
    let left = detach(&place)?;
    if let (Left::Clean, Some((pid, descriptor))) = (&left, daemon) {
        wait_for_end(&place, pid, &descriptor, entry.device)?;
    }
    Ok(left)
}

/// Waits for a daemon to end while it makes progress, unless the mount is still visible elsewhere.
fn wait_for_end(place: &Path, pid: i32, daemon: &OwnedFd, device: (u32, u32)) -> Result<(), MountError> {
    let (mut worked, mut since) = (None, Instant::now());
    loop {
        let ended = signals::wait(&[daemon.as_fd()], Some(TICK)).map_err(MountError::system("waiting"))?;
        if ended == [true] {
            return Ok(());
        }
        let now = Process::read(pid);
        if since.elapsed() < PATIENCE {
            worked = worked.or(now);
            continue;
        }
        let elsewhere = shown_elsewhere(device);
        if let (Some(before), Some(now), true) = (worked, now, elsewhere.is_empty())
            && now.ticks > before.ticks
        {
            (worked, since) = (Some(now), Instant::now());
            continue;
        }
        let known = match now.map(|process| process.state) {
            _ if !elsewhere.is_empty() => {
                let names = list(&elsewhere);
                format!(
                    "the mount is still shown in the mount namespace of {names}; it ends with that, or by `kill {pid}`"
                )
            }
            Some('T' | 't') => format!("it is stopped; `kill -CONT {pid}` lets it go on"),
            Some('D') => "it waits for the kernel or for a file system of its stores".to_owned(),
            Some('S') => format!(
                "it waits for something: a container whose processes we cannot see may still show the mount; `kill {pid}` \
                 ends it"
            ),
            _ => format!("its state is not known; `kill {pid}` ends it"),
        };
        return Err(MountError::StillRunning { path: place.to_owned(), pid, seconds: PATIENCE.as_secs(), known });
    }
}

/// The state of a process, from `/proc/PID/stat`.
#[derive(Clone, Copy)]
struct Process {
    state: char,
    /// Processor time used in user and kernel mode, in clock ticks.
    ticks: u64,
}

impl Process {
    fn read(pid: i32) -> Option<Process> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name comes before and may contain anything.
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Process { state: fields.first()?.chars().next()?, ticks: number(11)?.saturating_add(number(12)?) })
    }
}

/// Processes whose mount namespace still has a mount, one for each namespace, as far as we have the right to see.
fn shown_elsewhere(device: (u32, u32)) -> Vec<String> {
    let number = format!(" {}:{} ", device.0, device.1);
    let mut namespaces = HashSet::new();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let path = process.path();
        let Ok(namespace) = fs::read_link(path.join("ns/mnt")) else { continue };
        if !namespaces.insert(namespace) {
            continue;
        }
        let mounts = fs::read_to_string(path.join("mountinfo")).unwrap_or_default();
        if mounts.lines().any(|line| line.contains(&number)) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            found.push(format!("{} (pid {pid})", name.trim_end()));
        }
    }
    found
}

/// Unmounts, or detaches a mount that is in use. A `stat` in progress counts as use, too, so it tries several times first.
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

/// Detaches, ignoring errors; the last resort of a process that is about to end.
pub(super) fn force(path: &Path) {
    if let Err(error) = unmount_once(path, true) {
        tracing::debug!("{error}");
    }
}

fn unmount_once(path: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = UnmountFlags::NOFOLLOW | if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(path, flags) {
        Err(Errno::PERM) => helper::unmount(path, lazy),
        done => done.map_err(|error| MountError::Unmount {
            path: path.to_owned(),
            cause: error.into(),
            hint: String::new(),
        }),
    }
}

/// The daemon's pid, read from the mount itself, and its pidfd. `None` if the mount is dead, hangs or is unreadable to us, or if its
/// daemon lives in another pid namespace.
fn daemon_of(mountpoint: &Path) -> Option<(i32, OwnedFd)> {
    let file = mountpoint.join(".shufflefs/options.json");
    let (sender, receiver) = std::sync::mpsc::channel();
    // In a thread, because a stopped daemon would block the read for ever.
    std::thread::Builder::new().spawn(move || sender.send(fs::read(file))).ok()?;
    let text = receiver.recv_timeout(Duration::from_secs(2)).ok()?.ok()?;
    let options: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let number = i32::try_from(options.get("pid")?.as_i64()?).ok()?;
    let pid = Pid::from_raw(number)?;
    // In another pid namespace, the number means another process.
    if !fs::read_to_string(format!("/proc/{number}/comm")).ok()?.starts_with("shufflefs") {
        return None;
    }
    Some((number, pidfd_open(pid, PidfdFlags::empty()).ok()?))
}

/// The processes with open files below a mountpoint, as far as we have the right to see.
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
    // Reading map_files needs CAP_SYS_ADMIN, so holders of mappings alone are not found.
    let places: [PathBuf; 3] = ["cwd", "root", "exe"].map(|name| process.join(name));
    open.chain(places).any(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(mountpoint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_told_from_one_that_waits() {
        let ours = i32::try_from(std::process::id()).unwrap();
        let before = Process::read(ours).unwrap();
        let start = Instant::now();
        while Process::read(ours).unwrap().ticks <= before.ticks {
            assert!(start.elapsed() < Duration::from_secs(60), "reading /proc is work");
        }
        assert!(Process::read(-1).is_none());
    }

    #[test]
    fn a_mount_is_shown_where_it_is_mounted() {
        let root = table::at(Path::new("/")).unwrap().unwrap();
        assert!(!shown_elsewhere(root.device).is_empty());
        assert!(shown_elsewhere((u32::MAX, u32::MAX)).is_empty());
    }
}

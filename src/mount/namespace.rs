//! A private view of the file system, for `run`: what is mounted here is seen by us and our children only.
//!
//! The kernel removes the mounts when the last process in the namespace ends, however it ends; that is why `run` can
//! leave nothing behind. With CAP_SYS_ADMIN a mount namespace is enough; without it a user namespace comes along, in
//! which the caller keeps its own uid and gid.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::attach::mount;
use super::error::MountError;
use super::mountpoint::Mountpoint;
use super::table;

/// The highest capability number that any kernel has had so far, with room.
const CAPABILITIES: u32 = 64;

const MAKING_PRIVATE: &str = "making mounts private";

/// Why that fails with EINVAL: the kernel changes mount points alone.
const CHROOT: &str = "; the root directory is no mount point, as in a plain chroot: `mount --bind DIR DIR` before `chroot DIR`, \
                      or use `shufflefs mount` instead";

/// The namespace that this process is in now.
#[derive(Debug)]
pub struct Namespace {
    /// What the caller could have at most, where a new user namespace has widened it.
    bounding: Option<u64>,
}

impl Namespace {
    /// Leaves the caller's namespace. Call it before any thread exists: the kernel refuses it afterwards.
    pub fn enter() -> Result<Self, MountError> {
        let (uid, gid) = (geteuid(), getegid());
        let bounding = bounding_set();
        let bounding = match unshare(UnshareFlags::NEWNS) {
            Ok(()) => None,
            Err(_) => {
                unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(failure("unshare"))?;
                // An unprivileged process may only map its group once it has given up changing groups.
                fs::write("/proc/self/setgroups", "deny").map_err(failure("writing /proc/self/setgroups"))?;
                fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(failure("writing uid_map"))?;
                fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(failure("writing gid_map"))?;
                Some(bounding)
            }
        };
        // Otherwise our mounts would show up in the namespace that we came from.
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).map_err(
            |error| match error {
                Errno::INVAL => {
                    MountError::Namespace { what: MAKING_PRIVATE, cause: error.into(), hint: CHROOT.into() }
                }
                _ => failure(MAKING_PRIVATE)(error.into()),
            },
        )?;
        Ok(Self { bounding })
    }

    /// What others need to `join`: the mount namespace, and the user namespace if we have made one.
    pub(super) fn files(&self) -> io::Result<Vec<OwnedFd>> {
        let user = self.bounding.map(|_| "user");
        // Entered in this order: the user namespace gives the right to enter the other.
        user.into_iter().chain(["mnt"]).map(|kind| Ok(File::open(format!("/proc/self/ns/{kind}"))?.into())).collect()
    }

    /// Enters the namespaces of another process of ours, in the order given: a user namespace first if it has one. Call it
    /// before any thread exists.
    pub(super) fn join(files: Vec<OwnedFd>) -> Result<Self, MountError> {
        let here = std::env::current_dir();
        let bounding = (files.len() > 1).then(bounding_set);
        for file in &files {
            move_into_link_name_space(file.as_fd(), None).map_err(|error| failure("setns")(error.into()))?;
        }
        // The kernel has set our directory to the root of the namespace.
        if let Ok(here) = here {
            std::env::set_current_dir(&here).map_err(|cause| MountError::Mountpoint { path: here, cause })?;
        }
        Ok(Self { bounding })
    }

    /// A directory to mount on that does not exist outside of this namespace, or else a temporary one.
    pub fn place(&self, temporary: &Path) -> Result<Mountpoint, MountError> {
        let here = std::env::current_dir().unwrap_or_default();
        for base in ["/mnt", "/media", "/srv"].map(Path::new) {
            if !is_free(base) || here.starts_with(base) {
                continue;
            }
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            if mount("shufflefs", base, "tmpfs", flags, "size=64k,mode=0755").is_ok() {
                let path = base.join("shufflefs");
                match fs::create_dir(&path) {
                    Ok(()) => return Ok(Mountpoint::fresh(path, Vec::new())),
                    Err(error) => tracing::debug!("{}: {error}", path.display()),
                }
            }
        }
        let path = temporary_directory(temporary)?;
        Ok(Mountpoint::fresh(path.clone(), vec![path]))
    }

    /// In the child before exec: takes back what the user namespace gave, so that a command of uid 0 has no more
    /// capabilities than its caller could have. Async-signal-safe.
    pub(super) fn restrict_child(&self) -> io::Result<()> {
        let Some(bounding) = self.bounding else {
            return Ok(());
        };
        for number in 0..CAPABILITIES {
            if bounding & (1 << number) != 0 {
                continue;
            }
            // SAFETY: prctl with plain numbers.
            let present = unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) } == 1;
            // SAFETY: as above.
            if present && unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

/// A bit for each capability that an exec could give.
fn bounding_set() -> u64 {
    (0..CAPABILITIES)
        // SAFETY: prctl with plain numbers.
        .filter(|&number| unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) } == 1)
        .fold(0, |set, number| set | 1 << number)
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only namespaces are left, no table of descriptors that other threads may rely on.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

/// An empty directory that is no mount.
fn is_free(path: &Path) -> bool {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let is_mount = table::at(path).map_or(true, |entry| entry.is_some());
    is_directory && !is_mount && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn temporary_directory(base: &Path) -> Result<PathBuf, MountError> {
    let fail = |path: &Path, cause| MountError::Mountpoint { path: path.to_owned(), cause };
    // The process id makes a clash rare, and create_dir refuses what exists, so nobody can prepare it for us.
    for attempt in 0..1000 {
        let path = base.join(format!("shufflefs-{}-{attempt}", std::process::id()));
        match fs::DirBuilder::new().create(&path) {
            Ok(()) => return path.canonicalize().map_err(|cause| fail(&path, cause)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(fail(&path, cause)),
        }
    }
    Err(fail(base, io::ErrorKind::AlreadyExists.into()))
}

fn failure(what: &'static str) -> impl FnOnce(io::Error) -> MountError {
    move |cause| MountError::Namespace { what, cause, hint: hint() }
}

/// Which switch forbids it, if one of the known ones does.
pub fn hint() -> String {
    let is = |name: &str, value: &str| {
        fs::read_to_string(Path::new("/proc/sys").join(name)).is_ok_and(|text| text.trim() == value)
    };
    let sysctl = if is("user/max_user_namespaces", "0") {
        "sysctl -w user.max_user_namespaces=10000"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        return "; a container or a security policy forbids user namespaces (sysctls user.max_user_namespaces, \
                kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns allow them); \
                use `shufflefs mount` instead"
            .into();
    };
    format!("; user namespaces are disabled: `{sysctl}` as root allows them, or use `shufflefs mount`")
}

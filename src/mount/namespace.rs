//! A private mount namespace, for `run`: only we and our children see what is mounted here.
//!
//! The kernel removes these mounts when the last process in the namespace ends, for whatever reason; so `run` cannot leave a mount
//! behind. Without CAP_SYS_ADMIN, a user namespace is needed as well; the caller keeps its uid and gid in it.

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

/// More than the highest capability number of any kernel so far.
const CAPABILITIES: u32 = 64;

const MAKING_PRIVATE: &str = "making mounts private";

/// The remedy if that fails with EINVAL: the kernel can change the propagation of mount points only.
const CHROOT: &str = "; the root directory is no mount point, as in a plain chroot: `mount --bind DIR DIR` before `chroot DIR`, \
                      or use `shufflefs mount` instead";

/// The namespace of this process.
#[derive(Debug)]
pub struct Namespace {
    /// The caller's capability bounding set, if a new user namespace has widened ours.
    bounding: Option<u64>,
}

impl Namespace {
    /// Enters a new namespace. Call it before any thread exists: the kernel refuses it afterwards.
    pub fn enter() -> Result<Self, MountError> {
        let (uid, gid) = (geteuid(), getegid());
        let bounding = bounding_set();
        let bounding = match unshare(UnshareFlags::NEWNS) {
            Ok(()) => None,
            Err(_) => {
                unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(failure("unshare"))?;
                // Without privileges, the group can be mapped only after setgroups has been disabled.
                fs::write("/proc/self/setgroups", "deny").map_err(failure("writing /proc/self/setgroups"))?;
                fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(failure("writing uid_map"))?;
                fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(failure("writing gid_map"))?;
                Some(bounding)
            }
        };
        // Otherwise our mounts would propagate to the caller's namespace.
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

    /// What other processes need to `join`: the mount namespace, and our user namespace if there is one.
    pub(super) fn files(&self) -> io::Result<Vec<OwnedFd>> {
        let user = self.bounding.map(|_| "user");
        // In the order of entering: the user namespace gives the right to enter the mount namespace.
        user.into_iter().chain(["mnt"]).map(|kind| Ok(File::open(format!("/proc/self/ns/{kind}"))?.into())).collect()
    }

    /// Enters the namespaces of another process of ours, in the given order (a user namespace first). Call it before any thread
    /// exists.
    pub(super) fn join(files: Vec<OwnedFd>) -> Result<Self, MountError> {
        let here = std::env::current_dir();
        let bounding = (files.len() > 1).then(bounding_set);
        for file in &files {
            move_into_link_name_space(file.as_fd(), None).map_err(|error| failure("setns")(error.into()))?;
        }
        // The kernel has changed our working directory to the root of the namespace.
        if let Ok(here) = here {
            std::env::set_current_dir(&here).map_err(|cause| MountError::Mountpoint { path: here, cause })?;
        }
        Ok(Self { bounding })
    }

    /// A directory to mount on: one that does not exist outside of this namespace, or else a temporary one.
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

    /// Called in the child before exec: reduces capabilities to the caller's bounding set, so that a command of uid 0 does not get more
    /// from the user namespace. Async-signal-safe.
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

/// The capability bounding set, as a bit mask.
fn bounding_set() -> u64 {
    (0..CAPABILITIES)
        // SAFETY: prctl with plain numbers.
        .filter(|&number| unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) } == 1)
        .fold(0, |set, number| set | 1 << number)
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only namespaces are unshared, not the descriptor table, which other threads might rely on.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

/// Whether a path is an empty directory and no mount.
fn is_free(path: &Path) -> bool {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let is_mount = table::at(path).map_or(true, |entry| entry.is_some());
    is_directory && !is_mount && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn temporary_directory(base: &Path) -> Result<PathBuf, MountError> {
    let fail = |path: &Path, cause| MountError::Mountpoint { path: path.to_owned(), cause };
    // The pid makes a clash unlikely, and create_dir fails if the name exists, so nobody can prepare the directory.
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

/// The sysctl that forbids user namespaces, as a remedy, if a known one does.
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

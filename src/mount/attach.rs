//! Attaches `/dev/fuse` to a directory, directly or through fusermount3.
//!
//! We do this instead of fuser, for three reasons: its errors are texts, so causes could not be told apart; it loses the subtype when
//! root mounts; and it unmounts by path at the end of a session, which after an outside `umount` may hit another new mount there.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::MountFlags;
use rustix::process::{getegid, geteuid};

use super::Settings;
use super::error::MountError;
use super::helper;

const DEVICE: &str = "/dev/fuse";

/// Mounts; returns the `/dev/fuse` descriptor of the session.
pub(super) fn attach(path: &Path, settings: &Settings) -> Result<OwnedFd, MountError> {
    let device = match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(device) => device,
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => return Err(MountError::NoDevice),
            // fusermount3 is set-uid, so it may be able to open the device.
            _ if settings.helper => {
                return through_helper(path, settings).map_err(|_| denied(error));
            }
            _ => return Err(denied(error)),
        },
    };
    match directly(path, &device, settings) {
        Ok(()) => Ok(device.into()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied && settings.helper => {
            drop(device);
            through_helper(path, settings)
        }
        Err(cause) => {
            let hint = match cause.raw_os_error() {
                Some(libc::ENODEV) => "; the kernel has no FUSE: `modprobe fuse`",
                Some(libc::EPERM | libc::EACCES) => {
                    "; this kernel or container does not allow it (FUSE in user namespaces needs Linux 4.18)"
                }
                _ => "",
            };
            Err(MountError::Mount { path: path.to_owned(), cause, hint })
        }
    }
}

/// Whether `/dev/fuse` can be opened for each session thread (`clone_fd`), so that threads do not contend for one descriptor.
pub(super) fn can_clone() -> bool {
    OpenOptions::new().read(true).write(true).open(DEVICE).is_ok()
}

fn denied(cause: io::Error) -> MountError {
    MountError::DeviceDenied { cause }
}

fn through_helper(path: &Path, settings: &Settings) -> Result<OwnedFd, MountError> {
    // fusermount3 splits its options at commas.
    let source = settings.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut options = format!("ro,nosuid,nodev,noatime,default_permissions,subtype=shufflefs,fsname={source}");
    if settings.allow_other {
        options.push_str(",allow_other");
    }
    helper::mount(path, &options)
}

fn directly(path: &Path, device: &File, settings: &Settings) -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let mut options =
        format!("fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions", device.as_raw_fd());
    if settings.allow_other {
        options.push_str(",allow_other");
    }
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    mount(&settings.source, path, "fuse.shufflefs", flags, &options)
}

/// mount(2).
pub(super) fn mount(source: &str, target: &Path, kind: &str, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = CString::new(options)?;
    Ok(rustix::mount::mount(source, target, kind, flags, options.as_c_str())?)
}

//! All errors of mounting and unmounting, each with cause and remedy in one line.
//!
//! The cause is part of the message and therefore not a `source()`, which would be printed again.

use std::io;
use std::path::PathBuf;

/// Why a mount could not be made, served or ended.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("mountpoint {path}: not a directory")]
    NotADirectory { path: PathBuf },
    #[error("mountpoint {path}: not empty; choose an empty directory or a name that does not exist yet")]
    NotEmpty { path: PathBuf },
    #[error(
        "mountpoint {path}: already a mount ({kind}); end it with `shufflefs umount {path}` or choose another directory"
    )]
    AlreadyMounted { path: PathBuf, kind: String },
    #[error(
        "mountpoint {path}: a dead mount is left here (its daemon was killed); clear it with `shufflefs umount {path}`"
    )]
    Dead { path: PathBuf },
    #[error("mountpoint {path}: another process is mounting here at this moment")]
    Contended { path: PathBuf },
    #[error("mountpoint {path}: {cause}")]
    Mountpoint { path: PathBuf, cause: io::Error },
    #[error("{path}: not an open file descriptor of this process")]
    NoDescriptor { path: PathBuf },

    #[error(
        "/dev/fuse is missing: load the kernel module (`modprobe fuse`), or start the container with `--device /dev/fuse`"
    )]
    NoDevice,
    #[error(
        "/dev/fuse cannot be opened ({cause}): it should have mode 0666 (`chmod 666 /dev/fuse` as root); \
         in a container start it with `--device /dev/fuse`"
    )]
    DeviceDenied { cause: io::Error },
    #[error(
        "mounting as a user needs fusermount3, which was not found: install the package fuse3, or use `shufflefs run`"
    )]
    NoHelper,
    #[error("fusermount3 refused {path}: {message}")]
    Helper { path: PathBuf, message: String },
    #[error("mounting on {path} failed: {cause}{hint}")]
    Mount { path: PathBuf, cause: io::Error, hint: &'static str },
    #[error("the kernel did not open the session on {path}: {cause}")]
    Handshake { path: PathBuf, cause: io::Error },
    #[error("mounted on {path}, but its root does not answer: {cause}")]
    NotAnswering { path: PathBuf, cause: io::Error },
    #[error("serving {path} ended early: {cause}")]
    Session { path: PathBuf, cause: io::Error },
    #[error("interrupted by {signal} before the mount was usable")]
    Interrupted { signal: String },

    #[error("{path}: not a mount")]
    NotMounted { path: PathBuf },
    #[error("{path}: a mount of type {kind}, not of shufflefs; use `umount {path}`")]
    NotOurs { path: PathBuf, kind: String },
    #[error("unmounting {path} failed: {cause}{hint}")]
    Unmount { path: PathBuf, cause: io::Error, hint: String },
    #[error("{path} is unmounted, but its daemon (pid {pid}) has not ended after {seconds} s: {known}")]
    StillRunning { path: PathBuf, pid: i32, seconds: u64, known: String },

    #[error("a private mount namespace cannot be made ({what}: {cause}){hint}")]
    Namespace { what: &'static str, cause: io::Error, hint: String },
    #[error("{what}: {cause}")]
    System { what: &'static str, cause: io::Error },
}

impl MountError {
    /// Wraps the error of a system call; `what` says what it was for.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::System { what, cause }
    }
}

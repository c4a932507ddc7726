//! Creates tmpfs files for images, on a tmpfs of our own, which is mounted nowhere and uses large pages for large files.
//!
//! Large pages make memory faster to allocate, to copy to and to map (docs/performance.md). memfd_create uses them only if the
//! administrator
//! enables them for all (`shmem_enabled`); it is the fallback, as a tmpfs needs CAP_SYS_ADMIN (passthrough does as well).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::LazyLock;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

/// Freed with the process, as nobody else holds it.
static TMPFS: LazyLock<Option<OwnedFd>> = LazyLock::new(|| {
    mount().inspect_err(|error| tracing::debug!("files in memory have small pages: no tmpfs: {error}")).ok()
});

fn mount() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Large pages only within the size of a file. Kernels without large pages refuse this.
    fsconfig_set_string(&context, "huge", "within_size")?;
    // Unlimited, as the budget is the limit.
    fsconfig_set_string(&context, "size", "0")?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// An empty, unnamed tmpfs file, opened so that leases are possible.
///
/// # Errors
/// Out of memory or descriptors; a kernel without tmpfs.
pub fn new_file() -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let file = match &*TMPFS {
        Some(mount) => openat(mount, ".", flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR)?,
        None => {
            let first = memfd_create("shufflefs", MemfdFlags::CLOEXEC)?;
            // Opened again, as the descriptor of memfd_create does not count as a writer, which would break leases.
            openat(CWD, format!("/proc/self/fd/{}", first.as_raw_fd()), flags, Mode::empty())?
        }
    };
    Ok(File::from(file))
}

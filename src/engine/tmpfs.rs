//! Where files in memory are made: a tmpfs of our own, mounted nowhere, that uses large pages for large files.
//!
//! Large pages make memory faster to get, to copy to and to map (docs/performance.md). Files of memfd_create have them only
//! where the administrator allows it for all (`shmem_enabled`); they are used where no tmpfs can be made: that asks for
//! CAP_SYS_ADMIN, as lending does.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::LazyLock;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

/// Gone with the process, as nobody else has it.
static TMPFS: LazyLock<Option<OwnedFd>> = LazyLock::new(|| {
    mount().inspect_err(|error| tracing::debug!("files in memory have small pages: no tmpfs: {error}")).ok()
});

fn mount() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Only as many pages as a file needs, however large. A kernel without large pages refuses.
    fsconfig_set_string(&context, "huge", "within_size")?;
    // The budget is the limit.
    fsconfig_set_string(&context, "size", "0")?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// An empty file in memory without a name, opened so that leases can be had.
///
/// # Errors
/// No memory, no descriptors, or a kernel without such files.
pub fn new_file() -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let file = match &*TMPFS {
        Some(mount) => openat(mount, ".", flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR)?,
        None => {
            let first = memfd_create("shufflefs", MemfdFlags::CLOEXEC)?;
            // memfd_create does not count its writer as one, which a lease would miss.
            openat(CWD, format!("/proc/self/fd/{}", first.as_raw_fd()), flags, Mode::empty())?
        }
    };
    Ok(File::from(file))
}

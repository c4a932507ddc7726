//! Leased images, which the kernel maps into readers itself (FUSE passthrough), without a copy and without requests.
//!
//! Leased memory is reused only when none of our handles uses it and the kernel grants a write lease, which means that nobody has it open
//! or
//! mapped (`memory`). Until then it counts in the budget and cannot be evicted, so at most a quarter of the budget is leased.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::budget::Image;
use super::memory::is_unshared;
use super::tmpfs::new_file;

/// A loaded image, which is kept while this exists.
pub struct Loaded(pub(super) Arc<Image>);

/// A leased image: its memory does not change while this exists, or the kernel maps it.
pub struct LeasedImage {
    image: Arc<Image>,
    file: Arc<File>,
}

impl Loaded {
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Whether its memory is a tmpfs file, which can be leased.
    pub fn is_file(&self) -> bool {
        self.0.memory().as_file().is_some()
    }

    /// Leases it; `None` if it is no tmpfs file, or too much is leased.
    pub fn lease(&self) -> Option<LeasedImage> {
        let (file, _) = self.0.memory().as_file()?;
        self.0.lease().then(|| LeasedImage { image: self.0.clone(), file: file.clone() })
    }
}

impl LeasedImage {
    pub fn bytes(&self) -> &[u8] {
        self.image.bytes()
    }
}

impl AsFd for LeasedImage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for LeasedImage {
    fn drop(&mut self) {
        self.image.end_lease();
    }
}

/// A file like those of images, to try whether the kernel accepts it as a backing file.
///
/// # Errors
/// The system has no tmpfs, or no leases on it.
pub fn sample() -> io::Result<File> {
    let file = new_file()?;
    if is_unshared(&file) { Ok(file) } else { Err(io::Error::other("no leases")) }
}

/// The maximum number of images as files: an eighth of this process's descriptors. Stores get most of them.
pub fn descriptors() -> usize {
    crate::storage::descriptors::share(1).min(1 << 14)
}

//! Images that the kernel maps into readers itself (FUSE passthrough): no copy and no request.
//!
//! Leased memory is reused only once no handle of ours holds it and the kernel grants a write lease, i.e. nobody has it open or
//! mapped (`memory`). Until then it counts in the budget and cannot be evicted, so at most a quarter of the budget is leased.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::budget::Image;
use super::memory::is_unshared;
use super::tmpfs::new_file;

/// An image that is loaded, and stays while this is held.
pub struct Loaded(pub(super) Arc<Image>);

/// An image under a lease: its memory is unchanged while this is held, and after that while the kernel maps it.
pub struct LeasedImage {
    image: Arc<Image>,
    file: Arc<File>,
}

impl Loaded {
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Whether it is a file in memory, which can be leased.
    pub fn is_file(&self) -> bool {
        self.0.memory().as_file().is_some()
    }

    /// Leases it; `None` if it is no file, or too much is leased.
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

/// A file as images are, to see whether the kernel takes it.
///
/// # Errors
/// This system has no such files, or does not say whether others hold them.
pub fn sample() -> io::Result<File> {
    let file = new_file()?;
    if is_unshared(&file) { Ok(file) } else { Err(io::Error::other("no leases")) }
}

/// How many images may be files: an eighth of the descriptors that this process may have. Stores take the most.
pub fn descriptors() -> usize {
    crate::storage::descriptors::share(1).min(1 << 14)
}

//! Images that are lent to the kernel, which shows them to readers that map files: no copy and no request.
//!
//! Lent memory is written to again only once no handle of ours holds it and the kernel says that nobody has it open or mapped
//! (`memory`): a wrong byte is worse than a slow one. It counts in the budget as long, and cannot be evicted; so no more
//! than a quarter of the budget is lent at a time.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::budget::Image;
use super::memory::is_unshared;
use super::tmpfs::new_file;

/// An image that is loaded, and stays while this is held.
pub struct Loaded(pub(super) Arc<Image>);

/// An image that is lent: its memory stays as it is while this is held, and then as long as the kernel shows it.
pub struct LeasedImage {
    image: Arc<Image>,
    file: Arc<File>,
}

impl Loaded {
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Whether it may be lent, room permitting.
    pub fn is_file(&self) -> bool {
        self.0.memory().as_file().is_some()
    }

    /// Lends it, unless it is no file or too much is lent.
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

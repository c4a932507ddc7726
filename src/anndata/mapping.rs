//! A mapped file of the index directory.
//!
//! Its pages belong to the page cache, so mounts of a store share them, and the kernel can reclaim them. Still they count as resident,
//! and kernels map 16 pages around each one touched. So `release` unmaps pages, and lookups at many places read the file instead: 1 us a
//! place, where a fault with its neighbours takes 5.
//! Truncating a mapped file in place would raise SIGBUS in its readers. We never do that: index files are complete before they get their
//! name, and are only replaced by another file with that name.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

/// Numbers to read at once, at most.
pub const AT_ONCE: usize = 128;

/// A mapped file; unmapped when nothing shares its bytes any more.
pub struct Mapping {
    map: Mmap,
    file: Arc<File>,
}

impl Mapping {
    pub fn new(file: &Arc<File>) -> std::io::Result<Arc<Mapping>> {
        // SAFETY: nobody writes the file once it has its name (see above).
        let map = unsafe { MmapOptions::new().map(file.as_ref())? };
        // Rows are accessed in random order: a fault must not read 128 KiB of neighbours from disk.
        let _ = map.advise(Advice::Random);
        Ok(Arc::new(Mapping { map, file: Arc::clone(file) }))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Reads the content of a slice of the mapping from the file, without touching its pages.
    pub fn read(&self, slice: &[u64], out: &mut [u64]) -> std::io::Result<()> {
        let wrong = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let at = (slice.as_ptr() as usize).checked_sub(self.map.as_ptr() as usize).ok_or_else(wrong)?;
        let mut bytes = [0; 8 * AT_ONCE];
        let bytes = bytes.get_mut(..8 * slice.len()).ok_or_else(wrong)?;
        self.file.read_exact_at(bytes, at as u64)?;
        for (number, bytes) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        Ok(())
    }

    /// Releases resident pages; later accesses find them in the page cache.
    pub fn release(&self) {
        // SAFETY: a shared, read-only file mapping has the same content afterwards.
        let _ = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

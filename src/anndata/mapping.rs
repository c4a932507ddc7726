//! A file of the index directory in our address space.
//!
//! Its pages belong to the page cache, so mounts of one store share them and the kernel takes them back as it likes.
//! They count as resident all the same, and kernels map 16 around each that is touched; so `release` hands them back,
//! and who looks at many places briefly reads them instead: 1 us a place, where a fault with its neighbours costs 5.
//! A mapped file that somebody truncates in place is a SIGBUS to its readers. We never do: index files are complete
//! before they get their name, and are only ever replaced by another file of that name.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;

use arrow_buffer::Buffer;
use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

/// Numbers that are read at once at most.
pub const AT_ONCE: usize = 128;

/// A mapped file; unmapped once no buffer of it is left.
pub struct Mapping {
    map: Mmap,
    file: Arc<File>,
}

impl Mapping {
    pub fn new(file: &Arc<File>) -> std::io::Result<Arc<Mapping>> {
        // SAFETY: the file is written by nobody once it has its name (see above).
        let map = unsafe { MmapOptions::new().map(file.as_ref())? };
        // Rows are read in random order: a cold page must not bring 128 KiB of neighbours from the disk.
        let _ = map.advise(Advice::Random);
        Ok(Arc::new(Mapping { map, file: Arc::clone(file) }))
    }

    /// A run of bytes of the file; `None` where the file is shorter.
    pub fn buffer(self: &Arc<Mapping>, start: u64, len: u64) -> Option<Buffer> {
        let (start, len) = (usize::try_from(start).ok()?, usize::try_from(len).ok()?);
        let bytes = self.map.get(start..start.checked_add(len)?)?;
        let first = NonNull::new(bytes.as_ptr().cast_mut())?;
        // SAFETY: these bytes stay mapped and unchanged as long as the mapping, which the buffer owns a share of.
        Some(unsafe { Buffer::from_custom_allocation(first, len, Arc::clone(self) as _) })
    }

    /// Reads what a slice of the mapping shows, without touching it.
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

    /// Hands the resident pages back; the next access finds them in the page cache.
    pub fn release(&self) {
        // SAFETY: a shared, read-only mapping of a file reads the same after this as before.
        let _ = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

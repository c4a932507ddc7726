//! The memory of one image: private, or a tmpfs file that the kernel can map into readers.
//!
//! A file is reused only if nobody else has it open or mapped, which a write lease tells: the kernel grants it only then. There is no other
//! way to know, as a mapping may outlive the `release` of its handle: the kernel maps the backing file instead.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use memmap2::{MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::retry_on_intr;

use crate::slab::Buffer;

use super::tmpfs::new_file;

/// A reusable buffer.
pub enum Memory {
    Private(Buffer),
    File(Mapped),
}

/// A mapped tmpfs file.
pub struct Mapped {
    file: Arc<File>,
    /// Has the length of the capacity; bytes beyond the end of the file must not be accessed.
    map: MmapMut,
    size: usize,
    /// The size up to which memory is allocated.
    ready: usize,
    number: u64,
}

impl Memory {
    /// A file of `size` bytes that can grow to `capacity`. `number` must be unique.
    ///
    /// # Errors
    /// Out of memory or descriptors; a kernel without tmpfs.
    pub fn file(capacity: usize, size: usize, number: u64) -> io::Result<Memory> {
        let file = new_file()?;
        // SAFETY: only this process has the file open for writing, and writes need `&mut self`. The kernel shows it to readers only while
        // an
        // image holds it, which is no longer written to.
        let map = unsafe { MmapOptions::new().len(capacity.max(1)).map_mut(&file)? };
        let mut mapped = Mapped { file: Arc::new(file), map, size: 0, ready: 0, number };
        mapped.fit(size)?;
        Ok(Memory::File(mapped))
    }

    /// Sets the size to that of an image; at most the capacity.
    ///
    /// # Errors
    /// Out of memory.
    pub fn fit(&mut self, size: usize) -> io::Result<()> {
        match self {
            Memory::Private(_) => Ok(()),
            Memory::File(mapped) => mapped.fit(size),
        }
    }

    /// Allocates all missing memory now. At the first access it would cost more, and a lack of memory would raise a signal.
    ///
    /// # Errors
    /// Out of memory.
    pub fn prepare(&mut self) -> io::Result<()> {
        match self {
            Memory::Private(_) => Ok(()),
            Memory::File(mapped) => mapped.prepare(),
        }
    }

    /// Bytes that it takes of the budget.
    pub fn capacity(&self) -> usize {
        match self {
            Memory::Private(bytes) => bytes.len(),
            Memory::File(mapped) => mapped.map.len(),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Memory::Private(bytes) => bytes,
            Memory::File(mapped) => &mapped.map[..mapped.size],
        }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Private(bytes) => bytes,
            Memory::File(mapped) => &mut mapped.map[..mapped.size],
        }
    }

    /// The file and its number, if it is one.
    pub fn as_file(&self) -> Option<(&Arc<File>, u64)> {
        match self {
            Memory::Private(_) => None,
            Memory::File(mapped) => Some((&mapped.file, mapped.number)),
        }
    }
}

impl Mapped {
    /// Makes the file as long as the image: readers that map it see zeros beyond, up to the end of the page.
    fn fit(&mut self, size: usize) -> io::Result<()> {
        if size != self.size {
            self.file.set_len(size as u64)?;
            self.size = size;
            self.ready = self.ready.min(size);
        }
        Ok(())
    }

    fn prepare(&mut self) -> io::Result<()> {
        let from = self.ready / PAGE * PAGE;
        if self.ready < self.size {
            // Memory allocated before it is mapped gets the largest pages.
            let missing = (self.size - from) as u64;
            retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), from as u64, missing))?;
            // SAFETY: the range is within the map and the file.
            let done = unsafe {
                let start = self.map.as_mut_ptr().add(from).cast();
                libc::madvise(start, self.size - from, libc::MADV_POPULATE_WRITE)
            };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
            self.ready = self.size;
        }
        Ok(())
    }
}

/// A multiple of all page sizes.
const PAGE: usize = 1 << 16;

/// Whether only this process has the file open, and nobody else has it mapped.
pub fn is_unshared(file: &File) -> bool {
    let set = |lease: i32| {
        // SAFETY: accesses no memory. The lease is released at once, so nobody waits for that.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, lease) == 0 }
    };
    set(libc::F_WRLCK) && set(libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(memory: &Memory) -> File {
        let (file, _) = memory.as_file().expect("a file");
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("opens")
    }

    #[test]
    fn readers_and_mappings_are_noticed() {
        let memory = Memory::file(1 << 20, 5000, 0).expect("memory");
        let (file, _) = memory.as_file().expect("a file");
        assert!(is_unshared(file), "our own mapping does not count");
        let reader = reader(&memory);
        assert!(!is_unshared(file));
        // SAFETY: nobody writes to the file.
        let map = unsafe { MmapOptions::new().map(&reader).expect("maps") };
        drop(reader);
        assert!(!is_unshared(file), "mapped, though closed");
        drop(map);
        assert!(is_unshared(file));
    }

    #[test]
    fn the_file_ends_with_the_image() {
        use std::os::unix::fs::FileExt;

        let most = 1 << 20;
        let mut memory = Memory::file(most, most, 0).expect("memory");
        for size in [most, 700_001, 5000, 1, 9000, 9000, 400_000, most - 1] {
            memory.fit(size).expect("fits");
            assert_eq!(memory.bytes().len(), size);
            memory.prepare().expect("memory");
            memory.bytes_mut().fill(7);
            let mut page = vec![1; most + 1];
            let read = reader(&memory).read_at(&mut page, 0).expect("reads");
            assert!(read == size && page[..size].iter().all(|&byte| byte == 7));
            // SAFETY: nobody writes to the file.
            let map =
                unsafe { MmapOptions::new().len(size.next_multiple_of(4096)).map(&reader(&memory)) }.expect("maps");
            assert!(map[size..].iter().all(|&byte| byte == 0), "an older image shows behind the end");
        }
    }
}

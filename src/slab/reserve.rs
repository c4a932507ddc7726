//! An allocator with a reserve of address space, so that running out of memory is an error and does not abort the process.
//!
//! Buffers for data are allocated fallibly: a batch without its buffers is an error. All other allocations (a list of element ranges,
//! a message, the EIO reply) abort when they fail, so the allocator then unmaps the reserve and tries again. [`restore`] maps it again;
//! nothing is loaded until that succeeds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Bytes of the reserve. Its pages are never touched, so it takes address space but no memory.
pub const KEPT: usize = 16 << 20;
/// Larger allocations are data; their callers handle failure, so the reserve is not used for them.
const SMALL: usize = 4 << 20;

/// Bytes to leave for others in [`fits_thread`]: a region for images, and threads that start at the same time.
const MARGIN: usize = 48 << 20;

static PIECE: AtomicPtr<libc::c_void> = AtomicPtr::new(null_mut());

/// The system's allocator with the reserve.
pub struct Allocator;

/// Unmaps the reserve; false if there was none.
fn give_up() -> bool {
    let piece = PIECE.swap(null_mut(), Ordering::AcqRel);
    // SAFETY: the swap gives the pointer to one caller only, and nothing reads the mapping.
    !piece.is_null() && unsafe { libc::munmap(piece, KEPT) } == 0
}

/// Maps the reserve unless it is mapped; returns whether it is now.
pub fn restore() -> bool {
    if !PIECE.load(Ordering::Acquire).is_null() {
        return true;
    }
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping, known to nobody else.
    let piece = unsafe { libc::mmap(null_mut(), KEPT, protection, flags, -1, 0) };
    if piece == libc::MAP_FAILED {
        return false;
    }
    if PIECE.compare_exchange(null_mut(), piece, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: another thread stored its mapping first, so nobody else knows this one.
        unsafe { libc::munmap(piece, KEPT) };
    }
    true
}

/// Whether there is address space to start a thread with a stack of `stack` bytes: one that runs out while starting aborts the process.
pub fn fits_thread(stack: usize) -> bool {
    let size = stack + MARGIN;
    if PIECE.load(Ordering::Acquire).is_null() && !restore() {
        return false;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping that nothing reads, unmapped at once.
    unsafe {
        let piece = libc::mmap(null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        piece != libc::MAP_FAILED && libc::munmap(piece, size) == 0
    }
}

/// Retries a failed allocation once, after unmapping the reserve.
fn once_more(size: usize, first: *mut u8, again: impl Fn() -> *mut u8) -> *mut u8 {
    if first.is_null() && size <= SMALL && give_up() { again() } else { first }
}

// SAFETY: every call goes to the system allocator: once, or a second time if the first returned null.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let alloc = || unsafe { System.alloc(layout) };
        once_more(layout.size(), alloc(), alloc)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let alloc = || unsafe { System.alloc_zeroed(layout) };
        once_more(layout.size(), alloc(), alloc)
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises; a failed `realloc` leaves the old block as it was, so it can be repeated.
        let alloc = || unsafe { System.realloc(old, layout, size) };
        once_more(size, alloc(), alloc)
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(old, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_given_up_once_and_taken_again() {
        assert!(restore() && restore());
        let refused = |size| once_more(size, null_mut(), std::ptr::dangling_mut);
        assert!(refused(SMALL + 1).is_null(), "data does not take it");
        assert!(!refused(100).is_null());
        assert!(refused(100).is_null(), "there is no more");
        assert!(restore() && !refused(100).is_null());
    }
}

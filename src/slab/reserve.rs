//! Memory that is kept for when the system has none left: small things that cannot fail are made of it.
//!
//! Buffers of the size of data are asked for, and a batch without its buffers is an error. All else (a list of pieces, a
//! message, the answer that says EIO) would end the process, so for that a piece of address space is kept and given up
//! when an allocation fails. [`restore`] takes it again; until it can, nothing is loaded.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Bytes that are kept. Untouched, so it is address space and no memory.
pub const KEPT: usize = 16 << 20;
/// What is larger is data: its maker asks whether there is room.
const SMALL: usize = 4 << 20;

/// What others may take meanwhile: a piece of memory for images, and threads that start at the same time.
const MARGIN: usize = 48 << 20;

static PIECE: AtomicPtr<libc::c_void> = AtomicPtr::new(null_mut());

/// The system's allocator with that reserve.
pub struct Allocator;

/// Gives the reserve up; whether there was any.
fn give_up() -> bool {
    let piece = PIECE.swap(null_mut(), Ordering::AcqRel);
    // SAFETY: whoever took the piece out unmaps it, once; nobody looks into it.
    !piece.is_null() && unsafe { libc::munmap(piece, KEPT) } == 0
}

/// Keeps the reserve, if it is not there; whether it is now.
pub fn restore() -> bool {
    if !PIECE.load(Ordering::Acquire).is_null() {
        return true;
    }
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory, that nobody else knows of.
    let piece = unsafe { libc::mmap(null_mut(), KEPT, protection, flags, -1, 0) };
    if piece == libc::MAP_FAILED {
        return false;
    }
    if PIECE.compare_exchange(null_mut(), piece, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: another thread was faster, so this piece is ours alone.
        unsafe { libc::munmap(piece, KEPT) };
    }
    true
}

/// Whether a thread with such a stack may be started: one that finds no memory as it starts ends the process.
pub fn fits_thread(stack: usize) -> bool {
    let size = stack + MARGIN;
    if PIECE.load(Ordering::Acquire).is_null() && !restore() {
        return false;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new memory, that nobody looks into, and that is given back at once.
    unsafe {
        let piece = libc::mmap(null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        piece != libc::MAP_FAILED && libc::munmap(piece, size) == 0
    }
}

/// Tries again where the system refused, with the reserve given up.
fn once_more(size: usize, first: *mut u8, again: impl Fn() -> *mut u8) -> *mut u8 {
    if first.is_null() && size <= SMALL && give_up() { again() } else { first }
}

// SAFETY: every call is the system allocator's, made once or, where that gave nothing, twice.
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
        // SAFETY: as the caller promises; where it fails, the old memory is as it was.
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

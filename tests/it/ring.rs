//! Reads through io_uring, several in flight at once, by direct system calls.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Entries of the ring: the maximum of requests in flight.
const ENTRIES: u32 = 8;
/// Bytes of a mapping: more than rings with so few entries need.
const MAPPED: usize = 4096;

// Of linux/io_uring.h.
const OFF_SUBMISSIONS: i64 = 0;
const OFF_ENTRIES: i64 = 0x1000_0000;
const ENTER_GETEVENTS: u32 = 1;
const FEATURE_SINGLE_MAPPING: u32 = 1;
const OP_READ: u8 = 22;

/// `struct io_uring_params`, with its two tables of offsets as words.
#[repr(C)]
#[derive(Default)]
struct Params {
    entries: [u32; 2],
    flags: u32,
    thread: [u32; 2],
    features: u32,
    other: [u32; 4],
    /// head, tail, mask, entries, flags, dropped, array, and three unused.
    submissions: [u32; 10],
    /// head, tail, mask, entries, overflow, offset of entries, and four unused.
    completions: [u32; 10],
}

/// `struct io_uring_sqe`.
#[repr(C)]
struct Entry {
    operation: u8,
    flags: u8,
    priority: u16,
    file: i32,
    offset: u64,
    address: u64,
    len: u32,
    other: u32,
    user: u64,
    rest: [u64; 3],
}

/// `struct io_uring_cqe`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Completion {
    user: u64,
    result: i32,
    flags: u32,
}

/// A part of a file to read: its offset, and its buffer.
pub struct Part<'a> {
    pub offset: u64,
    pub out: &'a mut [u8],
}

pub struct Ring {
    file: OwnedFd,
    params: Params,
    rings: *mut u8,
    entries: *mut Entry,
}

impl Ring {
    /// None if the system does not have or allow these calls.
    pub fn new() -> Option<Ring> {
        let mut params = Params::default();
        // SAFETY: parameters that live until the end of the call.
        let got = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params) };
        if got < 0 {
            return None;
        }
        // SAFETY: the descriptor is new.
        let file = unsafe { OwnedFd::from_raw_fd(got as RawFd) };
        if params.features & FEATURE_SINGLE_MAPPING == 0 {
            return None;
        }
        let map = |offset: i64| {
            let (access, how) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
            // SAFETY: a new mapping.
            let at = unsafe { libc::mmap(std::ptr::null_mut(), MAPPED, access, how, file.as_raw_fd(), offset) };
            assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
            at.cast::<u8>()
        };
        let (rings, entries) = (map(OFF_SUBMISSIONS), map(OFF_ENTRIES).cast());
        Some(Ring { file, params, rings, entries })
    }

    /// A counter shared with the kernel.
    fn counter(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel gave the offset of an aligned word, which lives as long as the mapping.
        unsafe { &*self.rings.add(offset as usize).cast::<AtomicU32>() }
    }

    /// Reads parts of a file, all in flight at once; returns the number of bytes of each, or its errno.
    pub fn read(&self, file: RawFd, parts: &mut [Part<'_>]) -> Vec<Result<usize, i32>> {
        let count = parts.len() as u32;
        assert!(count <= ENTRIES);
        let [head, tail, mask, ..] = self.params.submissions;
        let mask = self.counter(mask).load(Ordering::Relaxed);
        let first = self.counter(tail).load(Ordering::Relaxed);
        assert_eq!(self.counter(head).load(Ordering::Acquire), first, "all were taken");
        for (number, part) in (0..).zip(parts.iter_mut()) {
            let at = first.wrapping_add(number) & mask;
            let (len, address) = (part.out.len() as u32, part.out.as_mut_ptr() as u64);
            let entry = Entry {
                operation: OP_READ,
                flags: 0,
                priority: 0,
                file,
                offset: part.offset,
                address,
                len,
                other: 0,
                user: number.into(),
                rest: [0; 3],
            };
            // SAFETY: `at` is masked to the number of entries, and the kernel has consumed all earlier ones.
            unsafe { self.entries.add(at as usize).write(entry) };
            self.counter(self.params.submissions[6] + 4 * at).store(at, Ordering::Relaxed);
        }
        self.counter(tail).store(first.wrapping_add(count), Ordering::Release);
        let mut submit = count;
        let [head, tail, mask, _, _, place, ..] = self.params.completions;
        let begin = self.counter(head).load(Ordering::Relaxed);
        // Nothing may be left in flight, as the buffers are the caller's.
        while self.counter(tail).load(Ordering::Acquire).wrapping_sub(begin) < count {
            let ring = self.file.as_raw_fd();
            // SAFETY: the only pointers are those of the entries, whose buffers live until all are complete.
            let got = unsafe {
                libc::syscall(libc::SYS_io_uring_enter, ring, submit, count, ENTER_GETEVENTS, std::ptr::null::<u8>(), 0)
            };
            if got < 0 {
                let error = io::Error::last_os_error();
                assert_eq!(error.raw_os_error(), Some(libc::EINTR), "{error}");
            } else {
                submit -= got as u32;
            }
        }
        let mask = self.counter(mask).load(Ordering::Relaxed);
        let mut results = vec![Err(0); parts.len()];
        for number in 0..count {
            let at = begin.wrapping_add(number) & mask;
            // SAFETY: the kernel has written it, according to the tail.
            let done = unsafe { *self.rings.add(place as usize).cast::<Completion>().add(at as usize) };
            results[done.user as usize] = if done.result < 0 { Err(-done.result) } else { Ok(done.result as usize) };
        }
        self.counter(head).store(begin.wrapping_add(count), Ordering::Release);
        results
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no longer used.
        unsafe {
            libc::munmap(self.rings.cast(), MAPPED);
            libc::munmap(self.entries.cast(), MAPPED);
        }
    }
}

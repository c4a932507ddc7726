//! Runs many requests at once: one thread for each, as reads block.
//!
//! The threads exist only during the work: starting one takes 20 us, and many are used only where a request takes milliseconds.
//! io_uring gains nothing there: for network and FUSE file systems, uncached reads are handed to kernel threads anyway, and containers
//! usually forbid io_uring.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use crate::slab::reserve;

/// Threads of one task, at most.
pub const MAX_DEPTH: usize = 512;

/// Enough: threads decode one chunk at a time, with buffers on the heap.
const STACK: usize = 1 << 20;

/// Lower priority than readers, as for decoding threads.
const NICE: i32 = 5;

/// Calls `each` with the numbers below `count`, in ascending order, in `depth` threads, one of which is the caller.
///
/// # Errors
/// The error with the lowest number; after the first error, no further number is started.
pub fn for_each<E: Send>(depth: usize, count: usize, each: impl Fn(usize) -> Result<(), E> + Sync) -> Result<(), E> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failure: Mutex<Option<(usize, E)>> = Mutex::new(None);
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            if let Err(error) = each(number) {
                failed.store(true, Ordering::Relaxed);
                let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                if failure.as_ref().is_none_or(|(lowest, _)| number < *lowest) {
                    *failure = Some((number, error));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..depth.min(count).min(MAX_DEPTH) {
            if !reserve::fits_thread(STACK) {
                break;
            }
            let builder = thread::Builder::new().name("storage".to_owned()).stack_size(STACK);
            let begun = builder.spawn_scoped(scope, || {
                // Ignored if not permitted.
                let _ = rustix::process::setpriority_process(None, NICE);
                work();
            });
            // The system refuses more threads: the existing ones do all the work.
            if begun.is_err() {
                break;
            }
        }
        work();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), |(_, error)| Err(error))
}

/// A number of bytes shared by threads: each takes what it needs, waits if too few are left, and returns them.
pub struct Allowance {
    limit: u64,
    /// Held by the thread that waits: the others wait for their turn here. If hundreds waited on `returned`, each return would wake all.
    turn: Mutex<()>,
    used: Mutex<u64>,
    returned: Condvar,
}

/// Bytes taken from an allowance; returned when dropped.
pub struct Taken<'a> {
    allowance: &'a Allowance,
    bytes: u64,
}

impl Allowance {
    pub fn new(limit: u64) -> Allowance {
        Allowance { limit, turn: Mutex::default(), used: Mutex::new(0), returned: Condvar::new() }
    }

    /// The total number of bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes bytes, waiting until enough are free; if they exceed the total, until no thread holds any. The caller must not hold any
    /// itself.
    pub fn take(&self, bytes: u64) -> Taken<'_> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used > 0 && used.saturating_add(bytes) > self.limit {
            used = self.returned.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used = used.saturating_add(bytes);
        Taken { allowance: self, bytes }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut used = self.allowance.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.bytes);
        drop(used);
        self.allowance.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn all_numbers_are_done_once_and_so_many_at_a_time() {
        let (sum, together) = (AtomicU64::new(0), Barrier::new(7));
        for_each(7, 700, |number| {
            // Would block for ever if fewer were in flight.
            together.wait();
            sum.fetch_add(number as u64, Ordering::Relaxed);
            Ok::<(), ()>(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 699 * 700 / 2);
        for_each(9, 0, |_| Err(())).unwrap();
    }

    #[test]
    fn an_error_ends_the_work() {
        let done = AtomicU64::new(0);
        let failed = for_each(4, 1_000_000, |number| {
            done.fetch_add(1, Ordering::Relaxed);
            if number == 100 { Err("the hundredth") } else { Ok(()) }
        });
        assert_eq!(failed, Err("the hundredth"));
        assert!(done.into_inner() < 1_000_000);
    }

    #[test]
    fn an_allowance_is_never_exceeded_but_by_one_alone() {
        let (allowance, held) = (Allowance::new(100), AtomicU64::new(0));
        for_each(8, 400, |number| {
            let bytes = [30, 60, 250][number % 3];
            let taken = allowance.take(bytes);
            let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
            assert!(now <= 100 || now == 250, "{now}");
            held.fetch_sub(bytes, Ordering::SeqCst);
            drop(taken);
            Ok::<(), ()>(())
        })
        .unwrap();
    }
}

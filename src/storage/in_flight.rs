//! Many requests in flight: a thread each, as reads block.
//!
//! The threads live as long as the work: starting one takes 20 us, and there are many only where a request takes
//! milliseconds. io_uring gains nothing there: reads of network and FUSE file systems that are not in the page cache are
//! handed to threads of the kernel, and containers usually forbid it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use crate::slab::reserve;

/// Most threads of one piece of work.
pub const MAX_DEPTH: usize = 512;

/// They decode a chunk at a time in small buffers of their own on the heap.
const STACK: usize = 1 << 20;

/// Priority below that of readers, as of decoding threads.
const NICE: i32 = 5;

/// Does `each` of the numbers below `count`, in rising order, `depth` of them at a time. The caller's thread takes part.
///
/// # Errors
/// That of the lowest number; once there is one, no further number is begun.
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
                // Where it is refused, the priority stays.
                let _ = rustix::process::setpriority_process(None, NICE);
                work();
            });
            // The system refuses another thread: the present ones do all of the work.
            if begun.is_err() {
                break;
            }
        }
        work();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), |(_, error)| Err(error))
}

/// A number of bytes that threads share: each takes what it needs, waits if there is too little left, and gives it back.
pub struct Allowance {
    limit: u64,
    used: Mutex<u64>,
    returned: Condvar,
}

/// Bytes taken of an allowance.
pub struct Taken<'a> {
    allowance: &'a Allowance,
    bytes: u64,
}

impl Allowance {
    pub fn new(limit: u64) -> Allowance {
        Allowance { limit, used: Mutex::new(0), returned: Condvar::new() }
    }

    /// All of it.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes bytes as soon as enough are free; more than the whole allowance, once no other thread holds any. A caller must hold
    /// none.
    pub fn take(&self, bytes: u64) -> Taken<'_> {
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
        self.allowance.returned.notify_all();
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
            // It would wait for ever if fewer were in flight.
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

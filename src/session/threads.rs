//! Limits of threads (`ulimit -u`, a container's `pids.max`): a mount that could not start all of its threads is refused with a figure.
//!
//! It is found by trying, because a process in a container cannot see who shares the limit.

use std::sync::{Mutex, PoisonError};
use std::thread;

use super::error::SessionError;

/// Threads besides those of pools: loaders, monitor, signals, page cache, session and readers; the probe's child and its listener.
const OTHER: usize = 15;
/// Stack of the trial threads, which do nothing.
const STACK: usize = 64 << 10;

/// Fails if a mount with `decoding` decoding threads could not start all of its threads, and a child that parses its stores.
///
/// # Errors
/// The number of threads that can be started, and the number needed.
pub fn suffice(decoding: usize) -> Result<(), SessionError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // Two pools that decode; rayon's default pool, used before these exist, here and in the child.
    let needed = 2 * decoding + 2 * cores + OTHER;
    let started = most(needed);
    if started == needed {
        return Ok(());
    }
    Err(SessionError::Refused(format!(
        "the system allows {started} threads and processes more, and a mount takes up to {needed}; raise the limit of the user \
         (`ulimit -u`) or of the container (pids), or lower --threads"
    )))
}

/// How many of `wanted` threads can exist at once.
fn most(wanted: usize) -> usize {
    let gate = Mutex::new(());
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        let wait = || drop(gate.lock());
        let start = || thread::Builder::new().stack_size(STACK).spawn_scoped(scope, wait).is_ok();
        let started = (0..wanted).take_while(|_| start()).count();
        drop(closed);
        started
    })
}

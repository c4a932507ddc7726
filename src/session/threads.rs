//! Limits of threads (`ulimit -u`, a container's `pids.max`): a mount that could not start its own is refused with a figure.
//!
//! Found out by trying, as no table says what is left: who shares a limit is not seen from a container.

use std::sync::{Mutex, PoisonError};
use std::thread;

use super::error::SessionError;

/// Threads besides those of pools: loaders, monitor, signals, pages, the session and its readers; a child and who listens to it.
const OTHER: usize = 15;
/// Bytes of a stack on which nothing is done.
const STACK: usize = 64 << 10;

/// Looks whether a mount with so many decoding threads gets all of its threads, and a child that parses its stores.
///
/// # Errors
/// How many it gets, and how many it needs.
pub fn suffice(decoding: usize) -> Result<(), SessionError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // Two pools that decode; one for what is asked before there are any, and that of a child.
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

/// How many of so many threads there can be at once.
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

//! Fails reads that wait for a load without progress, as the kernel cannot interrupt them.

use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::atomic::Ordering;

use super::loader::FetchLoader;
use super::{ReadError, Shared, Waiter};

/// Watches all loads until the engine stops.
pub fn run<S: FetchLoader>(shared: &Shared<S>) {
    let timeout = shared.limits.timeout;
    let tick = (timeout / 8).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let patience = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let mut state = shared.lock();
    while !shared.stop.load(Ordering::Acquire) {
        state = shared.freed.wait_timeout(state, tick).unwrap_or_else(PoisonError::into_inner).0;
        let now = shared.now();
        let mut late: Vec<Waiter> = Vec::new();
        let state = &mut *state;
        for loading in state.loading.values_mut().filter(|loading| !loading.waiters.is_empty()) {
            let Some(task) = state.tasks.get(&loading.task) else { continue };
            let mut last = task.progress.load(Ordering::Relaxed);
            if !task.started {
                last = last.max(shared.progress.load(Ordering::Relaxed));
            }
            // A reader that came after the load got stuck waits as long as one that came before.
            let is_late = |waiter: &mut Waiter| now.saturating_sub(last.max(waiter.queued)) > patience;
            late.extend(loading.waiters.extract_if(.., is_late));
        }
        if !late.is_empty() {
            let error = ReadError::Timeout(timeout.as_secs());
            shared.log_once(state, &error);
            for waiter in late {
                waiter.fail(&error);
            }
        }
    }
}

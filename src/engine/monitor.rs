//! Ends reads that wait for a load which makes no progress: the kernel cannot interrupt them, so we must.

use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::atomic::Ordering;

use super::loader::FetchLoader;
use super::{ReadError, Shared, Waiter};

/// Looks at all loads until the engine stops.
pub fn run<S: FetchLoader>(shared: &Shared<S>) {
    let timeout = shared.limits.timeout;
    let tick = (timeout / 8).clamp(Duration::from_millis(10), Duration::from_secs(1));
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
            if Duration::from_millis(now.saturating_sub(last)) > timeout {
                late.append(&mut loading.waiters);
            }
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

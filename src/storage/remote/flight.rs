//! Limits the requests in flight to one server: more while it answers, half as many when it refuses a tenth of them.
//!
//! A large service may refuse one request in a hundred without being overloaded. Halving the limit each time would leave about a dozen
//! requests in flight, like the congestion window of a TCP connection that loses one packet in a hundred.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests in flight to one server, at most.
const MOST: usize = 512;
/// Minimum time between two halvings: requests that fail together count once.
const ONE_SIGN: Duration = Duration::from_millis(100);
/// The share of refusals is a moving mean over about this many answers.
const MEAN_OF: u32 = 64;
/// A share of 1, in fixed point.
const REFUSAL: u32 = 1 << 16;
/// The share of refusals from which on the server counts as overloaded.
const OVERLOAD: u32 = REFUSAL / 10;

/// A limit of requests in flight.
#[derive(Debug)]
pub struct Flight {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    under_way: usize,
    /// In 1/64 requests, so that it can grow by fractions.
    limit: usize,
    halved: Option<Instant>,
    /// The share of refusals among recent answers, in units of 1 / [`REFUSAL`].
    refusals: u32,
}

const UNIT: usize = 64;

impl Default for Flight {
    fn default() -> Flight {
        let state = State { under_way: 0, limit: MOST * UNIT, halved: None, refusals: 0 };
        Flight { state: Mutex::new(state), freed: Condvar::new() }
    }
}

/// One request in flight; ends when dropped.
pub struct Permit<'a>(&'a Flight);

impl Flight {
    /// Waits until one more request may be made; `None` if that takes beyond `until`.
    pub fn enter(&self, until: Instant) -> Option<Permit<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.under_way >= (state.limit / UNIT).max(1) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.freed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.under_way += 1;
        Some(Permit(self))
    }

    /// Records an answer.
    pub fn answered(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refusals -= state.refusals / MEAN_OF;
        if state.limit < MOST * UNIT {
            // Grows by one request for each round of as many answers.
            state.limit += (UNIT * UNIT).div_ceil(state.limit);
        }
    }

    /// Records that the server refused because of load.
    pub fn refused(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refusals += (REFUSAL - state.refusals) / MEAN_OF;
        if state.refusals < OVERLOAD {
            return;
        }
        if state.halved.is_none_or(|at| at.elapsed() >= ONE_SIGN) {
            // Half of the requests in flight, as a limit far above these would have to be halved many times.
            let now = (state.under_way * UNIT).min(state.limit);
            state.limit = (now / 2).max(UNIT);
            state.halved = Some(Instant::now());
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).under_way -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(flight: &Flight) -> usize {
        flight.state.lock().unwrap().limit / UNIT
    }

    #[test]
    fn one_refusal_in_a_hundred_is_no_overload() {
        let flight = Flight::default();
        for number in 0..10_000 {
            if number % 100 == 0 { flight.refused() } else { flight.answered() }
        }
        assert_eq!(limit(&flight), MOST);
        // One in five is.
        for number in 0..100 {
            if number % 5 == 0 { flight.refused() } else { flight.answered() }
        }
        assert!(limit(&flight) < MOST);
    }

    #[test]
    fn refusals_halve_what_is_under_way_once_and_answers_bring_it_back() {
        let flight = Flight::default();
        let soon = Instant::now() + Duration::from_secs(5);
        let permits: Vec<_> = (0..64).map(|_| flight.enter(soon).unwrap()).collect();
        (0..64).for_each(|_| flight.refused());
        assert_eq!(limit(&flight), 32);
        assert!(flight.enter(Instant::now()).is_none());
        drop(permits);
        (0..33).for_each(|_| flight.answered());
        assert_eq!(limit(&flight), 33);
        assert!(flight.enter(Instant::now()).is_some());
    }
}

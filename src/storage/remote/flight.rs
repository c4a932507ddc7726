//! How many requests to one server are under way: more while it answers, half as many once it refuses a tenth of them.
//!
//! A large service may refuse one request in a hundred although it is not overloaded. Halving at each of those would leave about a
//! dozen requests under way, like the window of a TCP connection that loses one packet in a hundred.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most requests under way to one server.
const MOST: usize = 512;
/// The limit is halved once in this time: requests that fail together are one sign.
const ONE_SIGN: Duration = Duration::from_millis(100);
/// The share of refusals is a moving mean over about so many answers.
const MEAN_OF: u32 = 64;
/// A share of 1, as a whole number.
const REFUSAL: u32 = 1 << 16;
/// From this share of refusals on the server is overloaded.
const OVERLOAD: u32 = REFUSAL / 10;

/// A bound on requests under way.
#[derive(Debug)]
pub struct Flight {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    under_way: usize,
    /// In 1/64 of a request, so that it can grow by less than one.
    limit: usize,
    halved: Option<Instant>,
    /// The share of refusals among the last answers, in units of 1 / [`REFUSAL`].
    refusals: u32,
}

const UNIT: usize = 64;

impl Default for Flight {
    fn default() -> Flight {
        let state = State { under_way: 0, limit: MOST * UNIT, halved: None, refusals: 0 };
        Flight { state: Mutex::new(state), freed: Condvar::new() }
    }
}

/// One request under way.
pub struct Permit<'a>(&'a Flight);

impl Flight {
    /// Waits until one more request may be made; none if that does not come before `until`.
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

    /// A request was answered.
    pub fn answered(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refusals -= state.refusals / MEAN_OF;
        if state.limit < MOST * UNIT {
            // One more for each round of as many answers.
            state.limit += (UNIT * UNIT).div_ceil(state.limit);
        }
    }

    /// The server said that it is too much.
    pub fn refused(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refusals += (REFUSAL - state.refusals) / MEAN_OF;
        if state.refusals < OVERLOAD {
            return;
        }
        if state.halved.is_none_or(|at| at.elapsed() >= ONE_SIGN) {
            // Of what is under way: a limit far above it would have to be halved many times.
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

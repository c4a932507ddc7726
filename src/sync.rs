//! Locks, atomics and threads of the code that the models check: the engine's queue and budget, the chunk cache.
//!
//! They are the standard ones, except in unit tests, where they are those of `shuttle`: it runs one thread at a time, in an order that it
//! chooses. So the models (`engine::models`, `array::cache::models`) run the code itself, and a unit test that uses these types must
//! run within [`check`].

#[cfg(not(test))]
pub use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
    time::Instant as Clock,
};

#[cfg(test)]
pub use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

#[cfg(test)]
pub use model::{Clock, check};

#[cfg(test)]
mod model {
    use std::time::Duration;

    use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
    use shuttle::{Config, FailurePersistence, MaxSteps, Runner, current};

    /// A clock that advances by a millisecond at each step of a model.
    pub struct Clock(usize);

    impl Clock {
        pub fn now() -> Clock {
            Clock(current::context_switches())
        }

        pub fn elapsed(&self) -> Duration {
            Duration::from_millis((current::context_switches() - self.0) as u64)
        }
    }

    /// Preemptions of a PCT schedule: most races need two or three at certain steps.
    const DEPTH: usize = 3;

    /// Runs a model with `schedules` random schedules, and as many with few preemptions at random steps (PCT: Burckhardt et al.,
    /// "A randomized scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010). Seeds are fixed, so each run has the same
    /// schedules. A deadlock fails the model.
    pub fn check(schedules: usize, model: impl Fn() + Send + Sync + Copy + 'static) {
        run(RandomScheduler::new_from_seed(1, schedules), model);
        run(PctScheduler::new_from_seed(2, DEPTH, schedules), model);
    }

    fn run(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
        let mut config = Config::new();
        config.failure_persistence = FailurePersistence::Print;
        // A model takes some thousands of steps; the limit makes a livelock fail within a second.
        config.max_steps = MaxSteps::FailAfter(200_000);
        // shuttle warns about relaxed atomics; ours are counters, whose order does not matter.
        config.silence_warnings = true;
        Runner::new(scheduler, config).run(model);
    }
}

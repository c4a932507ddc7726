//! Locks and threads of what is scheduled here: the engine's queue and budget, the chunk cache.
//!
//! They are the standard ones, but in unit tests those of `shuttle`, which runs threads in an order that it chooses, one
//! at a time: so the models (`engine::models`, `array::cache::models`) run this very code. A unit test that touches it
//! must therefore run inside of such a model; other tests see the standard ones.

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

    /// A clock on which each step of a model takes a millisecond.
    pub struct Clock(usize);

    impl Clock {
        pub fn now() -> Clock {
            Clock(current::context_switches())
        }

        pub fn elapsed(&self) -> Duration {
            Duration::from_millis((current::context_switches() - self.0) as u64)
        }
    }

    /// Preemptions that a PCT schedule places: most races need two or three at certain steps.
    const DEPTH: usize = 3;

    /// Runs a model with `schedules` random schedules, and as many that favour few preemptions at unlikely steps (PCT:
    /// Burckhardt et al., "A randomized scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010). Seeds are
    /// fixed, so each run sees the same ones. A thread that waits for ever fails the model.
    pub fn check(schedules: usize, model: impl Fn() + Send + Sync + Copy + 'static) {
        run(RandomScheduler::new_from_seed(1, schedules), model);
        run(PctScheduler::new_from_seed(2, DEPTH, schedules), model);
    }

    fn run(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
        let mut config = Config::new();
        config.failure_persistence = FailurePersistence::Print;
        // Models take some thousands; one that turns in a circle is told apart in a second.
        config.max_steps = MaxSteps::FailAfter(200_000);
        // Relaxed counters are ordered by nothing and need not be.
        config.silence_warnings = true;
        Runner::new(scheduler, config).run(model);
    }
}

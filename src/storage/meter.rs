//! What reading one store costs: requests, bytes, and how long each took.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Classes of duration: class i counts reads of less than 2^i microseconds; the last, all others.
const CLASSES: usize = 28;

/// Counts the reads of one store. Relaxed: nothing is ordered by these numbers.
#[derive(Debug, Default)]
pub struct Meter {
    requests: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    in_flight: AtomicU64,
    durations: [AtomicU64; CLASSES],
}

impl Meter {
    /// Runs a read of so many bytes, and counts it.
    pub fn measure<T>(&self, bytes: u64, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let result = read();
        self.record(began.elapsed());
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        match &result {
            Ok(_) => self.bytes.fetch_add(bytes, Ordering::Relaxed),
            Err(_) => self.failed.fetch_add(1, Ordering::Relaxed),
        };
        result
    }

    fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let class = (u64::BITS - micros.leading_zeros()) as usize;
        if let Some(count) = self.durations.get(class.min(CLASSES - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that was made again.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Reads under way.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Duration that so much of all reads stayed below, in microseconds, up to a factor of two; 0 of none.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let counts: Vec<u64> = self.durations.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        let class = counts.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        });
        class.map_or(0, |class| 1 << class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_factor_of_two() {
        let meter = Meter::default();
        assert_eq!(meter.quantile(0.5), 0);
        (0..90).for_each(|_| meter.record(Duration::from_micros(100)));
        (0..10).for_each(|_| meter.record(Duration::from_millis(5)));
        assert_eq!((meter.quantile(0.5), meter.quantile(0.9), meter.quantile(0.99)), (128, 128, 8192));
    }

    #[test]
    fn failures_are_counted_apart() {
        let meter = Meter::default();
        meter.measure(10, || Ok(())).unwrap();
        let failed: io::Result<()> = meter.measure(10, || Err(io::ErrorKind::TimedOut.into()));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!((meter.requests(), meter.bytes(), meter.failed(), meter.in_flight()), (2, 10, 1, 0));
    }
}

//! Measures the reads of one store: requests, bytes and durations; and derives how many requests to keep in flight.
//!
//! A storage is slow if it is known to be, as one behind a network, or if several of its last reads were slow. Then as many requests are
//! kept in flight as give `AIM` requests a second at its latency. A read from the page cache does not count as slow if its thread only
//! waited for a processor: `getrusage` tells whether the thread gave up its processor voluntarily.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Classes of durations: class i counts reads below 2^i microseconds, the last one all others.
const CLASSES: usize = 28;

/// A read that takes longer than this plus 1 ns a byte is slow.
const SLOW: Duration = Duration::from_micros(500);

/// Slow reads among the last 64 that make a storage slow; with fewer reads in proportion, but at least two.
const SLOW_READS: u32 = 6;

/// Target rate, in requests a second.
const AIM: u64 = 20_000;

/// Minimum and maximum of requests in flight.
const DEPTHS: (usize, usize) = (8, 256);

/// Counters of the reads of one store. Relaxed atomics: they order nothing.
#[derive(Debug, Default)]
pub struct Meter {
    requests: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    in_flight: AtomicU64,
    durations: [AtomicU64; CLASSES],
    /// Whether the storage is slow by its nature, whatever was measured.
    is_far: bool,
    /// Whether each of the last 64 reads was slow, one bit each.
    recent: AtomicU64,
    /// Moving mean of the duration in microseconds: of slow reads, or for a far storage of all reads.
    latency: AtomicU64,
}

impl Meter {
    /// A meter for a storage with a known latency; `None`: latency is measured.
    pub fn new(usual: Option<Duration>) -> Meter {
        let micros = usual.map_or(0, |usual| u64::try_from(usual.as_micros()).unwrap_or(u64::MAX));
        Meter { is_far: usual.is_some(), latency: AtomicU64::new(micros), ..Meter::default() }
    }

    /// Runs a read of `bytes` bytes, and counts it.
    pub fn measure<T>(&self, bytes: u64, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let waits = (!self.is_far && self.is_slow()).then(waits);
        let began = Instant::now();
        let result = read();
        let time = began.elapsed();
        let long = time > SLOW.saturating_add(Duration::from_nanos(bytes));
        self.note(time, long && waits.is_none_or(|before| self::waits() > before));
        self.record(time);
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

    /// Records whether a read was slow. Of two concurrent records one may be lost.
    fn note(&self, time: Duration, slow: bool) {
        let recent = self.recent.load(Ordering::Relaxed) << 1 | u64::from(slow);
        self.recent.store(recent, Ordering::Relaxed);
        // All reads of a far storage count, as a cache on this node may answer them.
        if slow || self.is_far {
            let (mean, micros) = (self.latency(), u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
            let next = if mean == 0 { micros } else { mean - mean / 16 + micros / 16 };
            self.latency.store(next, Ordering::Relaxed);
        }
    }

    /// Mean latency of recent slow reads, in microseconds; 0 if there was none.
    pub fn latency(&self) -> u64 {
        self.latency.load(Ordering::Relaxed)
    }

    /// Whether reads are slow at present.
    pub fn is_slow(&self) -> bool {
        if self.is_far {
            return true;
        }
        let seen = u32::try_from(self.requests()).unwrap_or(u64::BITS).min(u64::BITS);
        self.recent.load(Ordering::Relaxed).count_ones() >= (SLOW_READS * seen / u64::BITS).max(2)
    }

    /// Requests to keep in flight; 1 means that each thread reads what it decodes.
    pub fn depth(&self) -> usize {
        if !self.is_slow() {
            return 1;
        }
        let depth = self.latency().saturating_mul(AIM) / 1_000_000;
        usize::try_from(depth).unwrap_or(usize::MAX).clamp(DEPTHS.0, DEPTHS.1)
    }

    /// Counts a repeated request.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// All counters, as JSON.
    pub fn figures(&self) -> Value {
        json!({
            "requests": self.requests(),
            "bytes": self.bytes(),
            "failed": self.failed(),
            "retries": self.retries(),
            "in_flight": self.in_flight(),
            "p50_microseconds": self.quantile(0.5),
            "p99_microseconds": self.quantile(0.99),
        })
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

    /// Reads in progress.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A quantile of the duration in microseconds, to a factor of two; 0 before the first read.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let counts: Vec<u64> = self.durations.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
        let wanted = (counts.iter().sum::<u64>() as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        let class = counts.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        });
        class.map_or(0, |class| 1 << class)
    }
}

/// Voluntary context switches of this thread: how often it has waited for something.
fn waits() -> i64 {
    // SAFETY: an all-zero `rusage` is valid, and the call only writes to it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_nvcsw
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
    fn depth_follows_latency() {
        let meter = Meter::default();
        let read = |millis| {
            meter.measure(100, || {
                std::thread::sleep(Duration::from_millis(millis));
                Ok(())
            })
        };
        read(5).unwrap();
        assert_eq!(meter.depth(), 1);
        (0..20).for_each(|_| read(5).unwrap());
        assert!((90..=256).contains(&meter.depth()), "{}", meter.depth());
        // Reads from the page cache, whose threads wait for a processor.
        (0..60).for_each(|_| {
            let spin = Instant::now();
            meter
                .measure(100, || {
                    while spin.elapsed() < Duration::from_millis(1) {}
                    Ok(())
                })
                .unwrap();
        });
        assert_eq!(meter.depth(), 1);
    }

    /// The first fetch after a mount: too few reads were made to measure a latency.
    #[test]
    fn what_is_far_is_read_deeply_from_the_first_read_on() {
        let meter = Meter::new(Some(Duration::from_millis(30)));
        assert_eq!(meter.depth(), 256);
        // As with a server in the same rack, or a cache on this node.
        (0..100).for_each(|_| meter.note(Duration::from_millis(1), true));
        assert!((8..=40).contains(&meter.depth()), "{}", meter.depth());
        (0..100).for_each(|_| meter.note(Duration::from_micros(20), false));
        assert!(meter.is_slow() && meter.depth() == DEPTHS.0);
        (0..10).for_each(|_| meter.note(Duration::from_millis(30), true));
        assert!(meter.depth() > 200, "{}", meter.depth());
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

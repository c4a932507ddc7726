//! Models of the chunk cache: its code, run with thousands of thread schedules (see `sync`).
//!
//! All models assert: a reader sees the right chunk while it uses it, whatever is evicted meanwhile; cached chunks stay within the
//! limit; there are never more buffers than chunks that fit plus one a thread.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use shuttle::thread;

use crate::array::constant::InMemory;
use crate::array::{Array, ArrayError, Dtype};
use crate::sync::check;

use super::ChunkCache;

/// Bytes of a chunk of the first array; those of the second are twice as large.
const LEN: usize = 64;

const THREADS: usize = 3;

/// An array of eight chunks.
fn array(bytes: Vec<u8>) -> Array {
    let names = ("store".into(), "X".into());
    Array::new(names, Dtype::U8, (vec![8], vec![1]), Arc::new(InMemory { bytes }))
}

struct CacheWorld {
    cache: ChunkCache,
    arrays: [Array; 2],
    /// How many times each chunk was decoded.
    decoded: Mutex<HashMap<(usize, u64), usize>>,
    /// Addresses of all buffers.
    buffers: Mutex<HashSet<usize>>,
}

impl CacheWorld {
    /// A cache with room for `chunks` chunks of the first array.
    fn new(chunks: usize) -> CacheWorld {
        let array = |_| array(vec![0]);
        CacheWorld {
            cache: ChunkCache::new((chunks * LEN) as u64),
            arrays: [0, 1].map(array),
            decoded: Mutex::default(),
            buffers: Mutex::default(),
        }
    }

    fn decoded(&self, array: usize, chunk: u64) -> usize {
        self.decoded.lock().unwrap().get(&(array, chunk)).copied().unwrap_or_default()
    }

    /// Reads a chunk; `fail` says whether its n-th decoding (from 0) fails.
    fn read(&self, array: usize, chunk: u64, fail: impl Fn(usize) -> bool) -> Result<(), ArrayError> {
        let byte = (array as u64 * 16 + chunk + 1) as u8;
        let len = LEN << array;
        let decode = |bytes: &mut [u8]| {
            self.buffers.lock().unwrap().insert(bytes.as_ptr() as usize);
            let n = {
                let mut decoded = self.decoded.lock().unwrap();
                let n = decoded.entry((array, chunk)).or_default();
                *n += 1;
                *n - 1
            };
            bytes.fill(0);
            thread::yield_now();
            if fail(n) {
                return Err(self.arrays[array].damaged(chunk, "broken"));
            }
            bytes.fill(byte);
            Ok(())
        };
        let take = |bytes: &[u8]| {
            for _ in 0..2 {
                assert!(bytes.len() == len && bytes.iter().all(|&at| at == byte), "bytes of another chunk");
                thread::yield_now();
            }
        };
        let answer = self.cache.with(&self.arrays[array], chunk, len, decode, take);
        assert!(self.cache.bytes() <= self.cache.limit);
        answer
    }

    /// Reads chunks in several threads, each in its own order.
    fn read_all(&self, orders: [&[(usize, u64)]; THREADS]) {
        thread::scope(|scope| {
            for order in orders {
                scope.spawn(move || {
                    order.iter().for_each(|&(array, chunk)| self.read(array, chunk, |_| false).unwrap())
                });
            }
        });
    }
}

/// Chunks that fit are decoded once, whichever thread comes first.
#[test]
fn chunks_that_stay_are_decoded_once() {
    check(2000, || {
        let world = CacheWorld::new(3);
        world.read_all([&[(0, 0), (0, 1), (0, 2)], &[(0, 0), (0, 2), (0, 1)], &[(0, 1), (0, 0)]]);
        assert_eq!([0, 1, 2].map(|chunk| world.decoded(0, chunk)), [1, 1, 1]);
        assert_eq!(world.buffers.lock().unwrap().len(), 3);
    });
}

/// A chunk that was cached when a gather made its requests is still cached when the gather reads it.
#[test]
fn asking_for_a_chunk_is_a_use_of_it() {
    check(1, || {
        let world = CacheWorld::new(3);
        let read = |chunks: std::ops::Range<u64>| chunks.for_each(|chunk| world.read(0, chunk, |_| false).unwrap());
        read(0..3);
        assert!(world.cache.has(&world.arrays[0], 0));
        read(3..5);
        assert_eq!([0, 1, 2].map(|chunk| world.cache.has(&world.arrays[0], chunk)), [true, false, false]);
    });
}

/// More chunks than fit: buffers of chunks that were evicted during use are reused.
#[test]
fn chunks_go_while_they_are_read() {
    check(2000, || {
        let world = CacheWorld::new(2);
        world.read_all([&[(0, 0), (0, 1), (0, 2), (0, 3)], &[(0, 3), (0, 1), (0, 0)], &[(0, 1), (0, 2), (0, 3)]]);
        let buffers = world.buffers.lock().unwrap().len();
        assert!(buffers <= 2 + THREADS, "{buffers} buffers");
    });
}

/// A failure is reported to the thread that decoded; waiting threads decode for themselves. No buffer is lost, even if the chunk was
/// evicted and requested again meanwhile.
#[test]
fn a_failure_is_not_remembered_and_loses_no_buffer() {
    check(2000, || {
        let world = CacheWorld::new(1);
        let failures = Mutex::new(0);
        thread::scope(|scope| {
            for order in [[0, 1, 0], [0, 0, 2], [1, 0, 0]] {
                let (world, failures) = (&world, &failures);
                scope.spawn(move || {
                    for chunk in order {
                        let answer = world.read(0, chunk, |n| chunk == 0 && n < 4);
                        *failures.lock().unwrap() += usize::from(answer.is_err());
                    }
                });
            }
        });
        assert_eq!(*failures.lock().unwrap(), 4);
        for chunk in [7, 7, 7, 8] {
            assert_eq!(world.read(0, chunk, |_| chunk == 7).is_ok(), chunk == 8);
        }
        let buffers = world.buffers.lock().unwrap().len();
        assert!(buffers <= 1 + THREADS, "{buffers} buffers");
        // The last read has taken a buffer, and so has collected all that were returned.
        assert_eq!(world.cache.lock().held(), (buffers * LEN) as u64);
    });
}

/// Spare buffers of arrays that are no longer read are freed for arrays with other chunk sizes.
#[test]
fn spare_buffers_of_other_sizes_make_room() {
    check(1000, || {
        let world = CacheWorld::new(4);
        let most = world.cache.limit + world.cache.limit / 16 + (THREADS * 2 * LEN) as u64;
        let held = || world.cache.lock().held();
        world.read_all([&[(0, 0), (0, 1), (0, 2)], &[(0, 3), (0, 4)], &[(1, 0)]]);
        assert!(held() <= most);
        world.read_all([&[(1, 0), (1, 1)], &[(1, 2), (1, 3)], &[(1, 1), (0, 7)]]);
        assert!(held() <= most);
        // No other thread reads, so all chunks in use are cached.
        for chunk in 0..3 {
            world.read(1, chunk, |_| false).unwrap();
        }
        assert!(held() <= world.cache.limit + world.cache.limit / 16 + 2 * LEN as u64, "{} bytes", held());
    });
}

/// Chunks of a dropped array are not served for a new one, even if that has the same address.
#[test]
fn another_array_has_chunks_of_its_own() {
    check(1, || {
        let cache = ChunkCache::new(1 << 20);
        // The allocator reuses the address at once.
        for byte in 0..16 {
            let array = array(vec![byte]);
            let mut seen = Vec::new();
            let decode = |out: &mut [u8]| {
                out.fill(byte);
                Ok(())
            };
            cache.with(&array, 0, LEN, decode, |bytes| seen = bytes.to_vec()).unwrap();
            assert_eq!(seen, [byte; LEN]);
        }
    });
}

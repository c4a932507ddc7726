//! Gathers from slow storage: all needed ranges are known in advance, so many requests are in flight.
//!
//! A request is a range of an object: runs of raw chunks, read straight to their destinations, or nearby encoded chunks, which are decoded
//! when they arrive. One thread does all the work of a request. Few threads decode at the same time, as there are few cores (`Decoders`),
//! and the stored bytes that are in flight or wait to be decoded are bounded (`Io`). So the number of requests in flight depends on the
//! storage, but memory and decoding do not depend on that number.

use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};

use super::raw::Reads;
use super::{ElementRange, GatherContext, Gathering, RAW_BYTES, Sink};
use crate::array::{Array, ArrayError, Extent, Scratch, file};
use crate::number::as_usize;
use crate::storage::in_flight::{Allowance, for_each};
use crate::storage::{Meter, Object};

/// Ranges with a gap of at most this many bytes are merged into one request.
const MAX_GAP: u64 = 256 << 10;

/// Maximum bytes of one request, unless one chunk is larger.
const MAX_REQUEST: u64 = 8 << 20;

/// Bounds of the stored bytes in flight or waiting to be decoded: 1/16 of the memory, within these limits. A network has fewer in transit
/// (64 MiB are 17 Gbit/s for 30 ms); more would only fill buffers of this process.
const UNDER_WAY: Range<u64> = 16 << 20..64 << 20;

/// Minimum threads of a gather: a chunk not located yet may have far fewer stored bytes than elements.
const LEAST: usize = 16;

/// What the deep gathers of one engine share.
pub struct Io {
    /// Requests in flight; `None`: derived from the latency of the storage.
    depth: Option<usize>,
    decoders: Decoders,
    under_way: Allowance,
    buffers: Buffers,
}

/// Maximum stored bytes in flight or waiting, for an engine with `memory` bytes.
pub fn under_way(memory: u64) -> u64 {
    (memory / 16).clamp(UNDER_WAY.start, UNDER_WAY.end)
}

impl Io {
    /// `depth`: requests in flight for any storage (0 and 1: only those of decoding threads); `None`: derived from its latency.
    /// `threads`: how many decode at the same time. `under_way`: maximum stored bytes in flight or waiting to be decoded, unless one
    /// request is larger.
    pub fn new(depth: Option<usize>, threads: usize, under_way: u64) -> Io {
        let buffers = Buffers { most: under_way / 4, free: Mutex::default() };
        Io { depth, decoders: Decoders::new(threads), under_way: Allowance::new(under_way), buffers }
    }

    /// Requests to keep in flight for the slowest of these storages.
    pub fn depth_of(&self, meters: &[&Meter]) -> usize {
        self.depth.unwrap_or_else(|| meters.iter().map(|meter| meter.depth()).max().unwrap_or(1))
    }

    /// Requests to keep in flight for an array; 1 means that decoding threads read themselves.
    pub fn depth(&self, array: &Array) -> usize {
        match (array.source.meter(), self.depth) {
            (None, _) => 1,
            (Some(_), Some(depth)) => depth.max(1),
            (Some(meter), None) => meter.depth(),
        }
    }
}

/// Buffers for the threads that may decode at the same time.
struct Decoders {
    free: Mutex<Vec<Scratch>>,
    returned: Condvar,
}

impl Decoders {
    fn new(threads: usize) -> Decoders {
        let free = (0..threads.max(1)).map(|_| Scratch::default()).collect();
        Decoders { free: Mutex::new(free), returned: Condvar::new() }
    }

    /// Calls a function with buffers, waiting until some are free. They are returned even on a panic.
    fn with<T>(&self, call: impl FnOnce(&mut Scratch) -> T) -> T {
        struct Back<'a>(&'a Decoders, Scratch);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.free.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.1));
                self.0.returned.notify_one();
            }
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = loop {
            match free.pop() {
                Some(scratch) => break scratch,
                None => free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(free);
        call(&mut Back(self, scratch).1)
    }
}

/// Buffers for stored bytes, for reuse: malloc keeps freed memory separately for each arena.
struct Buffers {
    /// Maximum bytes to keep.
    most: u64,
    /// From the smallest to the largest.
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// Calls a function with the smallest buffer that has `len` bytes, or with a new one.
    fn with<T>(&self, len: u64, call: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let position = |free: &[Vec<u8>], len: u64| free.partition_point(|buffer| (buffer.capacity() as u64) < len);
        let mut buffer = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let at = position(&free, len);
            if at < free.len() { free.remove(at) } else { Vec::new() }
        };
        let result = call(&mut buffer);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let at = position(&free, buffer.capacity() as u64);
        free.insert(at, buffer);
        // Small ones go first, as a large one serves any request.
        let mut kept: u64 = free.iter().map(|buffer| buffer.capacity() as u64).sum();
        let excess = free.iter().take_while(|buffer| {
            let is_too_much = kept > self.most;
            kept -= buffer.capacity() as u64;
            is_too_much
        });
        let excess = excess.count();
        free.drain(..excess);
        result
    }
}

/// One request of a gather.
enum Request {
    /// Runs of raw chunks.
    Runs(Range<usize>),
    /// Encoded chunks (task, extent) whose stored bytes are parts of one range.
    Chunks(Extent, Vec<(usize, Extent)>),
    /// A task whose chunk must be located first, or is decoded by a library.
    Task(usize),
}

/// The requests of one array.
struct Part<'a> {
    gathering: &'a Gathering<'a>,
    reads: Reads<'a>,
    requests: Vec<Request>,
}

/// The location of a task's stored bytes.
enum Found {
    Raw(Extent),
    Stored(Extent),
    /// Nowhere, or known only when it is read.
    Unknown,
}

/// Gathers several arrays with `depth` requests in flight.
///
/// # Errors
/// The first damaged or stale chunk, or an error of the storage; the destinations are then unspecified.
pub fn gather_deep(
    jobs: &[(&Array, &[ElementRange], &dyn Sink)],
    depth: usize,
    io: &Io,
    work: &GatherContext<'_>,
) -> Result<(), ArrayError> {
    let each = jobs.iter().map(|&(array, pieces, sink)| Gathering::new(array, pieces, sink));
    let gatherings = each.collect::<Result<Vec<Gathering<'_>>, ArrayError>>()?;
    let mut parts = Vec::with_capacity(gatherings.len());
    for gathering in &gatherings {
        parts.push(Part::new(gathering, depth, work)?);
    }
    let all: Vec<(&Part<'_>, &Request)> =
        parts.iter().flat_map(|part| part.requests.iter().map(move |request| (part, request))).collect();
    let bytes: u64 = all.iter().map(|(part, request)| part.bytes(request)).sum();
    // More threads would only wait for bytes of the allowance.
    let fits = as_usize(io.under_way.limit().saturating_mul(all.len() as u64) / bytes.max(1)).max(LEAST);
    for_each(depth.min(fits), all.len(), |number| match all.get(number) {
        Some((part, request)) => part.serve(request, io, work),
        None => Ok(()),
    })
}

impl<'a> Part<'a> {
    fn new(gathering: &'a Gathering<'a>, depth: usize, work: &GatherContext<'_>) -> Result<Part<'a>, ArrayError> {
        let mut part = Part { gathering, reads: Reads::new(gathering.array, gathering.sink), requests: Vec::new() };
        let tasks = 0..gathering.tasks.len();
        if gathering.array.source.is_scattered() {
            part.requests = tasks.map(Request::Task).collect();
            return Ok(part);
        }
        let mut stored = Vec::new();
        for (task, found) in tasks.zip(gathering.find(depth, work)?) {
            match found {
                Found::Raw(extent) => gathering.add_runs(task, &extent, &mut part.reads)?,
                Found::Stored(extent) => stored.push((task, extent)),
                Found::Unknown => part.requests.push(Request::Task(task)),
            }
        }
        part.requests.extend(part.reads.requests(MAX_GAP, RAW_BYTES).into_iter().map(Request::Runs));
        part.requests.extend(joined(stored));
        Ok(part)
    }

    /// Approximate bytes of a request.
    fn bytes(&self, request: &Request) -> u64 {
        match request {
            Request::Runs(runs) => self.reads.span(runs),
            Request::Chunks(range, _) => range.len,
            Request::Task(_) => MAX_REQUEST.min(self.gathering.geometry.chunk_bytes as u64),
        }
    }

    fn serve(&self, request: &Request, io: &Io, work: &GatherContext<'_>) -> Result<(), ArrayError> {
        let _bytes = io.under_way.take(self.bytes(request));
        match request {
            Request::Runs(runs) => {
                if !self.reads.converts() {
                    return self.reads.read(runs.clone(), work, &mut Scratch::default());
                }
                io.buffers.with(self.reads.span(runs), |buffer| {
                    let mut scratch = Scratch { stored: std::mem::take(buffer), ..Scratch::default() };
                    let result = self.reads.read(runs.clone(), work, &mut scratch);
                    *buffer = scratch.stored;
                    result
                })
            }
            Request::Task(task) => self.serve_alone(*task, io, work),
            Request::Chunks(range, chunks) => self.serve_chunks(range, chunks, io, work),
        }
    }

    fn serve_chunks(
        &self,
        range: &Extent,
        chunks: &[(usize, Extent)],
        io: &Io,
        work: &GatherContext<'_>,
    ) -> Result<(), ArrayError> {
        io.buffers.with(range.len, |buffer| {
            let stored = file::read_stored(range, buffer, work.counters).map_err(|error| {
                let first = chunks.first().map_or(0, |&(task, _)| self.gathering.chunk(task));
                let Array { store, element, .. } = self.gathering.array;
                file::read_error(store, element, first, error)
            })?;
            io.decoders.with(|scratch| {
                chunks.iter().try_for_each(|(task, extent)| {
                    let from = as_usize(extent.offset - range.offset);
                    let bytes = stored.get(from..from + as_usize(extent.len)).unwrap_or_default();
                    self.gathering.decode(*task, Some(bytes), work, scratch)
                })
            })
        })
    }

    /// Runs a task whose chunk was not located in advance.
    fn serve_alone(&self, task: usize, io: &Io, work: &GatherContext<'_>) -> Result<(), ArrayError> {
        let gathering = self.gathering;
        let source = &gathering.array.source;
        if !source.is_encoded() {
            // It is mostly reading, so it needs no decoder's buffers.
            return gathering.run(task..task + 1, work, &mut Scratch::default());
        }
        // The cache may have evicted the chunk since the requests were made. It is read before a decoder is taken, so that no decoder
        // waits for the storage.
        let stored =
            if gathering.is_cached(task, work) { None } else { source.stored(gathering.chunk(task), work.counters)? };
        match stored {
            Some(extent) => self.serve_chunks(&extent.clone(), &[(task, extent)], io, work),
            None => io.decoders.with(|scratch| gathering.run(task..task + 1, work, scratch)),
        }
    }
}

/// Merges chunks that are close together into one range each.
fn joined(mut chunks: Vec<(usize, Extent)>) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    // Sorted by object; objects are numbered in order of appearance.
    let mut objects: Vec<Object> = Vec::new();
    let mut number = |extent: &Extent| match objects.iter().rposition(|object| object.is_same(&extent.object)) {
        Some(number) => number,
        None => {
            objects.push(extent.object.clone());
            objects.len() - 1
        }
    };
    chunks.sort_by_cached_key(|(_, extent)| (number(extent), extent.offset));
    for (task, extent) in chunks {
        if let Some(Request::Chunks(range, tasks)) = requests.last_mut() {
            let (end, far) = (range.offset + range.len, extent.offset.saturating_add(extent.len));
            let close = extent.offset >= end && extent.offset - end <= MAX_GAP && far - range.offset <= MAX_REQUEST;
            if close && range.object.is_same(&extent.object) {
                range.len = far - range.offset;
                tasks.push((task, extent));
                continue;
            }
        }
        requests.push(Request::Chunks(extent.clone(), vec![(task, extent)]));
    }
    requests
}

impl Gathering<'_> {
    fn is_cached(&self, task: usize, work: &GatherContext<'_>) -> bool {
        work.cache.is_some_and(|cache| cache.has(self.array, self.chunk(task)))
    }

    /// Locates the stored bytes of each task, except for cached chunks.
    fn find(&self, depth: usize, work: &GatherContext<'_>) -> Result<Vec<Found>, ArrayError> {
        let find = |task: usize| {
            let (array, chunk) = (self.array, self.chunk(task));
            if self.is_cached(task, work) {
                return Ok(Found::Unknown);
            }
            if !array.source.is_encoded() {
                return Ok(array.source.raw(chunk)?.map_or(Found::Unknown, Found::Raw));
            }
            Ok(array.source.stored(chunk, work.counters)?.map_or(Found::Unknown, Found::Stored))
        };
        let found: Vec<Mutex<Found>> = self.tasks.iter().map(|_| Mutex::new(Found::Unknown)).collect();
        let depth = if self.array.source.looks_up() { depth } else { 1 };
        for_each(depth, found.len(), |number| {
            if let Some(place) = found.get(number) {
                *place.lock().unwrap_or_else(PoisonError::into_inner) = find(number)?;
            }
            Ok(())
        })?;
        Ok(found.into_iter().map(|found| found.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
    }
}

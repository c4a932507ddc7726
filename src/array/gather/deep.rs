//! Gathers from storage that answers slowly: all that is needed is known at once, so many requests are in flight.
//!
//! A request is a range of an object: runs of raw chunks, read straight to their places, or encoded chunks that lie close
//! together, read and then decoded as soon as they are there. Its thread does all of it; few decode at a time, as
//! there are few cores (`Decoders`), and stored bytes that are under way or wait for that are bounded (`Io`). So what is in
//! flight depends on the storage, and neither memory nor decoding on what is in flight.

use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};

use super::raw::Reads;
use super::{ElementRange, GatherContext, Gathering, RAW_BYTES, Sink};
use crate::array::{Array, ArrayError, Extent, Scratch, file};
use crate::number::as_usize;
use crate::storage::in_flight::{Allowance, for_each};
use crate::storage::{Meter, Object};

/// Bytes between two ranges that are read as well rather than making two requests.
const MAX_GAP: u64 = 256 << 10;

/// Most bytes of one request, but for one chunk that is larger.
const MAX_REQUEST: u64 = 8 << 20;

/// Stored bytes under way and waiting to be decoded: a sixteenth of the memory, within these. A network holds less in transit
/// (64 MiB are 17 Gbit/s for 30 ms); more would only fill buffers of this process.
const UNDER_WAY: Range<u64> = 16 << 20..64 << 20;

/// Threads of a gather at least: a chunk that is not looked for yet may have far fewer stored bytes than elements.
const LEAST: usize = 16;

/// What gathers of one engine share where they are deep.
pub struct Io {
    /// Requests in flight; none: as the latency of the storage says.
    depth: Option<usize>,
    decoders: Decoders,
    under_way: Allowance,
    buffers: Buffers,
}

/// Stored bytes that gathers of an engine with so much memory have under way or waiting, at most.
pub fn under_way(memory: u64) -> u64 {
    (memory / 16).clamp(UNDER_WAY.start, UNDER_WAY.end)
}

impl Io {
    /// `depth`: requests in flight for any storage (0 and 1: none but those of decoding threads); none: as its latency
    /// says. `threads` decode at a time; `under_way`: stored bytes that are asked for or wait to be decoded, at most, but for one
    /// request that is larger.
    pub fn new(depth: Option<usize>, threads: usize, under_way: u64) -> Io {
        let buffers = Buffers { most: under_way, free: Mutex::default() };
        Io { depth, decoders: Decoders::new(threads), under_way: Allowance::new(under_way), buffers }
    }

    /// Requests that are kept in flight for the slowest of these.
    pub fn depth_of(&self, meters: &[&Meter]) -> usize {
        self.depth.unwrap_or_else(|| meters.iter().map(|meter| meter.depth()).max().unwrap_or(1))
    }

    /// Requests to keep in flight for an array; 1 where decoding threads read by themselves.
    pub fn depth(&self, array: &Array) -> usize {
        match (array.source.meter(), self.depth) {
            (None, _) => 1,
            (Some(_), Some(depth)) => depth.max(1),
            (Some(meter), None) => meter.depth(),
        }
    }
}

/// Buffers for the threads that may decode at one time.
struct Decoders {
    free: Mutex<Vec<Scratch>>,
    returned: Condvar,
}

impl Decoders {
    fn new(threads: usize) -> Decoders {
        let free = (0..threads.max(1)).map(|_| Scratch::default()).collect();
        Decoders { free: Mutex::new(free), returned: Condvar::new() }
    }

    /// Calls with buffers of which there are a few, as soon as some are free. A panic does not lose them.
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

/// Buffers for stored bytes that are used again: the heap keeps what is freed for each thread that asked for it, and there are
/// hundreds.
struct Buffers {
    /// Bytes that are kept, at most.
    most: u64,
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    fn with<T>(&self, call: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut buffer = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let result = call(&mut buffer);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: u64 = free.iter().chain([&buffer]).map(|buffer| buffer.capacity() as u64).sum();
        if kept <= self.most {
            free.push(buffer);
        }
        result
    }
}

/// One request of a gather.
enum Request {
    /// Runs of raw chunks.
    Runs(Range<usize>),
    /// Encoded chunks whose stored bytes are parts of one range.
    Chunks(Extent, Vec<(usize, Extent)>),
    /// A chunk that must be looked for, or is decoded by a library.
    Task(usize),
}

/// One array's part of the work.
struct Part<'a> {
    gathering: &'a Gathering<'a>,
    reads: Reads<'a>,
    requests: Vec<Request>,
}

/// Where the stored bytes of one task lie.
enum Found {
    Raw(Extent),
    Stored(Extent),
    /// Nowhere, or that is found out when it is read.
    Unknown,
}

/// Gathers several arrays with `depth` requests in flight.
///
/// # Errors
/// The first damaged or stale chunk met, or what the storage says; what was gathered before is then unspecified.
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
    // More would only wait for the bytes of others.
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

    /// About how many bytes a request asks for.
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
                io.buffers.with(|buffer| {
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
        io.buffers.with(|buffer| {
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

    /// A task whose bytes were not looked for before.
    fn serve_alone(&self, task: usize, io: &Io, work: &GatherContext<'_>) -> Result<(), ArrayError> {
        let gathering = self.gathering;
        let source = &gathering.array.source;
        if !source.is_encoded() {
            // Nearly all of it is reading.
            return gathering.run(task..task + 1, work, &mut Scratch::default());
        }
        // The cache may have evicted the chunk since the requests were made. It is read before a decoder is taken, so that no
        // decoder waits for the storage.
        let stored =
            if gathering.is_cached(task, work) { None } else { source.stored(gathering.chunk(task), work.counters)? };
        match stored {
            Some(extent) => self.serve_chunks(&extent.clone(), &[(task, extent)], io, work),
            None => io.decoders.with(|scratch| gathering.run(task..task + 1, work, scratch)),
        }
    }
}

/// Chunks that lie close together, as one range each.
fn joined(mut chunks: Vec<(usize, Extent)>) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    // Of one object at a time; objects in the order in which they are met.
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

    /// Where the stored bytes of each task lie; what a cache holds is not looked for.
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

//! Reads runs of raw chunks straight to their destinations, adjacent ones in one request.

use std::io::{Error, IoSliceMut};
use std::ops::Range;
use std::time::Instant;

use super::{GatherContext, RAW_BYTES, Run, Sink};
use crate::array::{Array, ArrayError, Counters, Extent, Scratch, file};
use crate::number::as_usize;
use crate::storage::Object;

/// Slices of one request, at most (Linux's IOV_MAX).
const MAX_PLACES: usize = 1024;

/// Bytes of one request whose elements the sink converts, if requests are cheap.
const CONVERTED_BYTES: u64 = 256 << 10;

/// A run and its bytes in an object.
struct RawRead {
    object: usize,
    offset: u64,
    chunk: u64,
    run: Run,
}

/// The raw reads of some tasks.
pub struct Reads<'a> {
    array: &'a Array,
    sink: &'a dyn Sink,
    objects: Vec<Object>,
    reads: Vec<RawRead>,
}

impl<'a> Reads<'a> {
    pub fn new(array: &'a Array, sink: &'a dyn Sink) -> Reads<'a> {
        Reads { array, sink, objects: Vec::new(), reads: Vec::new() }
    }

    /// Adds a run of a raw chunk; the run must lie within the chunk, and the chunk within the extent.
    pub fn add(&mut self, chunk: u64, extent: &Extent, run: Run) {
        if !self.objects.last().is_some_and(|last| last.is_same(&extent.object)) {
            self.objects.push(extent.object.clone());
        }
        let offset = extent.offset.saturating_add(run.from.saturating_mul(self.size()));
        self.reads.push(RawRead { object: self.objects.len() - 1, offset, chunk, run });
    }

    /// Reads all runs, one request after the other.
    pub fn finish(mut self, work: &GatherContext<'_>, scratch: &mut Scratch) -> Result<(), ArrayError> {
        let began = Instant::now();
        // Small requests, so that converted elements stay in the processor's cache.
        for request in self.requests(0, if self.converts() { CONVERTED_BYTES } else { RAW_BYTES }) {
            self.read(request, work, scratch)?;
        }
        Counters::time(&work.counters.read_ns, began);
        Ok(())
    }

    /// Whether the sink converts elements, so that they are not read straight to their destinations.
    pub fn converts(&self) -> bool {
        self.reads.first().is_some_and(|read| self.place(read).is_none())
    }

    /// Bytes of an element.
    fn size(&self) -> u64 {
        self.array.dtype.size() as u64
    }

    fn end(&self, read: &RawRead) -> u64 {
        read.offset.saturating_add(read.run.len.saturating_mul(self.size()))
    }

    /// Groups the reads into requests: runs adjacent in an object, with gaps of at most `gap` bytes, and about `most` bytes in total.
    pub fn requests(&mut self, gap: u64, most: u64) -> Vec<Range<usize>> {
        self.reads.sort_unstable_by_key(|read| (read.object, read.offset));
        let mut requests = Vec::new();
        let mut start = 0;
        for (at, pair) in self.reads.windows(2).enumerate() {
            let (first, [last, next]) = (&self.reads[start], [&pair[0], &pair[1]]);
            let end = self.end(last);
            let apart = next.object != first.object || next.offset < end || next.offset - end > gap;
            // Gaps take a slice each, too.
            let full = end - first.offset >= most || 2 * (at + 1 - start) + 2 > MAX_PLACES;
            if apart || full {
                requests.push(start..at + 1);
                start = at + 1;
            }
        }
        if start < self.reads.len() {
            requests.push(start..self.reads.len());
        }
        requests
    }

    /// Bytes from the start to the end of a request.
    pub fn span(&self, request: &Range<usize>) -> u64 {
        let ends = self.reads.get(request.start).zip(self.reads.get(request.end.saturating_sub(1)));
        ends.map_or(0, |(first, last)| self.end(last).saturating_sub(first.offset))
    }

    /// Reads one request.
    pub fn read(
        &self,
        request: Range<usize>,
        work: &GatherContext<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), ArrayError> {
        let span = self.span(&request);
        let reads = self.reads.get(request).unwrap_or_default();
        let Some((first, object)) = reads.first().and_then(|first| Some((first, self.objects.get(first.object)?)))
        else {
            return Ok(());
        };
        self.read_runs(reads, (object, span), work.counters, scratch)
            .map_err(|error| file::read_error(&self.array.store, &self.array.element, first.chunk, error))?;
        Counters::add(&work.counters.chunks, 1);
        (work.progress)();
        Ok(())
    }

    fn read_runs(
        &self,
        reads: &[RawRead],
        (object, span): (&Object, u64),
        counters: &Counters,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let Some(start) = reads.first().map(|read| read.offset) else { return Ok(()) };
        let in_place: Option<Vec<&mut [u8]>> = reads.iter().map(|read| self.place(read)).collect();
        let Some(places) = in_place else {
            // The sink converts, so the bytes go through a buffer.
            let extent = Extent { object: object.clone(), offset: start, len: span };
            let stored = file::read_stored(&extent, &mut scratch.stored, counters)?;
            for read in reads {
                let (from, to) = (read.offset - start, self.end(read) - start);
                let elements = stored.get(as_usize(from)..as_usize(to)).unwrap_or_default();
                self.sink.put(read.run.piece, read.run.at, elements);
            }
            return Ok(());
        };
        // Gaps between the runs are read as well, and dropped.
        let mut holes: Vec<Vec<u8>> = Vec::new();
        let mut end = start;
        for read in reads {
            holes.push(vec![0; as_usize(read.offset - end)]);
            end = self.end(read);
        }
        let mut all: Vec<IoSliceMut<'_>> = Vec::with_capacity(2 * reads.len());
        let mut filled = Vec::with_capacity(places.len());
        for (hole, place) in holes.iter_mut().zip(places) {
            if !hole.is_empty() {
                all.push(IoSliceMut::new(hole));
            }
            filled.push(all.len());
            all.push(IoSliceMut::new(place));
        }
        file::read_vectored(object, start, &mut all, counters)?;
        filled.into_iter().filter_map(|at| all.get(at)).for_each(|place| self.sink.placed(place));
        Ok(())
    }

    /// The destination of a run, if its bytes go there unchanged.
    fn place(&self, read: &RawRead) -> Option<&mut [u8]> {
        let Run { piece, at, len, .. } = read.run;
        self.sink.place(piece, at, len).filter(|place| place.len() as u64 == len.saturating_mul(self.size()))
    }
}

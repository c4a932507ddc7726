//! Reads runs of raw chunks straight to their places, neighbours in the file in one call.

use std::io::{Error, ErrorKind, IoSliceMut};
use std::time::Instant;

use super::{GatherContext, RAW_BYTES, Run, Sink};
use crate::array::{Array, ArrayError, Counters, Extent, Scratch, file};
use crate::storage::Object;

/// Most pieces of memory in one call (Linux's IOV_MAX).
const MAX_IOVECS: usize = 1024;

/// One run with its bytes in a file.
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

    /// Takes up a run of a raw chunk; the run lies within the chunk, and the chunk within the extent.
    pub fn add(&mut self, chunk: u64, extent: &Extent, run: Run) {
        if !self.objects.last().is_some_and(|last| last.is_same(&extent.object)) {
            self.objects.push(extent.object.clone());
        }
        let offset = extent.offset.saturating_add(run.from.saturating_mul(self.array.dtype.size() as u64));
        self.reads.push(RawRead { object: self.objects.len() - 1, offset, chunk, run });
    }

    /// Reads all of them.
    pub fn finish(mut self, work: &GatherContext<'_>, scratch: &mut Scratch) -> Result<(), ArrayError> {
        let began = Instant::now();
        self.reads.sort_unstable_by_key(|read| (read.object, read.offset));
        let size = self.array.dtype.size();
        let mut next = 0;
        while let Some(first) = self.reads.get(next) {
            let Some(object) = self.objects.get(first.object) else { break };
            let mut places: Vec<IoSliceMut<'_>> = Vec::new();
            let mut end = first.offset;
            let mut bytes = 0;
            // Runs that follow one another in the file and go straight into place.
            let mut count = 0;
            for read in self.reads.get(next..).unwrap_or_default() {
                if read.object != first.object || read.offset != end || count == MAX_IOVECS || bytes >= RAW_BYTES {
                    break;
                }
                let Run { piece, at, len, .. } = read.run;
                let Some(place) = self.sink.place(piece, at, len).filter(|p| p.len() as u64 == len * size as u64)
                else {
                    break;
                };
                end += place.len() as u64;
                bytes += place.len() as u64;
                places.push(IoSliceMut::new(place));
                count += 1;
            }
            let failed = |error: Error| file::read_error(&self.array.store, &self.array.element, first.chunk, error);
            if count > 0 {
                file::read_vectored(object, first.offset, &mut places, work.counters).map_err(failed)?;
                places.iter().for_each(|place| self.sink.placed(place));
                next += count;
            } else {
                self.put(object, first, work.counters, scratch).map_err(failed)?;
                next += 1;
            }
            Counters::add(&work.counters.chunks, 1);
            (work.progress)();
        }
        Counters::time(&work.counters.read_ns, began);
        Ok(())
    }

    /// A run that the sink converts: by way of the scratch.
    fn put(&self, object: &Object, read: &RawRead, counters: &Counters, scratch: &mut Scratch) -> Result<(), Error> {
        let size = self.array.dtype.size();
        let Run { piece, at, len, .. } = read.run;
        let bytes = usize::try_from(len).ok().and_then(|n| n.checked_mul(size)).ok_or(ErrorKind::InvalidInput)?;
        if scratch.stored.len() < bytes {
            scratch.stored.resize(bytes, 0);
        }
        let buffer = scratch.stored.get_mut(..bytes).unwrap_or_default();
        file::read_exact(object, read.offset, buffer, counters)?;
        self.sink.put(piece, at, buffer);
        Ok(())
    }
}

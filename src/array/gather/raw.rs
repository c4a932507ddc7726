//! Reads runs of raw chunks straight to their places, neighbours in the file in one call.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use super::{GatherContext, RAW_BYTES, Run, Sink};
use crate::array::{Array, ArrayError, Counters, Extent, Scratch, file};

/// Most pieces of memory in one call (Linux's IOV_MAX).
const MAX_IOVECS: usize = 1024;

/// One run with its bytes in a file.
struct RawRead {
    file: usize,
    offset: u64,
    chunk: u64,
    run: Run,
}

/// The raw reads of some tasks.
pub struct Reads<'a> {
    array: &'a Array,
    sink: &'a dyn Sink,
    files: Vec<Arc<File>>,
    reads: Vec<RawRead>,
}

impl<'a> Reads<'a> {
    pub fn new(array: &'a Array, sink: &'a dyn Sink) -> Reads<'a> {
        Reads { array, sink, files: Vec::new(), reads: Vec::new() }
    }

    /// Takes up a run of a raw chunk; the run lies within the chunk, and the chunk within the extent.
    pub fn add(&mut self, chunk: u64, extent: &Extent, run: Run) {
        if !self.files.last().is_some_and(|last| Arc::ptr_eq(last, &extent.file)) {
            self.files.push(Arc::clone(&extent.file));
        }
        let offset = extent.offset.saturating_add(run.from.saturating_mul(self.array.dtype.size() as u64));
        self.reads.push(RawRead { file: self.files.len() - 1, offset, chunk, run });
    }

    /// Reads all of them.
    pub fn finish(mut self, work: &GatherContext<'_>, scratch: &mut Scratch) -> Result<(), ArrayError> {
        let began = Instant::now();
        self.reads.sort_unstable_by_key(|read| (read.file, read.offset));
        let size = self.array.dtype.size();
        let mut next = 0;
        while let Some(first) = self.reads.get(next) {
            let Some(file) = self.files.get(first.file) else { break };
            let mut places: Vec<&mut [u8]> = Vec::new();
            let mut end = first.offset;
            let mut bytes = 0;
            // Runs that follow one another in the file and go straight into place.
            let mut count = 0;
            for read in self.reads.get(next..).unwrap_or_default() {
                if read.file != first.file || read.offset != end || count == MAX_IOVECS || bytes >= RAW_BYTES {
                    break;
                }
                let Run { piece, at, len, .. } = read.run;
                let Some(place) = self.sink.place(piece, at, len).filter(|p| p.len() as u64 == len * size as u64)
                else {
                    break;
                };
                end += place.len() as u64;
                bytes += place.len() as u64;
                places.push(place);
                count += 1;
            }
            let failed = |error: Error| file::read_error(&self.array.store, &self.array.element, first.chunk, &error);
            if count > 0 {
                read_vectored(file, first.offset, &mut places, work.counters).map_err(failed)?;
                places.iter().for_each(|place| self.sink.placed(place));
                next += count;
            } else {
                self.put(file, first, work.counters, scratch).map_err(failed)?;
                next += 1;
            }
            Counters::add(&work.counters.chunks, 1);
            (work.progress)();
        }
        Counters::time(&work.counters.read_ns, began);
        Ok(())
    }

    /// A run that the sink converts: by way of the scratch.
    fn put(&self, file: &File, read: &RawRead, counters: &Counters, scratch: &mut Scratch) -> Result<(), Error> {
        let size = self.array.dtype.size();
        let Run { piece, at, len, .. } = read.run;
        let bytes = usize::try_from(len).ok().and_then(|n| n.checked_mul(size)).ok_or(ErrorKind::InvalidInput)?;
        if scratch.stored.len() < bytes {
            scratch.stored.resize(bytes, 0);
        }
        let buffer = scratch.stored.get_mut(..bytes).unwrap_or_default();
        file::read_exact(file, read.offset, buffer, counters)?;
        self.sink.put(piece, at, buffer);
        Ok(())
    }
}

/// Fills the places from `offset` on, in order.
fn read_vectored(file: &File, mut offset: u64, places: &mut [&mut [u8]], counters: &Counters) -> Result<(), Error> {
    let mut vectors: Vec<libc::iovec> = places
        .iter_mut()
        .filter(|place| !place.is_empty())
        .map(|place| libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() })
        .collect();
    let mut done = 0;
    while let Some(left) = vectors.get(done..).filter(|left| !left.is_empty()) {
        let count = libc::c_int::try_from(left.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let at = libc::off_t::try_from(offset).map_err(|_| ErrorKind::InvalidInput)?;
        Counters::add(&counters.reads, 1);
        // SAFETY: each vector is a distinct place borrowed for this call, or the unread rest of one.
        let got = unsafe { libc::preadv(file.as_raw_fd(), left.as_ptr(), count, at) };
        let Ok(mut got) = usize::try_from(got) else {
            let error = Error::last_os_error();
            if error.kind() == ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        };
        if got == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        offset = offset.saturating_add(got as u64);
        Counters::add(&counters.bytes, got as u64);
        // After a short read, go on where it ended.
        while let Some(vector) = vectors.get_mut(done).filter(|_| got > 0) {
            let taken = got.min(vector.iov_len);
            // SAFETY: no further than the vector's end.
            vector.iov_base = unsafe { vector.iov_base.cast::<u8>().add(taken) }.cast();
            vector.iov_len -= taken;
            got -= taken;
            if vector.iov_len == 0 {
                done += 1;
            }
        }
    }
    Ok(())
}

//! Copies many element ranges of one array to their destinations. Each chunk is decoded once; chunks are processed in parallel.
//!
//! Ranges are cut at chunk boundaries along the first axis and sorted by chunk, so that all ranges in a chunk are served when it is
//! decoded. Chunks whose stored bytes are their elements are not decoded: their runs are read straight to the destinations, those adjacent
//! in the file by one `preadv`.

mod deep;
mod raw;

use std::cell::RefCell;
use std::ops::Range;
use std::time::Instant;

use rayon::prelude::*;

use super::cache::ChunkCache;
use super::{Array, ArrayError, ChunkBuf, Counters, Extent, Scratch, grid, grow};
use crate::number::as_usize;

pub use deep::{Io, gather_deep, under_way};

/// The destination of a gather. Ranges are numbered.
///
/// # Safety
/// [`Sink::place`] returns exactly the requested run, in memory that nothing else accesses during the gather, and runs of different
/// ranges do not overlap: the gather writes to them from many threads.
///
/// ```compile_fail,E0200
/// struct Nowhere;
/// impl shufflefs::array::gather::Sink for Nowhere {
///     fn place(&self, _: usize, _: u64, _: u64) -> Option<&mut [u8]> {
///         None
///     }
///     fn put(&self, _: usize, _: u64, _: &[u8]) {}
/// }
/// ```
pub unsafe trait Sink: Sync {
    /// The destination of elements `at..at + len` of a range, if stored bytes go there unchanged; raw chunks are then read straight
    /// into it.
    ///
    /// # Safety of the caller
    /// Each (range, at, len) of the gather is requested once, so writers never overlap.
    #[allow(clippy::mut_from_ref)]
    fn place(&self, piece: usize, at: u64, len: u64) -> Option<&mut [u8]>;

    /// Checks elements that were read straight to their destination, while they are in the processor's cache.
    fn placed(&self, _elements: &[u8]) {}

    /// Whether it uses any of elements `at..at + len` of a range (a row of a matrix): chunks with unused columns only are not decoded.
    fn needs(&self, _at: u64, _len: u64) -> bool {
        true
    }

    /// Takes decoded elements of a range from `at` on (native byte order).
    fn put(&self, piece: usize, at: u64, elements: &[u8]);
}

/// A run of elements of a 1-D array, or of whole rows of an n-D one.
#[derive(Clone, Copy, Debug)]
pub struct ElementRange {
    /// First element (1-D), or the row (n-D).
    pub start: u64,
    /// Elements (1-D); ignored for n-D arrays, where a range is one row.
    pub len: u64,
}

/// The context of the load that a gather belongs to.
#[derive(Clone, Copy)]
pub struct GatherContext<'a> {
    pub counters: &'a Counters,
    /// Called after every chunk; the time limit is measured from the last call.
    pub progress: &'a (dyn Fn() + Sync),
    /// The cache of decoded chunks, if there is one.
    pub cache: Option<&'a ChunkCache>,
    /// Limits of requests in flight; `None`: each decoding thread makes its own requests, one at a time.
    pub io: Option<&'a Io>,
}

/// The part of a range in one band. A band is the chunks with one index along the first axis.
#[derive(Clone, Copy, Debug)]
struct BandPart {
    band: u64,
    piece: usize,
    /// First element (1-D) or row (n-D) within the band.
    start: u64,
    /// Elements (1-D), 1 (n-D).
    len: u64,
    /// Where the part starts in its range (1-D).
    at: u64,
}

/// The parts in one chunk of a band.
struct Task {
    jobs: Range<usize>,
    /// Index of the chunk within its band.
    column: u64,
}

/// A run of elements, with its place in a chunk and in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    piece: usize,
    /// First element within the chunk.
    from: u64,
    /// First element within the piece.
    at: u64,
    len: u64,
}

/// Maximum bytes of one read of raw chunks, and of one task of these.
const RAW_BYTES: u64 = 4 << 20;
/// Maximum runs of one task of raw chunks.
const RAW_RUNS: usize = 1024;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Gathers ranges of `array` into `sink`, in the current rayon pool.
///
/// # Errors
/// The first damaged or stale chunk; the destinations are then unspecified.
pub fn gather(
    array: &Array,
    pieces: &[ElementRange],
    sink: &dyn Sink,
    work: &GatherContext<'_>,
) -> Result<(), ArrayError> {
    if let Some(io) = work.io {
        let depth = io.depth(array);
        if depth > 1 {
            return gather_deep(&[(array, pieces, sink)], depth, io, work);
        }
    }
    let gathering = Gathering::new(array, pieces, sink)?;
    if array.source.is_encoded() {
        return (0..gathering.tasks.len())
            .into_par_iter()
            .try_for_each(|task| gathering.run_here(task..task + 1, work));
    }
    let batches = batches(&gathering.tasks, &gathering.jobs, &gathering.geometry);
    batches.into_par_iter().try_for_each(|batch| gathering.run_here(batch, work))
}

/// A gather, divided into tasks.
struct Gathering<'a> {
    array: &'a Array,
    sink: &'a dyn Sink,
    geometry: Geometry,
    jobs: Vec<BandPart>,
    tasks: Vec<Task>,
}

impl<'a> Gathering<'a> {
    fn new(array: &'a Array, pieces: &[ElementRange], sink: &'a dyn Sink) -> Result<Gathering<'a>, ArrayError> {
        let geometry = Geometry::of(array)?;
        let encoded = array.source.is_encoded();
        let jobs = geometry.jobs(array, pieces, encoded)?;
        let tasks = tasks(&jobs, &geometry, encoded, &geometry.needed(sink));
        Ok(Gathering { array, sink, geometry, jobs, tasks })
    }

    /// The parts of a task, and the column of its chunk.
    fn task(&self, task: usize) -> (&[BandPart], u64) {
        let Some(task) = self.tasks.get(task) else { return (&[], 0) };
        (self.jobs.get(task.jobs.clone()).unwrap_or_default(), task.column)
    }

    /// The number of a task's chunk.
    fn chunk(&self, task: usize) -> u64 {
        let (jobs, column) = self.task(task);
        jobs.first().map_or(0, |first| first.band * self.geometry.columns + column)
    }

    /// Runs some tasks on a decoding thread, with that thread's buffers.
    fn run_here(&self, tasks: Range<usize>, work: &GatherContext<'_>) -> Result<(), ArrayError> {
        // Taken instead of borrowed, as a sink may gather in turn.
        let mut scratch = SCRATCH.take();
        let result = self.run(tasks, work, &mut scratch);
        SCRATCH.set(scratch);
        result
    }

    /// Runs some tasks: reads the runs of raw chunks, decodes the others.
    fn run(&self, tasks: Range<usize>, work: &GatherContext<'_>, scratch: &mut Scratch) -> Result<(), ArrayError> {
        let mut reads = raw::Reads::new(self.array, self.sink);
        for task in tasks {
            match self.array.source.raw(self.chunk(task))? {
                Some(extent) => self.add_runs(task, &extent, &mut reads)?,
                None => self.decode(task, None, work, scratch)?,
            }
        }
        reads.finish(work, scratch)
    }

    /// Adds the runs of a task with a raw chunk.
    fn add_runs(&self, task: usize, extent: &Extent, reads: &mut raw::Reads<'_>) -> Result<(), ArrayError> {
        let ((jobs, column), chunk) = (self.task(task), self.chunk(task));
        let declared = self.geometry.chunk_bytes;
        if extent.len < declared as u64 {
            return Err(self.array.damaged(chunk, format!("{} bytes, {declared} are declared", extent.len)));
        }
        self.geometry.each_run(jobs, column, |run| reads.add(chunk, extent, run));
        Ok(())
    }

    /// Decodes the chunk of a task, from its stored bytes if these were read in advance.
    fn decode(
        &self,
        task: usize,
        stored: Option<&[u8]>,
        work: &GatherContext<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), ArrayError> {
        let Gathering { array, sink, geometry, .. } = self;
        let ((jobs, column), chunk) = (self.task(task), self.chunk(task));
        let put = |bytes: &[u8]| {
            let began = Instant::now();
            geometry.each_run(jobs, column, |run| {
                let from = as_usize(run.from) * geometry.size;
                if let Some(elements) = bytes.get(from..from + as_usize(run.len) * geometry.size) {
                    sink.put(run.piece, run.at, elements);
                }
            });
            Counters::time(&work.counters.scatter_ns, began);
        };
        let decode = |out: ChunkBuf<'_>, scratch: &mut Scratch| {
            let began = Instant::now();
            array.source.decode(chunk, stored, out, scratch, work.counters)?;
            Counters::time(&work.counters.decode_ns, began);
            Counters::add(&work.counters.chunks, 1);
            Ok(())
        };
        match work.cache {
            Some(cache) => {
                let whole = |bytes: &mut [u8]| decode(ChunkBuf::whole(bytes), scratch);
                cache.with(array, chunk, geometry.chunk_bytes, whole, put)?;
            }
            None => {
                // Taken out, as decoding uses the other buffers.
                let mut decoded = std::mem::take(&mut scratch.chunk);
                grow(&mut decoded, geometry.chunk_bytes).map_err(|error| array.damaged(chunk, error.to_string()))?;
                let bytes = decoded.get_mut(..geometry.chunk_bytes).unwrap_or_default();
                decode(ChunkBuf { bytes, part: geometry.part(jobs, column) }, scratch)?;
                put(bytes);
                scratch.chunk = decoded;
            }
        }
        (work.progress)();
        Ok(())
    }
}

/// The checked shapes of an array.
struct Geometry {
    size: usize,
    chunk_bytes: usize,
    /// Rows (n-D) or elements (1-D) of the array and of a chunk.
    rows: u64,
    chunk_rows: u64,
    /// Shapes along the other axes; empty for 1-D.
    shape: Vec<u64>,
    chunk: Vec<u64>,
    grid: Vec<u64>,
    /// Elements of one row of a chunk.
    chunk_row: u64,
    /// Chunks of one band.
    columns: u64,
}

impl Geometry {
    fn of(array: &Array) -> Result<Geometry, ArrayError> {
        let large = || array.damaged(0, "the shape is too large: the store is damaged");
        let product = |axes: &[u64]| axes.iter().try_fold(1_u64, |n, &c| n.checked_mul(c)).ok_or_else(large);
        let size = array.dtype.size();
        let (&rows, shape) = array.shape.split_first().unwrap_or((&1, &[]));
        let (&chunk_rows, chunk) = array.chunk_shape.split_first().unwrap_or((&1, &[]));
        let grid = grid(shape, chunk);
        let chunk_row = product(chunk)?;
        let columns = product(&grid)?;
        product(shape)?.checked_mul(size as u64).ok_or_else(large)?;
        rows.div_ceil(chunk_rows.max(1)).checked_mul(columns).ok_or_else(large)?;
        let bytes = chunk_row.checked_mul(chunk_rows).and_then(|n| n.checked_mul(size as u64)).ok_or_else(large)?;
        Ok(Geometry {
            size,
            chunk_bytes: usize::try_from(bytes).map_err(|_| large())?,
            rows,
            chunk_rows: chunk_rows.max(1),
            shape: shape.to_vec(),
            chunk: chunk.to_vec(),
            grid,
            chunk_row,
            columns,
        })
    }

    /// Divides ranges at bands, and sorts the parts.
    fn jobs(&self, array: &Array, pieces: &[ElementRange], encoded: bool) -> Result<Vec<BandPart>, ArrayError> {
        let flat = self.shape.is_empty();
        // Raw ranges are divided further, so that an array in one raw chunk makes many tasks.
        let most = if encoded { u64::MAX } else { RAW_BYTES / self.size as u64 };
        let mut jobs = Vec::with_capacity(pieces.len());
        for (piece, &ElementRange { start, len }) in pieces.iter().enumerate() {
            let len = if flat { len } else { 1 };
            let end = start.checked_add(len).filter(|&end| end <= self.rows).ok_or_else(|| ArrayError::Element {
                store: array.store.to_string(),
                element: array.element.to_string(),
                cause: format!("{start}..+{len} lies beyond its {} rows", self.rows),
            })?;
            let mut at = start;
            while at < end {
                let band = at / self.chunk_rows;
                let inside = at % self.chunk_rows;
                let len = (self.chunk_rows - inside).min(end - at).min(most);
                jobs.push(BandPart { band, piece, start: inside, len, at: at - start });
                at += len;
            }
        }
        jobs.sort_unstable_by_key(|job| (job.band, job.start));
        Ok(jobs)
    }

    /// The columns of chunks that a sink uses; for a selection of a matrix's columns these may be a few.
    fn needed(&self, sink: &dyn Sink) -> Vec<u64> {
        let all = 0..self.columns;
        match (self.shape.as_slice(), self.chunk.as_slice()) {
            (&[width], &[chunk]) => all
                .filter(|column| sink.needs(column * chunk, chunk.min(width.saturating_sub(column * chunk))))
                .collect(),
            _ => all.collect(),
        }
    }

    /// Bytes of a part in one chunk.
    fn job_bytes(&self, job: &BandPart) -> u64 {
        job.len.saturating_mul(self.chunk_row).saturating_mul(self.size as u64)
    }

    /// The byte range of a chunk that covers all parts.
    fn part(&self, jobs: &[BandPart], column: u64) -> Range<usize> {
        let mut part = self.chunk_bytes..0;
        self.each_run(jobs, column, |run| {
            let from = as_usize(run.from) * self.size;
            part = part.start.min(from)..part.end.max(from + as_usize(run.len) * self.size);
        });
        part.start.min(part.end)..part.end
    }

    /// Calls `take` with each run of elements in the chunk of a column.
    fn each_run(&self, jobs: &[BandPart], column: u64, mut take: impl FnMut(Run)) {
        if self.shape.is_empty() {
            for job in jobs {
                take(Run { piece: job.piece, from: job.start, at: job.at, len: job.len });
            }
            return;
        }
        // The index of the chunk's first element on each trailing axis, and how many of its elements are within the array.
        let axes = self.shape.len();
        let mut origin = vec![0; axes];
        let mut count = vec![0; axes];
        let mut rest = column;
        for axis in (0..axes).rev() {
            let index = rest % self.grid[axis].max(1);
            rest /= self.grid[axis].max(1);
            origin[axis] = index * self.chunk[axis];
            count[axis] = self.chunk[axis].min(self.shape[axis].saturating_sub(origin[axis]));
        }
        // Axes that the chunk covers completely are merged with the axis before.
        let mut inner = axes - 1;
        let mut len = count[inner];
        while inner > 0 && count[inner] == self.shape[inner] && count[inner] == self.chunk[inner] {
            inner -= 1;
            len *= count[inner];
        }
        if len == 0 {
            return;
        }
        let lines: u64 = count[..inner].iter().product();
        let line = |strides: &[u64], base: &[u64], number: u64| {
            let (mut rest, mut at, mut stride) = (number, 0, 1);
            for axis in (0..axes).rev() {
                let mut index = base[axis];
                if axis < inner {
                    index += rest % count[axis];
                    rest /= count[axis];
                }
                at += index * stride;
                stride *= strides[axis];
            }
            at
        };
        let zero = vec![0; axes];
        for job in jobs {
            for number in 0..lines {
                let from = job.start * self.chunk_row + line(&self.chunk, &zero, number);
                take(Run { piece: job.piece, from, at: line(&self.shape, &origin, number), len });
            }
        }
    }
}

/// One task for each band and used column. Raw bands are divided, as their parts share no decoding.
fn tasks(jobs: &[BandPart], geometry: &Geometry, encoded: bool, columns: &[u64]) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut start = 0;
    let mut bytes = 0_u64;
    for (index, job) in jobs.iter().enumerate() {
        bytes = bytes.saturating_add(geometry.job_bytes(job));
        let last = jobs.get(index + 1).is_none_or(|next| next.band != job.band);
        let full = !encoded && (bytes >= RAW_BYTES || index + 1 - start >= RAW_RUNS);
        if last || full {
            tasks.extend(columns.iter().map(|&column| Task { jobs: start..index + 1, column }));
            start = index + 1;
            bytes = 0;
        }
    }
    tasks
}

/// Groups small tasks, so that adjacent raw chunks are read together.
fn batches(tasks: &[Task], jobs: &[BandPart], geometry: &Geometry) -> Vec<Range<usize>> {
    /// Tasks of a group; also bounds the chunk files that it holds open.
    const TASKS: usize = 64;
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0_u64);
    for (index, task) in tasks.iter().enumerate() {
        let jobs = jobs.get(task.jobs.clone()).unwrap_or_default();
        bytes = jobs.iter().fold(bytes, |n, job| n.saturating_add(geometry.job_bytes(job)));
        if bytes >= RAW_BYTES / 4 || index + 1 - start >= TASKS || index + 1 == tasks.len() {
            batches.push(start..index + 1);
            start = index + 1;
            bytes = 0;
        }
    }
    batches
}

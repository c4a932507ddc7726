//! `shufflefs info --check`: reads everything that a mount could serve, and lists all damage by chunk.
//!
//! Chunks are decoded in parallel and dropped at once, so memory is that of a few chunks. obs columns are read whole, one at a time, as
//! in a mount.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::dataframe::{ColumnKind, DataFrame};
use super::matrix::Matrix;
use super::names::Frame;
use super::{matrices, one_line};
use crate::array::cast::{max_index, to_i64};
use crate::array::{Array, ArrayError, ChunkBuf, Container, Counters, Dtype, Extent, NodeKind, Scratch};
use crate::number::as_usize;

/// One finding of damage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    element: String,
    chunk: Option<u64>,
    what: String,
}

/// The check of one store.
struct Check<'a> {
    store: &'a dyn Container,
    counters: Counters,
    bar: ProgressBar,
    found: Mutex<Vec<Finding>>,
    /// Elements of unsupported kinds, each with the reason; they are no damage.
    unread: Mutex<Vec<(String, String)>>,
}

/// An array to read chunk by chunk.
struct Scan {
    array: Array,
    /// Column numbers must be below this.
    bound: Option<u64>,
}

/// Bytes of an unfiltered chunk to read at once: a contiguous array is one chunk.
const PART: u64 = 4 << 20;
/// Maximum bytes of decoded chunks in memory, over all threads.
const ROOM: u64 = 2 << 30;
/// After this many missing chunks in a row, the rest of an array is not read.
const MOST_UNWRITTEN: u64 = 1 << 16;

/// Checks a store; returns `damage`, `bytes` read and `not_read`, as JSON.
pub fn check(store: &dyn Container) -> Value {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let check = Check { store, counters: Counters::default(), bar, found: Mutex::default(), unread: Mutex::default() };
    let scans = check.metadata();
    check.bar.set_length(scans.iter().map(|scan| scan.array.bytes().unwrap_or(0)).sum());
    for scan in &scans {
        check.scan(scan);
    }
    check.bar.finish_and_clear();
    let mut found = check.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let left = check.unread.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort();
    found.dedup();
    let damage = |finding: &Finding| json!({"element": finding.element, "chunk": finding.chunk, "what": finding.what});
    let unread = |(element, reason): &(String, String)| json!({"element": element, "reason": reason});
    json!({
        "damage": found.iter().map(damage).collect::<Vec<_>>(),
        "bytes": check.counters.bytes,
        "not_read": left.iter().map(unread).collect::<Vec<_>>(),
    })
}

impl Check<'_> {
    fn add(&self, element: &str, chunk: Option<u64>, what: impl AsRef<str>) {
        let finding = Finding { element: element.to_owned(), chunk, what: one_line(what.as_ref()) };
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }

    /// Records an element, or a part of one, that is not supported.
    fn leave(&self, element: (String, String)) {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).push(element);
    }

    /// Records an error: as damage, unless it means that the element is not supported.
    fn fail(&self, element: &str, error: ArrayError) {
        match error {
            ArrayError::Unsupported { element, cause, .. } => self.leave((element, one_line(&cause))),
            other => self.damaged(element, &other),
        }
    }

    fn damaged(&self, element: &str, error: &ArrayError) {
        match error {
            ArrayError::Damaged { element, chunk, cause, .. } => self.add(element, Some(*chunk), cause),
            ArrayError::Element { element, cause, .. } | ArrayError::Unsupported { element, cause, .. } => {
                self.add(element, None, cause);
            }
            // A file that ends before one of its chunks and does not change now was truncated before.
            ArrayError::Stale { cause, .. } | ArrayError::Open { cause, .. } => self.add(element, None, cause),
            ArrayError::Io { what, source, .. } => self.add(element, None, format!("{what}: {source}")),
        }
    }

    /// Reads everything except the values of matrices; returns their arrays.
    fn metadata(&self) -> Vec<Scan> {
        self.bar.set_message(self.store.name().to_owned());
        let rows = self.obs();
        let mut genes = Vec::new();
        for frame in [Frame::Var, Frame::RawVar] {
            genes.push(if frame == Frame::Var || matches!(self.store.kind(frame.path()), Ok(Some(_))) {
                self.names(frame)
            } else {
                None
            });
        }
        let mut scans = Vec::new();
        match matrices(self.store) {
            Ok(elements) => {
                for element in elements {
                    let columns = match element.frame() {
                        Some(Frame::RawVar) => genes.get(1).copied().flatten(),
                        Some(_) => genes.first().copied().flatten(),
                        None => None,
                    };
                    scans.extend(self.matrix(&element.path(), rows, columns));
                }
            }
            Err(error) => self.fail("", error),
        }
        scans
    }

    /// Checks obs; returns the number of rows, if known.
    fn obs(&self) -> Option<u64> {
        let rows = self.names(Frame::Obs);
        let store = self.store;
        let Ok(frame) = DataFrame::open(store, Frame::Obs) else { return rows };
        for name in &frame.columns {
            self.bar.tick();
            let path = format!("{}/{name}", Frame::Obs.path());
            match frame.kind(name) {
                Ok(ColumnKind::Other) => match frame.what(name) {
                    Ok(what) => self.leave((path, format!("{what}, which is not read"))),
                    Err(error) => self.fail(&path, error),
                },
                Err(error) => self.fail(&path, error),
                Ok(_) => {
                    if let Err(error) = frame.column(name, &self.counters) {
                        // Reading stops at the first damage, so the column's arrays are scanned for more.
                        if matches!(
                            error,
                            ArrayError::Damaged { .. } | ArrayError::Stale { .. } | ArrayError::Io { .. }
                        ) {
                            self.parts(&path);
                        }
                        self.fail(&path, error);
                    }
                }
            }
        }
        rows
    }

    /// Reads the index of a dataframe; returns its length.
    fn names(&self, frame: Frame) -> Option<u64> {
        let opened = DataFrame::open(self.store, frame);
        let names = opened.and_then(|opened| Ok((opened.rows, opened.names(&self.counters)?.len() as u64)));
        match names {
            Ok((rows, names)) if rows == names => return Some(rows),
            Ok((rows, names)) => self.add(frame.path(), None, format!("its index holds {names} names for {rows} rows")),
            Err(error) => self.fail(frame.path(), error),
        }
        None
    }

    /// Reads every numeric array of a column.
    fn parts(&self, path: &str) {
        let arrays = match self.store.kind(path) {
            Ok(Some(NodeKind::Array)) => vec![path.to_owned()],
            Ok(Some(NodeKind::Group)) => {
                let members = self.store.members(path).unwrap_or_default();
                members.into_iter().map(|name| format!("{path}/{name}")).collect()
            }
            _ => Vec::new(),
        };
        for array in arrays.iter().filter_map(|element| self.store.array(element).ok()) {
            self.scan(&Scan { array, bound: None });
        }
    }

    fn matrix(&self, element: &str, rows: Option<u64>, columns: Option<u64>) -> Vec<Scan> {
        // A mount serves the transpose of a matrix stored by column.
        let (opened, turned) = match Matrix::open_by_column(self.store, element, &self.counters) {
            Ok(Some(matrix)) => (Ok(matrix), true),
            Ok(None) => (Matrix::open(self.store, element, &self.counters), false),
            Err(error) => (Err(error), false),
        };
        match opened {
            Ok(matrix) => {
                let (here, width) = (matrix.rows(), matrix.row_shape().first().copied().unwrap_or(0));
                let (here, width) = if turned { (width, here) } else { (here, width) };
                if let Some(rows) = rows.filter(|&rows| rows != here) {
                    self.add(element, None, format!("has {here} rows, but obs has {rows}"));
                }
                if let Some(columns) = columns.filter(|&columns| columns != width) {
                    self.add(element, None, format!("has {width} columns, but {columns} genes are named"));
                }
                match matrix {
                    Matrix::Dense { array } => vec![Scan { array, bound: None }],
                    Matrix::Sparse { data, indices, columns, .. } => {
                        vec![Scan { array: data, bound: None }, Scan { array: indices, bound: Some(columns) }]
                    }
                }
            }
            Err(error @ ArrayError::Unsupported { .. }) => {
                self.fail(element, error);
                Vec::new()
            }
            Err(error) => {
                self.fail(element, error);
                // Its arrays may have more damage than the one that stopped reading.
                let part = |name: &str| self.store.array(&format!("{element}/{name}")).ok();
                let parts = ["data", "indices", "indptr"].into_iter().filter_map(part);
                parts.map(|array| Scan { array, bound: None }).collect()
            }
        }
    }

    /// Reads every chunk of an array.
    fn scan(&self, scan: &Scan) {
        let array = &scan.array;
        let product = |axes: &[u64]| axes.iter().try_fold(1_u64, |n, &c| n.checked_mul(c));
        let chunk_bytes = product(&array.chunk_shape).and_then(|n| n.checked_mul(array.dtype.size() as u64));
        let (Ok(bytes), Some(chunks), Some(chunk_bytes)) = (array.bytes(), product(&array.grid()), chunk_bytes) else {
            return self.add(&array.element, None, "the shape is too large");
        };
        self.bar.set_message(format!("{}: {}", self.store.name(), array.element));
        let began = self.bar.position();
        // Few at a time if chunks are large.
        let tasks = (ROOM / chunk_bytes.max(1)).clamp(1, 1 << 20).min(chunks);
        // Missing chunks are not damage, but a wrong shape could have so many of them that the scan takes too long.
        let idle = AtomicU64::new(0);
        let last = AtomicU64::new(self.counters.bytes.load(Ordering::Relaxed));
        let unwritten = || {
            let bytes = self.counters.bytes.load(Ordering::Relaxed);
            if last.swap(bytes, Ordering::Relaxed) != bytes {
                idle.store(0, Ordering::Relaxed);
            }
            idle.fetch_add(1, Ordering::Relaxed) > MOST_UNWRITTEN
        };
        (0..tasks).into_par_iter().for_each_init(
            || (Scratch::default(), Vec::new()),
            |(scratch, decoded), first| {
                for chunk in (first..chunks).step_by(usize::try_from(tasks).unwrap_or(usize::MAX)) {
                    if unwritten() {
                        return;
                    }
                    if let Err(error) = self.chunk(scan, chunk, chunk_bytes, scratch, decoded) {
                        self.damaged(&array.element, &error);
                    }
                    self.bar.inc(chunk_bytes.min(bytes));
                }
            },
        );
        if idle.into_inner() > MOST_UNWRITTEN {
            let reason =
                format!("{MOST_UNWRITTEN} of its {chunks} chunks in a row were never written; the rest was not read");
            self.leave((array.element.to_string(), reason));
        }
        self.bar.set_position(began.saturating_add(bytes));
    }

    fn chunk(
        &self,
        scan: &Scan,
        chunk: u64,
        chunk_bytes: u64,
        scratch: &mut Scratch,
        decoded: &mut Vec<u8>,
    ) -> Result<(), ArrayError> {
        let array = &scan.array;
        if let Some(extent) = array.source.raw(chunk)? {
            return self.raw(scan, chunk, chunk_bytes, &extent);
        }
        let size = usize::try_from(chunk_bytes).map_err(|_| array.damaged(chunk, "too large"))?;
        decoded.resize(size, 0);
        array.source.decode(chunk, None, ChunkBuf::whole(decoded), scratch, &self.counters)?;
        self.columns(scan, chunk, 0, decoded)
    }

    /// Reads an unfiltered chunk.
    fn raw(&self, scan: &Scan, chunk: u64, chunk_bytes: u64, extent: &Extent) -> Result<(), ArrayError> {
        let array = &scan.array;
        if extent.len < chunk_bytes {
            return Err(array.damaged(chunk, format!("{} bytes, {chunk_bytes} are declared", extent.len)));
        }
        (0..chunk_bytes.div_ceil(PART)).into_par_iter().try_for_each(|part| {
            let start = part * PART;
            let mut bytes = vec![0; as_usize((chunk_bytes - start).min(PART))];
            let read = extent.object.read_exact_at(extent.offset.saturating_add(start), &mut bytes);
            read.map_err(|error| array.damaged(chunk, format!("cannot be read: {error}")))?;
            Counters::add(&self.counters.reads, 1);
            Counters::add(&self.counters.bytes, bytes.len() as u64);
            self.columns(scan, chunk, start, &bytes)
        })
    }

    /// Checks that column numbers lie within the matrix. `start` is the position of `bytes` in the chunk.
    fn columns(&self, scan: &Scan, chunk: u64, start: u64, bytes: &[u8]) -> Result<(), ArrayError> {
        let (Some(bound), [total], [step]) =
            (scan.bound, scan.array.shape.as_slice(), scan.array.chunk_shape.as_slice())
        else {
            return Ok(());
        };
        let size = scan.array.dtype.size() as u64;
        // The last chunk may extend beyond the array; that part is arbitrary.
        let left = total.saturating_sub(chunk.saturating_mul(*step)).saturating_mul(size).saturating_sub(start);
        let inside = usize::try_from(left.min(bytes.len() as u64)).ok().and_then(|end| bytes.get(..end));
        let inside = inside.unwrap_or_default();
        match outside(scan.array.dtype, inside, bound) {
            None => Ok(()),
            Some(column) => {
                Err(scan.array.damaged(chunk, format!("column number {column} is outside the {bound} columns")))
            }
        }
    }
}

/// A number among packed indices that is not below `bound`, read as signed.
fn outside(dtype: Dtype, indices: &[u8], bound: u64) -> Option<i64> {
    // Read as unsigned, a negative number exceeds every bound that its dtype can hold; only larger bounds need the slow check.
    let hides = dtype.is_signed() && dtype.size() < 8 && bound >> (8 * dtype.size() - 1) != 0;
    if !hides && (indices.is_empty() || max_index(dtype, indices) < bound) {
        return None;
    }
    let numbers = indices.chunks_exact(dtype.size()).map(|number| to_i64(dtype, number));
    numbers.into_iter().find(|&number| u64::try_from(number).map_or(true, |number| number >= bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_column_numbers_are_outside_of_any_matrix() {
        assert_eq!(outside(Dtype::I8, &[1, 0xff], 1000), Some(-1));
        assert_eq!(outside(Dtype::I8, &[1, 127], 1000), None);
        assert_eq!(outside(Dtype::U8, &[1, 0xff], 255), Some(255));
        assert_eq!(outside(Dtype::I16, &[0, 0x80], 40_000), Some(-32_768));
        assert_eq!(outside(Dtype::U64, &[0xff; 8], 10), Some(-1));
        assert_eq!(outside(Dtype::I32, &[], 0), None);
    }
}

//! Reads whole arrays and ranges, for what is read once: row bounds, codes, masks.

use std::sync::atomic::{AtomicBool, Ordering};

use super::gather::{ElementRange, GatherContext, Io, Sink, gather, under_way};
use super::{Array, ArrayError, Counters, DestSlice};
use crate::number::as_usize;

/// Nominal memory that determines how many stored bytes may be in flight while whole arrays are read.
const WHOLE: u64 = 1 << 30;

/// A buffer that consecutive ranges are gathered to.
struct ReadBuffer {
    /// The buffer; destinations are disjoint parts of it.
    dest: DestSlice,
    /// Bytes of one range (a row of an n-D array; for 1-D there is one range), and of an element.
    piece: usize,
    size: usize,
    /// Set if a run was out of bounds, which would be a bug in `gather`.
    missed: AtomicBool,
}

impl ReadBuffer {
    #[allow(clippy::mut_from_ref)]
    fn slice(&self, piece: usize, at: u64, bytes: usize) -> Option<&mut [u8]> {
        let at = usize::try_from(at).ok()?.checked_mul(self.size)?;
        let part = self.dest.part(piece.checked_mul(self.piece)?.checked_add(at)?, bytes)?;
        // SAFETY: the buffer outlives the gather, and nothing else accesses it meanwhile; `gather` requests each run of a range once,
        // and ranges do not overlap.
        Some(unsafe { part.bytes() })
    }
}

// SAFETY: ranges are the rows of one buffer, or there is one; `place` returns exactly the requested run.
unsafe impl Sink for ReadBuffer {
    fn place(&self, piece: usize, at: u64, len: u64) -> Option<&mut [u8]> {
        self.slice(piece, at, usize::try_from(len).ok()?.checked_mul(self.size)?)
    }

    fn put(&self, piece: usize, at: u64, elements: &[u8]) {
        match self.slice(piece, at, elements.len()) {
            Some(place) => place.copy_from_slice(elements),
            None => self.missed.store(true, Ordering::Relaxed),
        }
    }
}

impl Array {
    /// Decoded bytes of the whole array.
    ///
    /// # Errors
    /// `Damaged` if the shape overflows.
    pub fn bytes(&self) -> Result<u64, ArrayError> {
        self.shape
            .iter()
            .try_fold(self.dtype.size() as u64, |n, &c| n.checked_mul(c))
            .ok_or_else(|| self.damaged(0, "the shape is too large: the store is damaged"))
    }

    /// The whole array, little-endian, C order; refused if it exceeds `limit` bytes.
    ///
    /// # Errors
    /// `Unsupported` beyond the limit; those of [`gather`].
    pub fn read_all(&self, limit: u64, counters: &Counters) -> Result<Vec<u8>, ArrayError> {
        let bytes = self.bytes()?;
        if self.shape.len() <= 1 {
            return self.read_range(0, self.shape.first().copied().unwrap_or(1), limit, counters);
        }
        let rows = self.shape.first().copied().unwrap_or(0);
        let mut buffer = self.room(bytes, limit, counters)?;
        if buffer.is_empty() {
            return Ok(buffer);
        }
        let pieces: Vec<ElementRange> = (0..rows).map(|start| ElementRange { start, len: 1 }).collect();
        let piece = as_usize(bytes / rows.max(1));
        self.fill(&mut buffer, piece, &pieces, counters)?;
        Ok(buffer)
    }

    /// Elements `start..start + len` of a 1-D array; refused if they exceed `limit` bytes.
    ///
    /// # Errors
    /// `Unsupported` beyond the limit; `Element` beyond the array; those of [`gather`].
    pub fn read_range(&self, start: u64, len: u64, limit: u64, counters: &Counters) -> Result<Vec<u8>, ArrayError> {
        self.range(start, len, |bytes| self.room(bytes, limit, counters), counters)
    }

    /// As `read_range`, for a pass in small steps: the bytes do not count as memory, as they are not kept.
    ///
    /// # Errors
    /// As above.
    pub fn read_window(&self, start: u64, len: u64, counters: &Counters) -> Result<Vec<u8>, ArrayError> {
        let passing = Counters::default();
        self.range(start, len, |bytes| self.room(bytes, u64::MAX, &passing), counters)
    }

    fn range(
        &self,
        start: u64,
        len: u64,
        room: impl FnOnce(u64) -> Result<Vec<u8>, ArrayError>,
        counters: &Counters,
    ) -> Result<Vec<u8>, ArrayError> {
        let total = self.shape.first().copied().unwrap_or(1);
        if self.shape.len() > 1 || start.checked_add(len).is_none_or(|end| end > total) {
            return Err(ArrayError::Element {
                store: self.store.to_string(),
                element: self.element.to_string(),
                cause: format!("elements {start}..+{len} of shape {:?} were asked for", self.shape),
            });
        }
        let bytes = len.saturating_mul(self.dtype.size() as u64);
        let mut buffer = room(bytes)?;
        self.fill(&mut buffer, 0, &[ElementRange { start, len }], counters)?;
        Ok(buffer)
    }

    /// Allocates a buffer; refuses more than `limit` bytes, as a wrong shape must not take the machine's memory.
    fn room(&self, bytes: u64, limit: u64, counters: &Counters) -> Result<Vec<u8>, ArrayError> {
        let refused = |cause: String| ArrayError::Unsupported {
            store: self.store.to_string(),
            element: self.element.to_string(),
            cause,
        };
        if bytes > limit {
            return Err(refused(format!("its {bytes} bytes are more than the {limit} that may be read at once")));
        }
        let before = counters.whole.fetch_add(bytes, Ordering::Relaxed);
        if let Some(room) = counters.room.filter(|&room| before.saturating_add(bytes) > room) {
            return Err(refused(format!(
                "its {bytes} bytes and the {before} read before are more than the {room} of memory that there is for \
                 row bounds and obs columns; serve fewer columns (--obs)"
            )));
        }
        let mut buffer: Vec<u8> = Vec::new();
        let size = usize::try_from(bytes).ok().filter(|&size| buffer.try_reserve_exact(size).is_ok());
        let size = size.ok_or_else(|| refused(format!("there is no memory for its {bytes} bytes")))?;
        // The trial allocation is dropped first: fresh zeroed pages are cheaper than filling these.
        drop(buffer);
        Ok(vec![0; size])
    }

    fn fill(
        &self,
        buffer: &mut [u8],
        piece: usize,
        pieces: &[ElementRange],
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        let io = Io::new(None, rayon::current_num_threads(), under_way(WHOLE));
        let sink =
            ReadBuffer { dest: DestSlice::new(buffer), piece, size: self.dtype.size(), missed: AtomicBool::new(false) };
        gather(self, pieces, &sink, &GatherContext { counters, progress: &|| {}, cache: None, io: Some(&io) })?;
        if sink.missed.into_inner() {
            return Err(self.damaged(0, "a run lies outside the array"));
        }
        Ok(())
    }
}

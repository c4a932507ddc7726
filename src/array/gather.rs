//! Copies many pieces of one array to their places, each chunk decoded once, chunks in parallel.

use super::{Array, ArrayError, Counters};

/// Where gathered elements go. Pieces are numbered; places of different pieces never overlap.
pub trait Sink: Sync {
    /// The place of elements `at..at + len` of a piece, if stored bytes go there unchanged; lets raw chunks be read
    /// straight into it.
    ///
    /// # Safety of the caller
    /// Each place is handed out once for each (piece, at, len) of the gather, so writers never overlap.
    #[allow(clippy::mut_from_ref)]
    fn place(&self, piece: usize, at: u64, len: u64) -> Option<&mut [u8]>;

    /// Takes decoded elements `at..` of a piece (native byte order).
    fn put(&self, piece: usize, at: u64, elements: &[u8]);
}

/// A run of elements of a 1-D array, or of whole rows of an n-D one.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// First element (1-D), or the row (n-D).
    pub start: u64,
    /// Elements (1-D); ignored for n-D arrays, where a piece is one row.
    pub len: u64,
}

/// What a gather needs to know of the load it works for.
pub struct Work<'a> {
    pub counters: &'a Counters,
    /// Called after every chunk; a deadline is measured from the last call.
    pub progress: &'a (dyn Fn() + Sync),
}

/// Gathers `pieces` of `array` into `sink`. Runs on the current rayon pool.
///
/// # Errors
/// The first damaged or stale chunk met; what was gathered before is then unspecified.
pub fn gather(array: &Array, pieces: &[Piece], sink: &dyn Sink, work: &Work<'_>) -> Result<(), ArrayError> {
    let _ = (array, pieces, sink, work);
    unreachable!("being written")
}

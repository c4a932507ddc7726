//! Buffers of one size, cut from large pieces of memory in huge pages.
//!
//! Fresh memory costs a page fault for every 4 KiB, more than the decoding of it; in huge pages it costs one for every
//! 2 MiB. A piece is given back when none of its buffers is left.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use memmap2::{Advice, MmapMut};

/// Bytes of one piece, but for larger buffers.
const PIECE: usize = 32 << 20;

/// Cuts buffers of one size.
pub struct Slab {
    size: usize,
    piece: Option<Arc<Piece>>,
    used: usize,
}

struct Piece {
    /// Kept for its memory alone, which the buffers point into.
    _memory: MmapMut,
    start: *mut u8,
    len: usize,
}

// SAFETY: `start` points into `_memory`, which is owned and moves nowhere; only disjoint buffers look through it.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

/// A buffer.
pub struct Buffer {
    piece: Arc<Piece>,
    offset: usize,
    len: usize,
}

impl Slab {
    pub fn new(size: usize) -> Slab {
        Slab { size, piece: None, used: 0 }
    }

    /// A buffer of zeros.
    ///
    /// # Errors
    /// The system has no memory.
    pub fn cut(&mut self) -> std::io::Result<Buffer> {
        let piece = match &self.piece {
            Some(piece) if piece.len - self.used >= self.size => piece.clone(),
            _ => {
                let piece = Arc::new(Piece::new(PIECE.max(self.size))?);
                self.used = 0;
                self.piece.insert(piece).clone()
            }
        };
        let offset = self.used;
        self.used += self.size;
        Ok(Buffer { piece, offset, len: self.size })
    }
}

impl Piece {
    fn new(len: usize) -> std::io::Result<Piece> {
        let mut memory = MmapMut::map_anon(len.max(1))?;
        // Where there are no huge pages, it is slower and nothing else.
        let _ = memory.advise(Advice::HugePage);
        Ok(Piece { start: memory.as_mut_ptr(), len, _memory: memory })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `cut` gives every buffer a run of the piece of its own, and the piece lives as long as they do.
        unsafe { std::slice::from_raw_parts(self.piece.start.add(self.offset), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.piece.start.add(self.offset), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_apart_and_outlive_the_slab() {
        let mut slab = Slab::new(PIECE / 3);
        let mut buffers: Vec<Buffer> = (0..7).map(|_| slab.cut().expect("memory")).collect();
        drop(slab);
        for (i, buffer) in buffers.iter_mut().enumerate() {
            assert!(buffer.len() == PIECE / 3 && buffer.iter().all(|&byte| byte == 0));
            buffer.fill(i as u8 + 1);
        }
        for (i, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|&byte| byte == i as u8 + 1));
        }
    }
}

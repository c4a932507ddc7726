//! A sink for gathers in tests: a buffer for each piece.

use std::sync::Mutex;

use shufflefs::array::gather::Sink;

/// A buffer for each piece; with `places`, uncompressed runs are read directly into it.
pub struct Pieces {
    pub buffers: Vec<Mutex<Vec<u8>>>,
    /// Bytes of an element.
    pub size: usize,
    pub places: bool,
}

// SAFETY: each piece has a separate buffer, which the test does not access while a gather runs.
unsafe impl Sink for Pieces {
    fn place(&self, piece: usize, at: u64, len: u64) -> Option<&mut [u8]> {
        let mut buffer = self.buffers[piece].lock().unwrap();
        let part = &mut buffer[at as usize * self.size..][..len as usize * self.size];
        // SAFETY: the buffer is not resized while the gather runs, and runs of a piece do not overlap.
        self.places.then(|| unsafe { std::slice::from_raw_parts_mut(part.as_mut_ptr(), part.len()) })
    }

    fn put(&self, piece: usize, at: u64, elements: &[u8]) {
        self.buffers[piece].lock().unwrap()[at as usize * self.size..][..elements.len()].copy_from_slice(elements);
    }
}

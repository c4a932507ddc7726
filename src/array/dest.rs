//! Destinations of a gather: disjoint ranges of a buffer that several threads write to.

/// A writable byte range of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct DestSlice {
    start: *mut u8,
    len: usize,
}

// SAFETY: it is used under a promise of exclusive access (see `DestSlice::bytes`), which holds on any thread.
unsafe impl Send for DestSlice {}
// SAFETY: as above; each range is written by one thread at a time.
unsafe impl Sync for DestSlice {}

impl DestSlice {
    /// A whole buffer. Nothing else may access it while slices of it are used.
    pub fn new(buffer: &mut [u8]) -> DestSlice {
        DestSlice { start: buffer.as_mut_ptr(), len: buffer.len() }
    }

    /// A part; `None` if it does not lie within.
    pub fn part(self, start: usize, len: usize) -> Option<DestSlice> {
        if start.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: start + len <= self.len, so the result is within the same buffer.
        Some(DestSlice { start: unsafe { self.start.add(start) }, len })
    }

    /// The bytes.
    ///
    /// # Safety
    /// The buffer is alive, and no other reference to these bytes exists.
    pub unsafe fn bytes<'a>(self) -> &'a mut [u8] {
        // SAFETY: the range lies in one live buffer; the caller guarantees exclusive access.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_within() {
        let mut buffer = [0; 10];
        let whole = DestSlice::new(&mut buffer);
        assert!(whole.part(4, 6).is_some_and(|part| part.part(6, 0).is_some()));
        assert!(whole.part(4, 7).is_none() && whole.part(usize::MAX, 2).is_none());
        let (Some(front), Some(back)) = (whole.part(0, 4), whole.part(4, 6)) else { panic!("they lie within") };
        // SAFETY: the two do not overlap, and the buffer is alive.
        let (front, back) = unsafe { (front.bytes(), back.bytes()) };
        front.fill(1);
        back.fill(2);
        assert_eq!(buffer, [1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    }
}

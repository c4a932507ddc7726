//! Shared read-only elements, in memory or in a mapped file.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use super::mapping::Mapping;

/// A slice and a share of its owner. Clones refer to the same bytes.
#[derive(Clone)]
pub struct Shared<T> {
    first: NonNull<T>,
    len: usize,
    /// Only keeps the elements alive.
    _owner: Owner<T>,
}

#[derive(Clone)]
enum Owner<T> {
    Memory(#[expect(dead_code, reason = "it holds the memory")] Arc<Vec<T>>),
    File(Arc<Mapping>),
}

// SAFETY: shared elements are only read, and both kinds of owner may be dropped by any thread.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl Shared<u8> {
    /// A range of bytes of a mapped file; `None` if the file is shorter.
    pub fn mapped(mapping: &Arc<Mapping>, start: u64, len: u64) -> Option<Shared<u8>> {
        let (start, len) = (usize::try_from(start).ok()?, usize::try_from(len).ok()?);
        let bytes = mapping.bytes().get(start..start.checked_add(len)?)?;
        Some(Shared { first: NonNull::from(bytes).cast(), len, _owner: Owner::File(Arc::clone(mapping)) })
    }

    /// The same bytes as native 64-bit numbers; `None` if they are not aligned to 8 bytes. Remaining bytes at the end are omitted.
    pub fn numbers(&self) -> Option<Shared<u64>> {
        let Owner::File(mapping) = &self._owner else { return None };
        let first = self.first.cast::<u64>();
        first.is_aligned().then(|| Shared { first, len: self.len / 8, _owner: Owner::File(Arc::clone(mapping)) })
    }
}

impl<T> From<Vec<T>> for Shared<T> {
    fn from(elements: Vec<T>) -> Shared<T> {
        let first = NonNull::from(elements.as_slice()).cast();
        // The vector moves; its elements do not.
        Shared { first, len: elements.len(), _owner: Owner::Memory(Arc::new(elements)) }
    }
}

impl<T> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the owner has this many elements from `first` on (bytes of a file become numbers only if aligned, and any bytes are
        // valid numbers), and none is written as long as it lives.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn of_memory_and_of_a_file() {
        let shared = Shared::from(vec![1_u64, 2, 3]);
        let clone = shared.clone();
        drop(shared);
        assert_eq!((&*clone, Shared::<u8>::from(Vec::new()).len()), (&[1, 2, 3][..], 0));

        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7_u64.to_ne_bytes(), 9_u64.to_ne_bytes()].concat()).unwrap();
        file.rewind().unwrap();
        let mapping = Mapping::new(&Arc::new(file)).unwrap();
        let bytes = Shared::mapped(&mapping, 8, 8).unwrap();
        assert!(Shared::mapped(&mapping, 8, 9).is_none() && Shared::mapped(&mapping, u64::MAX, 2).is_none());
        assert!(Shared::mapped(&mapping, 1, 8).unwrap().numbers().is_none());
        drop(mapping);
        assert_eq!((&*bytes, &*bytes.numbers().unwrap()), (&9_u64.to_ne_bytes()[..], &[9][..]));
    }
}

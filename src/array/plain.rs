//! Arrays in files that we wrote: contiguous, little-endian, one raw chunk.

use std::sync::Arc;

use crate::storage::{Meter, Object};

use super::{Array, ArrayError, ChunkBuf, ChunkSource, Counters, Dtype, Extent, Scratch, file};

/// A byte range of a file as an array.
struct RawFile {
    store: Arc<str>,
    element: Arc<str>,
    extent: Extent,
}

impl ChunkSource for RawFile {
    fn raw(&self, _: u64) -> Result<Option<Extent>, ArrayError> {
        Ok(Some(self.extent.clone()))
    }

    fn decode(
        &self,
        chunk: u64,
        _: Option<&[u8]>,
        out: ChunkBuf<'_>,
        _: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        file::read_exact(&self.extent.object, self.extent.offset, out.bytes, counters)
            .map_err(|error| file::read_error(&self.store, &self.element, chunk, error))
    }

    fn meter(&self) -> Option<&Meter> {
        Some(self.extent.object.address().meter())
    }
}

/// The 1-D array of `len` elements at `offset`; the caller has checked that the file contains it.
pub fn array(store: &str, element: &str, dtype: Dtype, len: u64, object: Object, offset: u64) -> Array {
    let (store, element): (Arc<str>, Arc<str>) = (store.into(), element.into());
    let extent = Extent { object, offset, len: len.saturating_mul(dtype.size() as u64) };
    let source = Arc::new(RawFile { store: store.clone(), element: element.clone(), extent });
    Array::new((store, element), dtype, (vec![len], vec![len.max(1)]), source)
}

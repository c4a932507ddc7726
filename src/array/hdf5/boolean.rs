//! Booleans stored as enums of several bytes, or with other integers than 0 and 1: decoded to one byte each.

use std::sync::Arc;

use crate::array::cast::to_i64;
use crate::array::meaning::Booleans;
use crate::array::{Array, ArrayError, ChunkBuf, ChunkSource, Counters, Dtype, Scratch};
use crate::storage::Meter;

/// An array of integers, read as booleans.
struct Named {
    store: Arc<str>,
    element: Arc<str>,
    inner: Arc<dyn ChunkSource>,
    dtype: Dtype,
    booleans: Booleans,
}

/// An array of booleans over the integers of an enum.
pub fn booleans(array: Array, booleans: Booleans) -> Array {
    let source = Arc::new(Named {
        store: Arc::clone(&array.store),
        element: Arc::clone(&array.element),
        inner: array.source,
        dtype: array.dtype,
        booleans,
    });
    Array { dtype: Dtype::Bool, source, ..array }
}

impl ChunkSource for Named {
    fn meter(&self) -> Option<&Meter> {
        self.inner.meter()
    }

    fn decode(
        &self,
        chunk: u64,
        stored: Option<&[u8]>,
        out: ChunkBuf<'_>,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        let mut integers = vec![0; out.bytes.len().saturating_mul(self.dtype.size())];
        self.inner.decode(chunk, stored, ChunkBuf::whole(&mut integers), scratch, counters)?;
        for (out, integer) in out.bytes.iter_mut().zip(integers.chunks_exact(self.dtype.size())) {
            *out = match to_i64(self.dtype, integer) {
                number if number == self.booleans.yes => 1,
                // Padding of edge chunks is 0.
                number if number == self.booleans.no || number == 0 => 0,
                number => {
                    return Err(ArrayError::Damaged {
                        store: self.store.to_string(),
                        element: self.element.to_string(),
                        chunk,
                        cause: format!("{number} is neither FALSE nor TRUE of its enum"),
                    });
                }
            };
        }
        Ok(())
    }

    fn filters(&self) -> Vec<String> {
        self.inner.filters()
    }

    fn is_encoded(&self) -> bool {
        true
    }
}

//! Times in multiples of a unit (`datetime64[25s]`), decoded to that unit.

use std::sync::Arc;

use crate::array::meaning::NOT_A_TIME;
use crate::array::{Array, ArrayError, ChunkBuf, ChunkSource, Counters, Extent, Scratch};
use crate::storage::Meter;

/// An array whose ticks are `multiple` units.
struct Multiplied {
    store: Arc<str>,
    element: Arc<str>,
    inner: Arc<dyn ChunkSource>,
    multiple: i64,
}

/// The array in its unit.
pub fn multiplied(array: Array, multiple: i64) -> Array {
    let source = Arc::new(Multiplied {
        store: Arc::clone(&array.store),
        element: Arc::clone(&array.element),
        inner: array.source,
        multiple,
    });
    Array { source, ..array }
}

impl ChunkSource for Multiplied {
    fn raw(&self, _: u64) -> Result<Option<Extent>, ArrayError> {
        Ok(None)
    }

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
        let ChunkBuf { bytes, .. } = out;
        self.inner.decode(chunk, stored, ChunkBuf::whole(bytes), scratch, counters)?;
        for ticks in bytes.as_chunks_mut::<8>().0 {
            let number = i64::from_le_bytes(*ticks);
            let product = if number == NOT_A_TIME { Some(number) } else { number.checked_mul(self.multiple) };
            *ticks = product.map(i64::to_le_bytes).ok_or_else(|| ArrayError::Damaged {
                store: self.store.to_string(),
                element: self.element.to_string(),
                chunk,
                cause: format!("{number} times {} units is too far away", self.multiple),
            })?;
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

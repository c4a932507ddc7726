//! The content of a store's row index, for readers of its columns. `make_row_index` makes it.

use std::collections::HashMap;
use std::sync::Arc;

use super::bytes::Bounds;
use super::categories::narrow;
use super::column::{Numbers, Values};
use super::index::IndexPart;
use super::mapping::Mapping;
use super::shared::Shared;
use crate::array::cast::to_u64s;
use crate::array::{Array, ArrayError, Counters, Dtype};
use crate::number::as_usize;

/// Minimum rows of a store with a row index: 8 MiB of row bounds.
pub const LEAST_ROWS: u64 = 1 << 20;
/// Elements that one thread reads at once.
const WINDOW: u64 = 1 << 19;

/// Mapped columns of one store; other columns are read from the store.
#[derive(Default)]
pub struct RowIndex {
    held: HashMap<String, (Dtype, Shared<u8>)>,
    mapping: Option<Arc<Mapping>>,
    /// If set, arrays of this many rows are opened but not read, as in the probe.
    unread: Option<u64>,
}

/// The meaning of the numbers in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrayContent {
    /// Row bounds; the last one is the number of stored values.
    Bounds {
        stored: u64,
    },
    /// Codes of this many categories.
    Codes {
        categories: u64,
    },
    Plain,
}

/// A column to write.
pub struct ColumnSource {
    pub element: String,
    pub array: Array,
    pub content: ArrayContent,
}

impl ColumnSource {
    pub fn part(&self) -> IndexPart {
        let dtype = match self.content {
            ArrayContent::Bounds { .. } => Dtype::U64,
            ArrayContent::Codes { categories } => Values::code_dtype(usize::try_from(categories).unwrap_or(usize::MAX)),
            ArrayContent::Plain => self.array.dtype,
        };
        IndexPart { name: self.element.clone().into(), dtype, len: self.array.shape[0] }
    }

    /// Reads and checks elements to write. Row bounds are also compared with the preceding one.
    pub fn read(&self, start: u64, len: u64, counters: &Counters) -> Result<Vec<u8>, ArrayError> {
        let before = u64::from(start > 0 && matches!(self.content, ArrayContent::Bounds { .. }));
        let mut bytes = self.array.read_window(start - before, len + before, counters)?;
        // The store's own reader reports a precise error later.
        let wrong = || self.array.damaged(0, "its numbers cannot be");
        match self.content {
            ArrayContent::Plain => Ok(bytes),
            ArrayContent::Codes { categories } => narrow(self.array.dtype, &bytes, categories).map_err(|_| wrong()),
            ArrayContent::Bounds { stored } => {
                let bounds = to_u64s(self.array.dtype, &bytes);
                let rises = bounds.windows(2).all(|pair| pair[0] <= pair[1]);
                let begins = start > 0 || bounds.first() == Some(&0);
                let ends = start + len < self.array.shape[0] || bounds.last() == Some(&stored);
                if !(rises && begins && ends) {
                    return Err(wrong());
                }
                if self.array.dtype.size() == 8 {
                    bytes.drain(..as_usize(before) * 8);
                    return Ok(bytes);
                }
                Ok(bounds.iter().skip(as_usize(before)).flat_map(|bound| bound.to_le_bytes()).collect())
            }
        }
    }

    /// Ranges to read one by one, aligned so that no chunk is decoded twice.
    pub fn windows(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let total = self.array.shape[0];
        let chunk = if self.array.source.is_encoded() { self.array.chunk_elements().max(1) } else { 1 };
        let window = WINDOW.div_ceil(chunk).saturating_mul(chunk).min(total).max(1);
        (0..total.div_ceil(window)).map(move |number| (number * window, window.min(total - number * window)))
    }
}

impl RowIndex {
    /// To inspect a store: large arrays are opened but not read, unless libhdf5 itself would have to read them.
    pub fn looking() -> RowIndex {
        RowIndex { unread: Some(LEAST_ROWS), ..RowIndex::default() }
    }

    /// For the probe: only what libhdf5 itself would read is read.
    pub fn trying() -> RowIndex {
        RowIndex { unread: Some(0), ..RowIndex::default() }
    }

    /// Whether it is that of [`RowIndex::trying`].
    pub fn reads_nothing(&self) -> bool {
        self.unread == Some(0)
    }

    /// Columns in a mapped file, by element.
    pub fn of(held: HashMap<String, (Dtype, Shared<u8>)>, mapping: Arc<Mapping>) -> RowIndex {
        RowIndex { held, mapping: Some(mapping), unread: None }
    }

    /// Row bounds that need not be read, if it has them.
    ///
    /// # Errors
    /// Those of libhdf5, if that decodes the array.
    pub fn bounds(&self, array: &Array, counters: &Counters) -> Result<Option<Bounds>, ArrayError> {
        if self.looked(array, counters)? {
            return Ok(Some(Vec::new().into()));
        }
        let held = self.held.get(array.element.as_ref()).zip(self.mapping.clone());
        Ok(held.and_then(|((_, bytes), mapping)| Bounds::mapped(bytes, mapping)))
    }

    /// Values of a column that need not be read, if it has them; codes have the smallest dtype and are checked.
    ///
    /// # Errors
    /// As above.
    pub fn numbers(&self, array: &Array, counters: &Counters) -> Result<Option<Numbers>, ArrayError> {
        if self.looked(array, counters)? {
            return Ok(Some(Numbers { dtype: array.dtype, bytes: Default::default() }));
        }
        let held = self.held.get(array.element.as_ref());
        Ok(held.map(|(dtype, bytes)| Numbers { dtype: *dtype, bytes: bytes.clone().into() }))
    }

    /// Whether the array is only to be opened; if libhdf5 decodes it, it is read once for trial.
    fn looked(&self, array: &Array, counters: &Counters) -> Result<bool, ArrayError> {
        if self.unread.is_none_or(|least| array.shape.first().is_none_or(|&len| len < least)) {
            return Ok(false);
        }
        if array.source.filters().last().is_some_and(|last| last == "(library)") {
            let source =
                ColumnSource { element: array.element.to_string(), array: array.clone(), content: ArrayContent::Plain };
            source.windows().try_for_each(|(start, len)| array.read_window(start, len, counters).map(drop))?;
        }
        Ok(true)
    }

    /// Whether it has an element.
    pub fn holds(&self, element: &str) -> bool {
        self.held.contains_key(element)
    }

    /// The mapped file.
    pub fn mapping(&self) -> Option<&Arc<Mapping>> {
        self.mapping.as_ref()
    }
}

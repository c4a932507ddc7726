//! What the row index of a store holds, for those who read its columns. `make_row_index` makes it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_buffer::Buffer;

use super::bytes::Bounds;
use super::categories::narrow;
use super::column::{Numbers, Values};
use super::index::IndexPart;
use super::mapping::Mapping;
use crate::array::cast::to_u64s;
use crate::array::{Array, ArrayError, Counters, Dtype};
use crate::number::as_usize;

/// Rows of the smallest store that gets an index: 8 MiB of row bounds.
pub const LEAST_ROWS: u64 = 1 << 20;
/// Elements that one thread reads at once.
const WINDOW: u64 = 1 << 19;

/// Columns of one store, mapped; those that it has not are read from the store.
#[derive(Default)]
pub struct RowIndex {
    held: HashMap<String, (Dtype, Buffer)>,
    mapping: Option<Arc<Mapping>>,
    /// Arrays of so many rows are opened and not read.
    unread: Option<u64>,
}

/// What the numbers of an array are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrayContent {
    /// Row bounds; the number of stored values is the last bound.
    Bounds {
        stored: u64,
    },
    /// Codes of this many categories.
    Codes {
        categories: u64,
    },
    Plain,
}

/// A column to be written.
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

    /// Elements as they are written. Row bounds come with the last one before them.
    pub fn read(&self, start: u64, len: u64, counters: &Counters) -> Result<Vec<u8>, ArrayError> {
        let before = u64::from(start > 0 && matches!(self.content, ArrayContent::Bounds { .. }));
        let mut bytes = self.array.read_window(start - before, len + before, counters)?;
        // In words for the user once it is read from the store.
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

    /// Where it is read in pieces, without decoding a chunk twice.
    pub fn windows(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let total = self.array.shape[0];
        let chunk = if self.array.source.is_encoded() { self.array.chunk_elements().max(1) } else { 1 };
        let window = WINDOW.div_ceil(chunk).saturating_mul(chunk).min(total).max(1);
        (0..total.div_ceil(window)).map(move |number| (number * window, window.min(total - number * window)))
    }
}

impl RowIndex {
    /// For who looks at a store: what is large is opened, but not read, unless it is the library that would read it.
    pub fn looking() -> RowIndex {
        RowIndex { unread: Some(LEAST_ROWS), ..RowIndex::default() }
    }

    /// For who tries the library: only what it reads itself is read.
    pub fn trying() -> RowIndex {
        RowIndex { unread: Some(0), ..RowIndex::default() }
    }

    /// Whether it is one of [`RowIndex::trying`].
    pub fn reads_nothing(&self) -> bool {
        self.unread == Some(0)
    }

    /// Columns by their elements, in a mapped file.
    pub fn of(held: HashMap<String, (Dtype, Buffer)>, mapping: Arc<Mapping>) -> RowIndex {
        RowIndex { held, mapping: Some(mapping), unread: None }
    }

    /// Row bounds, if they need not be read.
    ///
    /// # Errors
    /// Those of the library, where it is what decodes them.
    pub fn bounds(&self, array: &Array, counters: &Counters) -> Result<Option<Bounds>, ArrayError> {
        if self.looked(array, counters)? {
            return Ok(Some(Vec::new().into()));
        }
        let held = self.held.get(array.element.as_ref()).zip(self.mapping.clone());
        Ok(held.map(|((_, bytes), mapping)| Bounds::mapped(bytes.clone(), mapping)))
    }

    /// Values of a column, if they need not be read; codes are narrow and checked.
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

    /// Whether looking at it is all that is to be done.
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

    /// Whether this very element is held.
    pub fn holds(&self, element: &str) -> bool {
        self.held.contains_key(element)
    }

    /// The file that it is.
    pub fn mapping(&self) -> Option<&Arc<Mapping>> {
        self.mapping.as_ref()
    }
}

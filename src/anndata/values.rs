//! Reads one-dimensional arrays as values of a column.

use crate::array::{Array, ArrayError, Container, Counters};

use super::bytes::Bytes;
use super::column::{Numbers, Texts, Values};
use super::{METADATA_LIMIT, element_error};

/// Strings of a one-dimensional or scalar element.
pub fn texts(store: &dyn Container, element: &str) -> Result<Vec<String>, ArrayError> {
    match store.shape(element)?.len() {
        0 | 1 => store.strings(element),
        n => Err(element_error(store, element, format!("a column has one dimension, not {n}"))),
    }
}

/// Numbers of a one-dimensional or scalar element.
pub fn numbers(store: &dyn Container, element: &str, counters: &Counters) -> Result<Numbers, ArrayError> {
    let array: Array = store.array(element)?;
    if array.shape.len() > 1 {
        return Err(element_error(store, element, format!("a column has one dimension, not {}", array.shape.len())));
    }
    Ok(Numbers { dtype: array.dtype, bytes: array.read_all(METADATA_LIMIT, counters)?.into() })
}

/// Strings as a column; `mask` if it is nullable.
pub fn text(strings: Vec<String>, mask: Option<Bytes>) -> Values {
    let mut texts = Texts::default();
    let (mut chars, mut bytes) = (0, 0);
    for string in &strings {
        texts.push(string);
        chars = chars.max(string.chars().count());
        bytes = bytes.max(string.len());
    }
    Values::Text { texts, mask, chars, bytes }
}

//! AnnData on disk: elements, dataframes, sparse and dense matrices, as anndata and others have written them since 0.5.
//!
//! Only the elements that a mount needs are opened, so an odd `uns` or a broken neighbour never stops X.

pub mod bytes;
mod categories;
pub mod check;
pub mod column;
pub mod dataframe;
pub mod index;
mod layout;
pub mod matrix;
pub mod progress;
mod transpose;

use crate::array::{ArrayError, Container};

pub use layout::{matrices, stores};

/// Bytes of metadata (row bounds, one obs column) that are read into memory at most for one array.
pub const METADATA_LIMIT: u64 = 64 << 30;

/// Line ends and runs of blanks become one blank.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An error about one element of a store.
pub fn element_error(store: &Container, element: &str, cause: impl Into<String>) -> ArrayError {
    ArrayError::Element { store: store.name().to_owned(), element: element.to_owned(), cause: cause.into() }
}

/// An error about an element that is whole, but of a kind that is not read.
pub fn unsupported(store: &Container, element: &str, cause: impl Into<String>) -> ArrayError {
    ArrayError::Unsupported { store: store.name().to_owned(), element: element.to_owned(), cause: cause.into() }
}

/// The `encoding-type` of an element; empty where it has none (stores before anndata 0.7 and by other writers).
pub fn encoding(store: &Container, element: &str) -> Result<String, ArrayError> {
    let attributes = store.attributes(element)?;
    Ok(attributes.get("encoding-type").and_then(|value| value.as_str()).unwrap_or_default().to_owned())
}

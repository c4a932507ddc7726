//! AnnData on disk: elements, dataframes, sparse and dense matrices, as anndata (since 0.5) and other writers store them.
//!
//! Only the elements that a mount needs are opened, so a damaged or unknown element elsewhere does not prevent serving X.

// Numbers from a store are converted by checked conversions, or by `number`.
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap))]

mod adapted;
pub mod bytes;
mod categories;
pub mod check;
pub mod column;
pub mod dataframe;
pub mod index;
mod layout;
mod loom;
mod make_row_index;
pub mod mapping;
pub mod matrix;
pub mod names;
mod open_matrix;
pub mod progress;
pub mod row_index;
pub mod shared;
mod sparse;
pub mod table;
mod tenx;
mod transpose;
mod values;

use std::path::Path;

use crate::array::{ArrayError, Container, kinds};

use adapted::{Adapted, Table};
pub use layout::{expand, matrices, stores};
use names::{Frame, MatrixName};

/// Maximum bytes of one array of metadata (row bounds, an obs column) to read into memory.
pub const METADATA_LIMIT: u64 = 64 << 30;

/// Replaces line breaks and runs of blanks by one blank.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Recognises a container of one layout, and gives its table; `None` for any other container.
type Layout = fn(&dyn Container) -> Result<Option<Table>, ArrayError>;

/// All layouts besides AnnData's own.
const LAYOUTS: &[Layout] = &[tenx::table, loom::table];

/// Opens a store, or a group in it (`STORE::INNER`). Other layouts are presented as AnnData.
///
/// # Errors
/// There is no store, or it cannot be read.
pub fn open(path: &Path) -> Result<Box<dyn Container>, ArrayError> {
    let store = kinds::open(path)?;
    // An AnnData has one of these; a MuData has obs. Both need no further look.
    if store.kind(Frame::Obs.path())?.is_some() || store.kind(&MatrixName::X.path())?.is_some() {
        return Ok(store);
    }
    for layout in LAYOUTS {
        if let Some(table) = layout(&*store)? {
            return Ok(Box::new(Adapted { store, table }));
        }
    }
    Ok(store)
}

/// An error in one element of a store.
pub fn element_error(store: &dyn Container, element: &str, cause: impl Into<String>) -> ArrayError {
    ArrayError::Element { store: store.name().to_owned(), element: element.to_owned(), cause: cause.into() }
}

/// An error for a valid element of a kind that is not supported.
pub fn unsupported(store: &dyn Container, element: &str, cause: impl Into<String>) -> ArrayError {
    ArrayError::Unsupported { store: store.name().to_owned(), element: element.to_owned(), cause: cause.into() }
}

/// The `encoding-type` of an element; empty if it has none (stores before anndata 0.7, and other writers).
pub fn encoding(store: &dyn Container, element: &str) -> Result<String, ArrayError> {
    let attributes = store.attributes(element)?;
    Ok(attributes.get("encoding-type").and_then(|value| value.as_str()).unwrap_or_default().to_owned())
}

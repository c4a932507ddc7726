//! Which rows of a collection a view has: expressions over obs columns, splits, lists of rows.
//!
//! All of it works on columns and row numbers in memory and gives a bitmap over global row numbers, so what a view is
//! follows from the stores and the options alone and can be tested without a mount. What is done with the rows - in
//! what order, in which batches - is `plan`'s.

pub mod assigned;
pub mod bits;
pub mod filter;
pub mod list;
mod npy;
pub mod split;
pub mod suggest;

/// Why a view cannot be made of these rows. One line; the caller says which view or option it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ViewError {
    /// An expression that is not understood, or does not fit the columns.
    #[error("{cause} (at character {at} of: {text})")]
    Filter { text: String, at: usize, cause: String },
    #[error("line {line}: {cause}")]
    List { line: usize, cause: String },
    #[error("{0}")]
    Split(String),
}

//! Which rows of a collection a view has: expressions over obs columns, splits, lists of rows.
//!
//! Everything works on columns and row numbers in memory and gives a bitmap over global row numbers. So a view depends on the stores and
//! the options alone, and can be tested without a mount. The order of its rows and their batches are determined by `plan`.

pub mod assigned;
pub mod bits;
pub mod filter;
pub mod list;
mod npy;
pub mod split;
pub mod suggest;

/// Why a view cannot be made. One line; the caller adds the name of the view or option.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ViewError {
    /// An expression with a syntax error, or one that does not fit the columns.
    #[error("{cause} (at character {at} of: {text})")]
    Filter { text: String, at: usize, cause: String },
    #[error("line {line}: {cause}")]
    List { line: usize, cause: String },
    #[error("{0}")]
    Split(String),
}

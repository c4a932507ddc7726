//! AnnData on disk: elements, dataframes, sparse and dense matrices.

pub mod column;

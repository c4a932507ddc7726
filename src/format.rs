//! The exact bytes of one file: a layout from the batch's shape alone, then everything that is not data.
//!
//! A format never sees a store. `layout` says where each field goes; the engine scatters the data there;
//! `finish` then writes headers, constants and checksums. So `st_size` needs no data, and a row's bytes are copied
//! once between decoder and reader.

pub mod h5ad;

use crate::batch::{Batch, Layout};

/// One output format. Implementations are pure: same batch, same bytes, on every machine.
pub trait Format: Send + Sync {
    /// Where each field goes and how large the file is. Reads no matrix data.
    fn layout(&self, batch: &Batch<'_>) -> Layout;

    /// Writes every byte of `image` that no span covers. Called once, after all spans hold their values; `image` may
    /// hold anything else before.
    fn finish(&self, batch: &Batch<'_>, layout: &Layout, image: &mut [u8]);
}

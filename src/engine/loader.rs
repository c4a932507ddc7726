//! What the queue serves, apart from the queue: plans, layouts and bytes. Those of stores: `store_loader`.
//!
//! The queue knows it by [`FetchLoader`] alone, so that models run the queue itself over a supply that fails, hangs and panics
//! when they want (`models`).

use std::sync::Arc;

use crate::batch::Layout;
use crate::plan::Plan;

use super::budget::Image;
use super::{ImageKey, ReadError};

/// One batch of a load task, laid out.
pub struct Item {
    pub key: ImageKey,
    pub layout: Layout,
}

/// What load tasks load.
pub trait FetchLoader: Send + Sync + 'static {
    /// One fetch of one epoch, planned.
    type Fetch;

    /// The plan of a view. Panics if `view` is out of range.
    fn plan(&self, view: u16) -> &Plan;

    fn fetch(&self, view: u16, epoch: u64, fetch: u64) -> Arc<Self::Fetch>;

    /// Whether there is memory for more than images.
    ///
    /// # Errors
    /// `NoMemory`.
    fn check_memory(&self) -> Result<(), ReadError> {
        Ok(())
    }

    /// Rows of a batch.
    fn rows(&self, key: ImageKey) -> u64;

    /// The exact layout of one batch of a fetch.
    ///
    /// # Errors
    /// The format cannot hold it.
    fn layout(&self, fetch: &Self::Fetch, key: ImageKey) -> Result<Layout, ReadError>;

    /// Fills the images of `items`, which are batches of `fetch` in one format. What an image held before does not matter.
    /// `in_background`: no reader needs them soon. `advance` is called after each chunk; deadlines are measured from it.
    ///
    /// # Errors
    /// A damaged or stale store: then no image may be served.
    fn load(
        &self,
        fetch: &Self::Fetch,
        items: &[Item],
        images: &mut [Image],
        in_background: bool,
        advance: &(dyn Fn() + Sync),
    ) -> Result<(), ReadError>;
}

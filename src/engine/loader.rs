//! The interface between the queue and what it loads: plans, layouts, bytes. `store_loader` implements it for stores.
//!
//! Models (`models`) run the queue with an implementation that fails, hangs and panics as they say.

use std::sync::Arc;

use crate::batch::Layout;
use crate::plan::Plan;

use super::budget::Image;
use super::{ImageKey, ReadError};

/// A batch of a load task, with its layout.
pub struct Item {
    pub key: ImageKey,
    pub layout: Layout,
}

/// Plans, lays out and loads fetches.
pub trait FetchLoader: Send + Sync + 'static {
    /// A planned fetch of one epoch.
    type Fetch;

    /// The plan of a view. Panics if `view` is out of range.
    fn plan(&self, view: u16) -> &Plan;

    fn fetch(&self, view: u16, epoch: u64, fetch: u64) -> Arc<Self::Fetch>;

    /// Checks that there is memory for allocations other than images.
    ///
    /// # Errors
    /// `NoMemory`.
    fn check_memory(&self) -> Result<(), ReadError> {
        Ok(())
    }

    /// Number of rows of a batch.
    fn rows(&self, key: ImageKey) -> u64;

    /// The exact layout of one batch of a fetch.
    ///
    /// # Errors
    /// The format cannot hold it.
    fn layout(&self, fetch: &Self::Fetch, key: ImageKey) -> Result<Layout, ReadError>;

    /// Fills the images of `items`, which are batches of `fetch` in one format; the previous content of images does not matter.
    /// `in_background`: no reader needs them soon. `advance` is called after each chunk; the timeout is measured from the last call.
    ///
    /// # Errors
    /// A damaged or stale store; no image may then be served.
    fn load(
        &self,
        fetch: &Self::Fetch,
        items: &[Item],
        images: &mut [Image],
        in_background: bool,
        advance: &(dyn Fn() + Sync),
    ) -> Result<(), ReadError>;
}

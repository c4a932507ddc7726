//! Plans, lays out and loads fetches from stores.

use std::sync::Arc;

use crate::batch::Layout;
use crate::plan::Plan;
use crate::slab::reserve;

use super::budget::Image;
use super::fetch::Fetch;
use super::load::load;
use super::loader::{FetchLoader, Item};
use super::store_loader::StoreLoader;
use super::{ImageKey, ImageKind, ReadError};

impl FetchLoader for StoreLoader {
    type Fetch = Fetch;

    fn plan(&self, view: u16) -> &Plan {
        self.plans.get(&self.collection, view)
    }

    fn fetch(&self, view: u16, epoch: u64, fetch: u64) -> Arc<Fetch> {
        self.fetches.get(&self.collection, self.plan(view), (view, epoch, fetch))
    }

    fn check_memory(&self) -> Result<(), ReadError> {
        if reserve::restore() { Ok(()) } else { Err(ReadError::NoMemory(reserve::KEPT as u64)) }
    }

    fn rows(&self, key: ImageKey) -> u64 {
        // The rows of a batch count with its first part only.
        if matches!(key.kind, ImageKind::Part(part) if part > 0) {
            return 0;
        }
        // If batches have one class each, any may be short, so the plan is asked; the fetch is cached.
        let (number, place) = self.plan(key.view).fetch_of(key.batch);
        let fetch = self.fetch(key.view, key.epoch, number);
        fetch.batch(&self.collection.table, key, place).rows.len() as u64
    }

    fn layout(&self, fetch: &Fetch, key: ImageKey) -> Result<Layout, ReadError> {
        let batch = fetch.batch(&self.collection.table, key, self.plan(key.view).fetch_of(key.batch).1);
        let extension = match key.kind {
            ImageKind::File(extension) => extension,
            ImageKind::Part(part) => return Ok(self.parts.layout(part, &batch)),
        };
        match self.writers.get(extension) {
            Ok(writer) => {
                let layout = writer.layout(&batch);
                let (size, most, name) = (layout.size, writer.most_bytes(), extension.as_str());
                if size <= most {
                    return Ok(layout);
                }
                let cause = format!("a batch of {size} bytes; a .{name} holds {most}: lower --batch-size");
                Err(ReadError::Internal(cause))
            }
            // Unreachable: the tree has no such file.
            Err(reason) => Err(ReadError::Internal(reason.to_owned())),
        }
    }

    fn load(
        &self,
        fetch: &Fetch,
        items: &[Item],
        images: &mut [Image],
        in_background: bool,
        advance: &(dyn Fn() + Sync),
    ) -> Result<(), ReadError> {
        load(self, fetch, items, images, in_background, advance)
    }
}

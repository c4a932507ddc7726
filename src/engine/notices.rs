//! Events that `fuse` reports: opens, first reads, stored pages. [`Access`](super::access::Access) decides what to do.

use crate::plan::rank::Rank;

use super::access::{Ahead, FirstRead, Opening, Step, WHOLE};
use super::lease::{self, Loaded};
use super::loader::FetchLoader;
use super::{Engine, ImageKey};

impl<S: FetchLoader> Engine<S> {
    /// A file is opened; `file` is the caller's number of it. Returns how to serve it.
    pub fn opens(&self, key: ImageKey, rank: Option<Rank>, file: u64) -> Opening {
        let stream = self.shared.place(key, rank).0;
        self.shared.lock().access.opens(&stream, file)
    }

    /// A file was opened that will have no READs: its stream advances as if it were read.
    pub fn opened(&self, key: ImageKey, rank: Option<Rank>) {
        self.shared.opened(&mut self.shared.lock(), key, rank);
    }

    /// `len` bytes are read from a file's start, by the page cache or a reader. Returns whether to store the following files.
    pub fn starts(&self, key: ImageKey, rank: Option<Rank>, by_page_cache: bool, len: usize) -> bool {
        let read = if by_page_cache {
            FirstRead::ByPageCache
        } else if len < WHOLE && self.size(key).is_some_and(|size| size > len as u64) {
            FirstRead::Piece
        } else {
            FirstRead::Whole
        };
        let stream = self.shared.place(key, rank).0;
        self.shared.lock().access.starts(stream, read)
    }

    /// Whether to store the next file ahead of an opened one in the page cache, and its image.
    pub fn store_ahead(&self, ahead: &mut Ahead, key: ImageKey, rank: Option<Rank>, file: u64) -> Step<Loaded> {
        let Some(size) = self.size(key) else { return Step::Stop };
        let stream = self.shared.place(key, rank).0;
        let state = self.shared.lock();
        let mut image = None;
        let loaded = || {
            image = state.peek(&key);
            image.as_ref().map(Loaded::is_file)
        };
        match (state.access.ahead(ahead, &stream, file, size, loaded), image) {
            (Step::Skip, _) => Step::Skip,
            (Step::Store(()), Some(image)) => Step::Store(image),
            _ => Step::Stop,
        }
    }

    /// Records that an image is stored in the page cache, as `bytes` of a file; reads of it will not be seen here. Returns the files whose
    /// pages to drop.
    pub fn stored(&self, key: ImageKey, file: u64, bytes: u64) -> Vec<u64> {
        let mut state = self.shared.lock();
        if let Some(image) = state.unread.pop(&key) {
            self.shared.stats.stored(image.len());
            self.shared.mark_read(&mut state, key, &image);
        }
        state.access.stored(file, bytes)
    }

    /// Sets whether pages can be stored.
    pub fn can_store(&self, stores: bool) {
        self.shared.lock().access.can_store(stores);
    }

    /// From now on pages stay until the kernel reclaims them.
    pub fn keep_pages(&self) {
        self.shared.lock().access.keep_pages();
    }

    /// From now on images are leasable files, as far as descriptors allow.
    pub fn use_files(&self) {
        self.shared.pool.use_files(lease::descriptors());
    }

    /// The image, if it is loaded.
    pub fn loaded(&self, key: ImageKey) -> Option<Loaded> {
        self.shared.lock().peek(&key)
    }
}

//! What is told by those who serve files: opens, first reads, pages stored. The answers are [`Access`](super::access::Access)'s.

use crate::plan::rank::Rank;

use super::access::{Ahead, FirstRead, Opening, Step, WHOLE};
use super::lease::{self, Loaded};
use super::loader::FetchLoader;
use super::{Engine, ImageKey};

impl<S: FetchLoader> Engine<S> {
    /// A file is opened; `file` is the caller's number of it. How it is to be served.
    pub fn opens(&self, key: ImageKey, rank: Option<Rank>, file: u64) -> Opening {
        let stream = self.shared.place(key, rank).0;
        self.shared.lock().access.opens(&stream, file)
    }

    /// A file was opened of which no reads will come: its stream advances as if it were read here.
    pub fn opened(&self, key: ImageKey, rank: Option<Rank>) {
        self.shared.opened(&mut self.shared.lock(), key, rank);
    }

    /// `len` bytes are read from a file's start, by the page cache or by a reader; whether files after it are to be stored.
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

    /// Whether the next file ahead of one that was opened is to be stored in the page cache, and what.
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

    /// Notes that an image is in the page cache, in `bytes` of a file: what reads it from there is not seen here. The files
    /// whose pages are to be dropped for it.
    pub fn stored(&self, key: ImageKey, file: u64, bytes: u64) -> Vec<u64> {
        let mut state = self.shared.lock();
        if let Some(image) = state.unread.pop(&key) {
            self.shared.stats.stored(image.len());
            self.shared.mark_read(&mut state, key, &image);
        }
        state.access.stored(file, bytes)
    }

    /// Notes whether pages can be stored from now on.
    pub fn can_store(&self, stores: bool) {
        self.shared.lock().access.can_store(stores);
    }

    /// From now on pages stay as long as the kernel has room.
    pub fn keep_pages(&self) {
        self.shared.lock().access.keep_pages();
    }

    /// From now on images are files that can be lent, as far as there are descriptors.
    pub fn use_files(&self) {
        self.shared.pool.use_files(lease::descriptors());
    }

    /// An image, if it is loaded.
    pub fn loaded(&self, key: ImageKey) -> Option<Loaded> {
        self.shared.lock().peek(&key)
    }
}

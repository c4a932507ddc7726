//! What a reader is doing: one state machine that says how its files are served and what is made ready for it.
//!
//! The readers of one directory in one format are taken to be alike. `streams` follows where they are, which says
//! what is loaded. How they read says what the kernel is given:
//!
//! | they read | seen by | their files are | what comes next is |
//! | --- | --- | --- | --- |
//! | whole files | a first read of 512 KiB, or of the whole file | read from images, past the page cache, which is a copy less | loaded |
//! | piecemeal | a smaller first read | opened through the page cache where they are in it | loaded, then stored in the page cache |
//! | mapped | a first read by the page cache itself | lent (FUSE passthrough) where the kernel takes that | loaded as files that can be lent; stored where it was loaded otherwise |
//!
//! Readers that map files or read them in pieces (safetensors, numpy, h5py) wait for the daemon many times a file; with the
//! file in the page cache before they open it they never do. Content is a pure function of the path, so a page is never out of
//! date; missing pages are read as usual. What was stored or opened longest ago is dropped again: memory that is used over and
//! over is quicker than fresh memory, and the rest of the page cache is left to others.
//!
//! Only decisions are made here, under the engine's one lock. `fuse` stores, invalidates and lends.

pub(super) mod streams;

use std::num::NonZeroUsize;

use lru::LruCache;

use streams::{Stream, Streams};

/// A first read of at least this many bytes comes from a reader that takes whole files.
pub const WHOLE: usize = 512 << 10;

/// Bytes and files that are stored ahead of the one that is being read.
const AHEAD_BYTES: u64 = 16 << 20;
const AHEAD_FILES: u64 = 64;
/// Bytes and files that stay in the page cache, at most and at least: those ahead of several readers, and some that were read.
const STORED_BYTES: u64 = 128 << 20;
const STORED_FILES: usize = 4;
/// Files and directories remembered. Unless pages are kept there is room for fewer files, as each has a page.
const FILES: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();
const DIRECTORIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How the readers of a directory read, if not whole files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Piecemeal,
    Mapped,
}

/// The first read of a file, from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstRead {
    /// All of it, or as much as a reader of whole files asks for.
    Whole,
    Piece,
    /// The page cache asks: the file is mapped, or read through the page cache.
    ByPageCache,
}

/// How a file that is opened is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// By replies to reads, past the page cache.
    Replies,
    /// From the page cache: no reads come where its pages are there.
    PageCache,
    /// By a mapping of its image where the kernel takes that; else by replies.
    Lease,
}

/// The answer to an open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub service: Service,
    /// The files after this one are to be stored in the page cache, as far as [`Ahead`] goes.
    pub store_ahead: bool,
}

/// What was stored ahead of one file so far.
#[derive(Debug, Default)]
pub struct Ahead {
    files: u64,
    bytes: u64,
}

/// What to do with the next file ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Its pages are there.
    Skip,
    Store(T),
    /// No more for now.
    Stop,
}

/// The readers of a mount.
pub(super) struct Access {
    /// Where they are.
    pub streams: Streams,
    manners: LruCache<Stream, Manner>,
    /// Files whose pages were stored, by the caller's numbers, and the bytes of these; and the sum.
    stored: LruCache<u64, u64>,
    stored_bytes: u64,
    /// Whether `fuse` can store pages.
    stores: bool,
    /// Whether pages stay as long as the kernel has room.
    keeps: bool,
}

impl Access {
    pub fn new() -> Access {
        Access {
            streams: Streams::new(),
            manners: LruCache::new(DIRECTORIES),
            stored: LruCache::new(FILES),
            stored_bytes: 0,
            stores: false,
            keeps: false,
        }
    }

    /// Notes whether pages can be stored from now on. Without that all files are read by replies.
    pub fn can_store(&mut self, stores: bool) {
        self.stores = stores;
    }

    /// From now on pages stay as long as the kernel has room.
    pub fn keep_pages(&mut self) {
        self.keeps = true;
    }

    /// A file of a directory is opened.
    pub fn opens(&mut self, stream: &Stream, file: u64) -> Opening {
        let manner = self.manners.get(stream).copied().filter(|_| self.stores);
        let cached = self.stored.get(&file).is_some() || self.keeps;
        let service = match manner {
            _ if cached => Service::PageCache,
            Some(Manner::Mapped) => Service::Lease,
            _ => Service::Replies,
        };
        Opening { service, store_ahead: manner.is_some() }
    }

    /// A file is read from its start; whether the files after it are to be stored in the page cache.
    pub fn starts(&mut self, stream: Stream, read: FirstRead) -> bool {
        if !self.stores {
            return false;
        }
        let manner = match read {
            FirstRead::Whole => {
                self.manners.pop(&stream);
                return false;
            }
            FirstRead::ByPageCache => Manner::Mapped,
            // Those that map read headers, too.
            FirstRead::Piece => self.manners.peek(&stream).copied().unwrap_or(Manner::Piecemeal),
        };
        // Later files of the directory say so when they are opened.
        self.manners.put(stream, manner).is_none()
    }

    /// Whether the next file ahead, of `size` bytes, is to be stored now. `loaded`: whether its image can be lent, if it is there.
    pub fn ahead(
        &self,
        ahead: &mut Ahead,
        stream: &Stream,
        file: u64,
        size: u64,
        loaded: impl FnOnce() -> Option<bool>,
    ) -> Step<()> {
        if ahead.files >= AHEAD_FILES || ahead.bytes >= AHEAD_BYTES {
            return Step::Stop;
        }
        ahead.files += 1;
        ahead.bytes += size;
        if self.stored.contains(&file) {
            return Step::Skip;
        }
        match loaded() {
            // Not here yet: the next file that is opened asks again.
            None => Step::Stop,
            // What is lent needs no pages of its own, nor what comes after it.
            Some(true) if self.manners.peek(stream) == Some(&Manner::Mapped) => Step::Stop,
            Some(_) => Step::Store(()),
        }
    }

    /// Notes that `bytes` of a file were stored; the files whose pages are to be dropped.
    pub fn stored(&mut self, file: u64, bytes: u64) -> Vec<u64> {
        let mut dropped = Vec::new();
        self.stored.put(file, bytes);
        if self.keeps {
            return dropped;
        }
        self.stored_bytes += bytes;
        while self.stored_bytes > STORED_BYTES
            && self.stored.len() > STORED_FILES
            && let Some((file, bytes)) = self.stored.pop_lru()
        {
            self.stored_bytes -= bytes;
            dropped.push(file);
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ImageKind;
    use crate::format::Extension;

    fn stream(epoch: u64) -> Stream {
        Stream { view: 0, epoch, rank: None, kind: ImageKind::File(Extension::ALL[0]) }
    }

    fn access() -> Access {
        let mut access = Access::new();
        access.can_store(true);
        access
    }

    #[test]
    fn the_first_read_says_how_a_directory_is_served() {
        use FirstRead::{ByPageCache, Piece, Whole};
        // What was read from the start of files so far; how the next one is served, and whether files after it are stored.
        for (reads, service, store_ahead) in [
            (&[][..], Service::Replies, false),
            (&[Whole], Service::Replies, false),
            (&[Piece], Service::Replies, true),
            (&[ByPageCache], Service::Lease, true),
            (&[Piece, ByPageCache], Service::Lease, true),
            // Readers that map read headers.
            (&[ByPageCache, Piece], Service::Lease, true),
            (&[ByPageCache, Whole], Service::Replies, false),
            (&[Piece, Whole], Service::Replies, false),
        ] {
            let mut access = access();
            reads.iter().for_each(|&read| _ = access.starts(stream(0), read));
            assert_eq!(access.opens(&stream(0), 1), Opening { service, store_ahead }, "{reads:?}");
            assert_eq!(access.opens(&stream(1), 2), Opening { service: Service::Replies, store_ahead: false });
        }
    }

    #[test]
    fn the_first_sign_of_pieces_stores_what_comes_next_and_opens_do_so_later() {
        let mut access = access();
        assert!(access.starts(stream(0), FirstRead::Piece));
        assert!(!access.starts(stream(0), FirstRead::Piece));
        assert!(!access.starts(stream(0), FirstRead::ByPageCache));
        assert!(!access.starts(stream(0), FirstRead::Whole));
        assert!(access.starts(stream(0), FirstRead::ByPageCache));
    }

    #[test]
    fn without_a_page_cache_to_store_in_all_is_read_by_replies() {
        let mut access = Access::new();
        assert!(!access.starts(stream(0), FirstRead::ByPageCache));
        assert_eq!(access.opens(&stream(0), 1), Opening { service: Service::Replies, store_ahead: false });
        access.keep_pages();
        assert_eq!(access.opens(&stream(0), 1).service, Service::PageCache);
    }

    #[test]
    fn what_is_stored_is_opened_through_the_page_cache_until_it_is_dropped() {
        let mut access = access();
        access.starts(stream(0), FirstRead::ByPageCache);
        let quarter = STORED_BYTES / 4;
        for file in 0..4 {
            assert!(access.stored(file, quarter).is_empty());
            assert_eq!(access.opens(&stream(0), file).service, Service::PageCache);
        }
        // Opened again: the next is older.
        access.opens(&stream(0), 0);
        assert_eq!(access.stored(4, quarter), [1]);
        assert_eq!(access.opens(&stream(0), 1).service, Service::Lease);
        // Four large files stay whatever their size.
        assert_eq!(access.stored(5, 9 * STORED_BYTES), [2]);
        access.keep_pages();
        assert!(access.stored(6, 9 * STORED_BYTES).is_empty());
    }

    #[test]
    fn files_ahead_are_stored_as_far_as_they_are_loaded_and_not_lent() {
        let mut access = access();
        let there = |lendable: bool| move || Some(lendable);
        access.starts(stream(0), FirstRead::Piece);
        access.stored(1, 1 << 20);
        let mut ahead = Ahead::default();
        assert_eq!(access.ahead(&mut ahead, &stream(0), 1, 1 << 20, || None), Step::Skip);
        assert_eq!(access.ahead(&mut ahead, &stream(0), 2, 1 << 20, there(true)), Step::Store(()));
        assert_eq!(access.ahead(&mut ahead, &stream(0), 3, 1 << 20, || None), Step::Stop);
        assert_eq!(access.ahead(&mut ahead, &stream(0), 4, AHEAD_BYTES, there(false)), Step::Store(()));
        assert_eq!(access.ahead(&mut ahead, &stream(0), 5, 1, there(false)), Step::Stop);
        let mut ahead = Ahead::default();
        let small = (0..)
            .take_while(|&file| access.ahead(&mut ahead, &stream(0), 100 + file, 1, there(false)) == Step::Store(()));
        assert_eq!(small.count() as u64, AHEAD_FILES);
        access.starts(stream(0), FirstRead::ByPageCache);
        assert_eq!(access.ahead(&mut Ahead::default(), &stream(0), 9, 1, there(true)), Step::Stop);
        assert_eq!(access.ahead(&mut Ahead::default(), &stream(0), 9, 1, there(false)), Step::Store(()));
    }
}

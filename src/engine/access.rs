//! What readers do: a state machine that decides how files are served, and what to prepare for them.
//!
//! The readers of one directory in one format are assumed to be alike. `streams` follows their positions, which determine what to load. How
//! they read determines how files are served:
//!
//! | they read | recognised by | their files are | the following files are |
//! | --- | --- | --- | --- |
//! | whole files | a first read of 512 KiB, or of the whole file | read from images, bypassing the page cache, which saves a copy | loaded
//! |
//! | piecemeal | a smaller first read | opened through the page cache if they are in it | loaded, then stored in the page cache |
//! | mapped | a first read by the page cache itself | leased (FUSE passthrough) if the kernel allows | loaded as leasable files; else
//! stored in the page cache |
//!
//! Readers that map files or read them in pieces (safetensors, numpy, h5py) wait for the daemon many times a file; if the file is in the
//! page
//! cache before they open it, they never do. Content is a pure function of the path, so pages are never out of date; missing pages are read
//! as usual. Pages stored or opened longest ago are dropped: reused memory is faster than fresh memory, and the rest of the page cache is
//! left to others.
//!
//! This module only decides, under the engine's lock. `fuse` stores, invalidates and leases.

pub(super) mod streams;

use std::num::NonZeroUsize;

use lru::LruCache;

use streams::{Stream, Streams};

/// A first read of at least this many bytes identifies a reader of whole files.
pub const WHOLE: usize = 512 << 10;

/// Maximum bytes and files to store ahead of the one being read.
const AHEAD_BYTES: u64 = 16 << 20;
const AHEAD_FILES: u64 = 64;
/// Bytes and files that stay in the page cache (maximum and minimum): those ahead of several readers, and some that were read.
const STORED_BYTES: u64 = 128 << 20;
const STORED_FILES: usize = 4;
/// Files and directories to remember. Unless pages are kept there are fewer files, as each takes at least a page.
const FILES: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();
const DIRECTORIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How the readers of a directory read, unless they read whole files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Piecemeal,
    Mapped,
}

/// The first read of a file, at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstRead {
    /// The whole file, or as much as a reader of whole files requests.
    Whole,
    Piece,
    /// A request of the page cache: the file is mapped, or read through the page cache.
    ByPageCache,
}

/// How to serve a file that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// By replies to reads, bypassing the page cache.
    Replies,
    /// From the page cache: there are no READ requests for pages in it.
    PageCache,
    /// By a lease on its image if the kernel allows, else by replies.
    Lease,
}

/// The response to an open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub service: Service,
    /// Whether to store the following files in the page cache, as far as [`Ahead`] goes.
    pub store_ahead: bool,
}

/// What has been stored ahead of one file.
#[derive(Debug, Default)]
pub struct Ahead {
    files: u64,
    bytes: u64,
}

/// What to do with the next file ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Nothing: its pages are stored already.
    Skip,
    Store(T),
    /// Stop for now.
    Stop,
}

/// The readers of a mount.
pub(super) struct Access {
    /// Their positions.
    pub streams: Streams,
    manners: LruCache<Stream, Manner>,
    /// Files with stored pages, by the caller's numbers, with their bytes; and the sum of these.
    stored: LruCache<u64, u64>,
    stored_bytes: u64,
    /// Whether `fuse` can store pages.
    stores: bool,
    /// Whether pages stay until the kernel reclaims them.
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

    /// Sets whether pages can be stored. If not, all files are served by replies.
    pub fn can_store(&mut self, stores: bool) {
        self.stores = stores;
    }

    /// From now on pages stay until the kernel reclaims them.
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

    /// A file is read from its start. Returns whether to store the following files in the page cache.
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
            // Readers that map files read their headers, too.
            FirstRead::Piece => self.manners.peek(&stream).copied().unwrap_or(Manner::Piecemeal),
        };
        // Only for the first file of a directory; for later ones `opens` returns it.
        self.manners.put(stream, manner).is_none()
    }

    /// Whether to store the next file ahead, of `size` bytes, now. `loaded`: if it is loaded, whether its image can be leased.
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
            // Not loaded yet: the next open tries again.
            None => Step::Stop,
            // Leased files need no pages, and neither do the following ones.
            Some(true) if self.manners.peek(stream) == Some(&Manner::Mapped) => Step::Stop,
            Some(_) => Step::Store(()),
        }
    }

    /// Records that `bytes` of a file were stored; returns the files whose pages to drop.
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
        // For first reads of some files: how the next file is served, and whether the following files are stored.
        for (reads, service, store_ahead) in [
            (&[][..], Service::Replies, false),
            (&[Whole], Service::Replies, false),
            (&[Piece], Service::Replies, true),
            (&[ByPageCache], Service::Lease, true),
            (&[Piece, ByPageCache], Service::Lease, true),
            // Readers that map files, and read headers.
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
        // An open makes a file recently used, so the next one is dropped instead.
        access.opens(&stream(0), 0);
        assert_eq!(access.stored(4, quarter), [1]);
        assert_eq!(access.opens(&stream(0), 1).service, Service::Lease);
        // Four files stay, however large.
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

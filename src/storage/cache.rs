//! A cache of blocks of remote objects on a local disk, shared by all processes of a node.
//!
//! Each block is a file (`block`), written under a temporary name and renamed. A file with wrong content counts as a miss. There are no
//! locks: two processes that write the same block write the same bytes. Bytes are read from files straight into the caller's slices;
//! from the network they go into the slices and from there to files.
//!
//! The size of the directory is bounded: after writing a share of the bound, a process counts all files, and removes those that were
//! not used for longest. If the disk is full, blocks are no longer written.

mod block;

use std::collections::VecDeque;
use std::fs::{self, File, FileTimes};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::local;
use crate::number::as_usize;
use block::{BLOCK, PART};

pub use block::Subject;

/// A block's modification time records its last use, and is updated when it is older than this.
const USED: Duration = Duration::from_secs(600);
/// Files are counted again after writing 1/32 of the bound.
const SHARE: u64 = 32;

/// A directory of cached blocks.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    most: u64,
    /// Bytes written by this process since the last count.
    written: AtomicU64,
    counting: Mutex<()>,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

impl Cache {
    /// Opens a cache of at most `most` bytes. Its directory is created if needed, closed to other users.
    ///
    /// # Errors
    /// The directory cannot be created or written.
    pub fn open(directory: &Path, most: u64) -> io::Result<Cache> {
        local::make_private(directory)?;
        let trial = directory.join(format!(".trial-{}", std::process::id()));
        // A process with the same number may have been killed before it removed its file.
        File::options().write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(&trial)?;
        fs::remove_file(&trial)?;
        let cache = Cache {
            directory: directory.to_path_buf(),
            most,
            written: AtomicU64::new(0),
            counting: Mutex::new(()),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        };
        cache.shrink();
        Ok(cache)
    }

    /// Fills the slices with an object's bytes from `offset` on: from the cache if all blocks are in it; otherwise by one `fetch` of
    /// whole blocks, which are then stored.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub fn read(
        &self,
        subject: &Subject<'_>,
        offset: u64,
        places: &mut [IoSliceMut<'_>],
        fetch: impl FnOnce(u64, &mut [IoSliceMut<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        let total: u64 = places.iter().map(|place| place.len() as u64).sum();
        let end = offset.checked_add(total).filter(|&end| end <= subject.version.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if total == 0 {
            return Ok(());
        }
        let Some(missing) = self.load(subject, offset..end, places) else {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        self.misses.fetch_add(1, Ordering::Relaxed);
        let (start, stop) = (subject.block(missing.start).start, subject.block(missing.end - 1).end);
        let mut around = Around::new(offset.saturating_sub(start), stop.saturating_sub(end));
        let mut rest = around.with(places);
        // Skips what was loaded before the first missing block.
        take(&mut rest, start.saturating_sub(offset));
        let mut all = take(&mut rest, stop - start);
        fetch(start, &mut all)?;
        let mut blocks = all.iter_mut().map(|place| &mut **place).collect();
        for number in missing {
            let block = subject.block(number);
            self.store(subject, number, &take(&mut blocks, block.end - block.start));
        }
        Ok(())
    }

    /// Reads the cached blocks of a range; returns the range from the first to the last missing block.
    fn load(&self, subject: &Subject<'_>, range: Range<u64>, places: &mut [IoSliceMut<'_>]) -> Option<Range<u64>> {
        let from = range.start / PART * PART;
        let until = range.end.next_multiple_of(PART).min(subject.version.size);
        let mut around = Around::new(range.start - from, until - range.end);
        let mut rest = around.with(places);
        let mut missing: Option<Range<u64>> = None;
        for number in range.start / BLOCK..(range.end - 1) / BLOCK + 1 {
            let block = subject.block(number);
            let (start, stop) = (block.start.max(from), block.end.min(until));
            let mut places = take(&mut rest, stop - start);
            if self.load_one(subject, number, start - block.start, &mut places).is_none() {
                missing = Some(missing.map_or(number, |range| range.start)..number + 1);
            }
        }
        missing
    }

    /// Reads parts of a block, from its byte `from` on.
    fn load_one(&self, subject: &Subject<'_>, number: u64, from: u64, places: &mut [IoSliceMut<'_>]) -> Option<()> {
        let (head, block) = (subject.head(number), subject.block(number));
        let len = block.end - block.start;
        let file = File::open(self.path(&head)).ok()?;
        let metadata = file.metadata().ok()?;
        if metadata.len() != block::file_len(&head, len) {
            return None;
        }
        block::read(&file, &head, len, from, places)?;
        let now = SystemTime::now();
        if metadata.modified().is_ok_and(|used| now.duration_since(used).is_ok_and(|since| since > USED)) {
            // Without permission for this, the block is only removed sooner.
            let _ = file.set_times(FileTimes::new().set_modified(now));
        }
        Some(())
    }

    /// Writes a block; errors are ignored, as the block can be fetched again.
    fn store(&self, subject: &Subject<'_>, number: u64, bytes: &[IoSliceMut<'_>]) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (head, block) = (subject.head(number), subject.block(number));
        let path = self.path(&head);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{count}.new", std::process::id()));
        let write = || {
            if let Some(folder) = path.parent() {
                local::make_private(folder)?;
            }
            block::write(&File::options().write(true).create_new(true).open(&temporary)?, &head, bytes)?;
            fs::rename(&temporary, &path)
        };
        let written: io::Result<()> = write();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
            return;
        }
        let size = block::file_len(&head, block.end - block.start);
        if self.written.fetch_add(size, Ordering::Relaxed) + size > self.most / SHARE {
            self.shrink();
        }
    }

    fn path(&self, head: &[u8]) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        head.hash(&mut hasher);
        let name = format!("{:016x}", hasher.finish());
        let (folder, name) = name.split_at(2);
        self.directory.join(folder).join(name)
    }

    /// Counts all files, and removes those not used for longest, until a share of the bound is free.
    fn shrink(&self) {
        // Another thread is doing it.
        let Ok(_counting) = self.counting.try_lock() else { return };
        self.written.store(0, Ordering::Relaxed);
        let mut all: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        let folders = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for file in folders.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten() {
            if let Ok(metadata) = file.metadata() {
                all.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), file.path()));
            }
        }
        let mut total: u64 = all.iter().map(|(_, size, _)| size).sum();
        let aim = self.most - self.most / SHARE * 2;
        if total <= aim {
            return;
        }
        all.sort();
        for (_, size, path) in all {
            if total <= aim {
                break;
            }
            // Another process may have removed it.
            let _ = fs::remove_file(path);
            total -= size;
        }
    }
}

/// Buffers for bytes that are fetched before and after the requested range, to make whole blocks.
struct Around(Vec<u8>, Vec<u8>);

impl Around {
    fn new(before: u64, after: u64) -> Around {
        Around(vec![0; as_usize(before)], vec![0; as_usize(after)])
    }

    /// These buffers and the slices, in the order of their bytes.
    fn with<'a>(&'a mut self, places: &'a mut [IoSliceMut<'_>]) -> VecDeque<&'a mut [u8]> {
        let mut all = VecDeque::with_capacity(places.len() + 2);
        all.push_back(self.0.as_mut_slice());
        all.extend(places.iter_mut().map(|place| &mut **place));
        all.push_back(self.1.as_mut_slice());
        all
    }
}

/// Removes from `rest` the slices of its next `bytes` bytes, and returns them.
fn take<'a>(rest: &mut VecDeque<&'a mut [u8]>, bytes: u64) -> Vec<IoSliceMut<'a>> {
    let (mut taken, mut left) = (Vec::new(), as_usize(bytes));
    while left > 0
        && let Some(place) = rest.pop_front()
    {
        let (now, later) = place.split_at_mut(place.len().min(left));
        left -= now.len();
        if !later.is_empty() {
            rest.push_front(later);
        }
        if !now.is_empty() {
            taken.push(IoSliceMut::new(now));
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Stamp, Version};

    fn version(tag: &str) -> Version {
        Version { size: 3 * BLOCK + 100, stamp: Stamp::Tag { tag: tag.to_owned(), modified: None } }
    }

    fn content(at: u64, place: &mut [u8]) {
        place.iter_mut().zip(at..).for_each(|(byte, at)| *byte = (at % 251) as u8);
    }

    /// Reads, checks the bytes, and returns the fetched range.
    fn read(cache: &Cache, tag: &str, offset: u64, len: usize) -> Option<Range<u64>> {
        let version = version(tag);
        let mut fetched = None;
        let mut buffer = vec![0; len];
        let (first, second) = buffer.split_at_mut(len / 3);
        let mut places = [IoSliceMut::new(first), IoSliceMut::new(second)];
        let fetch = |start: u64, places: &mut [IoSliceMut<'_>]| {
            let mut at = start;
            for place in places {
                content(at, place);
                at += place.len() as u64;
            }
            fetched = Some(start..at);
            Ok(())
        };
        cache.read(&Subject { name: "s3://b/x", version: &version }, offset, &mut places, fetch).expect("reads");
        let mut expected = vec![0; len];
        content(offset, &mut expected);
        assert_eq!(buffer, expected);
        fetched
    }

    #[test]
    fn what_was_fetched_is_not_fetched_again() {
        let folder = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(folder.path(), 1 << 30).expect("opens");
        assert_eq!(read(&cache, "a", BLOCK + 5, 10), Some(BLOCK..2 * BLOCK));
        assert_eq!(read(&cache, "a", BLOCK + 50, 1000), None);
        // The first and the last block are missing: the fetch covers both and all between.
        assert_eq!(read(&cache, "a", 0, (3 * BLOCK + 100) as usize), Some(0..3 * BLOCK + 100));
        let other = Cache::open(folder.path(), 1 << 30).expect("opens");
        assert_eq!(read(&other, "a", 3 * BLOCK + 50, 50), None);
        assert_eq!(read(&other, "b", 3 * BLOCK + 50, 50), Some(3 * BLOCK..3 * BLOCK + 100));
    }

    /// Any range is right, whichever of its blocks are cached.
    #[test]
    fn ranges_that_are_there_in_part_are_right() {
        let size = 3 * BLOCK + 100;
        let ranges = [0..size, 1..size - 1, BLOCK - 1..3 * BLOCK, PART..2 * BLOCK, BLOCK + PART + 7..3 * BLOCK + 50];
        for (there, range) in (0..16).flat_map(|there| ranges.iter().map(move |range| (there, range))) {
            let folder = tempfile::tempdir().expect("a directory");
            let cache = Cache::open(folder.path(), 1 << 30).expect("opens");
            for number in (0..4).filter(|number| there >> number & 1 == 1) {
                assert!(read(&cache, "a", number * BLOCK + 60, 20).is_some());
            }
            let len = (range.end - range.start) as usize;
            let fetched = read(&cache, "a", range.start, len);
            let wanted = range.start / BLOCK..(range.end - 1) / BLOCK + 1;
            assert_eq!(fetched.is_none(), wanted.clone().all(|number| there >> number & 1 == 1));
            assert_eq!(read(&cache, "a", range.start, len), None);
        }
    }

    /// Bytes are right, whatever happened to the files.
    #[test]
    fn damaged_blocks_are_misses() {
        let folder = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(folder.path(), 1 << 30).expect("opens");
        read(&cache, "a", 0, 100);
        let files = || -> Vec<PathBuf> {
            let folders = fs::read_dir(folder.path()).expect("lists").flatten();
            folders
                .flat_map(|folder| fs::read_dir(folder.path()).expect("lists").flatten())
                .map(|file| file.path())
                .collect()
        };
        let [file] = files().try_into().expect("one file");
        let whole = fs::read(&file).expect("reads");
        let flip = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        let mut damaged = vec![Vec::new(), whole[..whole.len() - 1].to_vec(), vec![0; whole.len()]];
        damaged.extend([0, 10, 20, 200, whole.len() / 2, whole.len() - 1].map(flip));
        for bytes in damaged {
            fs::write(&file, bytes).expect("writes");
            assert_eq!(read(&cache, "a", 0, BLOCK as usize), Some(0..BLOCK));
            assert_eq!(read(&cache, "a", 0, BLOCK as usize), None);
        }
        // Parts outside of the requested range are not read.
        fs::write(&file, flip(whole.len() - 1)).expect("writes");
        assert_eq!(read(&cache, "a", 50, 10), None);
        assert_eq!(read(&cache, "a", BLOCK - 10, 10), Some(0..BLOCK));
    }

    #[test]
    fn the_directory_is_bounded() {
        let folder = tempfile::tempdir().expect("a directory");
        let most = 16 * BLOCK;
        let cache = Cache::open(folder.path(), most).expect("opens");
        for tag in 0..40 {
            read(&cache, &tag.to_string(), 0, (3 * BLOCK) as usize);
        }
        let folders = fs::read_dir(folder.path()).expect("lists").flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).expect("lists").flatten());
        let total: u64 = files.map(|file| file.metadata().expect("is there").len()).sum();
        assert!(total > most / 2 && total <= most + 4 * BLOCK, "{total} of {most}");
    }
}

//! Blocks of remote objects on a local disk, shared by all processes of a node.
//!
//! A block is a file of its own: what it is of (name, version, number), a checksum, its bytes. It is written under another
//! name and renamed into place, and everything in it is compared when it is read: a file that is cut, mixed up or not
//! written out before a crash is a miss. Nothing is locked: two processes that write one block write the same.
//!
//! The directory is bounded: a process that has written a share of the bound counts what is there, and removes what was not used
//! for longest. A full disk only stops the writing.

use std::fs::{self, File, FileTimes};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IoSliceMut, Read, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{Stamp, Version, local};
use crate::number::as_usize;

/// Bytes of one block.
const BLOCK: u64 = 256 << 10;
/// First bytes of each file: another layout would be another word.
const MAGIC: &[u8; 8] = b"shufblk1";
/// How much older a block's time may be than its last use.
const USED: Duration = Duration::from_secs(600);
/// This share of the bound is written before what is there is counted again.
const SHARE: u64 = 32;

/// A directory of blocks.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    most: u64,
    /// Bytes that this process has written since the last count.
    written: AtomicU64,
    counting: Mutex<()>,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

/// One object in one version.
pub struct Subject<'a> {
    pub name: &'a str,
    pub version: &'a Version,
}

impl Cache {
    /// A cache of at most this many bytes in a directory, which is created, closed to other users.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn open(directory: &Path, most: u64) -> io::Result<Cache> {
        local::make_private(directory)?;
        let trial = directory.join(format!(".trial-{}", std::process::id()));
        // One that a killed process of this number left may be there.
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

    /// Fills the places with an object's bytes from `offset` on: from the cache, where all of it is there; otherwise by one
    /// `fetch` of whole blocks, which are then kept.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub fn read(
        &self,
        subject: &Subject<'_>,
        offset: u64,
        places: &mut [IoSliceMut<'_>],
        fetch: impl FnOnce(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let total: u64 = places.iter().map(|place| place.len() as u64).sum();
        let end = offset.checked_add(total).filter(|&end| end <= subject.version.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if total == 0 {
            return Ok(());
        }
        let blocks = offset / BLOCK..(end - 1) / BLOCK + 1;
        let from = blocks.start * BLOCK;
        let until = (blocks.end * BLOCK).min(subject.version.size);
        let room = usize::try_from(until - from).map_err(io::Error::other)?;
        let mut bytes = vec![0; room];
        let missing = self.load(subject, blocks.clone(), &mut bytes);
        if let Some(missing) = missing {
            self.misses.fetch_add(1, Ordering::Relaxed);
            let (start, stop) = (missing.start * BLOCK, (missing.end * BLOCK).min(subject.version.size));
            let part = bytes.get_mut(as_usize(start - from)..as_usize(stop - from)).unwrap_or_default();
            fetch(start, part)?;
            for (number, block) in missing.zip(part.chunks(as_usize(BLOCK))) {
                self.store(subject, number, block);
            }
        } else {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        let mut wanted = bytes.get(as_usize(offset - from)..).unwrap_or_default();
        for place in places {
            let (now, later) = wanted.split_at(place.len());
            place.copy_from_slice(now);
            wanted = later;
        }
        Ok(())
    }

    /// Reads the blocks that are there; from the first to the last of those that are not.
    fn load(&self, subject: &Subject<'_>, blocks: Range<u64>, bytes: &mut [u8]) -> Option<Range<u64>> {
        let mut missing: Option<Range<u64>> = None;
        for (number, place) in blocks.zip(bytes.chunks_mut(as_usize(BLOCK))) {
            if self.load_one(subject, number, place).is_none() {
                missing = Some(missing.map_or(number, |range| range.start)..number + 1);
            }
        }
        missing
    }

    fn load_one(&self, subject: &Subject<'_>, number: u64, place: &mut [u8]) -> Option<()> {
        let head = head(subject, number);
        let mut file = File::open(self.path(&head)).ok()?;
        let metadata = file.metadata().ok()?;
        if metadata.len() != (head.len() + place.len() + 4) as u64 {
            return None;
        }
        let mut found = vec![0; head.len()];
        file.read_exact(&mut found).ok()?;
        file.read_exact(place).ok()?;
        let mut sum = [0; 4];
        file.read_exact(&mut sum).ok()?;
        if found != head || u32::from_le_bytes(sum) != checksum(&head, place) {
            return None;
        }
        let now = SystemTime::now();
        if metadata.modified().is_ok_and(|used| now.duration_since(used).is_ok_and(|since| since > USED)) {
            // Without the right to, it is only removed sooner.
            let _ = file.set_times(FileTimes::new().set_modified(now));
        }
        Some(())
    }

    /// Writes a block; a failure only means that it will be fetched again.
    fn store(&self, subject: &Subject<'_>, number: u64, bytes: &[u8]) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let head = head(subject, number);
        let path = self.path(&head);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{count}.new", std::process::id()));
        let write = || {
            if let Some(folder) = path.parent() {
                local::make_private(folder)?;
            }
            let mut file = File::options().write(true).create_new(true).open(&temporary)?;
            file.write_all(&head)?;
            file.write_all(bytes)?;
            file.write_all(&checksum(&head, bytes).to_le_bytes())?;
            fs::rename(&temporary, &path)
        };
        let written: io::Result<()> = write();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
            return;
        }
        let size = (head.len() + bytes.len() + 4) as u64;
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

    /// Counts what is there, and removes what was not used for longest, until a share of the bound is free.
    fn shrink(&self) {
        // Another thread is at it.
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
            // Of two processes that remove, one finds it gone.
            let _ = fs::remove_file(path);
            total -= size;
        }
    }
}

/// What a block is of: the start of its file.
fn head(subject: &Subject<'_>, number: u64) -> Vec<u8> {
    let Version { size, stamp } = subject.version;
    let stamp = match stamp {
        Stamp::File { mtime_ns, inode } => format!("{mtime_ns} {inode}"),
        Stamp::Tag { tag, modified } => {
            let since = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
            format!("{tag} {}", since.as_nanos())
        }
    };
    let subject = format!("{}\n{stamp}\n{size}\n{number}\n", subject.name);
    let mut head = MAGIC.to_vec();
    head.extend((subject.len() as u64).to_le_bytes());
    head.extend(subject.into_bytes());
    head
}

fn checksum(head: &[u8], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(tag: &str) -> Version {
        Version { size: 3 * BLOCK + 100, stamp: Stamp::Tag { tag: tag.to_owned(), modified: None } }
    }

    fn content(at: u64, place: &mut [u8]) {
        place.iter_mut().zip(at..).for_each(|(byte, at)| *byte = (at % 251) as u8);
    }

    /// Reads, checks the bytes, and tells which range was fetched.
    fn read(cache: &Cache, tag: &str, offset: u64, len: usize) -> Option<Range<u64>> {
        let version = version(tag);
        let mut fetched = None;
        let mut buffer = vec![0; len];
        let (first, second) = buffer.split_at_mut(len / 3);
        let mut places = [IoSliceMut::new(first), IoSliceMut::new(second)];
        let fetch = |at: u64, place: &mut [u8]| {
            fetched = Some(at..at + place.len() as u64);
            content(at, place);
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
        // The first and the last block are missing: the fetch goes from one to the other.
        assert_eq!(read(&cache, "a", 0, (3 * BLOCK + 100) as usize), Some(0..3 * BLOCK + 100));
        let other = Cache::open(folder.path(), 1 << 30).expect("opens");
        assert_eq!(read(&other, "a", 3 * BLOCK + 50, 50), None);
        assert_eq!(read(&other, "b", 3 * BLOCK + 50, 50), Some(3 * BLOCK..3 * BLOCK + 100));
    }

    /// Whatever happened to the files: the bytes are right.
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
            assert_eq!(read(&cache, "a", 50, 10), Some(0..BLOCK));
            assert_eq!(read(&cache, "a", 50, 10), None);
        }
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

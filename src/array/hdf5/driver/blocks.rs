//! Caches parts of an object for the library, and chooses which parts to fetch next.
//!
//! The library reads metadata in small pieces, one by one, and each miss costs a round trip. So the start and the end of the object are
//! fetched first, sequential reads fetch increasingly large parts, and the nodes of a chunk index are fetched together.

use std::collections::BTreeMap;
use std::io::{self, Error};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::tree;
use crate::number::as_usize;
use crate::storage::{Object, in_flight};

/// Bytes to fetch first, at the start and at the end.
const START: u64 = 1 << 20;
const END: u64 = 4 << 20;
/// Bytes to fetch for a read elsewhere; doubled while reads are sequential, up to `MOST`.
const LEAST: u64 = 64 << 10;
const MOST: u64 = 4 << 20;
/// Nodes of a chunk index are fetched in pages of this size.
const PAGE: u64 = 4 << 10;
/// Requests in flight.
const TOGETHER: usize = 64;
/// Maximum bytes to cache.
const KEPT: u64 = 96 << 20;

/// The cached parts of an object.
pub struct Blocks {
    object: Object,
    /// Parts by offset; they do not overlap.
    parts: BTreeMap<u64, Vec<u8>>,
    kept: u64,
    /// The end of the last fetch, and the bytes to fetch next if reads continue there.
    next: (u64, u64),
}

impl Blocks {
    /// Creates the cache, and fetches the start and the end.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn start(object: Object) -> io::Result<Blocks> {
        let len = object.len();
        let mut blocks = Blocks { object, parts: BTreeMap::new(), kept: 0, next: (len, LEAST) };
        let start = START.min(len);
        blocks.fetch(vec![0..start, len.saturating_sub(END).max(start)..len])?;
        Ok(blocks)
    }

    /// Fills a buffer with the bytes from an offset on, and zeros beyond the object. `base` is the offset of the library's address 0.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn read(&mut self, at: u64, buffer: &mut [u8], base: u64) -> io::Result<()> {
        let end = at.saturating_add(buffer.len() as u64).min(self.object.len());
        if self.kept > KEPT {
            self.parts.clear();
            self.kept = 0;
        }
        let gaps = self.gaps(at..end);
        if !gaps.is_empty() {
            let wanted = gaps.into_iter().map(|gap| self.ahead(gap)).collect();
            self.fetch(wanted)?;
        }
        buffer.fill(0);
        self.copy(at, buffer);
        if buffer.starts_with(b"TREE") {
            self.descend(buffer, base)?;
        }
        Ok(())
    }

    /// Fetches all nodes below a node of a chunk index, level by level.
    fn descend(&mut self, node: &[u8], base: u64) -> io::Result<()> {
        let size = node.len() as u64;
        let mut level = vec![node.to_vec()];
        while !level.is_empty() {
            let below = level.iter().filter_map(|node| tree::children(node));
            let addresses: Vec<u64> =
                below.flat_map(|(_, children)| children).filter_map(|a| a.checked_add(base)).collect();
            let bound = self.object.len();
            let pages = |&at: &u64| {
                let end = at.checked_add(size)?.checked_next_multiple_of(PAGE)?.min(bound);
                (at < end).then_some(at / PAGE * PAGE..end)
            };
            let mut wanted: Vec<Range<u64>> = addresses.iter().filter_map(pages).collect();
            if wanted.iter().map(|range| range.end - range.start).sum::<u64>() > KEPT / 2 {
                // They would take more than half of the cache, so the library reads them one by one.
                return Ok(());
            }
            wanted.sort_by_key(|range| range.start);
            let gaps = wanted.into_iter().flat_map(|range| self.gaps(range)).collect();
            self.fetch(joined(gaps))?;
            level = addresses
                .into_iter()
                .map(|at| {
                    let mut node = vec![0; usize::try_from(size).unwrap_or(0)];
                    self.copy(at, &mut node);
                    node
                })
                .filter(|node| tree::children(node).is_some())
                .collect();
        }
        Ok(())
    }

    /// The parts of a range that are not cached.
    fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let before = self.parts.range(..=at).next_back();
        if let Some((&start, part)) = before {
            at = at.max(start + part.len() as u64);
        }
        for (&start, part) in self.parts.range(range.start..range.end) {
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(start + part.len() as u64);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Extends a gap to what is likely to be read next.
    fn ahead(&mut self, gap: Range<u64>) -> Range<u64> {
        let more = if gap.start == self.next.0 { (self.next.1 * 2).min(MOST) } else { LEAST };
        let end = gap.start.saturating_add(more).max(gap.end).min(self.object.len());
        // Up to the next cached part.
        let end = self.parts.range(gap.end..end).next().map_or(end, |(&start, _)| start);
        self.next = (end, more);
        gap.start..end
    }

    /// Fetches ranges that are not cached, concurrently.
    fn fetch(&mut self, ranges: Vec<Range<u64>>) -> io::Result<()> {
        let ranges: Vec<Range<u64>> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        for some in ranges.chunks(TOGETHER) {
            let object = &self.object;
            let one = |range: &Range<u64>| {
                let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(Error::other)?];
                object.read_exact_at(range.start, &mut bytes)?;
                Ok::<_, Error>((range.start, bytes))
            };
            let parts = Mutex::new(Vec::new());
            in_flight::for_each(TOGETHER, some.len(), |number| {
                if let Some(range) = some.get(number) {
                    let part = one(range)?;
                    parts.lock().unwrap_or_else(PoisonError::into_inner).push(part);
                }
                Ok::<_, Error>(())
            })?;
            for (start, bytes) in parts.into_inner().unwrap_or_else(PoisonError::into_inner) {
                self.kept += bytes.len() as u64;
                self.parts.insert(start, bytes);
            }
        }
        Ok(())
    }

    /// Copies cached bytes to a buffer.
    fn copy(&self, at: u64, buffer: &mut [u8]) {
        let end = at.saturating_add(buffer.len() as u64);
        let first = self.parts.range(..=at).next_back().map_or(at, |(&start, _)| start);
        for (&start, part) in self.parts.range(first..end) {
            let (from, to) = (start.max(at), (start + part.len() as u64).min(end));
            if from < to {
                // Both ranges are within their buffers.
                let source = part.get(as_usize(from - start)..as_usize(to - start)).unwrap_or_default();
                if let Some(place) = buffer.get_mut(as_usize(from - at)..as_usize(to - at)) {
                    place.copy_from_slice(source);
                }
            }
        }
    }
}

/// Merges adjacent ranges; the result is sorted.
fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut().filter(|last| last.end >= range.start) {
            Some(last) => last.end = last.end.max(range.end),
            None => all.push(range),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::local;

    fn blocks(len: usize) -> (tempfile::TempDir, Vec<u8>, Blocks) {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("x");
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        std::fs::write(&path, &bytes).expect("writes");
        let object = |path: &Path| local::object(std::fs::File::open(path).expect("opens"), path);
        let blocks = Blocks::start(object(&path).expect("an object")).expect("reads");
        (folder, bytes, blocks)
    }

    #[test]
    fn any_read_gives_the_bytes_and_zeros_beyond() {
        let (_folder, bytes, mut blocks) = blocks(9 << 20);
        for (at, len) in [(0, 10), (1 << 20, 200_000), ((1 << 20) - 5, 10), (3 << 20, 3 << 20), (9 * (1 << 20) - 3, 8)]
        {
            let mut buffer = vec![1; len];
            blocks.read(at as u64, &mut buffer, 0).expect("reads");
            let mut expected: Vec<u8> = bytes[at..bytes.len().min(at + len)].to_vec();
            expected.resize(len, 0);
            assert!(buffer == expected, "{at} {len}");
        }
    }

    #[test]
    fn reads_that_go_on_take_few_requests() {
        let (_folder, _bytes, mut blocks) = blocks(40 << 20);
        let before = blocks.object.address().meter().requests();
        assert_eq!(before, 2);
        let mut buffer = [0; 512];
        for at in ((1 << 20)..(34 << 20)).step_by(512) {
            blocks.read(at, &mut buffer, 0).expect("reads");
        }
        let requests = blocks.object.address().meter().requests() - before;
        assert!(requests < 20, "{requests}");
    }
}

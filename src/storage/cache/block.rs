//! The file of one block: identification, a checksum for each part, bytes.
//!
//! Everything that is read is verified; a file that is truncated, of another block, or incomplete after a crash counts as missing. Reads
//! cover whole parts, so that a small request is read into its slices without the whole block around it.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::ops::Range;
use std::time::SystemTime;

use crate::number::as_usize;
use crate::storage::{Stamp, Version, local};

/// Bytes of one block.
pub const BLOCK: u64 = 256 << 10;
/// Bytes covered by one checksum; a block has a whole number of parts.
pub const PART: u64 = 32 << 10;
/// First bytes of each file; to change with the layout.
const MAGIC: &[u8; 8] = b"shufblk2";
/// Bytes of a checksum.
const SUM: usize = 4;

/// An object in one version.
pub struct Subject<'a> {
    pub name: &'a str,
    pub version: &'a Version,
}

impl Subject<'_> {
    /// The byte range of a block in the object.
    pub fn block(&self, number: u64) -> Range<u64> {
        let size = self.version.size;
        number.saturating_mul(BLOCK).min(size)..number.saturating_add(1).saturating_mul(BLOCK).min(size)
    }

    /// The start of a block's file, which identifies object, version and block.
    pub fn head(&self, number: u64) -> Vec<u8> {
        let Version { size, stamp } = self.version;
        let stamp = match stamp {
            Stamp::File { mtime_ns, inode } => format!("{mtime_ns} {inode}"),
            Stamp::Tag { tag, modified } => {
                let since = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
                format!("{tag} {}", since.unwrap_or_default().as_nanos())
            }
        };
        let subject = format!("{}\n{stamp}\n{size}\n{number}\n", self.name);
        let mut head = MAGIC.to_vec();
        head.extend((subject.len() as u64).to_le_bytes());
        head.extend(subject.into_bytes());
        head
    }
}

/// The size of the file of a block with `len` bytes.
pub fn file_len(head: &[u8], len: u64) -> u64 {
    head.len() as u64 + len.div_ceil(PART) * SUM as u64 + len
}

/// Fills the slices with a block's bytes from `from` on, which must be the start of a part; they must end with a part or the block.
/// `None` if the file is not as it should be; the content of the slices is then unspecified.
pub fn read(file: &File, head: &[u8], len: u64, from: u64, places: &mut [IoSliceMut<'_>]) -> Option<()> {
    let data = file_len(head, len) - len;
    let mut start = vec![0; as_usize(data)];
    local::fill(file, 0, &mut [IoSliceMut::new(&mut start)]).ok()?;
    local::fill(file, data + from, places).ok()?;
    let table = start.strip_prefix(head)?.get(as_usize(from / PART) * SUM..)?;
    let found = sums(head, places.iter().map(|place| &**place));
    (table.get(..found.len())? == found).then_some(())
}

/// Writes the file of a block.
///
/// # Errors
/// Those of the file system.
pub fn write(mut file: &File, head: &[u8], places: &[IoSliceMut<'_>]) -> io::Result<()> {
    let sums = sums(head, places.iter().map(|place| &**place));
    let mut all = vec![IoSlice::new(head), IoSlice::new(&sums)];
    all.extend(places.iter().map(|place| IoSlice::new(place)));
    let mut all = all.as_mut_slice();
    while !all.is_empty() {
        match file.write_vectored(all) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut all, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The checksum of each part of the bytes, which start with a part. It covers the head as well, so that parts of other blocks have other
/// checksums.
fn sums<'a>(head: &[u8], places: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let begin = crc32c::crc32c(head);
    let (mut sums, mut sum, mut room) = (Vec::new(), begin, as_usize(PART));
    for mut place in places {
        while !place.is_empty() {
            let (now, later) = place.split_at(place.len().min(room));
            sum = crc32c::crc32c_append(sum, now);
            place = later;
            room -= now.len();
            if room == 0 {
                sums.extend(sum.to_le_bytes());
                (sum, room) = (begin, as_usize(PART));
            }
        }
    }
    if room < as_usize(PART) {
        sums.extend(sum.to_le_bytes());
    }
    sums
}

//! The central directory of a zip archive: its members, and their locations.
//!
//! A name may occur several times, as writers that append replace metadata so: the last entry counts. Members are looked up by name in
//! memory, so no name can lead out of the archive. All offsets and sizes are checked against the file before anything is read or allocated.

use std::collections::BTreeMap;
use std::io::{self, Error, ErrorKind};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use libdeflater::Decompressor;

use super::blob::Blob;
use crate::array::{Extent, MAX_CHUNK};
use crate::storage::{Meter, Object};

/// Maximum expansion of a deflate stream.
const DEFLATE_RATIO: u64 = 1032;
const END: &[u8; 4] = b"PK\x05\x06";
const END_BYTES: usize = 22;
/// The end record with the longest comment.
const TAIL: u64 = 22 + 65_535;

/// A member, from the central directory.
struct ZipMember {
    /// Offset of its local header.
    header: u64,
    /// Compressed bytes.
    stored: u64,
    /// Bytes of its content.
    size: u64,
    crc: u32,
    method: u16,
    encrypted: bool,
    /// Offset of its content, set when its local header has been read.
    content: OnceLock<u64>,
}

/// An open archive.
pub struct Zip {
    object: Object,
    /// Offset of the central directory; all content lies before it.
    directory: u64,
    members: BTreeMap<String, ZipMember>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

/// An error about a member.
fn unfit(cause: &str) -> Error {
    Error::new(ErrorKind::InvalidData, cause)
}

impl Zip {
    /// Reads the central directory.
    ///
    /// # Errors
    /// The cause: not a zip archive, or a damaged one.
    pub fn open(object: Object) -> Result<Zip, String> {
        let (start, bytes, shift) = central_directory(&object)?;
        let mut members = BTreeMap::new();
        let mut rest = bytes.as_slice();
        while rest.starts_with(b"PK\x01\x02") {
            let (name, member, after) = entry(rest, shift).ok_or("its central directory is damaged")?;
            if let Some(member) = member {
                members.insert(name, member);
            }
            rest = after;
        }
        if !rest.is_empty() && !rest.starts_with(b"PK\x05\x05") {
            return Err("its central directory is damaged".to_owned());
        }
        Ok(Zip { object, directory: start, members })
    }

    pub fn meter(&self) -> &Meter {
        self.object.address().meter()
    }

    /// Bytes of content and local headers.
    pub fn len(&self) -> u64 {
        self.directory
    }

    pub fn contains(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Names of files and folders directly below a folder (`""`: the root), sorted.
    pub fn below(&self, folder: &str) -> Vec<String> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut names: Vec<String> = Vec::new();
        let mut from = Bound::Included(prefix.clone());
        while let Some((path, _)) = self.members.range::<String, _>((from.clone(), Bound::Unbounded)).next() {
            let Some(rest) = path.strip_prefix(&prefix) else { break };
            let (name, folder) = rest.split_once('/').map_or((rest, false), |(name, _)| (name, true));
            if names.last().is_none_or(|last| last != name) {
                names.push(name.to_owned());
            }
            // Skips all entries of that folder: `0` follows `/` in ASCII.
            from = if folder { Bound::Included(format!("{prefix}{name}0")) } else { Bound::Excluded(path.clone()) };
        }
        names.sort();
        names.dedup();
        names
    }

    /// The content of a member, if it exists.
    ///
    /// # Errors
    /// `InvalidData` with the cause: damaged, encrypted, unsupported compression. Others are those of the storage.
    pub fn read(&self, name: &str) -> io::Result<Option<Blob>> {
        let Some(member) = self.members.get(name) else { return Ok(None) };
        if member.encrypted {
            return Err(unfit("it is encrypted: unpack it and write the archive without a password"));
        }
        let offset = self.content(name, member)?;
        match member.method {
            0 if member.stored != member.size => Err(unfit("its sizes differ although it is not compressed")),
            0 => Ok(Some(Blob::Stored(Extent { object: self.object.clone(), offset, len: member.size }))),
            8 => self.inflate(member, offset).map(|bytes| Some(Blob::Memory(Arc::new(bytes)))),
            method => {
                Err(unfit(&format!("its compression {method} is not read: write the archive stored or deflated")))
            }
        }
    }

    /// Offset of the content: behind the local header, which must have the same name.
    fn content(&self, name: &str, member: &ZipMember) -> io::Result<u64> {
        if let Some(&offset) = member.content.get() {
            return Ok(offset);
        }
        let damaged = || unfit("its local header is damaged");
        // A failing storage must not be reported as damage.
        let fill = |at: u64, bytes: &mut [u8]| match self.object.read_exact_at(at, bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(damaged()),
            result => result,
        };
        let mut header = [0; 30];
        fill(member.header, &mut header)?;
        let (named, extra) = (u16_at(&header, 26).unwrap_or(0), u16_at(&header, 28).unwrap_or(0));
        let mut local = vec![0; usize::from(named)];
        let at = member.header.checked_add(30).ok_or_else(damaged)?;
        fill(at, &mut local)?;
        if !header.starts_with(b"PK\x03\x04") || folded(&local) != name {
            return Err(damaged());
        }
        let offset = at + u64::from(named) + u64::from(extra);
        if offset.checked_add(member.stored).is_none_or(|end| end > self.directory) {
            return Err(unfit("its content reaches into the central directory: the archive is damaged"));
        }
        Ok(*member.content.get_or_init(|| offset))
    }

    fn inflate(&self, member: &ZipMember, offset: u64) -> io::Result<Vec<u8>> {
        let bound = member.stored.saturating_mul(DEFLATE_RATIO).saturating_add(64).min(MAX_CHUNK);
        if member.size > bound {
            let cause = format!("{} bytes cannot hold the {} that are declared", member.stored, member.size);
            return Err(unfit(&cause));
        }
        let size = |n: u64| usize::try_from(n).map_err(|_| unfit("it is too large"));
        let mut stored = vec![0; size(member.stored)?];
        self.object.read_exact_at(offset, &mut stored)?;
        let mut content = vec![0; size(member.size)?];
        let got = Decompressor::new().deflate_decompress(&stored, &mut content);
        if got.map_err(|_| unfit("its deflate stream is damaged"))? != content.len() {
            return Err(unfit("it inflates to another size than declared"));
        }
        if libdeflater::crc32(&content) != member.crc {
            return Err(unfit("its checksum does not match"));
        }
        Ok(content)
    }
}

/// A name for lookups: archivers on Windows write `\`, others start with `./`.
fn folded(name: &[u8]) -> String {
    String::from_utf8_lossy(name).replace('\\', "/").trim_start_matches("./").to_owned()
}

/// Offset of the central directory, its bytes, and the correction of all offsets (bytes before the archive).
fn central_directory(object: &Object) -> Result<(u64, Vec<u8>, u64), String> {
    let damaged =
        || "the zip archive has no end record: it is truncated or damaged; copy or download it again".to_owned();
    let length = object.len();
    let from = length.saturating_sub(TAIL);
    let mut tail = vec![0; usize::try_from(length - from).map_err(|_| damaged())?];
    object.read_exact_at(from, &mut tail).map_err(|e| e.to_string())?;
    let ends_there = |&at: &usize| {
        u16_at(&tail, at.saturating_add(20)).is_some_and(|comment| at + END_BYTES + usize::from(comment) == tail.len())
    };
    let at = (0..tail.len().saturating_sub(END_BYTES - 1))
        .rev()
        .filter(|&at| tail.get(at..at + 4) == Some(END.as_slice()))
        .find(ends_there)
        .ok_or_else(damaged)?;
    let mut end = from + at as u64;
    let mut size = u64::from(u32_at(&tail, at + 12).ok_or_else(damaged)?);
    let mut offset = u64::from(u32_at(&tail, at + 16).ok_or_else(damaged)?);
    if let Some(record) = zip64(object, end) {
        (end, size, offset) = record;
    }
    let start = end.checked_sub(size).ok_or_else(damaged)?;
    let shift = start.checked_sub(offset).ok_or_else(damaged)?;
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| damaged())?];
    object.read_exact_at(start, &mut bytes).map_err(|e| e.to_string())?;
    Ok((start, bytes, shift))
}

/// The zip64 end record, which a locator before the end record points to: its offset, and the directory's size and offset.
fn zip64(object: &Object, end: u64) -> Option<(u64, u64, u64)> {
    let mut locator = [0; 20];
    object.read_exact_at(end.checked_sub(20)?, &mut locator).ok()?;
    if !locator.starts_with(b"PK\x06\x07") {
        return None;
    }
    let mut record = [0; 56];
    // Where the locator says, or right before the locator if something precedes the archive.
    [u64_at(&locator, 8)?, end.checked_sub(76)?].into_iter().find_map(|at| {
        object.read_exact_at(at, &mut record).ok()?;
        if !record.starts_with(b"PK\x06\x06") || at >= end {
            return None;
        }
        Some((at, u64_at(&record, 40)?, u64_at(&record, 48)?))
    })
}

/// Parses one entry: name, member (`None` for a folder), and the following bytes.
fn entry(bytes: &[u8], shift: u64) -> Option<(String, Option<ZipMember>, &[u8])> {
    let (named, extra, comment) = (u16_at(bytes, 28)?, u16_at(bytes, 30)?, u16_at(bytes, 32)?);
    let name = bytes.get(46..)?.get(..usize::from(named))?;
    let extra = bytes.get(46 + usize::from(named)..)?.get(..usize::from(extra))?;
    let after = bytes.get(46 + name.len() + extra.len() + usize::from(comment)..)?;
    let (mut stored, mut size) = (u64::from(u32_at(bytes, 20)?), u64::from(u32_at(bytes, 24)?));
    let mut header = u64::from(u32_at(bytes, 42)?);
    let wide = zip64_extra(extra);
    let mut wide = wide.as_chunks::<8>().0.iter().map(|n| u64::from_le_bytes(*n));
    for (value, full) in [(&mut size, u32::MAX), (&mut stored, u32::MAX), (&mut header, u32::MAX)] {
        if *value == u64::from(full) {
            *value = wide.next().unwrap_or(*value);
        }
    }
    let name = folded(name);
    let member = ZipMember {
        header: header.checked_add(shift)?,
        stored,
        size,
        crc: u32_at(bytes, 16)?,
        method: u16_at(bytes, 10)?,
        encrypted: u16_at(bytes, 8)? & 1 != 0,
        content: OnceLock::new(),
    };
    Some(if name.ends_with('/') { (name, None, after) } else { (name, Some(member), after) })
}

/// The content of the zip64 extra field, for numbers that do not fit the entry.
fn zip64_extra(mut extra: &[u8]) -> &[u8] {
    while let (Some(id), Some(size)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(field) = extra.get(4..4 + usize::from(size)) else { break };
        if id == 1 {
            return field;
        }
        extra = extra.get(4 + field.len()..).unwrap_or_default();
    }
    &[]
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, Write};
    use std::path::Path;

    use super::*;
    use crate::storage::local;

    /// An archive with members (name, content, whether to deflate).
    fn archive(members: &[(&str, &[u8], bool)]) -> Vec<u8> {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        for &(name, content, deflate) in members {
            let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
            let mut stored = vec![0; compressor.deflate_compress_bound(content.len())];
            let len = compressor.deflate_compress(content, &mut stored).unwrap();
            let stored = if deflate { &stored[..len] } else { content };
            let mut shared = vec![20, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0, 0];
            shared.extend(libdeflater::crc32(content).to_le_bytes());
            shared.extend((stored.len() as u32).to_le_bytes());
            shared.extend((content.len() as u32).to_le_bytes());
            shared.extend((name.len() as u16).to_le_bytes());
            shared.extend([0, 0]);
            directory.extend(b"PK\x01\x02\x14\x00");
            directory.extend(&shared);
            directory.extend([0; 10]);
            directory.extend((bytes.len() as u32).to_le_bytes());
            directory.extend(name.as_bytes());
            bytes.extend(b"PK\x03\x04");
            bytes.extend(&shared);
            bytes.extend(name.as_bytes());
            bytes.extend(stored);
        }
        let start = bytes.len() as u32;
        bytes.extend(&directory);
        bytes.extend(b"PK\x05\x06\0\0\0\0");
        bytes.extend([members.len() as u8, 0, members.len() as u8, 0]);
        bytes.extend((directory.len() as u32).to_le_bytes());
        bytes.extend(start.to_le_bytes());
        bytes.extend([0, 0]);
        bytes
    }

    fn open(file: &mut File, bytes: &[u8]) -> Result<Zip, String> {
        file.rewind().unwrap();
        file.set_len(0).unwrap();
        file.write_all(bytes).unwrap();
        Zip::open(local::object(file.try_clone().unwrap(), Path::new("test.zip")).unwrap())
    }

    fn content(zip: &Zip, name: &str) -> Result<Option<Vec<u8>>, String> {
        zip.read(name).map_err(|e| e.to_string())?.map(|blob| blob.all(1 << 20).map_err(|e| e.to_string())).transpose()
    }

    #[test]
    fn members_are_found_and_the_last_of_a_name_counts() {
        let long = [7; 5000];
        let members: [(&str, &[u8], bool); 8] = [
            ("a/x", b"old", false),
            ("a/x", b"new", true),
            ("a-b", b"", true),
            ("a/c/0", &long, true),
            ("a/c/1", &long, false),
            ("../out", b"never a path", false),
            ("a/", b"", false),
            ("./a\\d", b"by Windows", false),
        ];
        let bytes = archive(&members);
        let mut file = tempfile::tempfile().unwrap();
        // Bytes before the archive shift all offsets.
        for bytes in [bytes.clone(), [b"#!/bin/sh\n".as_slice(), &bytes].concat()] {
            let zip = open(&mut file, &bytes).unwrap();
            assert_eq!(content(&zip, "a/x").unwrap().unwrap(), b"new");
            assert_eq!(content(&zip, "a-b").unwrap().unwrap(), b"");
            assert_eq!(content(&zip, "a/c/0").unwrap().unwrap(), long);
            assert_eq!(content(&zip, "a/c/1").unwrap().unwrap(), long);
            assert_eq!(content(&zip, "a"), Ok(None));
            assert_eq!(zip.below(""), ["..", "a", "a-b"]);
            assert_eq!(zip.below("a"), ["c", "d", "x"]);
            assert_eq!(content(&zip, "a/d").unwrap().unwrap(), b"by Windows");
            assert_eq!(zip.below("a/c"), ["0", "1"]);
            assert!(zip.below("b").is_empty());
        }
    }

    #[test]
    fn damage_is_an_error_and_never_another_content() {
        let text = b"deflated, deflated, deflated".repeat(9);
        let bytes = archive(&[("deflated", &text, true), ("stored", b"as it is", false)]);
        let mut file = tempfile::tempfile().unwrap();
        let mut attempt = |bytes: &[u8]| {
            let Ok(zip) = open(&mut file, bytes) else { return };
            for name in zip.below("") {
                let got = content(&zip, &name).unwrap_or_default();
                assert!(name != "deflated" || got.is_none_or(|got| got == text));
            }
        };
        for at in 0..bytes.len() {
            attempt(&bytes[..at]);
            for flip in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                attempt(&damaged);
            }
        }
    }
}

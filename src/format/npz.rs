//! `.npz`: uncompressed zip members that `numpy.load` and `scipy.sparse.load_npz` read (APPNOTE.TXT 6.3.10, with zip64).

use crate::array::Dtype;
use crate::batch::{Batch, Layout, Repr};
use crate::collection::Table;
use crate::number::{as_usize, le16};

use super::Format;
use super::npy::{header, header_len};
use super::tensor::{Tensor, sparse_shapes, tensors};

/// The `.npz` format of one table.
pub struct Npz {
    members: Vec<NpzMember>,
}

/// A zip member.
struct NpzMember {
    /// Including `.npy`.
    name: String,
    content: MemberContent,
}

enum MemberContent {
    Tensor(Tensor),
    /// `shape` of a sparse element, for scipy: number of the companion (0: the batch), and of the element.
    Shape(usize, usize),
    /// `format` of a sparse X: `csr`.
    Format,
}

pub fn open(table: &Table) -> Result<Box<dyn Format>, String> {
    Ok(Box::new(Npz::new(table)))
}

/// A 32-bit field with this value refers to the zip64 record.
const ZIP64: u64 = 0xffff_ffff;
const CSR: &[u8] = b"csr";

impl Npz {
    pub fn new(table: &Table) -> Npz {
        let tensors = tensors(table, |chars, _| Repr::Ucs4(chars.max(1)));
        let mut members: Vec<NpzMember> = tensors
            .into_iter()
            .map(|tensor| NpzMember { name: format!("{}.npy", tensor.name), content: MemberContent::Tensor(tensor) })
            .collect();
        for (companion, element, name) in sparse_shapes(table) {
            let content = MemberContent::Shape(companion, element);
            members.push(NpzMember { name: format!("{name}.npy"), content });
            // Where scipy looks for it.
            if (companion, element) == (0, 0) && table.modality.is_none() {
                members.push(NpzMember { name: "format.npy".to_owned(), content: MemberContent::Format });
            }
        }
        Npz { members }
    }
}

impl NpzMember {
    /// Length of the npy header, and of the data after it.
    fn lens(&self, batch: &Batch<'_>) -> (u64, u64) {
        let (header, data) = match &self.content {
            MemberContent::Tensor(tensor) => {
                let span = tensor.span(batch, 0);
                let shape = tensor.shape(batch);
                let header = match span.repr {
                    Repr::Number(dtype) => header_len(dtype.npy(), shape.axes()),
                    text => header_len(&descr(text), shape.axes()),
                };
                (header, tensor.bytes(batch))
            }
            MemberContent::Shape(..) => (header_len(Dtype::I64.npy(), &[2]), 16),
            MemberContent::Format => (header_len("|S3", &[]), CSR.len() as u64),
        };
        (header as u64, data)
    }

    fn header(&self, batch: &Batch<'_>) -> Vec<u8> {
        match &self.content {
            MemberContent::Tensor(tensor) => header(&descr(tensor.repr(batch)), tensor.shape(batch).axes()),
            MemberContent::Shape(..) => header(Dtype::I64.npy(), &[2]),
            MemberContent::Format => header("|S3", &[]),
        }
    }

    /// Length of the local header of a member of `size` bytes.
    fn local_len(&self, size: u64) -> u64 {
        30 + self.name.len() as u64 + if size >= ZIP64 { 20 } else { 0 }
    }

    /// Length of the central directory entry of a member of `size` bytes at `offset`.
    fn central_len(&self, size: u64, offset: u64) -> u64 {
        let extra = if size >= ZIP64 { 16 } else { 0 } + if offset >= ZIP64 { 8 } else { 0 };
        46 + self.name.len() as u64 + if extra > 0 { 4 + extra } else { 0 }
    }
}

fn descr(repr: Repr) -> String {
    match repr {
        Repr::Number(dtype) => dtype.npy().to_owned(),
        Repr::Ucs4(chars) => format!("<U{chars}"),
        Repr::Utf8(bytes) => format!("|S{bytes}"),
    }
}

impl Format for Npz {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let (mut at, mut directory, mut spans) = (0, 0, Vec::with_capacity(self.members.len()));
        for member in &self.members {
            let (header, data) = member.lens(batch);
            directory += member.central_len(header + data, at);
            at += member.local_len(header + data) + header;
            if let MemberContent::Tensor(tensor) = &member.content {
                spans.push(tensor.span(batch, at));
            }
            at += data;
        }
        let tail = if needs_zip64(at, directory, self.members.len()) { 56 + 20 + 22 } else { 22 };
        Layout { size: at + directory + tail, spans }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        let mut directory = Vec::new();
        let mut at = 0usize;
        for member in &self.members {
            let header = member.header(batch);
            let size = header.len() as u64 + member.lens(batch).1;
            let body = at + as_usize(member.local_len(size));
            let data = body + header.len();
            image[body..data].copy_from_slice(&header);
            match &member.content {
                MemberContent::Tensor(tensor) => tensor.pad(batch, &mut image[data..body + as_usize(size)]),
                MemberContent::Shape(companion, element) => {
                    let shape = batch.companion(*companion).shape(*element);
                    for (n, out) in shape.iter().zip(image[data..].as_chunks_mut::<8>().0) {
                        *out = n.to_le_bytes();
                    }
                }
                MemberContent::Format => image[data..][..CSR.len()].copy_from_slice(CSR),
            }
            let end = body + as_usize(size);
            let record = Record { name: &member.name, size, crc: crc32fast::hash(&image[body..end]) };
            image[at..body].copy_from_slice(&record.local());
            directory.extend_from_slice(&record.central(at as u64));
            at = end;
        }
        let tail = tail(at as u64, directory.len() as u64, self.members.len());
        image[at..][..directory.len()].copy_from_slice(&directory);
        image[at + directory.len()..].copy_from_slice(&tail);
    }
}

/// What the local header and the central directory entry of a member have in common.
struct Record<'a> {
    name: &'a str,
    size: u64,
    crc: u32,
}

impl Record<'_> {
    /// Version needed, flags (UTF-8 names), stored, 1980-01-01, CRC and sizes.
    fn common(&self) -> Vec<u8> {
        let size = (self.size.min(ZIP64) as u32).to_le_bytes();
        let mut bytes = vec![45, 0, 0, 8, 0, 0, 0, 0, 0x21, 0];
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(&size);
        bytes.extend_from_slice(&size);
        bytes.extend_from_slice(&le16(self.name.len()));
        bytes
    }

    /// The zip64 field: the numbers that do not fit 32 bits.
    fn extra(&self, offset: Option<u64>) -> Vec<u8> {
        let sizes = if self.size >= ZIP64 { [Some(self.size); 2] } else { [None; 2] };
        let numbers: Vec<u64> = sizes.into_iter().chain([offset.filter(|&at| at >= ZIP64)]).flatten().collect();
        if numbers.is_empty() {
            return Vec::new();
        }
        let mut bytes = vec![1, 0];
        bytes.extend_from_slice(&le16(8 * numbers.len()));
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }

    fn local(&self) -> Vec<u8> {
        let extra = self.extra(None);
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.extend_from_slice(&self.common());
        bytes.extend_from_slice(&le16(extra.len()));
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.extend_from_slice(&extra);
        bytes
    }

    fn central(&self, offset: u64) -> Vec<u8> {
        let extra = self.extra(Some(offset));
        let mut bytes = b"PK\x01\x02\x2d\x03".to_vec();
        bytes.extend_from_slice(&self.common());
        bytes.extend_from_slice(&le16(extra.len()));
        // No comment, disk 0, no internal attributes; a regular file of mode 0444.
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&(0o100_444u32 << 16).to_le_bytes());
        bytes.extend_from_slice(&(offset.min(ZIP64) as u32).to_le_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.extend_from_slice(&extra);
        bytes
    }
}

fn needs_zip64(at: u64, directory: u64, members: usize) -> bool {
    at >= ZIP64 || directory >= ZIP64 || members >= 0xffff
}

fn tail(at: u64, directory: u64, members: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = members as u64;
    if needs_zip64(at, directory, members) {
        bytes.extend_from_slice(b"PK\x06\x06");
        bytes.extend_from_slice(&44u64.to_le_bytes());
        bytes.extend_from_slice(&[45, 3, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [count, count, directory, at] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        bytes.extend_from_slice(&(at + directory).to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
    }
    let count = (count.min(0xffff) as u16).to_le_bytes();
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    bytes.extend_from_slice(&count);
    bytes.extend_from_slice(&count);
    bytes.extend_from_slice(&(directory.min(ZIP64) as u32).to_le_bytes());
    bytes.extend_from_slice(&(at.min(ZIP64) as u32).to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files beyond 4 GiB are too large for a test, but their records must have the lengths in the layout.
    #[test]
    fn records_are_as_long_as_laid_out() {
        let name = "obs/größe.npy";
        let member = NpzMember { name: name.to_owned(), content: MemberContent::Shape(0, 0) };
        for size in [0, ZIP64 - 1, ZIP64, 1 << 40] {
            for offset in [0, ZIP64 - 1, ZIP64, 1 << 40] {
                let record = Record { name, size, crc: 7 };
                assert_eq!(record.local().len() as u64, member.local_len(size));
                assert_eq!(record.central(offset).len() as u64, member.central_len(size, offset));
            }
        }
        assert_eq!(tail(ZIP64, 100, 3).len(), 98);
        assert_eq!(tail(ZIP64 - 1, 100, 3).len(), 22);
    }
}

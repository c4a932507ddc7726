//! `.npz`: stored members that `numpy.load` and `scipy.sparse.load_npz` read (APPNOTE.TXT 6.3.10, with zip64).

use crate::batch::{Batch, Layout, Repr, Span};
use crate::collection::MatrixKind;

use super::npy::header;
use super::{Format, Tensor, tensors};

/// The `.npz` format.
pub struct Npz;

/// What a member holds after its npy header.
enum Payload {
    Span(Tensor),
    Constant(Vec<u8>),
}

/// One zip member: `<name>.npy`.
struct Member {
    name: String,
    header: Vec<u8>,
    payload: Payload,
}

impl Member {
    fn new(tensor: Tensor) -> Member {
        let descr = match tensor.repr {
            Repr::Number(dtype) => dtype.npy().to_owned(),
            Repr::Ucs4(chars) => format!("<U{chars}"),
            Repr::Utf8(bytes) => format!("|S{bytes}"),
        };
        let name = format!("{}.npy", tensor.name);
        Member { name, header: header(&descr, &tensor.shape), payload: Payload::Span(tensor) }
    }

    /// Uncompressed bytes of the member.
    fn len(&self) -> u64 {
        self.header.len() as u64
            + match &self.payload {
                Payload::Span(tensor) => tensor.len(),
                Payload::Constant(bytes) => bytes.len() as u64,
            }
    }

    fn local_len(&self) -> u64 {
        30 + self.name.len() as u64 + if self.len() >= ZIP64 { 20 } else { 0 }
    }

    /// Length of the central directory record of a member at `offset`.
    fn central_len(&self, offset: u64) -> u64 {
        46 + self.name.len() as u64 + self.central_extra(offset).len() as u64
    }

    fn central_extra(&self, offset: u64) -> Vec<u8> {
        let mut extra = Vec::new();
        if self.len() >= ZIP64 {
            extra.extend_from_slice(&self.len().to_le_bytes());
            extra.extend_from_slice(&self.len().to_le_bytes());
        }
        if offset >= ZIP64 {
            extra.extend_from_slice(&offset.to_le_bytes());
        }
        if extra.is_empty() {
            return extra;
        }
        let mut field = vec![1, 0];
        field.extend_from_slice(&(extra.len() as u16).to_le_bytes());
        field.extend_from_slice(&extra);
        field
    }
}

/// From here on a 32-bit field says "see the zip64 record".
const ZIP64: u64 = 0xffff_ffff;

fn members(batch: &Batch<'_>) -> Vec<Member> {
    let mut all: Vec<Member> =
        tensors(batch, |chars, _| Repr::Ucs4(chars.max(1))).into_iter().map(Member::new).collect();
    if let MatrixKind::Sparse { .. } = batch.table.matrix {
        let constant =
            |name: &str, header, bytes| Member { name: name.into(), header, payload: Payload::Constant(bytes) };
        let shape: Vec<u8> = batch.shape().iter().flat_map(|n| (*n as i64).to_le_bytes()).collect();
        all.push(constant("shape.npy", header("<i8", &[2]), shape));
        all.push(constant("format.npy", header("|S3", &[]), b"csr".to_vec()));
    }
    all
}

impl Format for Npz {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let (mut at, mut directory, mut spans) = (0, 0, Vec::new());
        let members = members(batch);
        for member in &members {
            directory += member.central_len(at);
            at += member.local_len();
            if let Payload::Span(tensor) = &member.payload {
                let start = at + member.header.len() as u64;
                spans.push(Span { field: tensor.field, repr: tensor.repr, start, len: tensor.len() });
            }
            at += member.len();
        }
        let tail = if needs_zip64(at, directory, members.len()) { 56 + 20 + 22 } else { 22 };
        Layout { size: at + directory + tail, spans }
    }

    fn finish(&self, batch: &Batch<'_>, _layout: &Layout, image: &mut [u8]) {
        let members = members(batch);
        let mut directory = Vec::new();
        let mut at = 0usize;
        for member in &members {
            let body = at + member.local_len() as usize;
            let data = body + member.header.len();
            image[body..data].copy_from_slice(&member.header);
            if let Payload::Constant(bytes) = &member.payload {
                image[data..][..bytes.len()].copy_from_slice(bytes);
            }
            let end = body + member.len() as usize;
            let crc = crc32fast::hash(&image[body..end]);
            image[at..body].copy_from_slice(&local(member, crc));
            directory.extend_from_slice(&central(member, crc, at as u64));
            at = end;
        }
        let tail = tail(at as u64, directory.len() as u64, members.len());
        image[at..][..directory.len()].copy_from_slice(&directory);
        image[at + directory.len()..].copy_from_slice(&tail);
    }
}

fn needs_zip64(at: u64, directory: u64, members: usize) -> bool {
    at >= ZIP64 || directory >= ZIP64 || members >= 0xffff
}

/// Version needed, flags (UTF-8 names), stored, 1980-01-01, CRC and sizes: common to both kinds of record.
fn common(member: &Member, crc: u32) -> Vec<u8> {
    let size = (member.len().min(ZIP64) as u32).to_le_bytes();
    let mut bytes = vec![45, 0, 0, 8, 0, 0, 0, 0, 0x21, 0];
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&size);
    bytes.extend_from_slice(&size);
    bytes.extend_from_slice(&(member.name.len() as u16).to_le_bytes());
    bytes
}

fn local(member: &Member, crc: u32) -> Vec<u8> {
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.extend_from_slice(&common(member, crc));
    let mut extra = Vec::new();
    if member.len() >= ZIP64 {
        extra.extend_from_slice(&[1, 0, 16, 0]);
        extra.extend_from_slice(&member.len().to_le_bytes());
        extra.extend_from_slice(&member.len().to_le_bytes());
    }
    bytes.extend_from_slice(&(extra.len() as u16).to_le_bytes());
    bytes.extend_from_slice(member.name.as_bytes());
    bytes.extend_from_slice(&extra);
    bytes
}

fn central(member: &Member, crc: u32, offset: u64) -> Vec<u8> {
    let extra = member.central_extra(offset);
    let mut bytes = b"PK\x01\x02\x2d\x03".to_vec();
    bytes.extend_from_slice(&common(member, crc));
    bytes.extend_from_slice(&(extra.len() as u16).to_le_bytes());
    // No comment, disk 0, no internal attributes; a regular file of mode 0444.
    bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&(0o100_444u32 << 16).to_le_bytes());
    bytes.extend_from_slice(&(offset.min(ZIP64) as u32).to_le_bytes());
    bytes.extend_from_slice(member.name.as_bytes());
    bytes.extend_from_slice(&extra);
    bytes
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

//! HDF5 file structures, written without libhdf5: superblock, object headers, messages, global heap.
//!
//! A [`FrontBuilder`] collects the parts of a file that do not depend on a batch, and records where the rest must be patched in, so that a
//! batch costs a copy and a few checksums. Section numbers are those of the HDF5 File Format Specification Version 3.0. The structures are
//! those of HDF5 1.8 (superblock version 2, object header version 2, compact links), which every libhdf5 since 2008 reads; messages have
//! the
//! oldest version that allows this.

use std::collections::HashMap;
use std::ops::Range;

use super::lookup3::lookup3;
use crate::array::Dtype;
use crate::array::meaning::Time;
use crate::number::{as_usize, le8, le16, le32};

/// The undefined address: of a dataset without storage, or a group without a heap.
const UNDEFINED: u64 = u64::MAX;

/// Alignment of data: a cache line, which suits every element type.
pub const ALIGN: u64 = 64;

/// Superblock (section II.A): 8 signature, 4 versions and sizes, base, extension, end of file, root, checksum.
const SUPERBLOCK: usize = 48;
const END_OF_FILE: usize = 28;
const ROOT: usize = 36;

/// The field "Size of Header Message Data" has two bytes (section IV.A.1.b).
const MESSAGE_MAX: usize = 65_535;

/// The body of Link Info and Attribute Info: version 0, no creation order, no fractal heap, no index of names.
const NO_HEAP: [u8; 18] = {
    let mut data = [0xff; 18];
    (data[0], data[1]) = (0, 0);
    data
};

/// A message or name exceeds the limits of HDF5.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// The type of an element.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Number(Dtype),
    /// numpy's times as h5py stores them: 8 opaque bytes with a tag.
    Time(Time),
    /// Fixed-length UTF-8 text, padded with zeros.
    Utf8(usize),
    /// Text in the global heap, as h5py stores `str`.
    HeapUtf8,
}

/// The value of an attribute.
pub enum AttributeValue<'a> {
    Text(&'a str),
    Texts(&'a [String]),
    Bool(bool),
    Integers(&'a [i64]),
    Integer(i64),
}

/// The source of a dataset's bytes.
pub enum DataSource {
    /// Constant bytes.
    Constant(Vec<u8>),
    /// Set for each file with [`Placed::set_storage`].
    Later,
}

/// An object header in the image, and the offsets in it that may be patched.
#[derive(Clone, Debug)]
pub struct Placed {
    header: Range<usize>,
    datatype: usize,
    dims: usize,
    storage: usize,
    /// Offset of the value of each attribute, in the given order.
    values: Vec<usize>,
}

impl Placed {
    pub fn address(&self) -> u64 {
        self.header.start as u64
    }

    /// Sets the first dimension of a dataset.
    pub fn set_first_dim(&self, image: &mut [u8], dim: u64) {
        put(image, self.dims, &dim.to_le_bytes());
    }

    /// Sets the location of a dataset's bytes. An empty dataset has no storage, as in libhdf5.
    pub fn set_storage(&self, image: &mut [u8], start: u64, len: u64) {
        let address = if len == 0 { UNDEFINED } else { start };
        put(image, self.storage, &address.to_le_bytes());
        put(image, self.storage + 8, &len.to_le_bytes());
    }

    /// Sets the width of a dataset's integers; the message keeps its length.
    pub fn set_integers(&self, image: &mut [u8], dtype: Dtype) {
        put(image, self.datatype, &number(dtype));
    }

    /// Sets the first bytes of the value of attribute `i`.
    pub fn set_value(&self, image: &mut [u8], i: usize, bytes: &[u8]) {
        if let Some(&at) = self.values.get(i) {
            put(image, at, bytes);
        }
    }

    /// Computes the checksum of the header; to be called after its last change.
    pub fn seal(&self, image: &mut [u8]) {
        let sum = lookup3(&image[self.header.clone()]);
        put(image, self.header.end, &sum.to_le_bytes());
    }
}

/// Builds the part of a file that is the same for every batch.
pub struct FrontBuilder {
    bytes: Vec<u8>,
    headers: Vec<Placed>,
    heap: Heap,
    /// Offsets where the address of the heap must be written.
    heap_users: Vec<usize>,
    /// Bytes of constant datasets, with the index of their header.
    constants: Vec<(usize, Vec<u8>)>,
}

impl FrontBuilder {
    pub fn new() -> FrontBuilder {
        FrontBuilder {
            bytes: vec![0; SUPERBLOCK],
            headers: Vec::new(),
            heap: Heap::default(),
            heap_users: Vec::new(),
            constants: Vec::new(),
        }
    }

    /// Adds a group with these members, which were added before.
    pub fn group<N: AsRef<str>>(
        &mut self,
        attributes: &[(&str, AttributeValue<'_>)],
        links: &[(N, u64)],
    ) -> Result<Placed, TooLong> {
        self.begin();
        // Link Info (IV.A.2.c): all links are messages of this header. This message makes the object a group. Group Info (IV.A.2.k) has
        // no content, but libhdf5 always writes it.
        self.message(0x02, &NO_HEAP)?;
        self.message(0x0a, &[0, 0])?;
        for (name, address) in links {
            self.message(0x06, &link(name.as_ref(), *address))?;
        }
        self.end(attributes, [0; 3])
    }

    /// Adds a dataset with contiguous, uncompressed elements.
    pub fn dataset(
        &mut self,
        ty: Type,
        dims: &[u64],
        attributes: &[(&str, AttributeValue<'_>)],
        storage: DataSource,
    ) -> Result<Placed, TooLong> {
        self.begin();
        // Dimensions follow version, rank, flags and kind.
        let space = self.message(0x01, &dataspace(Some(dims)))?;
        let datatype = self.message(0x03, &datatype(ty))?;
        // Fill Value version 3 (IV.A.2.f): allocate late, write if set; no value is set.
        self.message(0x05, &[3, 0x0a])?;
        // Data Layout version 3, contiguous (IV.A.2.i): address and size.
        let mut place = vec![3, 1];
        place.extend_from_slice(&UNDEFINED.to_le_bytes());
        place.extend_from_slice(&[0; 8]);
        let layout = self.message(0x08, &place)?;
        let placed = self.end(attributes, [datatype, space + 4, layout + 2])?;
        if let DataSource::Constant(bytes) = storage {
            self.constants.push((self.headers.len() - 1, bytes));
        }
        Ok(placed)
    }

    /// The finished constant part, whose length is a multiple of [`ALIGN`], for a file behind `base` other bytes (II.A: the base address).
    /// The end of file must be set later.
    pub fn seal(mut self, root: &Placed, base: u64) -> Vec<u8> {
        align(&mut self.bytes, 8);
        let heap = self.bytes.len() as u64;
        self.bytes.extend_from_slice(&self.heap.collection());
        for at in self.heap_users {
            put(&mut self.bytes, at, &heap.to_le_bytes());
        }
        align(&mut self.bytes, as_usize(ALIGN));
        for (header, bytes) in &self.constants {
            let start = self.bytes.len() as u64;
            self.headers[*header].set_storage(&mut self.bytes, start, bytes.len() as u64);
            self.bytes.extend_from_slice(bytes);
            align(&mut self.bytes, as_usize(ALIGN));
        }
        for header in &self.headers {
            header.seal(&mut self.bytes);
        }
        // Superblock version 2 (II.A): version, size of offsets, size of lengths, no flags; base address, no extension.
        put(&mut self.bytes, 0, b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00");
        put(&mut self.bytes, 12, &base.to_le_bytes());
        put(&mut self.bytes, 20, &UNDEFINED.to_le_bytes());
        put(&mut self.bytes, ROOT, &root.address().to_le_bytes());
        self.bytes
    }

    fn begin(&mut self) {
        // Object header version 2 (IV.A.1.b): no times, no phase change; flags 2 mean that the size of chunk 0 has 4 bytes, so a header may
        // have thousands of links.
        align(&mut self.bytes, 8);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(b"OHDR\x02\x02\0\0\0\0");
        self.headers.push(Placed { header: start..start, datatype: 0, dims: 0, storage: 0, values: Vec::new() });
    }

    /// Adds a message; returns the offset of its data.
    fn message(&mut self, kind: u8, data: &[u8]) -> Result<usize, TooLong> {
        if data.len() > MESSAGE_MAX {
            return Err(TooLong);
        }
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&le16(data.len()));
        self.bytes.push(0);
        self.bytes.extend_from_slice(data);
        Ok(self.bytes.len() - data.len())
    }

    fn end(
        &mut self,
        attributes: &[(&str, AttributeValue<'_>)],
        [datatype, dims, storage]: [usize; 3],
    ) -> Result<Placed, TooLong> {
        // Attribute Info (IV.A.2.v): all attributes are messages of this header. Without it libhdf5 finds attributes by name but counts
        // none,
        // so readers that ask for their number first (rhdf5, `len(attrs)`) see none.
        if !attributes.is_empty() {
            self.message(0x15, &NO_HEAP)?;
        }
        let mut values = Vec::with_capacity(attributes.len());
        for (name, value) in attributes {
            values.push(self.attribute(name, value)?);
        }
        let end = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        let start = self.headers.last().map_or(end, |placed| placed.header.start);
        let placed = Placed { header: start..end, datatype, dims, storage, values };
        put(&mut self.bytes, start + 6, &le32(end - start - 10));
        if let Some(last) = self.headers.last_mut() {
            *last = placed.clone();
        }
        Ok(placed)
    }

    /// Adds an attribute, version 3 (IV.A.2.m); returns the offset of its value.
    fn attribute(&mut self, name: &str, value: &AttributeValue<'_>) -> Result<usize, TooLong> {
        let mut data = Vec::new();
        let mut heap_users = Vec::new();
        let (ty, dims) = match value {
            AttributeValue::Text(text) => {
                heap_users.push(data.len());
                self.heap.put(text, &mut data)?;
                (Type::HeapUtf8, None)
            }
            // h5py stores an empty list as float64, and so does anndata for frames without columns.
            AttributeValue::Texts([]) => (Type::Number(Dtype::F64), Some(0)),
            AttributeValue::Texts(texts) => {
                for text in *texts {
                    heap_users.push(data.len());
                    self.heap.put(text, &mut data)?;
                }
                (Type::HeapUtf8, Some(texts.len() as u64))
            }
            AttributeValue::Bool(value) => {
                data.push(u8::from(*value));
                (Type::Number(Dtype::Bool), None)
            }
            AttributeValue::Integer(value) => {
                data.extend_from_slice(&value.to_le_bytes());
                (Type::Number(Dtype::I64), None)
            }
            AttributeValue::Integers(values) => {
                data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                (Type::Number(Dtype::I64), Some(values.len() as u64))
            }
        };
        let (ty, space) = (datatype(ty), dataspace(dims.as_ref().map(std::slice::from_ref)));
        let mut message = vec![3, 0];
        for len in [name.len() + 1, ty.len(), space.len()] {
            message.extend_from_slice(&u16::try_from(len).map_err(|_| TooLong)?.to_le_bytes());
        }
        message.push(0);
        message.extend_from_slice(name.as_bytes());
        message.push(0);
        message.extend_from_slice(&ty);
        message.extend_from_slice(&space);
        let value = message.len();
        message.extend_from_slice(&data);
        let value = value + self.message(0x0c, &message)?;
        self.heap_users.extend(heap_users.into_iter().map(|at| value + at + 4));
        Ok(value)
    }
}

/// Sets the end of file in the superblock: libhdf5 refuses shorter files.
pub fn set_end_of_file(image: &mut [u8], size: u64) {
    put(image, END_OF_FILE, &size.to_le_bytes());
    let sum = lookup3(&image[..SUPERBLOCK - 4]);
    put(image, SUPERBLOCK - 4, &sum.to_le_bytes());
}

/// The texts of all attributes: one global heap collection (III.E), with each text once.
#[derive(Default)]
struct Heap {
    numbers: HashMap<String, u16>,
    objects: Vec<u8>,
}

impl Heap {
    /// Writes a reference to `text`: length, address of the heap (set later), number. Object 0 is the free space.
    fn put(&mut self, text: &str, reference: &mut Vec<u8>) -> Result<(), TooLong> {
        let len = u32::try_from(text.len()).map_err(|_| TooLong)?;
        let number = match self.numbers.get(text) {
            Some(&number) => number,
            None => {
                let number = u16::try_from(self.numbers.len() + 1).map_err(|_| TooLong)?;
                self.numbers.insert(text.to_owned(), number);
                self.objects.extend_from_slice(&number.to_le_bytes());
                self.objects.extend_from_slice(&[0; 6]);
                self.objects.extend_from_slice(&u64::from(len).to_le_bytes());
                self.objects.extend_from_slice(text.as_bytes());
                align(&mut self.objects, 8);
                number
            }
        };
        reference.extend_from_slice(&len.to_le_bytes());
        reference.extend_from_slice(&[0; 8]);
        reference.extend_from_slice(&u32::from(number).to_le_bytes());
        Ok(())
    }

    fn collection(&self) -> Vec<u8> {
        // A collection has at least 4,096 bytes, and its free space at least a header of 16.
        let size = (16 + self.objects.len() + 16).next_multiple_of(8).max(4096);
        let free = size - 16 - self.objects.len();
        let mut bytes = b"GCOL\x01\0\0\0".to_vec();
        bytes.extend_from_slice(&(size as u64).to_le_bytes());
        bytes.extend_from_slice(&self.objects);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&(free as u64).to_le_bytes());
        bytes.resize(size, 0);
        bytes
    }
}

/// Dataspace version 2 (IV.A.2.b); `None` for a scalar.
fn dataspace(dims: Option<&[u64]>) -> Vec<u8> {
    let Some(dims) = dims else {
        return vec![2, 0, 0, 0];
    };
    let mut data = vec![2, le8(dims.len()), 0, 1];
    data.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
    data
}

/// Datatype version 1 (IV.A.2.d).
fn datatype(ty: Type) -> Vec<u8> {
    match ty {
        Type::Number(dtype) => number(dtype),
        Type::Time(time) => {
            // Class 5: the tag's length, padded to a multiple of 8, and 8 bytes for each element.
            let mut tag = format!("NUMPY:{}\0", time.descr()).into_bytes();
            align(&mut tag, 8);
            [&[0x15, le8(tag.len()), 0, 0, 8, 0, 0, 0], tag.as_slice()].concat()
        }
        Type::Utf8(bytes) => {
            // Class 3: padded with zeros (1), UTF-8 (1 << 4).
            let mut data = vec![0x13, 0x11, 0, 0];
            data.extend_from_slice(&le32(bytes));
            data
        }
        Type::HeapUtf8 => {
            // Class 9: a string (1) in UTF-8 (1 << 8), referred to by 16 bytes; its base type is bytes.
            let mut data = vec![0x19, 1, 1, 0, 16, 0, 0, 0];
            data.extend_from_slice(&number(Dtype::U8));
            data
        }
    }
}

fn number(dtype: Dtype) -> Vec<u8> {
    let size = le8(dtype.size());
    let float = |sign: u8, exponent: u8, bits: u8, bias: u16| {
        // Class 1: little-endian, mantissa with an implied bit (2 << 4), position of the sign.
        let mut data = vec![0x11, 0x20, sign, 0, size, 0, 0, 0, 0, 0, size * 8, 0, exponent, bits, 0, exponent];
        data.extend_from_slice(&u32::from(bias).to_le_bytes());
        data
    };
    match dtype {
        Dtype::F16 => float(15, 10, 5, 15),
        Dtype::F32 => float(31, 23, 8, 127),
        Dtype::F64 => float(63, 52, 11, 1023),
        Dtype::Bool => {
            // Class 8 with two members, as in h5py and PyTables. Names are padded to 8 bytes.
            let mut data = vec![0x18, 2, 0, 0, 1, 0, 0, 0];
            data.extend_from_slice(&number(Dtype::I8));
            data.extend_from_slice(b"FALSE\0\0\0TRUE\0\0\0\0\x00\x01");
            data
        }
        // Class 0: little-endian, signed (1 << 3); no offset, all bits used.
        _ => vec![0x10, if dtype.is_signed() { 8 } else { 0 }, 0, 0, size, 0, 0, 0, 0, 0, size * 8, 0],
    }
}

/// Hard link version 1 (IV.A.2.g): flags say that the character set follows (1 << 4) and that the length of the name has two bytes (1).
fn link(name: &str, address: u64) -> Vec<u8> {
    let mut data = vec![1, 0x11, 1];
    // A name that is too long makes the message too long, which the caller refuses.
    data.extend_from_slice(&le16(name.len().min(MESSAGE_MAX)));
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&address.to_le_bytes());
    data
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

//! Thrift's compact protocol, as far as Parquet's metadata needs it. Fields of a struct must be written in ascending order.

use crate::number::le8;

/// Encodes a struct.
#[derive(Default)]
pub struct Struct {
    bytes: Vec<u8>,
    last: u8,
}

/// Types in field headers.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I8: u8 = 3;
pub const I32: u8 = 5;
const I64: u8 = 6;
pub const BINARY: u8 = 8;
const LIST: u8 = 9;
pub const STRUCT: u8 = 12;

impl Struct {
    pub fn new() -> Struct {
        Struct::default()
    }

    /// Writes a field header; the id must be at most 15 higher than the last one.
    fn field(&mut self, id: u8, kind: u8) {
        self.bytes.push((id - self.last) << 4 | kind);
        self.last = id;
    }

    pub fn bool(mut self, id: u8, value: bool) -> Struct {
        self.field(id, if value { TRUE } else { FALSE });
        self
    }

    pub fn i8(mut self, id: u8, value: u8) -> Struct {
        self.field(id, I8);
        self.bytes.push(value);
        self
    }

    pub fn i32(mut self, id: u8, value: u64) -> Struct {
        self.field(id, I32);
        varint(2 * value, &mut self.bytes);
        self
    }

    pub fn i64(mut self, id: u8, value: u64) -> Struct {
        self.field(id, I64);
        varint(2 * value, &mut self.bytes);
        self
    }

    pub fn text(mut self, id: u8, value: &str) -> Struct {
        self.field(id, BINARY);
        self.bytes.extend(text(value));
        self
    }

    /// A nested struct.
    pub fn inner(mut self, id: u8, inner: Struct) -> Struct {
        self.field(id, STRUCT);
        self.bytes.extend(inner.end());
        self
    }

    /// A list of encoded elements.
    pub fn list(mut self, id: u8, kind: u8, elements: &[Vec<u8>]) -> Struct {
        self.field(id, LIST);
        if elements.len() < 15 {
            self.bytes.push(le8(elements.len()) << 4 | kind);
        } else {
            self.bytes.push(0xf0 | kind);
            varint(elements.len() as u64, &mut self.bytes);
        }
        elements.iter().for_each(|element| self.bytes.extend_from_slice(element));
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

/// A text as an element of a list.
pub fn text(value: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 2);
    varint(value.len() as u64, &mut bytes);
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// An enum as an element of a list.
pub fn number(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    varint(2 * value, &mut bytes);
    bytes
}

/// Writes a varint: 7 bits in each byte, lowest first, with the highest bit set in all bytes but the last.
pub fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

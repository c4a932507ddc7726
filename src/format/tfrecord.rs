//! `.tfrecord`: each row is a `tf.train.Example` (Protocol Buffers), with its length and two checksums (masked CRC-32C).
//!
//! Column numbers are varints, whose length would depend on their values. They are all written with as many bytes as the largest needs,
//! which
//! every varint reader accepts. Values are float32, the only floats of an Example.

use crate::array::Dtype;
use crate::array::cast::{cast, to_i64, to_text};
use crate::batch::{Batch, Field};
use crate::collection::Table;
use crate::collection::element::MatrixKind;

use super::Format;
use super::obs::{ObsColumn, ObsKind};
use super::records::{self, Records, RowArray, RowFormat};

/// The kinds of a `Feature`, by field number.
#[derive(Clone, Copy)]
enum FeatureKind {
    Bytes = 1,
    Float = 2,
    Int = 3,
}

/// The kind of a list, and its encoded content.
type FeatureValue = (FeatureKind, Vec<u8>);

/// Bytes before a record: its length and the checksum of that. Bytes after it: its checksum.
const BEFORE: u64 = 12;
const AFTER: u64 = 4;

/// The `.tfrecord` format of one table.
struct TfRecord {
    arrays: Vec<RowArray>,
    /// Bytes of an element of each array in a record.
    widths: Vec<u64>,
    obs: Vec<ObsColumn>,
}

pub fn open(table: &Table) -> Result<Box<dyn Format>, String> {
    for element in &table.elements {
        let dtype = element.kind.dtype();
        if matches!(dtype, Dtype::I32 | Dtype::I64 | Dtype::U32 | Dtype::U64 | Dtype::F64) {
            let name = &element.name;
            let remedy = if *name == table.x().name { "; --dtype f32 rounds them" } else { "" };
            return Err(format!("values of {name} are {dtype}; `.tfrecord` has float32 only{remedy}"));
        }
        if matches!(element.kind, MatrixKind::Sparse { .. }) && element.n_vars() > i32::MAX as u64 {
            return Err(format!("{} has {} columns; `.tfrecord` numbers fewer", element.name, element.n_vars()));
        }
    }
    let columns = |field| match field {
        Field::Indices(element) => Some(table.elements[element].n_vars()),
        _ => None,
    };
    // Elements must not have more bytes in the image than in a record.
    let arrays = RowArray::all(table, |field, _| match columns(field) {
        Some(columns) if columns <= 1 << 16 => Dtype::U16,
        Some(_) => Dtype::I32,
        None => Dtype::F32,
    });
    let width = |array: &RowArray| match columns(array.field) {
        Some(columns) if columns <= 1 << 14 => 2,
        Some(columns) if columns <= 1 << 16 => 3,
        Some(columns) if columns <= 1 << 28 => 4,
        Some(_) => 5,
        None => 4,
    };
    let widths = arrays.iter().map(width).collect();
    let obs = ObsColumn::all(table, &records::taken(table));
    Ok(Box::new(Records(TfRecord { arrays, widths, obs })))
}

/// The value of an obs column as encoded content of a list; `None` if missing.
fn value(column: &ObsColumn, table: &Table, row: u64) -> Option<FeatureValue> {
    if column.is_missing(table, row) {
        return None;
    }
    let number = column.number(table, row);
    let integer = |value: i64| {
        let mut bytes = Vec::new();
        varint(value.cast_unsigned(), &mut bytes);
        Some((FeatureKind::Int, bytes))
    };
    match column.kind {
        ObsKind::Labels | ObsKind::Text => {
            Some((FeatureKind::Bytes, column.text(table, row).into_owned().into_bytes()))
        }
        ObsKind::Boolean => integer(i64::from(number != [0])),
        ObsKind::Time(_) => integer(to_i64(Dtype::I64, number)),
        ObsKind::Number(dtype) if dtype.is_float() => {
            let mut bytes = vec![0; 4];
            cast(dtype, Dtype::F32, number, &mut bytes);
            Some((FeatureKind::Float, bytes))
        }
        // They may exceed int64, so they are text.
        ObsKind::Number(Dtype::U64) => Some((FeatureKind::Bytes, to_text(Dtype::U64, number).into_bytes())),
        ObsKind::Number(dtype) => integer(to_i64(dtype, number)),
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn varint_len(value: u64) -> u64 {
    u64::from(value.max(1).ilog2()) / 7 + 1
}

/// Bytes of a length-delimited field: tag, length, content.
fn delimited(bytes: u64) -> u64 {
    1 + varint_len(bytes) + bytes
}

/// Writes the tag and length of a length-delimited field.
fn field(number: u8, bytes: u64, out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(bytes, out);
}

/// The lengths of a feature's nested messages: list, feature, entry of the map.
fn feature_lens(name: &str, bytes: u64) -> [u64; 3] {
    let list = delimited(bytes);
    let feature = delimited(list);
    [list, feature, delimited(name.len() as u64) + delimited(feature)]
}

/// Writes everything before the content of a feature.
fn feature(name: &str, kind: FeatureKind, bytes: u64, out: &mut Vec<u8>) {
    let [list, feature, entry] = feature_lens(name, bytes);
    field(1, entry, out);
    field(1, name.len() as u64, out);
    out.extend_from_slice(name.as_bytes());
    field(2, feature, out);
    field(kind as u8, list, out);
    field(1, bytes, out);
}

/// A CRC-32C, masked as TFRecord requires (a CRC of data that contain CRCs is weak).
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

impl TfRecord {
    /// Bytes of all features of a row, and the values of its obs columns.
    fn features(&self, batch: &Batch<'_>, at: usize) -> (u64, Vec<Option<FeatureValue>>) {
        let row = batch.rows[at];
        let len = |name: &str, bytes| delimited(feature_lens(name, bytes)[2]);
        let mut bytes = len("row", varint_len(batch.number(at).cast_unsigned()));
        if let Some(length) = length(batch, at) {
            bytes += len(records::LENGTH, varint_len(length));
        }
        for (array, width) in self.arrays.iter().zip(&self.widths) {
            bytes += len(&array.name, array.len(batch, at) * width);
        }
        let values: Vec<_> = self.obs.iter().map(|column| value(column, batch.table, row)).collect();
        for (column, value) in self.obs.iter().zip(&values) {
            bytes += value.as_ref().map_or(0, |(_, value)| len(&column.name, value.len() as u64));
        }
        (bytes, values)
    }
}

impl RowFormat for TfRecord {
    fn arrays(&self) -> &[RowArray] {
        &self.arrays
    }

    fn len(&self, batch: &Batch<'_>, at: usize) -> u64 {
        BEFORE + delimited(self.features(batch, at).0) + AFTER
    }

    fn write(&self, batch: &Batch<'_>, at: usize, values: &[&[u8]], out: &mut Vec<u8>) {
        let (bytes, obs) = self.features(batch, at);
        let len = delimited(bytes).to_le_bytes();
        out.extend_from_slice(&len);
        out.extend_from_slice(&masked(&len));
        let start = out.len();
        field(1, bytes, out);
        let row = batch.number(at).cast_unsigned();
        feature("row", FeatureKind::Int, varint_len(row), out);
        varint(row, out);
        if let Some(length) = length(batch, at) {
            feature(records::LENGTH, FeatureKind::Int, varint_len(length), out);
            varint(length, out);
        }
        for ((array, &width), values) in self.arrays.iter().zip(&self.widths).zip(values) {
            let numbers = matches!(array.field, Field::Indices(_));
            let kind = if numbers { FeatureKind::Int } else { FeatureKind::Float };
            feature(&array.name, kind, array.len(batch, at) * width, out);
            if numbers {
                for number in values.chunks_exact(array.repr.size()) {
                    padded(number, width, out);
                }
            } else {
                out.extend_from_slice(values);
            }
        }
        for (column, value) in self.obs.iter().zip(obs) {
            if let Some((kind, value)) = value {
                feature(&column.name, kind, value.len() as u64, out);
                // Both a string and packed numbers are length-delimited fields.
                out.extend_from_slice(&value);
            }
        }
        let sum = masked(&out[start..]);
        out.extend_from_slice(&sum);
    }
}

/// Number of tokens of a row, if X is tokens.
fn length(batch: &Batch<'_>, at: usize) -> Option<u64> {
    if records::has_length(batch.table) { batch.lengths(0).get(at).copied() } else { None }
}

/// Writes a number as a varint of `width` bytes; the highest bit is set in all but the last.
fn padded(number: &[u8], width: u64, out: &mut Vec<u8>) {
    let mut wide = [0; 8];
    wide[..number.len()].copy_from_slice(number);
    let mut rest = u64::from_le_bytes(wide);
    for place in 1..=width {
        let more = if place < width { 0x80 } else { 0 };
        out.push((rest & 0x7f) as u8 | more);
        rest >>= 7;
    }
}

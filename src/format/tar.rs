//! `.tar`: a WebDataset shard. Each row is a sample: an `.npy` member for each array, and a `.json` member with its labels.
//!
//! Members are named by batch and position instead of row, so that a row that is drawn twice is two samples.

use serde_json::Value;

use crate::array::Dtype;
use crate::array::cast::{to_f64, to_text};
use crate::batch::{Batch, Repr};
use crate::collection::Table;
use crate::number::as_usize;

use super::Format;
use super::npy::{header, header_len};
use super::obs::{ObsColumn, ObsKind};
use super::records::{self, Records, RowArray, RowFormat};

/// Bytes of a header; content is padded to a multiple.
const BLOCK: u64 = 512;
/// Maximum bytes of a member's name.
const MOST_NAME: usize = 100;
/// Bytes of a sample's key: batch and position.
const KEY: usize = 24;

/// The `.tar` format of one table.
struct Tar {
    arrays: Vec<RowArray>,
    obs: Vec<ObsColumn>,
    /// The names of obs columns as JSON strings.
    quoted: Vec<String>,
}

pub fn open(table: &Table) -> Result<Box<dyn Format>, String> {
    let mut arrays = RowArray::all(table, |_, dtype| dtype);
    for array in &mut arrays {
        // WebDataset splits names at the first dot: the key before it may contain a directory, the rest must not.
        array.name = array.name.replace('/', ".");
        if KEY + ".".len() + array.name.len() + ".npy".len() > MOST_NAME {
            return Err(format!("the name {} is too long for a member of `.tar`", array.name));
        }
    }
    // Other arrays are separate members, so obs columns may have their names.
    let taken: Vec<String> = records::has_length(table).then(|| records::LENGTH.to_owned()).into_iter().collect();
    let obs = ObsColumn::all(table, &taken);
    let quoted = obs.iter().map(|column| Value::from(column.name.as_str()).to_string()).collect();
    Ok(Box::new(Records(Tar { arrays, obs, quoted })))
}

impl Tar {
    fn json(&self, batch: &Batch<'_>, at: usize) -> String {
        let row = batch.rows[at];
        let mut text = format!("{{\"row\":{}", batch.number(at));
        if records::has_length(batch.table) {
            let length = batch.lengths(0).get(at).copied().unwrap_or(0);
            text.push_str(&format!(",\"{}\":{length}", records::LENGTH));
        }
        for (column, name) in self.obs.iter().zip(&self.quoted) {
            text.push(',');
            text.push_str(name);
            text.push(':');
            text.push_str(&value(column, batch.table, row));
        }
        text.push('}');
        text
    }
}

/// A value as JSON; null if missing or NaN. Infinities, which JSON lacks, become numbers that are too large for any reader.
fn value(column: &ObsColumn, table: &Table, row: u64) -> String {
    if column.is_missing(table, row) {
        return "null".to_owned();
    }
    let number = column.number(table, row);
    match column.kind {
        ObsKind::Labels | ObsKind::Text | ObsKind::Time(_) => Value::from(&*column.text(table, row)).to_string(),
        ObsKind::Boolean => if number == [0] { "false" } else { "true" }.to_owned(),
        ObsKind::Number(dtype) if dtype.is_float() => match to_f64(dtype, number) {
            value if value.is_nan() => "null".to_owned(),
            value if value.is_infinite() => if value > 0.0 { "1e999" } else { "-1e999" }.to_owned(),
            _ => to_text(dtype, number),
        },
        ObsKind::Number(dtype) => to_text(dtype, number),
    }
}

/// The shape of an array in a row, and its `.npy` descriptor.
fn shape(array: &RowArray, batch: &Batch<'_>, at: usize) -> (Vec<u64>, &'static str) {
    let shape = if array.row.is_empty() { vec![array.len(batch, at)] } else { array.row.clone() };
    let dtype = match array.repr {
        Repr::Number(dtype) => dtype,
        _ => Dtype::U8,
    };
    (shape, dtype.npy())
}

/// Size of a member with this many bytes of content.
fn member_len(bytes: u64) -> u64 {
    BLOCK + bytes.next_multiple_of(BLOCK)
}

/// The POSIX (ustar) header of a member.
fn member(name: &str, size: u64, out: &mut Vec<u8>) {
    let mut block = [0; as_usize(BLOCK)];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000444\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    // The sum of all bytes of the header, with blanks in the checksum field.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(as_usize(BLOCK)), 0);
}

impl RowFormat for Tar {
    fn arrays(&self) -> &[RowArray] {
        &self.arrays
    }

    fn len(&self, batch: &Batch<'_>, at: usize) -> u64 {
        let array = |array: &RowArray| {
            let (shape, descr) = shape(array, batch, at);
            member_len(header_len(descr, &shape) as u64 + array.bytes(batch, at))
        };
        self.arrays.iter().map(array).sum::<u64>() + member_len(self.json(batch, at).len() as u64)
    }

    fn write(&self, batch: &Batch<'_>, at: usize, values: &[&[u8]], out: &mut Vec<u8>) {
        let key = format!("{:08}-{at:08}", batch.index);
        for (array, values) in self.arrays.iter().zip(values) {
            let (shape, descr) = shape(array, batch, at);
            let header = header(descr, &shape);
            member(&format!("{key}.{}.npy", array.name), (header.len() + values.len()) as u64, out);
            out.extend_from_slice(&header);
            out.extend_from_slice(values);
            pad(out);
        }
        let json = self.json(batch, at);
        member(&format!("{key}.json"), json.len() as u64, out);
        out.extend_from_slice(json.as_bytes());
        pad(out);
    }

    fn tail(&self) -> u64 {
        2 * BLOCK
    }
}

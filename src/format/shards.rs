//! Shards of samples, as in MosaicML Streaming (`.mds`) and LitData (`.litdata`): a batch is a shard, and the directory of an epoch
//! (`epoch-0000.mds/`) has their index, `index.json`.
//!
//! Both kinds of shards start with the number of samples and the 32-bit offset of each. A sample is the lengths of its columns, then the
//! columns. They differ in encoding and naming of columns. The index has the size of each shard, which follows from row lengths.

use serde_json::{Value, json};

use crate::array::Dtype;
use crate::array::cast::{cast, to_text};
use crate::batch::{Batch, Repr};
use crate::collection::Table;
use crate::number::{as_usize, le32};

use super::directory::{BatchIndex, Directory, DirectoryFormat, FileContent, OpenedDirectory, Run, TOP};
use super::obs::{ObsColumn, ObsKind};
use super::records::{self, Records, RowArray, RowFormat};
use super::{Extension, FileShape, Format};

/// The library that reads the shards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Mosaic,
    LitData,
}

/// The content of a column.
enum Content {
    Row,
    /// Number of tokens of the row.
    Length,
    /// An array of the row, by its index in `arrays`.
    Array(usize),
    Obs(ObsColumn),
    /// Whether a value of a nullable obs column is missing.
    Mask(ObsColumn),
}

/// A column of all samples.
struct Column {
    name: String,
    /// The reader's name of its type.
    encoding: String,
    content: Content,
}

/// The samples of one table.
struct Shards {
    reader: Reader,
    arrays: Vec<RowArray>,
    columns: Vec<Column>,
    /// The bytes between the offsets of samples and the samples.
    config: Vec<u8>,
}

pub fn open_mds(table: &Table) -> Result<Box<dyn Format>, String> {
    Ok(Box::new(Records(Shards::new(table, Reader::Mosaic)?)))
}

pub fn open_litdata(table: &Table) -> Result<Box<dyn Format>, String> {
    Ok(Box::new(Records(Shards::new(table, Reader::LitData)?)))
}

pub fn mds_directory(table: &Table) -> OpenedDirectory {
    Ok(Box::new(ShardsDirectory(Shards::new(table, Reader::Mosaic)?)))
}

pub fn litdata_directory(table: &Table) -> OpenedDirectory {
    Ok(Box::new(ShardsDirectory(Shards::new(table, Reader::LitData)?)))
}

impl Reader {
    fn array(self, array: &RowArray) -> Result<String, String> {
        let Repr::Number(dtype) = array.repr else { return Err(format!("{} is text", array.name)) };
        match self {
            Reader::Mosaic => {
                let dtype = plain(dtype).name();
                if array.row.is_empty() {
                    return Ok(format!("ndarray:{dtype}"));
                }
                if array.row.contains(&0) {
                    return Err(format!("rows of {} have no values, which `.mds` has no type for", array.name));
                }
                let axes: Vec<String> = array.row.iter().map(u64::to_string).collect();
                Ok(format!("ndarray:{dtype}:{}", axes.join(",")))
            }
            Reader::LitData if array.row.len() > 1 => Ok("numpy".to_owned()),
            Reader::LitData => Ok(format!("no_header_numpy:{}", numpy_index(dtype))),
        }
    }

    fn obs(self, kind: ObsKind) -> String {
        let name = match (self, kind) {
            (_, ObsKind::Labels | ObsKind::Text) => "str",
            (_, ObsKind::Time(_)) => "int",
            (Reader::Mosaic, ObsKind::Boolean) => "uint8",
            (Reader::Mosaic, ObsKind::Number(dtype)) => dtype.name(),
            (Reader::LitData, ObsKind::Boolean) => "bool",
            (Reader::LitData, ObsKind::Number(Dtype::U64)) => "str",
            (Reader::LitData, ObsKind::Number(dtype)) if dtype.is_float() => "float",
            (Reader::LitData, ObsKind::Number(_)) => "int",
        };
        name.to_owned()
    }

    /// The bytes before the values of an array.
    fn header(self, array: &RowArray, len: u64) -> Vec<u8> {
        let Repr::Number(dtype) = array.repr else { return Vec::new() };
        match self {
            // One axis, and the number of bytes of its length.
            Reader::Mosaic if array.row.is_empty() => {
                let bytes = len.to_le_bytes();
                let (code, width) = match len {
                    0..=0xff => (0, 1),
                    0x100..=0xffff => (1, 2),
                    0x1_0000..=0xffff_ffff => (2, 4),
                    _ => (3, 8),
                };
                [&[(1 << 2) | code], &bytes[..width]].concat()
            }
            Reader::LitData if array.row.len() > 1 => {
                let axes = array.row.iter().map(|&axis| u32::try_from(axis).unwrap_or(u32::MAX).to_le_bytes());
                let numbers = [numpy_index(dtype).to_le_bytes(), le32(array.row.len())].into_iter().chain(axes);
                numbers.flatten().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// MDS has no booleans: they become uint8.
fn plain(dtype: Dtype) -> Dtype {
    if dtype == Dtype::Bool { Dtype::U8 } else { dtype }
}

/// LitData's number of a dtype (`_NUMPY_DTYPES_MAPPING`).
fn numpy_index(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::I8 => 0,
        Dtype::I16 => 1,
        Dtype::I32 => 2,
        Dtype::I64 => 3,
        Dtype::U8 => 4,
        Dtype::U16 => 5,
        Dtype::U32 => 6,
        Dtype::U64 => 7,
        Dtype::F16 => 8,
        Dtype::F32 => 9,
        Dtype::F64 => 10,
        Dtype::Bool => 13,
    }
}

impl Shards {
    fn new(table: &Table, reader: Reader) -> Result<Shards, String> {
        let arrays = RowArray::all(table, |_, dtype| dtype);
        let column = |name: &str, encoding: &str, content| Column {
            name: name.to_owned(),
            encoding: encoding.to_owned(),
            content,
        };
        let mut columns = vec![column("row", "int", Content::Row)];
        for (place, array) in arrays.iter().enumerate() {
            columns.push(column(&array.name, &reader.array(array)?, Content::Array(place)));
        }
        if records::has_length(table) {
            columns.push(column(records::LENGTH, "int", Content::Length));
        }
        for obs in ObsColumn::all(table, &records::taken(table)) {
            if obs.is_masked(table) {
                let name = format!("{}/mask", obs.name);
                columns.push(column(&name, &reader.obs(ObsKind::Boolean), Content::Mask(obs.clone())));
            }
            columns.push(column(&obs.name.clone(), &reader.obs(obs.kind), Content::Obs(obs)));
        }
        let mut shards = Shards { reader, arrays, columns, config: Vec::new() };
        if reader == Reader::Mosaic {
            shards.config = Value::Object(shards.described()).to_string().into_bytes();
        }
        Ok(shards)
    }

    fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }

    fn encodings(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.encoding.as_str()).collect()
    }

    /// What the MDS index says about all shards.
    fn described(&self) -> serde_json::Map<String, Value> {
        let all = json!({
            "column_encodings": self.encodings(),
            "column_names": self.names(),
            // Lengths are in the samples.
            "column_sizes": vec![Value::Null; self.columns.len()],
            "compression": null,
            "format": "mds",
            "hashes": [],
            "size_limit": null,
            "version": 2,
            "zip_data": null,
        });
        match all {
            Value::Object(all) => all,
            _ => Default::default(),
        }
    }

    fn value(&self, column: &ObsColumn, batch: &Batch<'_>, at: usize) -> Vec<u8> {
        let (table, row) = (batch.table, batch.rows[at]);
        let number = column.number(table, row);
        match (self.reader, column.kind) {
            (_, ObsKind::Labels | ObsKind::Text) => column.text(table, row).into_owned().into_bytes(),
            (Reader::LitData, ObsKind::Number(Dtype::U64)) => to_text(Dtype::U64, number).into_bytes(),
            (Reader::LitData, ObsKind::Number(dtype)) => {
                let mut wide = vec![0; 8];
                cast(dtype, if dtype.is_float() { Dtype::F64 } else { Dtype::I64 }, number, &mut wide);
                wide
            }
            _ => number.to_vec(),
        }
    }

    /// Bytes of a column of the row at a position of a batch.
    fn column_len(&self, column: &Column, batch: &Batch<'_>, at: usize) -> u64 {
        match &column.content {
            Content::Row | Content::Length => 8,
            Content::Array(array) => {
                let array = &self.arrays[*array];
                self.reader.header(array, array.len(batch, at)).len() as u64 + array.bytes(batch, at)
            }
            Content::Mask(_) => 1,
            Content::Obs(column) => match column.kind {
                ObsKind::Labels | ObsKind::Text => column.text(batch.table, batch.rows[at]).len() as u64,
                _ => self.value(column, batch, at).len() as u64,
            },
        }
    }
}

impl RowFormat for Shards {
    fn arrays(&self) -> &[RowArray] {
        &self.arrays
    }

    fn len(&self, batch: &Batch<'_>, at: usize) -> u64 {
        self.columns.iter().map(|column| 4 + self.column_len(column, batch, at)).sum()
    }

    fn write(&self, batch: &Batch<'_>, at: usize, values: &[&[u8]], out: &mut Vec<u8>) {
        for column in &self.columns {
            out.extend_from_slice(&le32(as_usize(self.column_len(column, batch, at))));
        }
        for column in &self.columns {
            match &column.content {
                Content::Row => out.extend_from_slice(&batch.number(at).to_le_bytes()),
                Content::Length => {
                    let length = batch.lengths(0).get(at).copied().unwrap_or(0);
                    out.extend_from_slice(&length.to_le_bytes());
                }
                Content::Array(array) => {
                    out.extend(self.reader.header(&self.arrays[*array], self.arrays[*array].len(batch, at)));
                    out.extend_from_slice(values[*array]);
                }
                Content::Mask(column) => out.push(column.is_missing(batch.table, batch.rows[at]).into()),
                Content::Obs(column) => out.extend(self.value(column, batch, at)),
            }
        }
    }

    fn head(&self, lengths: &[u64]) -> Vec<u8> {
        let mut at = (4 * (lengths.len() + 2) + self.config.len()) as u64;
        let mut head = le32(lengths.len()).to_vec();
        head.extend_from_slice(&le32(as_usize(at)));
        for len in lengths {
            at += len;
            head.extend_from_slice(&le32(as_usize(at)));
        }
        head.extend_from_slice(&self.config);
        head
    }

    fn most_bytes(&self) -> u64 {
        u32::MAX.into()
    }
}

/// The directory of an epoch: its index, and its batches as shards.
struct ShardsDirectory(Shards);

const MDS: &str = "mds";
const LITDATA: &str = "litdata";

impl DirectoryFormat for ShardsDirectory {
    fn directory(&self, shape: &FileShape<'_>) -> Result<Directory, String> {
        let shards = &self.0;
        let (name, prefix, digits, suffix) = match shards.reader {
            Reader::Mosaic => (MDS, "shard.", 5, ".mds"),
            Reader::LitData => (LITDATA, "chunk-0-", 1, ".bin"),
        };
        let format = Extension::from_name(name).ok_or("there is no such format")?;
        let batches = shape.batches;
        let index = match shards.reader {
            Reader::Mosaic => BatchIndex {
                head: b"{\"version\":2,\"shards\":[\n".to_vec(),
                tail: b"]}\n".to_vec(),
                batches,
                format,
                entry: mds_entry,
                columns: Value::Object(shards.described()).to_string(),
            },
            Reader::LitData => BatchIndex {
                head: b"{\"chunks\":[\n".to_vec(),
                tail: format!("],\"config\":{}}}\n", shards.litdata_config()).into_bytes(),
                batches,
                format,
                entry: litdata_entry,
                columns: String::new(),
            },
        };
        let mut directory = Directory::default();
        directory.add_file(TOP, "index.json", FileContent::Index(index.into()));
        directory.add_run(
            TOP,
            Run {
                prefix: prefix.to_owned(),
                digits,
                suffix: suffix.to_owned(),
                count: batches,
                file: Box::new(move |batch| FileContent::Batch(format, batch)),
            },
        );
        Ok(directory.sealed())
    }
}

/// The entry of a shard in an MDS index; `columns` is a JSON object that all shards share.
fn mds_entry(columns: &str, batch: u64, rows: u64, bytes: u64) -> String {
    let shared = columns.strip_suffix('}').unwrap_or_default();
    format!(
        "{shared},\"samples\":{rows},\"raw_data\":{{\"basename\":\"shard.{batch:05}.mds\",\"bytes\":{bytes},\"hashes\":{{}}}}}}\n"
    )
}

/// The entry of a chunk in LitData's index, where bytes are those of its samples.
fn litdata_entry(_: &str, batch: u64, rows: u64, bytes: u64) -> String {
    let bytes = bytes.saturating_sub(rows.saturating_add(2).saturating_mul(4));
    format!("{{\"chunk_bytes\":{bytes},\"chunk_size\":{rows},\"dim\":null,\"filename\":\"chunk-0-{batch}.bin\"}}\n")
}

impl Shards {
    fn litdata_config(&self) -> Value {
        let leaf = json!({"type": null, "context": null, "children_spec": []});
        let spec = json!([1, {
            "type": "builtins.dict",
            "context": json!(self.names()).to_string(),
            "children_spec": vec![leaf; self.columns.len()],
        }]);
        json!({
            "chunk_bytes": null,
            "chunk_size": null,
            "compression": null,
            "data_format": self.encodings(),
            "data_spec": spec.to_string(),
            "encryption": null,
            "item_loader": "PyTreeLoader",
        })
    }
}

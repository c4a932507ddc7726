//! The head of a file (schema and dictionaries) and its footer.

use crate::anndata::index::arrow::messages::{self, Block, Column, Kind};
use crate::anndata::index::arrow::{MAGIC, encapsulated};
use crate::collection::Table;
use crate::number::{as_i64, as_usize, le32};

use super::ALIGN;
use super::columns::{ArrowColumns, Width};

/// Head and footer of a file.
pub struct Head {
    pub bytes: Vec<u8>,
    columns: Vec<Column>,
    dictionaries: Vec<Block>,
    /// Bytes of the footer, its length and the magic number.
    pub foot_len: u64,
}

impl Head {
    /// The head, after the bytes `begin`.
    pub fn new(table: &Table, columns: &ArrowColumns, begin: &[u8]) -> Result<Head, String> {
        let mut bytes = begin.to_vec();
        let too_large = || "the schema does not fit a message of Arrow".to_owned();
        let told = encapsulated(Kind::Schema, 0, bytes.len(), |builder| messages::schema(builder, &columns.fields));
        bytes.extend(told.ok_or_else(too_large)?);
        let mut dictionaries = Vec::new();
        for (id, column) in columns.dictionaries.iter().enumerate() {
            let labels = column.categories(table).map(|(categories, _)| categories.labels.as_slice());
            let (told, body) = dictionary(id, labels.unwrap_or_default(), bytes.len()).ok_or_else(too_large)?;
            dictionaries.push([as_i64(bytes.len()), as_i64(told.len()), as_i64(body.len())]);
            bytes.extend(told);
            bytes.extend(body);
        }
        let mut head = Head { bytes, columns: columns.fields.clone(), dictionaries, foot_len: 0 };
        head.foot_len = head.footer(1, 1).len() as u64;
        Ok(head)
    }

    /// Writes the footer for a record batch after the head.
    pub fn foot(&self, message: u64, body: u64, out: &mut [u8]) {
        out.copy_from_slice(&self.footer(message, body));
    }

    fn footer(&self, told: u64, body: u64) -> Vec<u8> {
        let batch = [as_i64(self.bytes.len()), as_i64(told), as_i64(body)];
        let mut foot = messages::footer(&self.columns, &self.dictionaries, batch);
        foot.extend_from_slice(&le32(foot.len()));
        foot.extend_from_slice(MAGIC);
        foot
    }
}

/// The message of a record batch at an offset, with length and missing values of each node, offset and length of each buffer, and the
/// length of the body.
pub fn record_batch(
    at: usize,
    rows: u64,
    nodes: &[(u64, u64)],
    buffers: &[(u64, u64)],
    body: u64,
) -> Result<Vec<u8>, String> {
    let pairs = |all: &[(u64, u64)]| -> Vec<[i64; 2]> { all.iter().map(|&(a, b)| [as_i64(a), as_i64(b)]).collect() };
    let (nodes, buffers) = (pairs(nodes), pairs(buffers));
    let told = encapsulated(Kind::RecordBatch, as_i64(body), at, |builder| {
        messages::record_batch(builder, as_i64(rows), &nodes, &buffers)
    });
    told.ok_or_else(|| "the columns do not fit a message of Arrow".to_owned())
}

/// The message of a dictionary, and its body: the end of each label, then the labels.
fn dictionary(id: usize, labels: &[String], at: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut body = Vec::new();
    let mut end = 0;
    Width::Narrow.put(end, &mut body);
    for label in labels {
        end += label.len() as u64;
        Width::Narrow.put(end, &mut body);
    }
    i32::try_from(end).ok()?;
    let ends = body.len();
    body.resize(ends.next_multiple_of(as_usize(ALIGN)), 0);
    let start = body.len();
    labels.iter().for_each(|label| body.extend_from_slice(label.as_bytes()));
    let buffers = [[0, 0], [0, as_i64(ends)], [as_i64(start), as_i64(body.len() - start)]];
    body.resize(body.len().next_multiple_of(as_usize(ALIGN)), 0);
    let told = encapsulated(Kind::DictionaryBatch, as_i64(body.len()), at, |builder| {
        let rows = as_i64(labels.len());
        let data = messages::record_batch(builder, rows, &[[rows, 0]], &buffers);
        messages::dictionary_batch(builder, as_i64(id), data)
    })?;
    Some((told, body))
}

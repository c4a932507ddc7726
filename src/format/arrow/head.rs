//! The head of a file (schema and dictionaries) and its footer.

use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::writer::DictionaryTracker;
use arrow_ipc::{
    Block, Buffer, DictionaryBatchBuilder, FieldNode, FooterBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder,
};
use arrow_schema::Schema;
use flatbuffers::FlatBufferBuilder;

use crate::anndata::index::arrow::{MAGIC, encapsulated, message};
use crate::collection::Table;
use crate::number::{as_i64, as_usize, le32};

use super::ALIGN;
use super::columns::{ArrowColumns, Width};

/// Head and footer of a file.
pub struct Head {
    pub bytes: Vec<u8>,
    schema: Schema,
    dictionaries: Vec<Block>,
    /// Bytes of the footer, its length and the magic number.
    pub foot_len: u64,
}

impl Head {
    /// The head, after the bytes `begin`.
    pub fn new(table: &Table, columns: &ArrowColumns, begin: &[u8]) -> Result<Head, String> {
        let schema = Schema::new(columns.fields.clone());
        let mut bytes = begin.to_vec();
        let too_large = || "the schema does not fit a message of Arrow".to_owned();
        let told = encapsulated(
            |builder| {
                let mut tracker = DictionaryTracker::new(false);
                let mut encoder = IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker);
                let schema = encoder.schema_to_fb_offset(builder, &schema);
                message(builder, MessageHeader::Schema, schema.as_union_value(), 0)
            },
            bytes.len(),
        );
        bytes.extend(told.ok_or_else(too_large)?);
        let mut dictionaries = Vec::new();
        for (id, column) in columns.dictionaries.iter().enumerate() {
            let labels = column.categories(table).map(|(categories, _)| categories.labels.as_slice());
            let (told, body) = dictionary(id, labels.unwrap_or_default(), bytes.len()).ok_or_else(too_large)?;
            dictionaries.push(Block::new(
                as_i64(bytes.len()),
                i32::try_from(told.len()).unwrap_or(i32::MAX),
                as_i64(body.len()),
            ));
            bytes.extend(told);
            bytes.extend(body);
        }
        let mut head = Head { bytes, schema, dictionaries, foot_len: 0 };
        head.foot_len = head.footer(1, 1).len() as u64;
        Ok(head)
    }

    /// Writes the footer for a record batch after the head.
    pub fn foot(&self, message: u64, body: u64, out: &mut [u8]) {
        out.copy_from_slice(&self.footer(message, body));
    }

    fn footer(&self, told: u64, body: u64) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        let batch = Block::new(as_i64(self.bytes.len()), i32::try_from(told).unwrap_or(i32::MAX), as_i64(body));
        let (dictionaries, batches) = (builder.create_vector(&self.dictionaries), builder.create_vector(&[batch]));
        let mut tracker = DictionaryTracker::new(false);
        let mut encoder = IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker);
        let schema = encoder.schema_to_fb_offset(&mut builder, &self.schema);
        let mut footer = FooterBuilder::new(&mut builder);
        footer.add_version(MetadataVersion::V5);
        footer.add_schema(schema);
        footer.add_dictionaries(dictionaries);
        footer.add_recordBatches(batches);
        let footer = footer.finish();
        builder.finish(footer, None);
        let mut foot = builder.finished_data().to_vec();
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
    let nodes: Vec<FieldNode> = nodes.iter().map(|&(len, nulls)| FieldNode::new(as_i64(len), as_i64(nulls))).collect();
    let buffers: Vec<Buffer> = buffers.iter().map(|&(at, len)| Buffer::new(as_i64(at), as_i64(len))).collect();
    let told = encapsulated(
        |builder| {
            let (nodes, buffers) = (builder.create_vector(&nodes), builder.create_vector(&buffers));
            let mut batch = RecordBatchBuilder::new(builder);
            batch.add_length(as_i64(rows));
            batch.add_nodes(nodes);
            batch.add_buffers(buffers);
            let batch = batch.finish();
            message(builder, MessageHeader::RecordBatch, batch.as_union_value(), as_i64(body))
        },
        at,
    );
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
    let buffers =
        [Buffer::new(0, 0), Buffer::new(0, as_i64(ends)), Buffer::new(as_i64(start), as_i64(body.len() - start))];
    body.resize(body.len().next_multiple_of(as_usize(ALIGN)), 0);
    let told = encapsulated(
        |builder| {
            let nodes = builder.create_vector(&[FieldNode::new(as_i64(labels.len()), 0)]);
            let buffers = builder.create_vector(&buffers);
            let mut data = RecordBatchBuilder::new(builder);
            data.add_length(as_i64(labels.len()));
            data.add_nodes(nodes);
            data.add_buffers(buffers);
            let data = data.finish();
            let mut dictionary = DictionaryBatchBuilder::new(builder);
            dictionary.add_id(as_i64(id));
            dictionary.add_data(data);
            let dictionary = dictionary.finish();
            message(builder, MessageHeader::DictionaryBatch, dictionary.as_union_value(), as_i64(body.len()))
        },
        at,
    )?;
    Some((told, body))
}

//! The Arrow IPC envelope of an index file: one record batch, with a column for each part.
//!
//! Sizes are known before anything is read, so the head is written first and the columns in any order by all cores; each column is one
//! byte range, and a slice once it is mapped. Arrow allows buffers that are longer than their column: the buffer of `X/indptr` has n + 1
//! numbers for n rows, the last being the end of the last row.

use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::{
    Block, Buffer, FieldNode, FooterBuilder, Message, MessageBuilder, MessageHeader, MetadataVersion,
    RecordBatchBuilder,
};
use arrow_schema::{DataType, Field, Schema};
use flatbuffers::{FlatBufferBuilder, WIPOffset};

use crate::array::Dtype;
use crate::number::as_usize;

use super::{ALIGN, IndexPart, offsets};

/// At the start and end of the file.
pub const MAGIC: &[u8; 6] = b"ARROW1";
/// Before each message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// End of stream, padded for alignment.
pub const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// The bytes before the parts, and those at the end of the file.
#[derive(Default)]
pub struct Envelope {
    pub head: Vec<u8>,
    pub foot: Vec<u8>,
}

/// The envelope of parts that are columns of `rows` rows; `None` if they are too large for Arrow.
pub fn envelope(rows: u64, parts: &[IndexPart]) -> Option<Envelope> {
    let fields: Vec<Field> = parts.iter().map(|part| Field::new(&*part.name, data_type(part.dtype), false)).collect();
    let schema = Schema::new(fields);
    let mut head = MAGIC.to_vec();
    head.resize(8, 0);
    head.extend(encapsulated(
        |builder| {
            let schema = IpcSchemaEncoder::new().schema_to_fb_offset(builder, &schema);
            message(builder, MessageHeader::Schema, schema.as_union_value(), 0)
        },
        head.len(),
    )?);
    let (starts, end) = offsets(parts)?;
    let (rows, end) = (i64::try_from(rows).ok()?, i64::try_from(end).ok()?);
    let nodes: Vec<FieldNode> = parts.iter().map(|_| FieldNode::new(rows, 0)).collect();
    let mut buffers = Vec::with_capacity(2 * parts.len());
    for (part, start) in parts.iter().zip(starts) {
        let (start, bytes) = (i64::try_from(start).ok()?, i64::try_from(part.bytes()?).ok()?);
        // Nothing is missing, so the validity bitmap is empty.
        buffers.extend([Buffer::new(start, 0), Buffer::new(start, bytes)]);
    }
    let at = head.len();
    head.extend(encapsulated(
        |builder| {
            let (nodes, buffers) = (builder.create_vector(&nodes), builder.create_vector(&buffers));
            let mut batch = RecordBatchBuilder::new(builder);
            batch.add_length(rows);
            batch.add_nodes(nodes);
            batch.add_buffers(buffers);
            let batch = batch.finish();
            message(builder, MessageHeader::RecordBatch, batch.as_union_value(), end)
        },
        at,
    )?);
    let block = Block::new(i64::try_from(at).ok()?, i32::try_from(head.len() - at).ok()?, end);
    let mut builder = FlatBufferBuilder::new();
    let (none, batches) = (builder.create_vector::<Block>(&[]), builder.create_vector(&[block]));
    let schema = IpcSchemaEncoder::new().schema_to_fb_offset(&mut builder, &schema);
    let mut footer = FooterBuilder::new(&mut builder);
    footer.add_version(MetadataVersion::V5);
    footer.add_schema(schema);
    footer.add_dictionaries(none);
    footer.add_recordBatches(batches);
    let footer = footer.finish();
    builder.finish(footer, None);
    let mut foot = builder.finished_data().to_vec();
    foot.extend_from_slice(&i32::try_from(foot.len()).ok()?.to_le_bytes());
    foot.extend_from_slice(MAGIC);
    Some(Envelope { head, foot })
}

/// A message with this header, and a body of `body` bytes.
pub fn message<'a>(
    builder: &mut FlatBufferBuilder<'a>,
    kind: MessageHeader,
    header: WIPOffset<flatbuffers::UnionWIPOffset>,
    body: i64,
) -> WIPOffset<Message<'a>> {
    let mut message = MessageBuilder::new(builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(kind);
    message.add_bodyLength(body);
    message.add_header(header);
    message.finish()
}

/// A message with its length in front, padded for alignment.
pub fn encapsulated(
    build: impl for<'a> FnOnce(&mut FlatBufferBuilder<'a>) -> WIPOffset<Message<'a>>,
    at: usize,
) -> Option<Vec<u8>> {
    let mut builder = FlatBufferBuilder::new();
    let root = build(&mut builder);
    builder.finish(root, None);
    let data = builder.finished_data();
    let end = (at + 8 + data.len()).next_multiple_of(as_usize(ALIGN));
    let mut bytes = CONTINUATION.to_vec();
    bytes.extend_from_slice(&i32::try_from(end - at - 8).ok()?.to_le_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(end - at, 0);
    Some(bytes)
}

/// The Arrow type of a dtype. Booleans are stored as bytes, so they are not Arrow's bit-packed booleans.
pub fn data_type(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::Bool | Dtype::U8 => DataType::UInt8,
        Dtype::I8 => DataType::Int8,
        Dtype::I16 => DataType::Int16,
        Dtype::I32 => DataType::Int32,
        Dtype::I64 => DataType::Int64,
        Dtype::U16 => DataType::UInt16,
        Dtype::U32 => DataType::UInt32,
        Dtype::U64 => DataType::UInt64,
        Dtype::F16 => DataType::Float16,
        Dtype::F32 => DataType::Float32,
        Dtype::F64 => DataType::Float64,
    }
}

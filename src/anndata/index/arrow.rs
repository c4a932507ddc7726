//! The Arrow IPC envelope of an index file: one record batch, with a column for each part.
//!
//! Sizes are known before anything is read, so the head is written first and the columns in any order by all cores; each column is one
//! byte range, and a slice once it is mapped. Arrow allows buffers that are longer than their column: the buffer of `X/indptr` has n + 1
//! numbers for n rows, the last being the end of the last row.

pub mod messages;

use flatbuffers::FlatBufferBuilder;

use crate::number::as_usize;

use super::{ALIGN, IndexPart, offsets};
use messages::{ArrowType, Column, Kind, Table};

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
    let column = |part: &IndexPart| {
        let kind = ArrowType::Number(part.dtype);
        Column { name: part.name.to_string(), kind, nullable: false }
    };
    let columns: Vec<Column> = parts.iter().map(column).collect();
    let mut head = MAGIC.to_vec();
    head.resize(8, 0);
    head.extend(encapsulated(Kind::Schema, 0, head.len(), |builder| messages::schema(builder, &columns))?);
    let (starts, end) = offsets(parts)?;
    let (rows, end) = (i64::try_from(rows).ok()?, i64::try_from(end).ok()?);
    let mut buffers = Vec::with_capacity(2 * parts.len());
    for (part, start) in parts.iter().zip(starts) {
        let (start, bytes) = (i64::try_from(start).ok()?, i64::try_from(part.bytes()?).ok()?);
        // Nothing is missing, so the validity bitmap is empty.
        buffers.extend([[start, 0], [start, bytes]]);
    }
    let (at, nodes) = (head.len(), vec![[rows, 0]; parts.len()]);
    let batch =
        encapsulated(Kind::RecordBatch, end, at, |builder| messages::record_batch(builder, rows, &nodes, &buffers))?;
    let mut foot = messages::footer(&columns, &[], [i64::try_from(at).ok()?, i64::try_from(batch.len()).ok()?, end]);
    head.extend(batch);
    foot.extend_from_slice(&i32::try_from(foot.len()).ok()?.to_le_bytes());
    foot.extend_from_slice(MAGIC);
    Some(Envelope { head, foot })
}

/// A message with its length in front, padded for alignment. `build` writes its header; its body has `body` bytes; it begins at the
/// offset `at` of the file.
pub fn encapsulated(
    kind: Kind,
    body: i64,
    at: usize,
    build: impl FnOnce(&mut FlatBufferBuilder<'_>) -> Table,
) -> Option<Vec<u8>> {
    let mut builder = FlatBufferBuilder::new();
    let header = build(&mut builder);
    let root = messages::message(&mut builder, kind, header, body);
    builder.finish(root, None);
    let data = builder.finished_data();
    let end = (at + 8 + data.len()).next_multiple_of(as_usize(ALIGN));
    let mut bytes = CONTINUATION.to_vec();
    bytes.extend_from_slice(&i32::try_from(end - at - 8).ok()?.to_le_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(end - at, 0);
    Some(bytes)
}

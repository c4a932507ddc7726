//! The messages of Arrow IPC files, written with flatbuffers: schema, record batch, dictionary, footer.
//!
//! Slots and numbers are those of the format's definitions (Schema.fbs, Message.fbs and File.fbs of Apache Arrow, metadata version 5).
//! Objects are written in the order of the Rust implementation, arrow-ipc, so that files are equal byte for byte. That crate is not used,
//! because it takes minutes to compile, mostly code that is not needed here.

use flatbuffers::{
    FlatBufferBuilder as Builder, ForwardsUOffset, Push, TableFinishedWIPOffset, UnionWIPOffset, VOffsetT, Vector,
    WIPOffset,
};

use crate::array::Dtype;
use crate::array::meaning::{Time, Unit};

/// A finished table.
pub type Table = WIPOffset<TableFinishedWIPOffset>;
type Tables<'a> = WIPOffset<Vector<'a, ForwardsUOffset<TableFinishedWIPOffset>>>;

/// MetadataVersion: V5.
const VERSION: i16 = 4;

/// The kind of a message.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Kind {
    Schema = 1,
    DictionaryBatch = 2,
    RecordBatch = 3,
}

/// The type of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArrowType {
    /// Stored as bits.
    Boolean,
    /// Stored as bytes.
    Number(Dtype),
    /// 64-bit integers: times since 1970-01-01 without a time zone, or durations. Units coarser than seconds have the unit seconds.
    Time(Time),
    Utf8,
    LargeUtf8,
    /// Codes of labels, which are in a separate dictionary.
    Labels {
        codes: Dtype,
        ordered: bool,
    },
    List(Box<Column>),
    LargeList(Box<Column>),
    FixedSizeList(Box<Column>, i32),
}

/// A column, or the elements of lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ArrowType,
    pub nullable: bool,
}

impl Column {
    /// The elements of a list, none of them missing.
    pub fn item(kind: ArrowType) -> Box<Column> {
        Box::new(Column { name: "item".to_owned(), kind, nullable: false })
    }

    /// The table `Field`; dictionaries are numbered from `next` on.
    fn write<'a>(&self, builder: &mut Builder<'a>, next: &mut i64) -> Table {
        let name = builder.create_string(&self.name);
        let (union, kind, children) = self.kind.write(builder, next);
        let encoding = match &self.kind {
            ArrowType::Labels { codes, ordered } => {
                let index = integer(builder, *codes);
                let start = builder.start_table();
                slot(builder, 0, *next, 0);
                offset(builder, 1, index);
                slot(builder, 2, *ordered, false);
                *next += 1;
                Some(builder.end_table(start))
            }
            _ => None,
        };
        let start = builder.start_table();
        offset(builder, 0, name);
        if let Some(encoding) = encoding {
            offset(builder, 4, encoding);
        }
        slot(builder, 2, union, 0);
        slot(builder, 1, self.nullable, false);
        offset(builder, 5, children);
        offset(builder, 3, kind);
        builder.end_table(start)
    }
}

impl ArrowType {
    /// The number in the union `Type`, its table, and the child fields.
    fn write<'a>(&self, builder: &mut Builder<'a>, next: &mut i64) -> (u8, Table, Tables<'a>) {
        let list = |builder: &mut Builder<'a>, next: &mut i64, item: &Column, union, len| {
            let item = item.write(builder, next);
            let start = builder.start_table();
            slot(builder, 0, len, 0);
            let kind = builder.end_table(start);
            (union, kind, builder.create_vector(&[item]))
        };
        match self {
            ArrowType::Number(dtype) if is_float(*dtype) => {
                let children = builder.create_vector::<Table>(&[]);
                let start = builder.start_table();
                // Half, single, double.
                let precision: i16 = match dtype {
                    Dtype::F16 => 0,
                    Dtype::F32 => 1,
                    _ => 2,
                };
                slot(builder, 0, precision, 0);
                (3, builder.end_table(start), children)
            }
            ArrowType::Number(dtype) => {
                let children = builder.create_vector::<Table>(&[]);
                (2, integer(builder, *dtype), children)
            }
            ArrowType::Boolean => empty(builder, 6),
            ArrowType::Utf8 | ArrowType::Labels { .. } => empty(builder, 5),
            ArrowType::LargeUtf8 => empty(builder, 20),
            ArrowType::Time(time) => {
                let unit: i16 = match time.unit {
                    Unit::Millisecond => 1,
                    Unit::Microsecond => 2,
                    Unit::Nanosecond => 3,
                    _ => 0,
                };
                // arrow-ipc writes an empty name of a time zone here, which nothing refers to.
                if !time.is_duration {
                    builder.create_string("");
                }
                let start = builder.start_table();
                slot(builder, 0, unit, i16::from(time.is_duration));
                let kind = builder.end_table(start);
                (if time.is_duration { 18 } else { 10 }, kind, builder.create_vector::<Table>(&[]))
            }
            ArrowType::List(item) => list(builder, next, item, 12, 0),
            ArrowType::LargeList(item) => list(builder, next, item, 21, 0),
            ArrowType::FixedSizeList(item, len) => list(builder, next, item, 16, *len),
        }
    }
}

/// A type without parameters.
fn empty<'a>(builder: &mut Builder<'a>, union: u8) -> (u8, Table, Tables<'a>) {
    let start = builder.start_table();
    let kind = builder.end_table(start);
    (union, kind, builder.create_vector::<Table>(&[]))
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::F32 | Dtype::F64)
}

/// The table `Int`.
fn integer(builder: &mut Builder<'_>, dtype: Dtype) -> Table {
    let signed = matches!(dtype, Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64);
    let start = builder.start_table();
    slot(builder, 1, signed, false);
    slot(builder, 0, 8_i32 << dtype.size().ilog2(), 0);
    builder.end_table(start)
}

/// The table `Schema`.
pub fn schema(builder: &mut Builder<'_>, columns: &[Column]) -> Table {
    let mut next = 0;
    let fields: Vec<Table> = columns.iter().map(|column| column.write(builder, &mut next)).collect();
    let fields = builder.create_vector(&fields);
    let start = builder.start_table();
    offset(builder, 1, fields);
    builder.end_table(start)
}

/// The table `RecordBatch` of `rows` rows: lengths and null counts of its nodes, offsets and lengths of its buffers.
pub fn record_batch(builder: &mut Builder<'_>, rows: i64, nodes: &[[i64; 2]], buffers: &[[i64; 2]]) -> Table {
    let (nodes, buffers) = (structs(builder, nodes), structs(builder, buffers));
    let start = builder.start_table();
    slot(builder, 0, rows, 0);
    offset(builder, 1, nodes);
    offset(builder, 2, buffers);
    builder.end_table(start)
}

/// The table `DictionaryBatch`.
pub fn dictionary_batch(builder: &mut Builder<'_>, id: i64, data: Table) -> Table {
    let start = builder.start_table();
    slot(builder, 0, id, 0);
    offset(builder, 1, data);
    builder.end_table(start)
}

/// The table `Message` with this header; `body` is the size of its body in bytes.
pub fn message(builder: &mut Builder<'_>, kind: Kind, header: Table, body: i64) -> Table {
    let start = builder.start_table();
    slot(builder, 0, VERSION, 0);
    slot(builder, 1, kind as u8, 0);
    slot(builder, 3, body, 0);
    offset(builder, 2, header);
    builder.end_table(start)
}

/// Position of a message in a file: its offset, and the bytes of its metadata and of its body.
pub type Block = [i64; 3];

/// The flatbuffer at the end of a file, the table `Footer`.
pub fn footer(columns: &[Column], dictionaries: &[Block], batch: Block) -> Vec<u8> {
    let mut builder = Builder::new();
    let (dictionaries, batches) = (structs(&mut builder, dictionaries), structs(&mut builder, &[batch]));
    let schema = schema(&mut builder, columns);
    let start = builder.start_table();
    slot(&mut builder, 0, VERSION, 0);
    offset(&mut builder, 1, schema);
    offset(&mut builder, 2, dictionaries);
    offset(&mut builder, 3, batches);
    let footer = builder.end_table(start);
    builder.finish(footer, None);
    builder.finished_data().to_vec()
}

/// A vector of structs of 64-bit integers. A block's 32-bit number, which is not negative, and its padding count as one.
fn structs<'a, const N: usize>(builder: &mut Builder<'a>, items: &[[i64; N]]) -> WIPOffset<Vector<'a, i64>> {
    builder.start_vector::<i64>(N * items.len());
    // A builder writes backwards.
    for number in items.as_flattened().iter().rev() {
        builder.push(*number);
    }
    builder.end_vector::<i64>(items.len())
}

/// Writes a slot unless it has the default value.
fn slot<T: Push + PartialEq>(builder: &mut Builder<'_>, number: VOffsetT, value: T, default: T) {
    builder.push_slot(4 + 2 * number, value, default);
}

/// Writes a slot with the offset of an object written before.
fn offset<T>(builder: &mut Builder<'_>, number: VOffsetT, place: WIPOffset<T>) {
    builder.push_slot_always::<WIPOffset<UnionWIPOffset>>(4 + 2 * number, place.as_union_value());
}

#[cfg(test)]
mod tests;

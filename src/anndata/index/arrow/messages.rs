//! The messages of Arrow IPC files, written with flatbuffers: schema, record batch, dictionary, footer.
//!
//! Slots and numbers are those of the format's own definitions (Schema.fbs, Message.fbs and File.fbs of Apache Arrow, metadata version
//! 5). The order in which parts are written decides where they lie: it is that of the Rust implementation, arrow-ipc, whose files
//! these are byte for byte. That crate itself takes minutes to compile, for arrays and kernels that nobody calls here.

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

/// What a message is.
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
    /// Bits.
    Boolean,
    /// Booleans are bytes here.
    Number(Dtype),
    /// 64-bit integers: since 1970-01-01, in no time zone, or a duration. Units beyond seconds count as seconds.
    Time(Time),
    Utf8,
    LargeUtf8,
    /// Codes of labels, which stand in a dictionary of their own.
    Labels {
        codes: Dtype,
        ordered: bool,
    },
    List(Box<Column>),
    LargeList(Box<Column>),
    FixedSizeList(Box<Column>, i32),
}

/// A column, or what lists hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ArrowType,
    pub nullable: bool,
}

impl Column {
    /// What a list holds: no value of it is missing.
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
    /// The number in the union `Type`, its table, and the fields below it.
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
                // The name of no time zone, which nothing points to.
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

/// A type of which there is no more to say.
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

/// The table `RecordBatch` of so many rows: lengths and missing values of its nodes, places and lengths of its buffers.
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

/// The table `Message` of this header, before so many bytes of body.
pub fn message(builder: &mut Builder<'_>, kind: Kind, header: Table, body: i64) -> Table {
    let start = builder.start_table();
    slot(builder, 0, VERSION, 0);
    slot(builder, 1, kind as u8, 0);
    slot(builder, 3, body, 0);
    offset(builder, 2, header);
    builder.end_table(start)
}

/// Where a message is in a file: its place, its bytes, the bytes of its body.
pub type Block = [i64; 3];

/// The flatbuffer that ends a file, the table `Footer`.
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

/// A vector of structs of 64-bit integers. A block's 32 bits and their padding are one too, as that number is not negative.
fn structs<'a, const N: usize>(builder: &mut Builder<'a>, items: &[[i64; N]]) -> WIPOffset<Vector<'a, i64>> {
    builder.start_vector::<i64>(N * items.len());
    // A builder writes from the end.
    for number in items.as_flattened().iter().rev() {
        builder.push(*number);
    }
    builder.end_vector::<i64>(items.len())
}

/// Fills a slot, unless with its default.
fn slot<T: Push + PartialEq>(builder: &mut Builder<'_>, number: VOffsetT, value: T, default: T) {
    builder.push_slot(4 + 2 * number, value, default);
}

/// Fills a slot with the place of what was written.
fn offset<T>(builder: &mut Builder<'_>, number: VOffsetT, place: WIPOffset<T>) {
    builder.push_slot_always::<WIPOffset<UnionWIPOffset>>(4 + 2 * number, place.as_union_value());
}

#[cfg(test)]
mod tests;

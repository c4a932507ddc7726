//! The bytes equal those of arrow-ipc, for all types and columns in random order.

use std::sync::Arc;

use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::writer::DictionaryTracker;
use arrow_ipc::{MessageBuilder, MessageHeader, MetadataVersion};
use arrow_schema::{DataType, Field, Schema, TimeUnit};

use super::*;

const DTYPES: [(Dtype, DataType); 11] = [
    (Dtype::U8, DataType::UInt8),
    (Dtype::I8, DataType::Int8),
    (Dtype::I16, DataType::Int16),
    (Dtype::I32, DataType::Int32),
    (Dtype::I64, DataType::Int64),
    (Dtype::U16, DataType::UInt16),
    (Dtype::U32, DataType::UInt32),
    (Dtype::U64, DataType::UInt64),
    (Dtype::F16, DataType::Float16),
    (Dtype::F32, DataType::Float32),
    (Dtype::F64, DataType::Float64),
];
const UNITS: [(Unit, TimeUnit); 4] = [
    (Unit::Second, TimeUnit::Second),
    (Unit::Millisecond, TimeUnit::Millisecond),
    (Unit::Microsecond, TimeUnit::Microsecond),
    (Unit::Nanosecond, TimeUnit::Nanosecond),
];

/// A deterministic generator of numbers below a bound.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        i64::try_from((self.0 >> 33) % bound).unwrap()
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn rows<const N: usize>(&mut self, most: u64, bounds: [u64; N]) -> Vec<[i64; N]> {
        (0..self.below(most)).map(|_| bounds.map(|bound| self.below(bound))).collect()
    }
}

/// Each type here and in arrow-ipc.
fn types() -> Vec<(ArrowType, DataType)> {
    let mut all = vec![
        (ArrowType::Number(Dtype::Bool), DataType::UInt8),
        (ArrowType::Boolean, DataType::Boolean),
        (ArrowType::Utf8, DataType::Utf8),
        (ArrowType::LargeUtf8, DataType::LargeUtf8),
    ];
    all.extend(DTYPES.into_iter().map(|(ours, theirs)| (ArrowType::Number(ours), theirs)));
    for (unit, theirs) in UNITS {
        all.push((ArrowType::Time(Time { unit, is_duration: false }), DataType::Timestamp(theirs, None)));
        all.push((ArrowType::Time(Time { unit, is_duration: true }), DataType::Duration(theirs)));
    }
    for (codes, theirs) in DTYPES.into_iter().take(8) {
        let theirs = DataType::Dictionary(Box::new(theirs), Box::new(DataType::Utf8));
        for ordered in [false, true] {
            all.push((ArrowType::Labels { codes, ordered }, theirs.clone()));
        }
    }
    for (ours, theirs) in all.clone() {
        let (item, field) = (Column::item(ours), Arc::new(Field::new("item", theirs, false)));
        if !matches!(item.kind, ArrowType::Labels { .. }) {
            let inner = ArrowType::FixedSizeList(item.clone(), 7);
            let of_them = Field::new("item", DataType::FixedSizeList(field.clone(), 7), false);
            all.push((ArrowType::List(item.clone()), DataType::List(field.clone())));
            all.push((ArrowType::LargeList(item.clone()), DataType::LargeList(field.clone())));
            all.push((ArrowType::FixedSizeList(item, 0), DataType::FixedSizeList(field, 0)));
            let of_them = DataType::FixedSizeList(Arc::new(of_them), 70_000);
            all.push((ArrowType::FixedSizeList(Column::item(inner), 70_000), of_them));
        }
    }
    all
}

fn finished(build: impl FnOnce(&mut Builder<'_>) -> u32) -> Vec<u8> {
    let mut builder = Builder::new();
    let root = build(&mut builder);
    builder.finish(WIPOffset::<()>::new(root), None);
    builder.finished_data().to_vec()
}

#[test]
fn bytes_are_those_of_arrow_ipc() {
    let (types, mut random) = (types(), Random(1));
    for case in 0..1000 {
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for number in 0..if case < types.len() { 1 } else { random.below(12) } {
            let (kind, theirs) = types.get(case).unwrap_or_else(|| random.of(&types)).clone();
            let name = "xé".repeat(usize::try_from(random.below(9)).unwrap()) + &number.to_string();
            let nullable = random.below(2) == 1;
            let field = Field::new(&name, theirs, nullable);
            fields.push(match kind {
                ArrowType::Labels { ordered, .. } => field.with_dict_is_ordered(ordered),
                _ => field,
            });
            columns.push(Column { name, kind, nullable });
        }
        let their_schema = Schema::new(fields);
        let encoded = |builder: &mut Builder<'_>| {
            let mut tracker = DictionaryTracker::new(false);
            let mut encoder = IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker);
            encoder.schema_to_fb_offset(builder, &their_schema).value()
        };
        let their_message = |builder: &mut Builder<'_>, kind, header, body| {
            let mut message = MessageBuilder::new(builder);
            message.add_version(MetadataVersion::V5);
            message.add_header_type(kind);
            message.add_bodyLength(body);
            message.add_header(WIPOffset::new(header));
            message.finish().value()
        };

        let (rows, id, body) = (random.below(3), random.below(3), random.below(2));
        let ours = finished(|builder| {
            let header = schema(builder, &columns);
            message(builder, Kind::Schema, header, body).value()
        });
        let theirs = finished(|builder| {
            let header = encoded(builder);
            their_message(builder, MessageHeader::Schema, header, body)
        });
        assert_eq!(ours, theirs, "{columns:?}");

        let (nodes, buffers) = (random.rows(9, [3, 2]), random.rows(9, [1 << 31, 2]));
        for is_dictionary in [false, true] {
            let ours = finished(|builder| {
                let data = record_batch(builder, rows, &nodes, &buffers);
                let (kind, header) = match is_dictionary {
                    false => (Kind::RecordBatch, data),
                    true => (Kind::DictionaryBatch, dictionary_batch(builder, id, data)),
                };
                message(builder, kind, header, body).value()
            });
            let theirs = finished(|builder| {
                let nodes: Vec<_> = nodes.iter().map(|&[a, b]| arrow_ipc::FieldNode::new(a, b)).collect();
                let buffers: Vec<_> = buffers.iter().map(|&[a, b]| arrow_ipc::Buffer::new(a, b)).collect();
                let (nodes, buffers) = (builder.create_vector(&nodes), builder.create_vector(&buffers));
                let mut batch = arrow_ipc::RecordBatchBuilder::new(builder);
                batch.add_length(rows);
                batch.add_nodes(nodes);
                batch.add_buffers(buffers);
                let data = batch.finish();
                if !is_dictionary {
                    return their_message(builder, MessageHeader::RecordBatch, data.value(), body);
                }
                let mut dictionary = arrow_ipc::DictionaryBatchBuilder::new(builder);
                dictionary.add_id(id);
                dictionary.add_data(data);
                let header = dictionary.finish().value();
                their_message(builder, MessageHeader::DictionaryBatch, header, body)
            });
            assert_eq!(ours, theirs, "{is_dictionary} {nodes:?} {buffers:?}");
        }

        let blocks = random.rows(4, [1 << 31, 1 << 31, 1 << 31]);
        let batch = [1, 2, 3].map(|_| random.below(1 << 31));
        let theirs = finished(|builder| {
            let block =
                |&[at, len, body]: &Block| arrow_ipc::Block::new(at, i32::try_from(len).unwrap_or(i32::MAX), body);
            let blocks: Vec<_> = blocks.iter().map(block).collect();
            let (blocks, batches) = (builder.create_vector(&blocks), builder.create_vector(&[block(&batch)]));
            let schema = encoded(builder);
            let mut footer = arrow_ipc::FooterBuilder::new(builder);
            footer.add_version(MetadataVersion::V5);
            footer.add_schema(WIPOffset::new(schema));
            footer.add_dictionaries(blocks);
            footer.add_recordBatches(batches);
            footer.finish().value()
        });
        assert_eq!(footer(&columns, &blocks, batch), theirs);
    }
}

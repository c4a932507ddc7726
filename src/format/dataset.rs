//! `epoch-0000.dataset/`: an epoch for `datasets.load_from_disk` of Hugging Face, as an Arrow stream that it maps.
//!
//! The stream has one record batch, whose columns are contiguous fields. So opening it reads only its head, and reading a row reads only
//! its
//! batches. Columns have no missing values, as their number would have to be known in advance: labels are `ClassLabel` with -1 for missing,
//! and masks are separate columns.

use serde_json::{Map, Value, json};

use crate::anndata::column::Values;
use crate::anndata::index::arrow::END;
use crate::anndata::index::arrow::messages::ArrowType;
use crate::array::Dtype;
use crate::batch::{Field, Repr};
use crate::collection::Table;
use crate::collection::element::{Element, MatrixKind};

use super::arrow::{ALIGN, ArrowColumns, BufferPart, Head, Width, filled_len, record_batch};
use super::directory::{Directory, DirectoryFormat, FileContent, OpenedDirectory, TOP};
use super::obs::{ObsColumn, ObsKind};
use super::{Content, FileShape, Segment, Segments, records};

/// The file of all rows.
const DATA: &str = "data-00000-of-00001.arrow";

struct Dataset;

pub fn open(table: &Table) -> OpenedDirectory {
    ArrowColumns::of_matrices(table, Width::Wide)?;
    for column in ObsColumn::all(table, &records::taken(table)) {
        if matches!(table.columns[column.place].values, Values::Text { .. }) {
            return Err(format!("obs column {} is text, whose size is not known beforehand", column.name));
        }
    }
    Ok(Box::new(Dataset))
}

impl DirectoryFormat for Dataset {
    fn directory(&self, shape: &FileShape<'_>) -> Result<Directory, String> {
        let most = shape.nnz.iter().copied().max().unwrap_or(0);
        let is_wide = most > i32::MAX as u64 || shape.table.index_dtype == Some(Dtype::I64);
        let width = if is_wide { Width::Wide } else { Width::Narrow };
        let (columns, features) = columns(shape.table, width)?;
        let info = json!({"citation": "", "description": "", "features": features, "homepage": "", "license": ""});
        let state = json!({
            "_data_files": [{"filename": DATA}],
            // Derived by the reader from the paths of the files.
            "_fingerprint": null,
            "_format_columns": null,
            "_format_kwargs": {},
            "_format_type": null,
            "_output_all_columns": false,
            "_split": null,
        });
        let mut directory = Directory::default();
        let document = |value: &Value| FileContent::bytes(format!("{value:#}\n").into_bytes());
        directory.add_file(TOP, DATA, FileContent::Segments(stream(shape, &columns)?.into()));
        directory.add_file(TOP, "dataset_info.json", document(&info));
        directory.add_file(TOP, "state.json", document(&state));
        Ok(directory.sealed())
    }
}

/// The stream: schema, one record batch, end.
fn stream(shape: &FileShape<'_>, columns: &ArrowColumns) -> Result<Segments, String> {
    let FileShape { table, rows, nnz, .. } = *shape;
    let head = Head::new(table, columns, &[])?;
    let mut at: u64 = 0;
    let place = |part: &BufferPart| {
        let len = match part {
            BufferPart::Filled(field, repr) => filled_len((*field, *repr), table, rows, nnz),
            _ => 0,
        };
        let start = at;
        at = (start + len).next_multiple_of(ALIGN);
        (start, len)
    };
    let buffers: Vec<(u64, u64)> = columns.buffers.iter().map(place).collect();
    let nodes: Vec<(u64, u64)> = columns.nodes.iter().map(|node| (node.len(rows, nnz), 0)).collect();
    let mut front = head.bytes;
    front.extend(record_batch(front.len(), rows, &nodes, &buffers, at)?);
    let body = front.len() as u64;
    let known = |start, bytes: Vec<u8>| {
        let len = bytes.len() as u64;
        Segment { start, len, from: 0, content: Content::Bytes(bytes) }
    };
    let mut list = vec![known(0, front), known(body + at, END.to_vec())];
    for (part, (start, len)) in columns.buffers.iter().zip(buffers) {
        if let BufferPart::Filled(field, repr) = part {
            list.push(Segment { start: body + start, len, from: 0, content: Content::Field(*field, *repr) });
        }
    }
    Ok(Segments::new(body + at + END.len() as u64, list))
}

/// The columns, and their types for Hugging Face.
fn columns(table: &Table, width: Width) -> Result<(ArrowColumns, Value), String> {
    let mut columns = ArrowColumns::of_matrices(table, width)?;
    let mut features = Map::new();
    features.insert("row".to_owned(), value("int64"));
    for (element, names) in table.elements.iter().zip(records::matrices(table)) {
        matrix(table, element, &names, width, &mut features);
        if element.tokens.is_some() {
            features.insert(records::LENGTH.to_owned(), value("int32"));
        }
    }
    for column in ObsColumn::all(table, &records::taken(table)) {
        let field = Field::Column(column.place);
        let (data, repr, feature) = match column.kind {
            ObsKind::Labels => {
                let labels = column.categories(table).map(|(categories, _)| categories.labels.as_slice());
                let feature = json!({"names": labels.unwrap_or_default(), "_type": "ClassLabel"});
                (ArrowType::Number(Dtype::I64), Dtype::I64, feature)
            }
            ObsKind::Number(dtype) => (ArrowType::Number(dtype), dtype, value(dtype.name())),
            ObsKind::Boolean => (ArrowType::Number(Dtype::U8), Dtype::Bool, value("uint8")),
            ObsKind::Time(time) => {
                let kind = if time.is_duration { "duration" } else { "timestamp" };
                (ArrowType::Time(time), Dtype::I64, value(&format!("{kind}[{}]", time.unit.name())))
            }
            // Times with coarse units are integers.
            ObsKind::Text => (ArrowType::Number(Dtype::I64), Dtype::I64, value("int64")),
        };
        columns.whole(&column.name, data, field, Repr::Number(repr));
        features.insert(column.name.clone(), feature);
        if let Values::Numbers { mask: Some(_), .. } = table.columns[column.place].values {
            let name = format!("{}/mask", column.name);
            columns.whole(&name, ArrowType::Number(Dtype::U8), Field::Mask(column.place), Repr::Number(Dtype::Bool));
            features.insert(name, value("uint8"));
        }
    }
    Ok((columns, Value::Object(features)))
}

fn matrix(table: &Table, element: &Element, names: &[String], width: Width, features: &mut Map<String, Value>) {
    // Booleans are stored as bytes.
    let name = |dtype: Dtype| if dtype == Dtype::Bool { "uint8" } else { dtype.name() };
    match &element.kind {
        MatrixKind::Sparse { dtype } => {
            let index = table.index_dtype.unwrap_or(width.dtype());
            for (column, dtype) in names.iter().zip([index, *dtype]) {
                let list = if width == Width::Wide {
                    json!({"feature": value(name(dtype)), "_type": "LargeList"})
                } else {
                    json!({"feature": value(name(dtype)), "_type": "Sequence"})
                };
                features.insert(column.clone(), list);
            }
        }
        MatrixKind::Dense { dtype, row } => {
            let list = |item, &len: &u64| json!({"feature": item, "length": len, "_type": "Sequence"});
            features.insert(names[0].clone(), row.iter().rev().fold(value(name(*dtype)), list));
        }
    }
}

fn value(dtype: &str) -> Value {
    json!({"dtype": dtype, "_type": "Value"})
}

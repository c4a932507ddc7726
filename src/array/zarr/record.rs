//! Structured arrays of zarr v2, as tables were stored before anndata 0.7: read as bytes, from which fields are extracted.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::class::{self, ElementClass, Encoding};
use super::node::ZarrNode;
use super::{Zarr, text};
use crate::array::codec;
use crate::array::constant::InMemory;
use crate::array::container::{Container, NodeKind};
use crate::array::{Array, ArrayError, Dtype, RecordField, RecordFieldKind};

/// A field and its location in a record.
struct FieldPlace {
    name: String,
    class: ElementClass,
    big: bool,
    shape: Vec<u64>,
    offset: u64,
    /// Size in bytes, including all axes.
    size: u64,
}

/// The fields of a structured array; empty for other arrays.
pub fn fields(zarr: &Zarr, element: &str) -> Result<Vec<RecordField>, ArrayError> {
    let node = zarr.existing(element, NodeKind::Array)?;
    let known = |member: FieldPlace| RecordField {
        kind: match member.class {
            ElementClass::Number(dtype) => RecordFieldKind::Number(dtype),
            ElementClass::Text | ElementClass::FixedText { .. } => RecordFieldKind::Text,
            ElementClass::Time(time) => RecordFieldKind::Other(time.to_string()),
            ElementClass::Other(what) => RecordFieldKind::Other(what),
        },
        names: None,
        name: member.name,
        shape: member.shape,
    };
    if node.metadata.get("dtype").is_none_or(|dtype| !dtype.is_array()) {
        return Ok(Vec::new());
    }
    let members = members(&node).ok_or_else(|| zarr.error(element, "its record type is damaged"))?;
    Ok(members.into_iter().map(known).collect())
}

fn members(node: &ZarrNode) -> Option<Vec<FieldPlace>> {
    let mut offset = 0_u64;
    let mut members = Vec::new();
    for field in node.metadata.get("dtype")?.as_array()? {
        let field = field.as_array()?;
        let name = field.first()?.as_str()?.to_owned();
        let dtype = field.get(1)?;
        let shape: Vec<u64> = match field.get(2) {
            Some(axes) => axes.as_array()?.iter().map(Value::as_u64).collect::<Option<_>>()?,
            None => Vec::new(),
        };
        // The class is that of an array with the field's dtype.
        let metadata = Map::from_iter([("dtype".to_owned(), dtype.clone())]);
        let class = class::of(&ZarrNode { kind: NodeKind::Array, version: 2, metadata, attributes: Map::new() });
        let text = dtype.as_str()?;
        let width = match &class {
            ElementClass::Number(dtype) => dtype.size() as u64,
            ElementClass::FixedText { size, .. } => *size,
            ElementClass::Time(_) => 8,
            ElementClass::Text | ElementClass::Other(_) => text.get(2..)?.parse().ok()?,
        };
        let size = shape.iter().try_fold(width, |n, &c| n.checked_mul(c))?;
        members.push(FieldPlace { name, class, big: text.starts_with('>'), shape, offset, size });
        offset = offset.checked_add(size)?;
    }
    Some(members)
}

/// The bytes of one field of all records.
fn read(zarr: &Zarr, element: &str, field: &str) -> Result<(FieldPlace, Vec<u8>), ArrayError> {
    let node = zarr.existing(element, NodeKind::Array)?;
    let members = members(&node).ok_or_else(|| zarr.error(element, "its record type is damaged"))?;
    let record: u64 = members.iter().map(|member| member.size).sum();
    let Some(member) = members.into_iter().find(|member| member.name == field) else {
        return Err(zarr.error(element, format!("has no field {field}")));
    };
    if record == 0 {
        return Ok((member, Vec::new()));
    }
    let bytes = text::bytes(zarr, element, &node, record)?;
    let index = |n: u64| usize::try_from(n).map_err(|_| zarr.error(element, "its records are too large"));
    let (record, from, size) = (index(record)?, index(member.offset)?, index(member.size)?);
    let parts = bytes.chunks_exact(record).filter_map(|all| all.get(from..)?.get(..size));
    Ok((member, parts.flatten().copied().collect()))
}

/// A numeric field of all records, in memory; its shape is [records, axes of the field...].
pub fn numbers(zarr: &Zarr, element: &str, field: &str) -> Result<Array, ArrayError> {
    let (member, mut bytes) = read(zarr, element, field)?;
    let ElementClass::Number(dtype) = member.class else {
        return Err(zarr.error(element, format!("field {field} holds no numbers")));
    };
    if member.big {
        codec::swap(&mut bytes, dtype.size());
    }
    let mut shape = zarr.shape(element)?;
    shape.extend(&member.shape);
    let count = shape.iter().try_fold(Dtype::size(dtype) as u64, |n, &c| n.checked_mul(c));
    if count != Some(bytes.len() as u64) {
        return Err(zarr.error(element, format!("field {field} has another length than declared")));
    }
    let name = format!("{element}/{field}").into();
    Ok(Array::new((Arc::clone(&zarr.name), name), dtype, (shape.clone(), shape), Arc::new(InMemory { bytes })))
}

/// A string field of all records.
pub fn strings(zarr: &Zarr, element: &str, field: &str) -> Result<Vec<String>, ArrayError> {
    let (member, bytes) = read(zarr, element, field)?;
    let ElementClass::FixedText { size, encoding } = member.class else {
        return Err(zarr.error(element, format!("field {field} holds no strings of fixed length")));
    };
    let rows = zarr.shape(element)?.iter().try_fold(1_usize, |n, &c| n.checked_mul(usize::try_from(c).ok()?));
    let width = usize::try_from(size).ok().filter(|&width| width > 0);
    let (Some(rows), Some(width)) = (rows, width) else {
        return Ok(vec![String::new(); rows.unwrap_or(0).min(bytes.len())]);
    };
    let texts: Option<Vec<String>> = bytes.chunks_exact(width).map(|text| text::decode(text, encoding)).collect();
    match texts {
        Some(texts) if texts.len() == rows => Ok(texts),
        _ => Err(zarr.error(element, format!("field {field}: damaged text ({})", name(encoding)))),
    }
}

fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Bytes => "bytes",
        Encoding::Utf32Little | Encoding::Utf32Big => "UTF-32",
    }
}

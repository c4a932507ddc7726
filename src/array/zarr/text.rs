//! Strings: of any length by zarrs, of fixed length as arrays of bytes with one more axis.

use serde_json::{Value, json};
use zarrs::array::ArraySubset;

use super::class::{self, ElementClass, Encoding};
use super::node::ZarrNode;
use super::{Zarr, open};
use crate::array::catch_panic::catch_panic;
use crate::array::container::{Container, NodeKind};
use crate::array::{ArrayError, Counters, Dtype};

/// Most strings of an array, against shapes that lie: 64 times the largest atlas.
const MOST: u64 = 1 << 33;
/// Most strings of one chunk.
const MOST_IN_CHUNK: u64 = 1 << 28;

/// Strings that are believed without a look at what is stored: 16 M, which cost 400 MB.
const FREE: u64 = 1 << 24;

/// Refuses so many strings where so little is stored: a chunk that was never written costs nothing but the memory.
fn plausible(zarr: &Zarr, element: &str, strings: u64) -> Result<(), ArrayError> {
    if strings <= FREE {
        return Ok(());
    }
    let stored = zarr.root.join(element).stored(8);
    if strings > stored.saturating_mul(1024).saturating_add(FREE) {
        return Err(zarr.error(element, format!("{strings} strings are declared, and {stored} bytes stored")));
    }
    Ok(())
}

/// All strings of an array in C order.
pub fn strings(zarr: &Zarr, element: &str) -> Result<Vec<String>, ArrayError> {
    let node = zarr.existing(element, NodeKind::Array)?;
    match class::of(&node) {
        ElementClass::Text => variable(zarr, element, &node),
        ElementClass::FixedText { size, encoding } => fixed(zarr, element, &node, size, encoding),
        ElementClass::Number(dtype) => Err(zarr.error(element, format!("holds {dtype}, not strings"))),
        ElementClass::Time(time) => Err(zarr.error(element, format!("holds {time}, not strings"))),
        ElementClass::Other(name) => Err(zarr.error(element, format!("holds elements of type {name}, not strings"))),
    }
}

fn variable(zarr: &Zarr, element: &str, node: &ZarrNode) -> Result<Vec<String>, ArrayError> {
    let array = open::zarrs(zarr, element, node)?;
    let shape = array.shape().to_vec();
    let damaged = |chunk: u64, cause: String| ArrayError::Damaged {
        store: zarr.name.to_string(),
        element: element.to_owned(),
        chunk,
        cause,
    };
    let total = shape.iter().try_fold(1_u64, |n, &c| n.checked_mul(c)).filter(|&n| n <= MOST);
    let Some(total) = total else { return Err(zarr.error(element, "its shape is too large: it is damaged")) };
    if total == 0 {
        return Ok(Vec::new());
    }
    plausible(zarr, element, total)?;
    let zero = vec![0; shape.len()];
    let chunk = array.chunk_shape(&zero).map_err(|e| zarr.error(element, e.to_string()))?;
    let in_chunk = chunk
        .iter()
        .try_fold(1_u64, |n, &c| n.checked_mul(c.get()))
        .filter(|&n| n <= MOST_IN_CHUNK.min(total.max(FREE)));
    if in_chunk.is_none() {
        return Err(zarr.unsupported(element, "its chunks are too large; rewrite it in smaller ones"));
    }
    if let ([rows], [rows_in_chunk]) = (shape.as_slice(), chunk.as_slice()) {
        let mut all: Vec<String> = Vec::new();
        for number in 0..rows.div_ceil(rows_in_chunk.get()) {
            let texts: Vec<String> = catch_panic(|| array.retrieve_chunk(&[number]).map_err(|e| e.to_string()))
                .flatten()
                .map_err(|cause| damaged(number, cause))?;
            let here = rows_in_chunk.get().min(rows - number * rows_in_chunk.get());
            if (texts.len() as u64) < here {
                return Err(damaged(number, format!("holds {} strings, {here} are declared", texts.len())));
            }
            all.extend(texts.into_iter().take(usize::try_from(here).unwrap_or(usize::MAX)));
        }
        return Ok(all);
    }
    if total > MOST_IN_CHUNK {
        return Err(zarr.unsupported(element, format!("{total} strings of {} axes are too many", shape.len())));
    }
    catch_panic(|| array.retrieve_array_subset(&ArraySubset::new_with_shape(shape)).map_err(|e| e.to_string()))
        .flatten()
        .map_err(|cause| damaged(0, cause))
}

fn fixed(
    zarr: &Zarr,
    element: &str,
    node: &ZarrNode,
    size: u64,
    encoding: Encoding,
) -> Result<Vec<String>, ArrayError> {
    let shape = zarr.shape(element)?;
    let total = shape.iter().try_fold(1_u64, |n, &c| n.checked_mul(c)).filter(|&n| n <= MOST);
    let Some(total) = total else { return Err(zarr.error(element, "its shape is too large: it is damaged")) };
    plausible(zarr, element, total)?;
    if size == 0 {
        // numpy's `<U0`: nothing is stored.
        let count = usize::try_from(total.min(MOST_IN_CHUNK)).unwrap_or(0);
        return Ok(vec![String::new(); count]);
    }
    let bytes = bytes(zarr, element, node, size)?;
    let size = usize::try_from(size).map_err(|_| zarr.error(element, "its strings are too long"))?;
    bytes
        .chunks_exact(size)
        .map(|text| decode(text, encoding))
        .collect::<Option<Vec<String>>>()
        .ok_or_else(|| zarr.error(element, "holds code points that do not exist: it is damaged"))
}

/// Reads elements of `size` bytes as bytes, with a last axis of `size`.
pub fn bytes(zarr: &Zarr, element: &str, node: &ZarrNode, size: u64) -> Result<Vec<u8>, ArrayError> {
    let shape = zarr.shape(element)?;
    plausible(zarr, element, shape.iter().fold(1_u64, |n, &c| n.saturating_mul(c)))?;
    let rank = shape.len();
    let mut metadata = node.metadata.clone();
    let lengthen = |value: Option<&mut Value>| {
        if let Some(Value::Array(axes)) = value {
            axes.push(json!(size));
        }
    };
    lengthen(metadata.get_mut("shape"));
    if node.version == 2 {
        lengthen(metadata.get_mut("chunks"));
        metadata.insert("dtype".to_owned(), json!("|u1"));
    } else {
        lengthen(metadata.get_mut("chunk_grid").and_then(|g| g.get_mut("configuration")?.get_mut("chunk_shape")));
        metadata.insert("data_type".to_owned(), json!("uint8"));
        metadata.remove("dimension_names");
    }
    if node.version == 2 && rank > 1 && metadata.get("order") == Some(&json!("F")) {
        return Err(zarr.unsupported(element, "records and fixed-length text in F order are not read; rewrite it"));
    }
    metadata.insert("order".to_owned(), json!("C"));
    metadata.insert("fill_value".to_owned(), json!(0));
    if node.version != 2 {
        metadata.remove("order");
    }
    let bytes_node =
        ZarrNode { kind: NodeKind::Array, version: node.version, metadata, attributes: serde_json::Map::new() };
    let array = open::with_trailing(zarr, element, &bytes_node, Dtype::U8, true)?;
    array.read_all(MOST, &Counters::default())
}

/// One fixed-length string; none where it holds code points that do not exist.
pub fn decode(text: &[u8], encoding: Encoding) -> Option<String> {
    if encoding == Encoding::Bytes {
        let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
        return Some(String::from_utf8_lossy(text.get(..end)?).into_owned());
    }
    let points = text.as_chunks::<4>().0.iter().map(|point| match encoding {
        Encoding::Utf32Big => u32::from_be_bytes(*point),
        _ => u32::from_le_bytes(*point),
    });
    points.take_while(|&point| point != 0).map(char::from_u32).collect()
}

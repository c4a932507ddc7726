//! Strings: variable-length ones chunk by chunk, fixed-length ones as arrays of bytes with one more axis.

use serde_json::Value;

use super::chain::{Chain, Element};
use super::class::{self, ElementClass, Encoding};
use super::node::ZarrNode;
use super::{Zarr, layout, open, source};
use crate::array::codec::shard::runs;
use crate::array::container::{Container, NodeKind};
use crate::array::{ArrayError, Counters, codec, grid};

/// Maximum strings of an array, in case its shape is wrong: 64 times the largest atlas.
const MOST: u64 = 1 << 33;
/// Maximum strings of a chunk.
const MOST_IN_CHUNK: u64 = 1 << 28;

/// Maximum stored bytes of a chunk of strings.
const MOST_STORED: u64 = 2 << 30;
/// Maximum bytes of a fixed-length string, or of a record.
const MOST_BYTES: usize = 64 << 20;

/// Up to this many strings are accepted without a check of the stored size: they take 400 MB.
const FREE: u64 = 1 << 24;

/// Fails if there are more strings than the stored bytes can have: unwritten chunks take no bytes, but their strings would take memory.
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
    let stored = Element { dtype: None, size: 0, word: 0, fill: Vec::new() };
    let layout = layout::of(node, &stored).map_err(|cause| zarr.unsupported(element, cause))?;
    let total = layout.shape.iter().try_fold(1_u64, |n, &c| n.checked_mul(c)).filter(|&n| n <= MOST);
    let Some(total) = total else { return Err(zarr.error(element, "its shape is too large: it is damaged")) };
    if total == 0 {
        return Ok(Vec::new());
    }
    plausible(zarr, element, total)?;
    let in_chunk = layout.outer.iter().try_fold(1_u64, |n, &c| n.checked_mul(c));
    let sizes = |axes: &[u64]| axes.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<usize>>>();
    let (Some(shape), Some(chunk), Some(_)) =
        (sizes(&layout.shape), sizes(&layout.outer), in_chunk.filter(|&n| n <= MOST_IN_CHUNK.min(total.max(FREE))))
    else {
        return Err(zarr.unsupported(element, "its chunks are too large; rewrite it in smaller ones"));
    };
    let kind = Kind { lossy: class::is_bytes(node), fill: fill_text(node) };
    let files = open::files(zarr, element, layout.keys);
    let grid = grid(&layout.shape, &layout.outer);
    let mut all = vec![String::new(); shape.iter().product()];
    for number in 0..grid.iter().product::<u64>() {
        let texts = match files.open(&source::indices(number, &grid), number)? {
            None => vec![kind.fill.clone(); chunk.iter().product()],
            Some(blob) => {
                let stored = blob.all(MOST_STORED).map_err(|e| files.damaged(number, e.to_string()))?;
                kind.decode(&layout.chain, &stored, &chunk).map_err(|cause| files.damaged(number, cause))?
            }
        };
        scatter(&shape, &chunk, usize::try_from(number).unwrap_or(usize::MAX), texts, &mut all);
    }
    Ok(all)
}

/// Moves the strings of a chunk to their positions in the array.
fn scatter(shape: &[usize], chunk: &[usize], number: usize, mut texts: Vec<String>, all: &mut [String]) {
    runs(shape, chunk, number, |from, to, len| {
        if let (Some(places), Some(texts)) = (all.get_mut(to..to + len), texts.get_mut(from..from + len)) {
            places.swap_with_slice(texts);
        }
    });
}

/// The fill value.
fn fill_text(node: &ZarrNode) -> String {
    match node.metadata.get("fill_value") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// How to decode variable-length strings.
struct Kind {
    /// Whether they are bytes that need not be UTF-8.
    lossy: bool,
    fill: String,
}

impl Kind {
    /// Decodes the strings of a chunk, or of a shard.
    fn decode(&self, chain: &Chain, stored: &[u8], shape: &[usize]) -> Result<Vec<String>, String> {
        let (chunk_shape, index, inner) = match chain {
            Chain::Chunk(stages) => {
                let bytes = codec::decode_unsized(stages, stored)?;
                return self.parse(&bytes, shape.iter().product());
            }
            Chain::Shard { chunk_shape, index, inner } => (chunk_shape, index, inner),
        };
        let chunk: Vec<usize> = chunk_shape.iter().filter_map(|&n| usize::try_from(n).ok()).collect();
        if chunk.len() != shape.len() || shape.iter().zip(&chunk).any(|(s, c)| *c == 0 || s % c != 0) {
            return Err("the shard shape is not a multiple of the chunk shape".to_owned());
        }
        let mut all = vec![String::new(); shape.iter().product()];
        let count = shape.iter().zip(&chunk).map(|(s, c)| s / c).product();
        for (number, part) in index.split(stored, count)?.into_iter().enumerate() {
            let texts = match part {
                Some(part) => self.decode(inner, part, &chunk)?,
                None => vec![self.fill.clone(); chunk.iter().product()],
            };
            scatter(shape, &chunk, number, texts, &mut all);
        }
        Ok(all)
    }

    /// Parses numcodecs' `vlen-utf8` and `vlen-bytes`: the number of strings, then length and bytes of each.
    fn parse(&self, bytes: &[u8], count: usize) -> Result<Vec<String>, String> {
        let cut = || "the strings end early".to_owned();
        let next = |bytes: &mut &[u8]| -> Result<usize, String> {
            let (number, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
            *bytes = rest;
            Ok(u32::from_le_bytes(*number) as usize)
        };
        let mut rest = bytes;
        let found = next(&mut rest)?;
        if found != count {
            return Err(format!("holds {found} strings, {count} are declared"));
        }
        if rest.len() / 4 < count {
            return Err(cut());
        }
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let len = next(&mut rest)?;
            let (text, after) = rest.split_at_checked(len).ok_or_else(cut)?;
            rest = after;
            texts.push(match std::str::from_utf8(text) {
                Ok(text) => text.to_owned(),
                Err(_) if self.lossy => String::from_utf8_lossy(text).into_owned(),
                Err(_) => return Err("holds a string that is not UTF-8".to_owned()),
            });
        }
        Ok(texts)
    }
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
        // numpy's `<U0` stores nothing.
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

/// Reads elements of `size` bytes as bytes, with one more axis.
pub fn bytes(zarr: &Zarr, element: &str, node: &ZarrNode, size: u64) -> Result<Vec<u8>, ArrayError> {
    let shape = zarr.shape(element)?;
    plausible(zarr, element, shape.iter().fold(1_u64, |n, &c| n.saturating_mul(c)))?;
    let size = usize::try_from(size).ok().filter(|&size| size <= MOST_BYTES);
    let size = size.ok_or_else(|| zarr.unsupported(element, "its strings are too long"))?;
    let is_wide = class::of(node) == ElementClass::FixedText { size: size as u64, encoding: Encoding::Utf32Little };
    let mut fill = vec![0; size];
    if let (true, Some(Value::String(text))) = (is_wide, node.metadata.get("fill_value")) {
        let points = text.chars().flat_map(|char| u32::from(char).to_le_bytes());
        fill.iter_mut().zip(points).for_each(|(place, byte)| *place = byte);
    }
    let word = if is_wide { 4 } else { 1 };
    let array = open::bytes(zarr, element, node, fill, word)?;
    array.read_all(MOST, &Counters::default())
}

/// Decodes a fixed-length string; `None` if it has invalid code points.
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

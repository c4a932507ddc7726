//! Opens an array: makes a source of chunks from metadata.

use std::sync::Arc;

use serde_json::Value;

use super::chain::{Chain, Element};
use super::layout::{self, Keys};
use super::node::ZarrNode;
use super::shard::Shards;
use super::source::{ChunkFiles, Files, StoredChunks};
use super::{Zarr, scalar};
use crate::array::codec::Stage;
use crate::array::container::Container;
use crate::array::{Array, ArrayError, ChunkSource, Dtype, is_chunk};

/// Opens an array of numbers or booleans.
pub fn numbers(zarr: &Zarr, element: &str, node: &ZarrNode, dtype: Dtype) -> Result<Array, ArrayError> {
    let value = node.metadata.get("fill_value").unwrap_or(&Value::Null);
    let fill = scalar::bytes(dtype, value)
        .ok_or_else(|| zarr.error(element, format!("its fill value {value} is no {dtype}: the metadata is damaged")))?;
    let size = dtype.size();
    open(zarr, element, node, Element { dtype: Some(dtype), size, word: size, fill }, dtype, None)
}

/// Opens an array whose elements have `size` bytes as an array of bytes with one more axis, of that size.
pub fn bytes(zarr: &Zarr, element: &str, node: &ZarrNode, fill: Vec<u8>, word: usize) -> Result<Array, ArrayError> {
    let size = fill.len();
    open(zarr, element, node, Element { dtype: None, size, word, fill }, Dtype::U8, Some(size as u64))
}

fn open(
    zarr: &Zarr,
    element: &str,
    node: &ZarrNode,
    stored: Element,
    dtype: Dtype,
    trailing: Option<u64>,
) -> Result<Array, ArrayError> {
    let layout::Layout { mut shape, mut outer, keys, chain } =
        layout::of(node, &stored).map_err(|cause| zarr.unsupported(element, cause))?;
    shape.extend(trailing);
    outer.extend(trailing);
    let mut chunk_shape = match &chain {
        Chain::Shard { chunk_shape, .. } => chunk_shape.clone(),
        Chain::Chunk(_) => outer.clone(),
    };
    if let Chain::Shard { .. } = chain {
        chunk_shape.extend(trailing);
    }
    let array_bytes = shape.iter().fold(dtype.size() as u64, |n, &c| n.saturating_mul(c));
    let chunk_bytes = chunk_shape
        .iter()
        .try_fold(dtype.size() as u64, |n, &c| n.checked_mul(c))
        .filter(|&bytes| is_chunk(bytes, array_bytes))
        .ok_or_else(|| zarr.unsupported(element, "its chunks are too large; rewrite it in smaller ones"))?;
    let files = |stages: Vec<Stage>| Files {
        trailing: trailing.is_some(),
        stages,
        fill: stored.fill.clone(),
        chunk_bytes,
        ..files(zarr, element, keys.clone())
    };
    let source: Arc<dyn ChunkSource> = match chain {
        Chain::Chunk(stages) => Arc::new(StoredChunks(ChunkFiles::new(files(stages), &shape, &outer))),
        Chain::Shard { index, inner, .. } => {
            let stages = inner.whole(&chunk_shape, &stored).map_err(|cause| zarr.unsupported(element, cause))?;
            let shards = Shards::new(files(stages), &shape, &outer, &chunk_shape, index);
            let no_multiple = || zarr.error(element, "the shard shape is not a multiple of the chunk shape");
            Arc::new(StoredChunks(shards.ok_or_else(no_multiple)?))
        }
    };
    Ok(Array::new((Arc::clone(&zarr.name), element.into()), dtype, (shape, chunk_shape), source))
}

/// The files of an array; the caller sets how to decode them.
pub fn files(zarr: &Zarr, element: &str, keys: Keys) -> Files {
    Files {
        store: Arc::clone(&zarr.name),
        element: element.into(),
        root: zarr.root.join(element),
        opened: zarr.opened,
        metadata: zarr.identity(),
        keys,
        trailing: false,
        stages: Vec::new(),
        fill: Vec::new(),
        chunk_bytes: 0,
    }
}

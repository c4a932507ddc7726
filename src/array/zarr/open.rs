//! Opens an array: zarrs checks the metadata and brings v2 into the words of v3; the codecs that are decoded here are
//! then picked out.

use std::sync::Arc;

use serde_json::Value;
use zarrs::array::{Array as ZarrsArray, ArrayMetadata};
use zarrs::storage::ReadableStorageTraits;

use super::Zarr;
use super::library::ZarrsLibrary;
use super::node::ZarrNode;
use super::shard::Shards;
use super::source::{ChunkFiles, Files};
use crate::array::catch_panic::catch_panic;
use crate::array::codec::Stage;
use crate::array::container::Container;
use crate::array::{Array, ArrayError, ChunkSource, Dtype, is_chunk};

/// zarrs' array over any readable storage.
pub type Zarrs = ZarrsArray<dyn ReadableStorageTraits>;

/// Lets zarrs understand a node's metadata.
pub fn zarrs(zarr: &Zarr, element: &str, node: &ZarrNode) -> Result<Zarrs, ArrayError> {
    let unsupported = |cause: String| zarr.unsupported(element, cause);
    let value = Value::Object(node.metadata.clone());
    let metadata = match node.version {
        2 => serde_json::from_value(value).map(ArrayMetadata::V2),
        _ => serde_json::from_value(value).map(ArrayMetadata::V3),
    }
    .map_err(|e| zarr.error(element, format!("its metadata is damaged: {e}")))?;
    // The array is the root of a storage of its own: zarrs refuses paths with `__`, such as old anndata's
    // `obs/__categories`.
    let store = zarr.root.join(element).storage();
    let open = || {
        let array = ZarrsArray::new_with_metadata(store, "/", metadata).map_err(|e| e.to_string())?;
        array.to_v3().map_err(|e| e.to_string())
    };
    let array = catch_panic(open).flatten();
    array.map_err(|e| unsupported(format!("not understood: {e}; rewrite it with zstd or blosc alone")))
}

/// How bytes of a chunk become elements, where all of it is done here.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// In the order of writing.
    pub stages: Vec<Stage>,
    pub big: bool,
}

/// The codecs of one array in the words of v3.
enum Codecs {
    Here(Chain),
    Sharded {
        inner: Chain,
        chunk_shape: Vec<u64>,
        checked: bool,
        at_start: bool,
    },
    /// Names, for `info`.
    Library(Vec<String>),
}

pub fn numbers(zarr: &Zarr, element: &str, node: &ZarrNode, dtype: Dtype) -> Result<Array, ArrayError> {
    with_trailing(zarr, element, node, dtype, false)
}

/// Opens an array; with `trailing`, one whose metadata was given a last axis that its chunk keys do not have.
pub fn with_trailing(
    zarr: &Zarr,
    element: &str,
    node: &ZarrNode,
    dtype: Dtype,
    trailing: bool,
) -> Result<Array, ArrayError> {
    let fail = |cause: &str| zarr.error(element, cause);
    let array = zarrs(zarr, element, node)?;
    let ArrayMetadata::V3(metadata) = array.metadata() else {
        return Err(fail("its metadata is not understood"));
    };
    let shape = metadata.shape.clone();
    let grid = serde_json::to_value(&metadata.chunk_grid).unwrap_or_default();
    if name(&grid) != "regular" {
        return Err(zarr.unsupported(element, format!("a {} chunk grid is not read; rewrite it", name(&grid))));
    }
    let outer = sizes(&grid, "chunk_shape").unwrap_or_default();
    if outer.len() != shape.len() || outer.contains(&0) {
        return Err(fail("the chunk shape does not fit the shape: the metadata is damaged"));
    }
    let codecs: Vec<Value> =
        metadata.codecs.iter().map(|codec| serde_json::to_value(codec).unwrap_or_default()).collect();
    let fill = array.fill_value().as_ne_bytes().to_vec();
    if fill.len() != dtype.size() {
        return Err(fail("its fill value has another size than its elements"));
    }
    let codecs = codecs_of(&codecs, &outer);
    let chunk_shape = match &codecs {
        Codecs::Sharded { chunk_shape, .. } => chunk_shape.clone(),
        _ => outer.clone(),
    };
    let array_bytes = shape.iter().fold(dtype.size() as u64, |n, &c| n.saturating_mul(c));
    let chunk_bytes = chunk_shape
        .iter()
        .try_fold(dtype.size() as u64, |n, &c| n.checked_mul(c))
        .filter(|&bytes| is_chunk(bytes, array_bytes))
        .ok_or_else(|| zarr.unsupported(element, "its chunks are too large; rewrite it in smaller ones"))?;
    let named: Arc<str> = element.into();
    let files = |chain: Chain| Files {
        store: Arc::clone(&zarr.name),
        element: Arc::clone(&named),
        root: zarr.root.join(element),
        opened: zarr.opened,
        metadata: zarr.identity(),
        zarrs: Arc::new(array.with_storage(array.storage())),
        trailing: trailing && (node.version == 3 || shape.len() > 1),
        chain,
        fill: fill.clone(),
        size: dtype.size(),
        chunk_bytes,
    };
    let source: Arc<dyn ChunkSource> = match codecs {
        Codecs::Here(chain) => Arc::new(ChunkFiles::new(files(chain), &shape, &outer)),
        Codecs::Sharded { inner, chunk_shape, checked, at_start } => Arc::new(
            Shards::new(files(inner), &shape, &outer, &chunk_shape, checked, at_start)
                .ok_or_else(|| fail("the shard shape is not a multiple of the chunk shape"))?,
        ),
        Codecs::Library(_) if trailing => {
            return Err(zarr.unsupported(element, "fixed-length text in these codecs is not read; rewrite it"));
        }
        Codecs::Library(names) => Arc::new(ZarrsLibrary::new(files(Chain::default()), &shape, &outer, names)),
    };
    Ok(Array::new((Arc::clone(&zarr.name), named), dtype, (shape, chunk_shape), source))
}

/// A codec's name: codecs without configuration may be bare strings.
fn name(codec: &Value) -> &str {
    codec.as_str().or_else(|| codec.get("name").and_then(Value::as_str)).unwrap_or_default()
}

fn setting<'a>(codec: &'a Value, key: &str) -> Option<&'a Value> {
    codec.get("configuration")?.get(key)
}

fn sizes(codec: &Value, key: &str) -> Option<Vec<u64>> {
    setting(codec, key)?.as_array()?.iter().map(Value::as_u64).collect()
}

fn codecs_of(codecs: &[Value], outer: &[u64]) -> Codecs {
    let library = || Codecs::Library(codecs.iter().map(|codec| name(codec).to_owned()).collect());
    if let Some(chain) = chain(codecs) {
        return Codecs::Here(chain);
    }
    let [shard] = codecs else { return library() };
    if name(shard) != "sharding_indexed" {
        return library();
    }
    let list = |key| setting(shard, key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let (Some(inner), Some(index), Some(chunk_shape)) =
        (chain(list("codecs")), chain(list("index_codecs")), sizes(shard, "chunk_shape"))
    else {
        return library();
    };
    let checked = match index.stages.as_slice() {
        [] => false,
        [Stage::Crc32c] => true,
        _ => return library(),
    };
    let at_start = setting(shard, "index_location").and_then(Value::as_str) == Some("start");
    if index.big || chunk_shape.len() != outer.len() {
        return library();
    }
    Codecs::Sharded { inner, chunk_shape, checked, at_start }
}

/// A chain of codecs that are all decoded here.
fn chain(codecs: &[Value]) -> Option<Chain> {
    let at = codecs.iter().position(|codec| name(codec) == "bytes")?;
    let (before, rest) = codecs.split_at_checked(at)?;
    let (bytes, rest) = rest.split_first()?;
    let big = setting(bytes, "endian").and_then(Value::as_str) == Some("big");
    let mut stages = Vec::new();
    for codec in before {
        match (name(codec), stage(codec)) {
            // v2 calls shuffle a filter of elements; for little-endian ones it is one of bytes.
            ("shuffle" | "numcodecs.shuffle", Some(shuffle)) if !big => stages.push(shuffle),
            // A transpose that moves nothing.
            ("transpose", _) if sizes(codec, "order")?.iter().enumerate().all(|(axis, &to)| to == axis as u64) => {}
            _ => return None,
        }
    }
    for codec in rest {
        stages.push(stage(codec)?);
    }
    Some(Chain { stages, big })
}

fn stage(codec: &Value) -> Option<Stage> {
    Some(match name(codec) {
        "gzip" | "numcodecs.gzip" => Stage::Gzip,
        "zlib" | "numcodecs.zlib" => Stage::Zlib,
        "zstd" | "numcodecs.zstd" => Stage::Zstd,
        "blosc" | "numcodecs.blosc" => Stage::Blosc,
        "crc32c" => Stage::Crc32c,
        "shuffle" | "numcodecs.shuffle" => {
            Stage::Shuffle(setting(codec, "elementsize").and_then(Value::as_u64).and_then(|n| n.try_into().ok())?)
        }
        _ => return None,
    })
}

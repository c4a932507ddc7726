//! Chunks of a zarr v3 array, compressed and packed into shards (codec `sharding_indexed` of the zarr specifications).

use serde_json::{Value, json};

use crate::array::codec::blosc;

/// How chunks are compressed; lz4 (in blosc) is what annbatch's own collections have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    Lz4,
    Zstd,
    None,
}

/// Decoded bytes of a shard, at most, unless one chunk is larger.
const SHARD: u64 = 128 << 20;
/// Offset and length in the index for a missing chunk.
const ABSENT: u64 = u64::MAX;
const LEVEL: u8 = 5;

impl Compression {
    /// The zarr codec for chunks whose items have `item` bytes; `None` without compression.
    fn codec(self, item: usize) -> Option<Value> {
        let name = match self {
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::None => return None,
        };
        let configuration =
            json!({"cname": name, "clevel": LEVEL, "shuffle": "shuffle", "typesize": item, "blocksize": 0});
        Some(json!({"name": "blosc", "configuration": configuration}))
    }

    fn encode(self, item: usize, chunk: &[u8]) -> Result<Vec<u8>, String> {
        let name = match self {
            Compression::Lz4 => c"lz4",
            Compression::Zstd => c"zstd",
            Compression::None => return Ok(chunk.to_vec()),
        };
        blosc::encode(name, item, true, 0, chunk).ok_or_else(|| "a chunk cannot be compressed".to_owned())
    }

    fn decode(self, bytes: &[u8], len: usize) -> Option<Vec<u8>> {
        if self == Compression::None {
            return Some(bytes.to_vec());
        }
        let mut out = vec![0; len];
        (blosc::decode(bytes, &mut out).ok()? == len).then_some(out)
    }
}

/// How the chunks of an array are grouped into shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards {
    /// Chunks in a shard, along the first axis.
    pub each: u64,
    /// Bytes of an item, for the compressor.
    pub item: usize,
}

/// Rewrites the metadata of an unsharded array as sharded, and returns its sharding; `None` for a group.
pub fn sharded(metadata: &mut Value, compression: Compression) -> Option<Shards> {
    if metadata["node_type"] != "array" {
        return None;
    }
    let numbers = |value: &Value| value.as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>();
    let shape = numbers(&metadata["shape"])?;
    let chunk = numbers(&metadata["chunk_grid"]["configuration"]["chunk_shape"])?;
    // Strings have variable length; 8 is the size of a pointer to one.
    let item = match metadata["data_type"].as_str() {
        Some("bool" | "int8" | "uint8") => 1,
        Some("int16" | "uint16" | "float16") => 2,
        Some("int32" | "uint32" | "float32") => 4,
        _ => 8,
    };
    let bytes = chunk.iter().product::<u64>().saturating_mul(item as u64).max(1);
    let (length, step) = (*shape.first()?, *chunk.first()?);
    let each = (SHARD / bytes).clamp(1, length.div_ceil(step.max(1)).max(1));
    let shard: Vec<u64> = std::iter::once(step * each).chain(chunk.iter().skip(1).copied()).collect();
    let mut codecs = metadata["codecs"].as_array()?.clone();
    codecs.extend(compression.codec(item));
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = json!(shard);
    metadata["codecs"] = json!([{"name": "sharding_indexed", "configuration": {
        "chunk_shape": chunk,
        "codecs": codecs,
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }}]);
    Some(Shards { each, item })
}

/// The index of a shard that is being written: chunks are appended first, the index is last.
#[derive(Default)]
pub struct Index {
    entries: Vec<[u64; 2]>,
    len: u64,
}

impl Index {
    /// Compresses the next chunk; returns the bytes to append to the shard.
    pub fn add(&mut self, shards: Shards, compression: Compression, chunk: &[u8]) -> Result<Vec<u8>, String> {
        let bytes = compression.encode(shards.item, chunk)?;
        self.entries.push([self.len, bytes.len() as u64]);
        self.len += bytes.len() as u64;
        Ok(bytes)
    }

    /// The encoded index, with its CRC-32C.
    pub fn bytes(&self, shards: Shards) -> Vec<u8> {
        let absent = std::iter::repeat([ABSENT; 2]);
        let all = self.entries.iter().copied().chain(absent).take(shards.each as usize);
        let mut bytes: Vec<u8> = all.flatten().flat_map(u64::to_le_bytes).collect();
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }
}

/// Decodes the i-th chunk of a shard; it has `len` bytes.
pub fn chunk(shard: &[u8], shards: Shards, compression: Compression, i: u64, len: usize) -> Option<Vec<u8>> {
    let index = shard.len().checked_sub(shards.each as usize * 16 + 4)?;
    let entry = shard.get(index + i as usize * 16..)?;
    let number = |at: usize| Some(u64::from_le_bytes(*entry.get(at..)?.first_chunk()?) as usize);
    let (offset, size) = (number(0)?, number(8)?);
    compression.decode(shard.get(offset..offset.checked_add(size)?)?, len)
}

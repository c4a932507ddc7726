//! A shard: its index, at either end, with and without a checksum; the input is the file.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use super::{place, read};

/// One store for each kind of shard.
static STORES: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let place = place("shard");
    let mut stores = Vec::new();
    for location in ["start", "end"] {
        for (sum, codec) in
            [(", {\"name\": \"crc32c\"}", ""), ("", ", {\"name\": \"gzip\", \"configuration\": {\"level\": 1}}")]
        {
            let store = place.join(format!("{}.zarr", stores.len()));
            fs::create_dir_all(store.join("a/c")).unwrap();
            fs::write(store.join("zarr.json"), r#"{"zarr_format": 3, "node_type": "group"}"#).unwrap();
            let little = r#"{"name": "bytes", "configuration": {"endian": "little"}}"#;
            let metadata = format!(
                r#"{{"zarr_format": 3, "node_type": "array", "shape": [10], "data_type": "int16", "fill_value": 0,
                "chunk_grid": {{"name": "regular", "configuration": {{"chunk_shape": [16]}}}},
                "chunk_key_encoding": {{"name": "default"}},
                "codecs": [{{"name": "sharding_indexed", "configuration": {{"chunk_shape": [4],
                "codecs": [{little}{codec}], "index_codecs": [{little}{sum}], "index_location": "{location}"}}}}]}}"#
            );
            fs::write(store.join("a/zarr.json"), metadata).unwrap();
            stores.push(store);
        }
    }
    stores
});

/// One input.
pub fn run(data: &[u8]) {
    let Some((&kind, shard)) = data.split_first() else { return };
    let store = &STORES[usize::from(kind) % STORES.len()];
    let mut shard = shard.to_vec();
    // Without a correct checksum, only the check would be reached.
    if kind & 0x80 != 0 && kind % 4 % 2 == 0 {
        let at = if kind % 4 == 0 { 0 } else { shard.len().saturating_sub(68) };
        if let Some(index) = shard.get_mut(at..at + 68) {
            let sum = shufflefs::array::fuzzing::crc32c(&index[..64]);
            index[64..].copy_from_slice(&sum.to_le_bytes());
        }
    }
    fs::write(store.join("a/c/0"), shard).unwrap();
    read(store, "a");
}

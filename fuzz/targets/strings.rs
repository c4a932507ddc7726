//! Chunks of strings, of any length and of fixed length: the input is the chunk's file.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use super::{place, read};

static STORE: LazyLock<PathBuf> = LazyLock::new(|| {
    let store = place("strings").join("store.zarr");
    for (name, dtype, filters) in [("a", "|O", r#"[{"id": "vlen-utf8"}]"#), ("b", "<U3", "null"), ("c", "|S5", "null")]
    {
        fs::create_dir_all(store.join(name)).unwrap();
        let metadata = format!(
            r#"{{"zarr_format": 2, "shape": [6], "chunks": [4], "dtype": "{dtype}", "fill_value": null, "order": "C",
            "filters": {filters}, "compressor": null}}"#
        );
        fs::write(store.join(name).join(".zarray"), metadata).unwrap();
    }
    fs::write(store.join(".zgroup"), r#"{"zarr_format": 2}"#).unwrap();
    store
});

/// One input.
pub fn run(data: &[u8]) {
    let Some((&kind, chunk)) = data.split_first() else { return };
    let store = &*STORE;
    let name = ["a", "b", "c"][usize::from(kind) % 3];
    fs::write(store.join(name).join("0"), chunk).unwrap();
    read(store, name);
}

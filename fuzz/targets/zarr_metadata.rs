//! Metadata of an array, v2 or v3, or of a whole store (consolidated): the input is the JSON.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use super::{mount, place, read};

static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
    let place = place("metadata");
    for store in ["v2", "v3"] {
        fs::create_dir_all(place.join(store).join("a/c")).unwrap();
        for chunk in ["0", "c/0", "c/1"] {
            fs::write(place.join(store).join("a").join(chunk), [7; 32]).unwrap();
        }
    }
    fs::write(place.join("v2/.zgroup"), r#"{"zarr_format": 2}"#).unwrap();
    fs::write(place.join("v3/zarr.json"), r#"{"zarr_format": 3, "node_type": "group"}"#).unwrap();
    for whole in ["whole2", "whole3"] {
        fs::create_dir_all(place.join(whole)).unwrap();
    }
    place
});

/// One input.
pub fn run(data: &[u8]) {
    let Some((&kind, json)) = data.split_first() else { return };
    let (file, store) = match kind % 4 {
        0 => ("a/.zarray", "v2"),
        1 => ("a/zarr.json", "v3"),
        2 => (".zmetadata", "whole2"),
        _ => ("zarr.json", "whole3"),
    };
    let store = PLACE.join(store);
    fs::write(store.join(file), json).unwrap();
    read(&store, "a");
    if kind % 4 > 1 {
        mount(&store);
    }
}

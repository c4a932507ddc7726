//! A zip archive of a small zarr store: the input is the archive.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use super::{mount, place};

static STORE: LazyLock<PathBuf> = LazyLock::new(|| place("zip").join("store.zarr.zip"));

/// One input.
pub fn run(data: &[u8]) {
    fs::write(&*STORE, data).unwrap();
    mount(&STORE);
}

//! A zip archive of a small zarr store: the input is the archive.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use shufflefs_fuzz::{mount, place};

static STORE: LazyLock<PathBuf> = LazyLock::new(|| place("zip").join("store.zarr.zip"));

fuzz_target!(|data: &[u8]| {
    fs::write(&*STORE, data).unwrap();
    mount(&STORE);
});

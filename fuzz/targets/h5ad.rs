//! An h5ad with changed bytes: the input is a list of edits (offset, byte) and a length to truncate to.
//!
//! A crash inside libhdf5 is a fault of libhdf5: check the traces for frames of shufflefs.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use super::{corpus, mount, place};

static BASE: LazyLock<(PathBuf, Vec<u8>)> = LazyLock::new(|| {
    (place("h5ad").join("store.h5ad"), fs::read(corpus().join("base.h5ad")).expect("fuzz/seed makes it"))
});

/// One input.
pub fn run(data: &[u8]) {
    let (path, base) = &*BASE;
    let mut bytes = base.clone();
    let (edits, cut) = data.as_chunks::<4>();
    for &[low, middle, value, how] in edits {
        // Half of the edits are near the start of the file, where most of the metadata are.
        let at = usize::from(u16::from_le_bytes([low, middle])) * if how & 1 == 0 { 1 } else { base.len() / 65536 + 1 };
        let len = bytes.len();
        let place = &mut bytes[at % len];
        *place = if how & 2 == 0 { value } else { *place ^ (1 << (value % 8)) };
    }
    if let [low, high, ..] = *cut {
        bytes.truncate(usize::from(u16::from_le_bytes([low, high])));
    }
    fs::write(path, bytes).unwrap();
    mount(path);
}

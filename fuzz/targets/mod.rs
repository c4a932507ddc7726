//! The fuzz targets, one file each, and shared functions. `fuzz/main.rs` runs them under libFuzzer, `tests/it/fuzz_inputs.rs` with
//! the inputs of their corpora.

use std::fs;
use std::path::{Path, PathBuf};

use shufflefs::anndata::names::MatrixName;
use shufflefs::array::{Counters, kinds};
use shufflefs::session::{Session, Spec};

pub mod answers;
pub mod codecs;
pub mod filter;
pub mod h5ad;
pub mod layouts;
pub mod options;
pub mod shard;
pub mod strings;
pub mod tokens;
pub mod tree;
pub mod urls;
pub mod zarr_metadata;
pub mod zip;

/// A target: its name, and the function that runs an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. The corpus of each is `fuzz/corpus/NAME`.
pub const TARGETS: [Target; 13] = [
    ("answers", answers::run),
    ("codecs", codecs::run),
    ("filter", filter::run),
    ("h5ad", h5ad::run),
    ("layouts", layouts::run),
    ("options", options::run),
    ("shard", shard::run),
    ("strings", strings::run),
    ("tokens", tokens::run),
    ("tree", tree::run),
    ("urls", urls::run),
    ("zarr_metadata", zarr_metadata::run),
    ("zip", zip::run),
];

/// The directory of the corpora.
pub fn corpus() -> PathBuf {
    // The manifest is that of the repository or of its directory `fuzz`.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if root.ends_with("fuzz") { root.join("corpus") } else { root.join("fuzz/corpus") }
}

/// Makes panics end the process, except those of a library that are caught and reported as errors.
pub fn end_at_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if !shufflefs::array::catch_panic::is_catching_panics() {
            eprintln!("{panic}");
            std::process::abort();
        }
    }));
}

/// The maximum of bytes that a target reads of one array.
pub const LIMIT: u64 = 16 << 20;

/// An empty directory of this process in /dev/shm.
pub fn place(name: &str) -> PathBuf {
    let place = PathBuf::from(format!("/dev/shm/shufflefs-fuzz/{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    place
}

/// Opens one array in every way; any result is fine if it returns.
pub fn read(store: &Path, element: &str) {
    let Ok(container) = kinds::open(store) else { return };
    let _ = (container.shape(element), container.dtype_name(element), container.attributes(element));
    let _ = container.strings(element);
    if let Ok(array) = container.array(element) {
        let _ = array.read_all(LIMIT, &Counters::default());
        let _ = array.source.filters();
    }
}

/// Opens a store as a mount does, then reads its matrix.
pub fn mount(store: &Path) {
    for x in [MatrixName::X, MatrixName::Layer("dense".to_owned())] {
        let spec = Spec { x, ..Spec::of(vec![store.to_owned()], store.with_file_name("index")) };
        let Ok(session) = Session::builder(spec).unprobed().derive() else { continue };
        for array in session.collection.stores.iter().flat_map(|store| store.x().matrix.arrays()) {
            let _ = array.read_all(LIMIT, &Counters::default());
        }
    }
}

//! What the targets share: a place in memory for the store under test.

use std::fs;
use std::path::{Path, PathBuf};

use shufflefs::array::{Counters, kinds};
use shufflefs::anndata::names::MatrixName;
use shufflefs::session::{Session, Spec};

/// Bytes that a target reads of one array at most.
pub const LIMIT: u64 = 16 << 20;

/// A directory of this process in /dev/shm, empty.
pub fn place(name: &str) -> PathBuf {
    let place = PathBuf::from(format!("/dev/shm/shufflefs-fuzz/{name}-{}", std::process::id()));
    // libfuzzer's own hook would end the process at panics of libraries that are caught and told as errors.
    std::panic::set_hook(Box::new(|panic| {
        if !shufflefs::array::catch_panic::is_catching_panics() {
            eprintln!("{panic}");
            std::process::abort();
        }
    }));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    place
}

/// Opens one array in every way there is; what comes does not matter, only that it comes.
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

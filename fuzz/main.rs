//! All fuzz targets in one program, as linking HDF5 takes longer than compiling them: SHUFFLEFS_FUZZ_TARGET names the one to run.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

mod targets;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    targets::end_at_panics();
    let name = std::env::var("SHUFFLEFS_FUZZ_TARGET").expect("the name of a target");
    targets::TARGETS.iter().find(|(other, _)| *other == name).expect("a target").1
});

fuzz_target!(|data: &[u8]| TARGET(data));

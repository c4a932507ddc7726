//! `--version`: what a bug report must say about the program.

/// The commit of a package; the packaging script sets the variable.
const COMMIT: Option<&str> = option_env!("SHUFFLEFS_COMMIT");

/// The FUSE protocol version of the crate `fuser`.
const FUSE: &str = "7.40";

/// Four lines: version and commit, features, HDF5, FUSE.
pub fn text() -> String {
    let features: &[(&str, bool)] = &[("hdf5", cfg!(feature = "hdf5")), ("remote", cfg!(feature = "remote"))];
    let on: Vec<&str> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    format!(
        "shufflefs {} (commit {})\nfeatures: {}\nHDF5: {}\nFUSE: protocol {FUSE}\n",
        env!("CARGO_PKG_VERSION"),
        COMMIT.unwrap_or("unknown: not built by packaging/"),
        if on.is_empty() { "none".to_owned() } else { on.join(", ") },
        hdf5(),
    )
}

#[cfg(feature = "hdf5")]
fn hdf5() -> String {
    let (major, minor, patch) = ::hdf5::library_version();
    format!("{major}.{minor}.{patch}")
}

#[cfg(not(feature = "hdf5"))]
fn hdf5() -> String {
    "none: this build reads zarr only".to_owned()
}

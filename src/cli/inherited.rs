//! What a process inherits and changes for itself: environment variables that C libraries read, and the soft limit of open files. The
//! command of `run` gets both back as they were.
//!
//! libhdf5 and blosc read settings from the environment on first use. On clusters a module may set a connector (`HDF5_VOL_CONNECTOR`), a
//! driver (`HDF5_DRIVER`) or plugins that our static library lacks, so that no file could be opened. Nor must served bytes depend on them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Prefixes of variables that a C library in this process reads.
const PREFIXES: [&[u8]; 2] = [b"HDF5_", b"BLOSC_"];
/// Maximum of the raised limit: some systems have no hard limit, and programs that we start may close each possible descriptor.
const MOST_FILES: u64 = 1 << 20;

/// The inherited values of what was changed.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Variables that were removed.
    pub variables: Vec<(OsString, OsString)>,
    /// The original limit of open files, if it was raised.
    pub files: Option<Rlimit>,
}

impl Inherited {
    /// Removes the variables and raises the soft limit of open files to the hard one. Call it before any thread exists.
    pub fn take() -> Inherited {
        let variables: Vec<(OsString, OsString)> = std::env::vars_os().filter(|(name, _)| is_read(name)).collect();
        for (name, _) in &variables {
            // SAFETY: this process has one thread, so nobody reads the environment concurrently.
            unsafe { std::env::remove_var(name) };
        }
        let before = getrlimit(Resource::Nofile);
        let most = before.maximum.unwrap_or(MOST_FILES).min(MOST_FILES);
        let is_less = before.current.is_some_and(|current| current < most);
        let raised = is_less && setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..before }).is_ok();
        Inherited { variables, files: raised.then_some(before) }
    }
}

fn is_read(name: &OsStr) -> bool {
    PREFIXES.iter().any(|prefix| name.as_bytes().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_libraries_read() {
        for name in ["HDF5_VOL_CONNECTOR", "HDF5_DRIVER", "BLOSC_NTHREADS"] {
            assert!(is_read(OsStr::new(name)), "{name}");
        }
        for name in ["HOME", "MY_HDF5_DIR", "HDF5", "RAYON_NUM_THREADS"] {
            assert!(!is_read(OsStr::new(name)), "{name}");
        }
    }
}

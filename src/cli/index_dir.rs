//! The default of `--index-dir`.
//!
//! It is in the user's cache directory. Without a home it is below /tmp, where anybody can create any name, so it is used only if it
//! belongs
//! to this user, is closed to others and no symbolic link.

use std::fs::{self, DirBuilder};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::exit::say;

/// The directory; `None`, with a warning, if the one below /tmp is not safe to use.
pub fn standard() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || variable("HOME").map(|home| home.join(".cache"));
    if let Some(cache) = variable("XDG_CACHE_HOME").or_else(home) {
        return Some(cache.join("shufflefs"));
    }
    let user = rustix::process::geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("shufflefs-{user}"));
    match make_private(&path, user) {
        Ok(()) => Some(path),
        Err(error) => {
            let path = path.display();
            say(&format!("warning: {path} is not used as index directory: {error}; name one with --index-dir"));
            None
        }
    }
}

/// Creates a directory that only this user can enter, or checks that an existing one is such.
fn make_private(path: &Path, user: u32) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(path)?;
    let wrong = match (metadata.is_dir(), metadata.uid() == user, metadata.mode() & 0o077) {
        (false, ..) => "it is no directory".to_owned(),
        (_, false, _) => format!("it belongs to user {}", metadata.uid()),
        (.., 0) => return Ok(()),
        (.., mode) => format!("others may use it (mode {:03o}, not 700)", 0o700 | mode),
    };
    Err(Error::other(wrong))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_a_directory_of_our_own_that_is_closed_to_others() {
        let place = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let ours = place.path().join("ours");
        for _ in 0..2 {
            make_private(&ours, user).unwrap();
            assert_eq!(fs::metadata(&ours).unwrap().mode() & 0o777, 0o700);
        }
        assert!(make_private(&ours, user + 1).unwrap_err().to_string().contains("belongs to"));
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(make_private(&ours, user).unwrap_err().to_string().contains("mode 755"));
        let link = place.path().join("link");
        symlink(&ours, &link).unwrap();
        assert!(make_private(&link, user).unwrap_err().to_string().contains("no directory"));
    }
}

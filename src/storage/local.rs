//! Files of the local file system, which may be a network file system.

use std::fs::{self, File};
use std::io::{self, Error, ErrorKind, IoSliceMut};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::descriptors::{self, Descriptor};
use super::{Address, Kind, Meter, Object, Opened, Ranges, Storage, Version};

/// Slices of one call, at most (Linux's IOV_MAX).
const MAX_PLACES: usize = 1024;

/// The local file system.
#[derive(Debug)]
pub struct Local;

/// Creates a directory and its parents, closed to other users, as their content comes from stores that others may not read. An existing
/// directory is left as it is.
///
/// # Errors
/// Those of the file system.
pub fn make_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Makes an object of a file that is already open.
///
/// # Errors
/// Its metadata cannot be read.
pub fn object(file: File, path: &Path) -> io::Result<Object> {
    let version = Version::of_file(&file.metadata()?);
    let address = Address::new(Arc::new(Local), path.to_path_buf());
    let ranges = Box::new(OpenFile(Descriptor::new(file, path, version.clone())));
    Ok(Object::new(address, Opened { version, ranges }))
}

impl Storage for Local {
    fn open(&self, path: &Path, _: &Arc<Meter>) -> io::Result<Opened> {
        let file = descriptors::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Error::new(ErrorKind::InvalidInput, "not a file"));
        }
        let version = Version::of_file(&metadata);
        let ranges = Box::new(OpenFile(Descriptor::new(file, path, version.clone())));
        Ok(Opened { version, ranges })
    }

    fn kind(&self, path: &Path) -> io::Result<Kind> {
        let kind = fs::metadata(path)?.file_type();
        Ok(if kind.is_file() {
            Kind::Object
        } else if kind.is_dir() {
            Kind::Folder
        } else {
            Kind::Other
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            // Names that are not UTF-8 belong to no store.
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn version(&self, path: &Path) -> io::Result<Version> {
        fs::metadata(path).map(|metadata| Version::of_file(&metadata))
    }

    /// The reason is a newer modification time of the directory (or of its nearest existing parent).
    fn removed_since(&self, path: &Path, since: SystemTime) -> Option<String> {
        let directory = path.ancestors().skip(1).find_map(|directory| fs::metadata(directory).ok())?;
        let changed = directory.modified().is_ok_and(|changed| changed > since);
        changed.then(|| "removed, or its directory written to since".to_owned())
    }

    fn local_path(&self, path: &Path) -> Option<PathBuf> {
        Some(path.to_path_buf())
    }
}

/// An open file.
struct OpenFile(Descriptor);

impl Ranges for OpenFile {
    fn read(&self, offset: u64, places: &mut [IoSliceMut<'_>]) -> io::Result<()> {
        self.0.with(|file| fill(file, offset, places))
    }
}

/// Fills the slices, in order, from a file's byte `offset` on.
///
/// # Errors
/// `UnexpectedEof` if the file ends before; those of the system.
pub fn fill(file: &File, mut offset: u64, places: &mut [IoSliceMut<'_>]) -> io::Result<()> {
    // Borrowed again, because short reads shorten these slices, and the caller's must stay as they are.
    let mut places: Vec<IoSliceMut<'_>> = places.iter_mut().map(|place| IoSliceMut::new(place)).collect();
    let mut places = places.as_mut_slice();
    // Removes leading empty slices: otherwise a read of 0 bytes would look like the end of the file.
    IoSliceMut::advance_slices(&mut places, 0);
    while !places.is_empty() {
        let some = places.len().min(MAX_PLACES);
        match rustix::io::preadv(file, places.get_mut(..some).unwrap_or_default(), offset) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => {
                offset = offset.saturating_add(got as u64);
                IoSliceMut::advance_slices(&mut places, got);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_places_are_filled_in_order_and_an_early_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let object = Address::new(Arc::new(Local), path).open().unwrap();
        assert_eq!(object.len(), 5000);
        let mut parts = vec![[0u8; 2]; 2000];
        let mut places: Vec<IoSliceMut<'_>> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
        places.insert(0, IoSliceMut::new(&mut []));
        object.read_vectored_at(7, &mut places).unwrap();
        assert_eq!(parts.concat(), bytes[7..4007]);
        let error = object.read_exact_at(4999, &mut [0; 2]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_file_is_no_object() {
        let folder = tempfile::tempdir().unwrap();
        let here = Address::new(Arc::new(Local), folder.path().to_path_buf());
        assert_eq!(here.kind().unwrap(), Kind::Folder);
        assert_eq!(here.open().unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(here.join("absent").open().unwrap_err().kind(), ErrorKind::NotFound);
        assert!(here.list().unwrap().is_empty());
    }
}

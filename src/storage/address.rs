//! Names of objects, and open objects.

use std::fmt;
use std::io::{self, Error, ErrorKind, IoSliceMut};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use super::{Kind, Meter, Opened, Ranges, Storage, Version};

/// An object or folder of a storage. Addresses joined from one another share its meter.
#[derive(Clone, Debug)]
pub struct Address {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    meter: Arc<Meter>,
}

impl Address {
    /// An address with its own meter.
    pub fn new(storage: Arc<dyn Storage>, path: PathBuf) -> Address {
        let meter = Arc::new(Meter::new(storage.usual_latency()));
        Address { storage, path, meter }
    }

    /// The address of a child; of this address itself if `name` is empty.
    pub fn join(&self, name: &str) -> Address {
        let path = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
        Address { storage: Arc::clone(&self.storage), path, meter: Arc::clone(&self.meter) }
    }

    /// The path within the storage.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path in the local file system, if there is one.
    pub fn local_path(&self) -> Option<PathBuf> {
        self.storage.local_path(&self.path)
    }

    /// The counters of reads from here.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Opens the object.
    ///
    /// # Errors
    /// Those of [`Storage::open`].
    pub fn open(&self) -> io::Result<Object> {
        Ok(Object::new(self.clone(), self.storage.open(&self.path, &self.meter)?))
    }

    /// # Errors
    /// Those of [`Storage::kind`].
    pub fn kind(&self) -> io::Result<Kind> {
        self.storage.kind(&self.path)
    }

    /// # Errors
    /// Those of [`Storage::list`].
    pub fn list(&self) -> io::Result<Vec<String>> {
        self.storage.list(&self.path)
    }

    /// # Errors
    /// Those of [`Storage::version`].
    pub fn version(&self) -> io::Result<Version> {
        self.storage.version(&self.path)
    }

    /// For an object that does not exist: why it may have existed at `since`, if it may.
    pub fn removed_since(&self, since: SystemTime) -> Option<String> {
        self.storage.removed_since(&self.path, since)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// An object in the version that it had at the mount, which must not change.
#[derive(Clone, Debug)]
pub struct Identity {
    pub address: Address,
    pub version: Version,
}

impl Identity {
    /// The object and its current version.
    ///
    /// # Errors
    /// Those of [`Storage::version`].
    pub fn of(address: &Address) -> io::Result<Identity> {
        Ok(Identity { address: address.clone(), version: address.version()? })
    }

    /// Opens the object in this version.
    ///
    /// # Errors
    /// Those of [`Storage::reopen`].
    pub fn open(&self) -> io::Result<Object> {
        let Address { storage, path, meter } = &self.address;
        Ok(Object::new(self.address.clone(), storage.reopen(path, &self.version, meter)?))
    }

    /// Fails if the object has changed. Asks the storage, even if all reads are conditional on the version.
    ///
    /// # Errors
    /// `StaleNetworkFileHandle`; those of [`Storage::version`].
    pub fn confirm(&self) -> io::Result<()> {
        let stale = |cause: String| Error::new(ErrorKind::StaleNetworkFileHandle, format!("{}: {cause}", self.address));
        match self.address.storage.version_now(&self.address.path) {
            Ok(now) => self.version.difference(&now).map_or(Ok(()), |change| Err(stale(change))),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(stale("it was removed".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// How the object differs now, if it does; a missing object counts as a difference.
    ///
    /// # Errors
    /// The storage does not answer.
    pub fn changed(&self) -> io::Result<Option<String>> {
        let address = &self.address;
        match address.storage.changed(&address.path, &self.version) {
            Ok(change) => Ok(change.map(|change| format!("{address}: {change}"))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(Some(format!("{address}: {error}")))
            }
            Err(error) => Err(error),
        }
    }
}

/// A reference that does not keep the object open.
#[derive(Clone)]
pub struct WeakObject(Weak<Inner>);

impl WeakObject {
    /// The object, if it is still open.
    pub fn upgrade(&self) -> Option<Object> {
        self.0.upgrade().map(Object)
    }
}

/// An open object. Clones share it.
#[derive(Clone)]
pub struct Object(Arc<Inner>);

struct Inner {
    address: Address,
    version: Version,
    ranges: Box<dyn Ranges>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("address", &self.0.address).field("version", &self.0.version).finish()
    }
}

impl Object {
    pub(super) fn new(address: Address, opened: Opened) -> Object {
        Object(Arc::new(Inner { address, version: opened.version, ranges: opened.ranges }))
    }

    pub fn downgrade(&self) -> WeakObject {
        WeakObject(Arc::downgrade(&self.0))
    }

    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Its version when it was opened.
    pub fn version(&self) -> &Version {
        &self.0.version
    }

    pub fn identity(&self) -> Identity {
        Identity { address: self.0.address.clone(), version: self.0.version.clone() }
    }

    /// Its size in bytes when it was opened.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.0.version.size
    }

    /// Whether two handles share one opened object.
    pub fn is_same(&self, other: &Object) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// Those of [`Ranges::read`].
    pub fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_vectored_at(offset, &mut [IoSliceMut::new(buffer)])
    }

    /// Fills the slices, in order, with the bytes from `offset` on, in one request.
    ///
    /// # Errors
    /// Those of [`Ranges::read`].
    pub fn read_vectored_at(&self, offset: u64, places: &mut [IoSliceMut<'_>]) -> io::Result<()> {
        let bytes = places.iter().map(|place| place.len() as u64).sum();
        self.0.address.meter.measure(bytes, || self.0.ranges.read(offset, places))
    }

    /// At most `most` bytes from the start.
    ///
    /// # Errors
    /// Those of [`Ranges::read`].
    pub fn start(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.len()).map_or(most, |len| len.min(most))];
        self.read_exact_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// All bytes.
    ///
    /// # Errors
    /// `FileTooLarge` if there are more than `most` bytes; those of [`Ranges::read`].
    pub fn read_all(&self, most: u64) -> io::Result<Vec<u8>> {
        if self.len() > most {
            return Err(Error::new(ErrorKind::FileTooLarge, format!("{} bytes are too many", self.len())));
        }
        let mut bytes = vec![0; usize::try_from(self.len()).map_err(|_| ErrorKind::FileTooLarge)?];
        self.read_exact_at(0, &mut bytes)?;
        Ok(bytes)
    }
}

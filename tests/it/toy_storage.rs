//! A storage in one file: objects in memory. A zarr store in it is opened and gathered by the code that reads files.

use std::collections::BTreeMap;
use std::io::{self, Error, ErrorKind, IoSliceMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shufflefs::array::{ArrayError, Counters, kinds};
use shufflefs::storage::{Address, Kind, Meter, Opened, Ranges, Stamp, Storage, Version};
use zarrs::array::codec::ZstdCodec;

use crate::array::{bytes, values, write_zarr};

/// The bytes of an object, and the number of its version.
type Held = (Arc<Vec<u8>>, u64);

/// Objects by path; and what every read fails with, if it does.
#[derive(Debug, Default)]
struct Shelf {
    objects: Mutex<BTreeMap<PathBuf, Held>>,
    fails: Mutex<Option<ErrorKind>>,
    reads: AtomicU64,
}

/// What the tests hold of it.
#[derive(Clone, Debug, Default)]
struct Toy(Arc<Shelf>);

impl Toy {
    /// Takes up all files below a directory.
    fn of(root: &Path) -> Toy {
        let toy = Toy::default();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = Path::new("toy").join(path.strip_prefix(root).unwrap());
                    toy.put(&name, std::fs::read(&path).unwrap());
                }
            }
        }
        toy
    }

    fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut objects = self.0.objects.lock().unwrap();
        let version = objects.get(path).map_or(0, |(_, version)| version + 1);
        objects.insert(path.to_path_buf(), (Arc::new(bytes), version));
    }

    fn get(&self, path: &Path) -> io::Result<(Arc<Vec<u8>>, Version)> {
        let objects = self.0.objects.lock().unwrap();
        let (bytes, number) = objects.get(path).ok_or(ErrorKind::NotFound)?;
        let stamp = Stamp::Tag { tag: number.to_string(), modified: None };
        Ok((bytes.clone(), Version { size: bytes.len() as u64, stamp }))
    }
}

impl Storage for Toy {
    fn open(&self, path: &Path, _: &Arc<Meter>) -> io::Result<Opened> {
        let version = self.get(path)?.1;
        let ranges = Box::new(ToyObject { toy: self.clone(), path: path.to_path_buf(), version: version.clone() });
        Ok(Opened { version, ranges })
    }

    fn kind(&self, path: &Path) -> io::Result<Kind> {
        let objects = self.0.objects.lock().unwrap();
        if objects.contains_key(path) {
            return Ok(Kind::Object);
        }
        objects.keys().any(|object| object.starts_with(path)).then_some(Kind::Folder).ok_or(ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let objects = self.0.objects.lock().unwrap();
        let below = objects.keys().filter_map(|object| object.strip_prefix(folder).ok()?.iter().next()?.to_str());
        let mut names: Vec<String> = below.map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }

    fn version(&self, path: &Path) -> io::Result<Version> {
        self.get(path).map(|(_, version)| version)
    }
}

struct ToyObject {
    toy: Toy,
    path: PathBuf,
    version: Version,
}

impl Ranges for ToyObject {
    fn read(&self, offset: u64, places: &mut [IoSliceMut<'_>]) -> io::Result<()> {
        self.toy.0.reads.fetch_add(1, Ordering::Relaxed);
        if let Some(kind) = *self.toy.0.fails.lock().unwrap() {
            return Err(Error::new(kind, "the shelf fell down"));
        }
        let (bytes, version) = self.toy.get(&self.path)?;
        if version != self.version {
            return Err(ErrorKind::StaleNetworkFileHandle.into());
        }
        let mut rest = bytes.get(offset as usize..).ok_or(ErrorKind::UnexpectedEof)?;
        for place in places {
            let (here, after) = rest.split_at_checked(place.len()).ok_or(ErrorKind::UnexpectedEof)?;
            place.copy_from_slice(here);
            rest = after;
        }
        Ok(())
    }
}

#[test]
fn a_zarr_store_is_read_from_any_storage() {
    let folder = tempfile::tempdir().unwrap();
    let data = values(20_011);
    let zstd = || -> crate::array::Codecs { vec![Arc::new(ZstdCodec::new(3, false))] };
    write_zarr(folder.path(), "raw", &[20_011], &[777], None, vec![], &data);
    write_zarr(folder.path(), "zstd", &[20_011], &[777], None, zstd(), &data);
    write_zarr(folder.path(), "shards", &[20_011], &[7000], Some(&[700]), zstd(), &data);
    let toy = Toy::of(folder.path());
    drop(folder);

    let address = Address::new(Arc::new(toy.clone()), "toy".into());
    let container = kinds::open_at(&address, "toy://".into(), "").unwrap();
    assert_eq!(container.members("").unwrap(), ["raw", "shards", "zstd"]);
    let counters = Counters::default();
    for name in ["raw", "zstd", "shards"] {
        let array = container.array(name).unwrap();
        assert!(array.read_all(1 << 30, &counters).unwrap() == bytes(&data), "{name}");
        assert!(array.read_range(7001, 99, 1 << 30, &counters).unwrap() == bytes(&data[7001..7100]), "{name}");
    }
    container.check_unchanged().unwrap();
    let reads = toy.0.reads.load(Ordering::Relaxed);
    assert!(reads > 0 && address.meter().requests() == reads && address.meter().failed() == 0);

    // What a storage says is kept: its kind, and its words.
    *toy.0.fails.lock().unwrap() = Some(ErrorKind::TimedOut);
    let error = container.array("zstd").unwrap().read_range(0, 1, 100, &counters).unwrap_err();
    assert!(matches!(&error, ArrayError::Io { source, .. } if source.kind() == ErrorKind::TimedOut), "{error:?}");
    assert_eq!(error.to_string(), "toy://: zstd: chunk 0: cannot be read: the shelf fell down");
    *toy.0.fails.lock().unwrap() = None;

    // Another version of what was read: never the one for the other.
    let metadata = Path::new("toy/raw/zarr.json");
    let text = toy.get(metadata).unwrap().0;
    toy.put(metadata, text.to_vec());
    let stale = container.check_unchanged().unwrap_err();
    assert_eq!(
        stale.to_string(),
        "toy://: changed since it was mounted (toy/raw/zarr.json: another version is in its place); unmount and mount it \
         again"
    );
}

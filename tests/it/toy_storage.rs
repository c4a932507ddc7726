//! A storage in one file: objects in memory. A zarr store in it is opened and gathered by the code that reads files.

use std::collections::BTreeMap;
use std::io::{self, Error, ErrorKind, IoSliceMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use shufflefs::array::gather::{ElementRange, GatherContext, Io, gather};
use shufflefs::array::{ArrayError, Counters, kinds};
use shufflefs::storage::{Address, Kind, Meter, Opened, Ranges, Stamp, Storage, Version};
use zarrs::array::codec::ZstdCodec;

use crate::array::{bytes, values, write_zarr};
use crate::pieces::Pieces;

/// The bytes of an object, and its version number.
type Held = (Arc<Vec<u8>>, u64);

/// Objects by path; and the error of every read, if set.
#[derive(Debug, Default)]
struct Shelf {
    objects: Mutex<BTreeMap<PathBuf, Held>>,
    fails: Mutex<Option<ErrorKind>>,
    reads: AtomicU64,
    /// The latency that reads report.
    latency: Option<Duration>,
    under_way: Mutex<UnderWay>,
    more: Condvar,
}

/// Bytes of large reads in flight.
#[derive(Debug, Default)]
struct UnderWay {
    now: u64,
    most: u64,
    /// Reads wait until this many bytes are in flight, once.
    wanted: u64,
}

/// The tests' handle of the storage.
#[derive(Clone, Debug, Default)]
struct Toy(Arc<Shelf>);

impl Toy {
    /// Copies all files below a directory.
    fn of(root: &Path, latency: Option<Duration>) -> Toy {
        let toy = Toy(Arc::new(Shelf { latency, ..Shelf::default() }));
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

impl Shelf {
    /// A read of this many bytes, which waits as `UnderWay` says.
    fn pass(&self, bytes: u64) {
        let mut state = self.under_way.lock().unwrap();
        state.now += bytes;
        state.most = state.most.max(state.now);
        if state.now >= state.wanted {
            state.wanted = 0;
            self.more.notify_all();
        }
        let (mut state, _) =
            self.more.wait_timeout_while(state, Duration::from_secs(20), |state| state.wanted > 0).unwrap();
        state.now -= bytes;
    }
}

impl Storage for Toy {
    fn usual_latency(&self) -> Option<Duration> {
        self.0.latency
    }

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
        // Indices of shards are smaller.
        let size = places.iter().map(|place| place.len() as u64).sum();
        if size > 4096 {
            self.toy.0.pass(size);
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
    let toy = Toy::of(folder.path(), None);
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

    // The error of a storage keeps its kind and message.
    *toy.0.fails.lock().unwrap() = Some(ErrorKind::TimedOut);
    let error = container.array("zstd").unwrap().read_range(0, 1, 100, &counters).unwrap_err();
    assert!(matches!(&error, ArrayError::Io { source, .. } if source.kind() == ErrorKind::TimedOut), "{error:?}");
    assert_eq!(error.to_string(), "toy://: zstd: chunk 0: cannot be read: the shelf fell down");
    *toy.0.fails.lock().unwrap() = None;

    // Another version of an object that was read: never served instead.
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

/// However many requests the latency needs, the bytes in flight of all gathers are limited.
#[test]
fn bytes_under_way_are_bounded() {
    const LIMIT: u64 = 100_000;
    let folder = tempfile::tempdir().unwrap();
    // 28,000 bytes each, which no codec can compress.
    let data: Vec<i32> = (0..210_000_u32).map(|i| i.wrapping_mul(2_654_435_761).rotate_left(i % 31) as i32).collect();
    write_zarr(folder.path(), "raw", &[210_000], &[7000], Some(&[700]), vec![], &data);
    write_zarr(
        folder.path(),
        "zstd",
        &[210_000],
        &[7000],
        Some(&[700]),
        vec![Arc::new(ZstdCodec::new(1, false))],
        &data,
    );
    for (name, places) in [("raw", true), ("raw", false), ("zstd", false)] {
        let toy = Toy::of(folder.path(), Some(Duration::from_millis(30)));
        let container =
            kinds::open_at(&Address::new(Arc::new(toy.clone()), "toy".into()), "toy://".into(), "").unwrap();
        let array = container.array(name).unwrap();
        let io = Io::new(None, 2, LIMIT);
        assert!(io.depth(&array) > 100, "as many requests as the latency asks for");
        // Three requests fit.
        toy.0.under_way.lock().unwrap().wanted = 80_000;
        let read = || {
            let sink = Pieces { buffers: vec![Mutex::new(vec![0; 4 * data.len()])], size: 4, places };
            let counters = Counters::default();
            let work = GatherContext { counters: &counters, progress: &|| {}, cache: None, io: Some(&io) };
            gather(&array, &[ElementRange { start: 0, len: data.len() as u64 }], &sink, &work).unwrap();
            assert!(*sink.buffers[0].lock().unwrap() == bytes(&data), "{name}");
        };
        std::thread::scope(|scope| {
            scope.spawn(read);
            read();
        });
        let state = toy.0.under_way.lock().unwrap();
        assert!(state.wanted == 0 && state.now == 0 && state.most <= LIMIT, "{name}: {state:?}");
    }
}

//! Objects behind a network: S3, GCS, Azure and plain HTTP.
//!
//! Opening an object is one GET of its first bytes, which also tells size and version (a HEAD fails on presigned URLs); all later
//! requests are conditional on that version. Answers to `kind` are cached for a moment, so that finding and opening a store makes no
//! request twice.

mod bucket;
mod flight;
mod profile;
mod request;
mod trouble;

use std::collections::HashMap;
use std::io::{self, Error, ErrorKind, IoSliceMut};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use object_store::path::Path as Key;

use super::cache::{Cache, Subject};
use super::name::{self, Name, Service};
use super::{Kind, Meter, Opened, Ranges, Storage, Version, ZARR_MARKERS};
use bucket::Bucket;
use request::Target;

/// Bytes to fetch when opening an object: enough for most metadata files, and for the start of an HDF5 file.
const HEAD: u64 = 1 << 20;
/// How long an answer to `kind` is cached.
const MOMENT: Duration = Duration::from_secs(5);
/// Answers to cache.
const MOST_RECENT: usize = 256;
/// Usual time to the first byte of object stores.
const USUAL: Duration = Duration::from_millis(30);
/// Maximum bytes of what is cached for the next mount.
const INDEX_BYTES: u64 = 4 << 30;
/// Versions to remember.
const KNOWN: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();

/// How to make requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Do not sign requests.
    pub anonymous: bool,
    /// Time limit of a read, with all tries and pauses.
    pub patience: Duration,
    /// Directory to cache what is read before the mount is usable, for the next mount.
    pub index: Option<PathBuf>,
    /// Directory to cache what is read later, and its maximum bytes.
    pub cache: Option<(PathBuf, u64)>,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// Sets the settings of this process; only the first call has an effect.
pub fn configure(settings: Settings) {
    let _ = SETTINGS.set(settings);
}

/// Called after each answer.
static ON_ANSWER: OnceLock<fn()> = OnceLock::new();

/// Sets a function to call after each answer, for a process whose progress is watched from outside.
pub fn on_answer(call: fn()) {
    let _ = ON_ANSWER.set(call);
}

/// The settings of this process.
pub fn settings() -> &'static Settings {
    SETTINGS.get_or_init(|| Settings { anonymous: false, patience: Duration::from_secs(50), index: None, cache: None })
}

/// Whether stores are still being opened.
static OPENING: AtomicBool = AtomicBool::new(true);

/// Notes that all stores are open: reads from now on are data.
pub fn opened() {
    OPENING.store(false, Ordering::Relaxed);
}

/// Opens the data cache, so that an unusable directory is an error of the mount instead of a read.
///
/// # Errors
/// The directory cannot be created or written.
pub fn try_cache() -> io::Result<()> {
    let Some((directory, most)) = &settings().cache else { return Ok(()) };
    let cache = Cache::open(directory, *most)?;
    let _ = DATA.set(Some(cache));
    Ok(())
}

/// Hits and misses of the data cache; `None` without one.
pub fn cache_counts() -> Option<(u64, u64)> {
    let cache = DATA.get()?.as_ref()?;
    Some((cache.hits.load(Ordering::Relaxed), cache.misses.load(Ordering::Relaxed)))
}

static DATA: OnceLock<Option<Cache>> = OnceLock::new();

/// The cache to use now: that of the index while stores are being opened, then that of data.
fn cache() -> Option<&'static Cache> {
    static INDEX: OnceLock<Option<Cache>> = OnceLock::new();
    if OPENING.load(Ordering::Relaxed) {
        // Without it, the next mount repeats the requests.
        let open = || Cache::open(&settings().index.as_ref()?.join("remote"), INDEX_BYTES).ok();
        INDEX.get_or_init(open).as_ref()
    } else {
        DATA.get()?.as_ref()
    }
}

/// All remote services; an object's name tells which.
#[derive(Debug)]
pub struct Remote;

type Head = (Version, Arc<[u8]>);

/// A cached answer.
struct Recent {
    at: Instant,
    /// The start of the object; `None` if there is no such object.
    head: Option<Head>,
}

type Known = HashMap<String, Recent>;

static RECENT: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

fn recent() -> MutexGuard<'static, Known> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The versions of objects when they were first opened. An object that is opened again must have the same version, so opening needs
/// no request.
static VERSIONS: LazyLock<Mutex<LruCache<String, Version>>> = LazyLock::new(|| Mutex::new(LruCache::new(KNOWN)));

fn versions() -> MutexGuard<'static, LruCache<String, Version>> {
    VERSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers the version of an object that another process has just seen, so that opening it needs no request.
pub fn recall(name: &str, version: Version) {
    versions().put(name.to_owned(), version.clone());
    recent().insert(name.to_owned(), Recent { at: Instant::now(), head: Some((version, Arc::default())) });
}

/// The client of a bucket, created on first use.
fn bucket(name: &str, address: &Name) -> io::Result<(Arc<Bucket>, bool)> {
    static BUCKETS: LazyLock<Mutex<HashMap<String, Arc<Bucket>>>> = LazyLock::new(Mutex::default);
    let query = name::query_of(name);
    let place = if query.is_some() { name } else { &address.root };
    let mut buckets = BUCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bucket) = buckets.get(place) {
        return Ok((Arc::clone(bucket), query.is_some()));
    }
    let bucket = Arc::new(Bucket::connect(address, query.as_deref(), settings().anonymous)?);
    buckets.insert(place.to_owned(), Arc::clone(&bucket));
    Ok((bucket, query.is_some()))
}

/// The location of an object.
#[derive(Debug)]
struct Place {
    name: String,
    address: Name,
    bucket: Arc<Bucket>,
    key: Key,
}

impl Place {
    fn of(path: &Path) -> io::Result<Place> {
        let wrong = |cause: String| Error::new(ErrorKind::InvalidInput, cause);
        let name = path.to_str().ok_or_else(|| wrong("the name is no text".to_owned()))?;
        let address = Name::parse(name).map_err(wrong)?;
        let (bucket, is_whole) = bucket(name, &address)?;
        let key = match address.service {
            // The client has the whole URL.
            _ if is_whole => Ok(Key::default()),
            Service::Http => Key::from_url_path(&address.key),
            _ => Key::parse(&address.key),
        };
        let key = key.map_err(|error| wrong(error.to_string()))?;
        Ok(Place { name: name.to_owned(), address, bucket, key })
    }

    fn target<'a>(&'a self, meter: &'a Meter) -> Target<'a> {
        Target { bucket: &self.bucket, key: &self.key, patience: settings().patience, meter }
    }

    fn below(&self, name: &str) -> io::Result<Place> {
        Place::of(Path::new(&format!("{}/{name}", self.name.trim_end_matches('/'))))
    }

    /// The start of the object, from the cache or by a request.
    fn head(&self, meter: &Meter, keep: bool) -> io::Result<Head> {
        if let Some(known) = recent().get(&self.name).filter(|known| known.at.elapsed() < MOMENT) {
            return known.head.clone().ok_or_else(|| ErrorKind::NotFound.into());
        }
        let read = meter.measure(0, || self.target(meter).open(HEAD));
        let head = match read {
            Ok((version, bytes)) => Ok((version, Arc::from(bytes))),
            // Without permission to list, S3 answers 403 for a missing object.
            Err(error)
                if error.kind() == ErrorKind::PermissionDenied
                    && keep
                    && self.bucket.proven.load(Ordering::Relaxed) =>
            {
                Err(ErrorKind::NotFound.into())
            }
            Err(error) => Err(error),
        };
        let absent = head.as_ref().is_err_and(|error: &Error| error.kind() == ErrorKind::NotFound);
        if keep && (absent || head.is_ok()) {
            let mut recent = recent();
            if recent.len() >= MOST_RECENT {
                recent.retain(|_, known| known.at.elapsed() < MOMENT);
            }
            if recent.len() < MOST_RECENT {
                recent.insert(self.name.clone(), Recent { at: Instant::now(), head: head.as_ref().ok().cloned() });
            }
        }
        head
    }

    /// Whether a zarr store or group starts here; requests all possible marker files at once.
    fn is_root(&self, meter: &Meter) -> io::Result<bool> {
        let asked = std::thread::scope(|scope| {
            let ask = |name| scope.spawn(move || self.below(name)?.head(meter, true).map(|_| ()));
            let threads: Vec<_> = ZARR_MARKERS.into_iter().map(ask).collect();
            let joined =
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(ErrorKind::Other.into())));
            joined.collect::<Vec<_>>()
        });
        if asked.iter().any(Result::is_ok) {
            return Ok(true);
        }
        match asked.into_iter().filter_map(Result::err).find(|error| error.kind() != ErrorKind::NotFound) {
            Some(error) => Err(error),
            None => Ok(false),
        }
    }
}

impl Storage for Remote {
    fn usual_latency(&self) -> Option<Duration> {
        Some(USUAL)
    }

    fn open(&self, path: &Path, meter: &Arc<Meter>) -> io::Result<Opened> {
        let place = Place::of(path)?;
        let is_recent = recent().get(&place.name).is_some_and(|known| known.at.elapsed() < MOMENT);
        let known = versions().get(&place.name).cloned().filter(|_| !is_recent);
        if let Some(version) = known {
            return self.reopen(path, &version, meter);
        }
        let (version, head) = place.head(meter, false)?;
        versions().put(place.name.clone(), version.clone());
        let object = Object { place, version: version.clone(), head, meter: Arc::clone(meter) };
        Ok(Opened { version, ranges: Box::new(object) })
    }

    fn reopen(&self, path: &Path, was: &Version, meter: &Arc<Meter>) -> io::Result<Opened> {
        let object =
            Object { place: Place::of(path)?, version: was.clone(), head: Arc::default(), meter: Arc::clone(meter) };
        Ok(Opened { version: was.clone(), ranges: Box::new(object) })
    }

    fn kind(&self, path: &Path) -> io::Result<Kind> {
        let meter = Meter::default();
        let place = Place::of(path)?;
        let is_file_of_zarr = path.file_name().is_some_and(|name| ZARR_MARKERS.iter().any(|marker| name == *marker));
        // A name that looks like a directory is first looked up as one; an object with such a name is unlikely.
        let folder_first =
            place.address.key.is_empty() || path.extension().is_some_and(|extension| extension == "zarr");
        if folder_first && place.is_root(&meter)? {
            return Ok(Kind::Folder);
        }
        let head =
            if place.address.key.is_empty() { Err(ErrorKind::NotFound.into()) } else { place.head(&meter, true) };
        match head {
            Ok(_) => return Ok(Kind::Object),
            Err(error) if error.kind() != ErrorKind::NotFound || is_file_of_zarr => return Err(error),
            Err(_) => {}
        }
        let folder = match place.address.service {
            Service::Http => !folder_first && place.is_root(&meter)?,
            _ => place.target(&meter).has_any()?,
        };
        if folder { Ok(Kind::Folder) } else { Err(ErrorKind::NotFound.into()) }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let place = Place::of(folder)?;
        if place.address.service == Service::Http {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "plain HTTP cannot list what is in a folder; name the stores one by one (a zarr store needs consolidated \
                 metadata)",
            ));
        }
        let listed = place.target(&Meter::default()).list()?;
        let objects = listed.objects.iter().map(|object| &object.location);
        let names = objects.chain(&listed.common_prefixes).filter_map(|key| key.filename().map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn version(&self, path: &Path) -> io::Result<Version> {
        Place::of(path)?.head(&Meter::default(), true).map(|(version, _)| version)
    }

    fn version_now(&self, path: &Path) -> io::Result<Version> {
        Place::of(path)?.target(&Meter::default()).open(1).map(|(version, _)| version)
    }

    /// `None`: every read is conditional on the version.
    fn changed(&self, _: &Path, _: &Version) -> io::Result<Option<String>> {
        Ok(None)
    }
}

/// An object in one version.
struct Object {
    place: Place,
    version: Version,
    head: Arc<[u8]>,
    meter: Arc<Meter>,
}

impl Ranges for Object {
    fn read(&self, offset: u64, places: &mut [IoSliceMut<'_>]) -> io::Result<()> {
        let total: u64 = places.iter().map(|place| place.len() as u64).sum();
        let start = usize::try_from(offset).ok();
        let kept = start.and_then(|start| self.head.get(start..start.checked_add(usize::try_from(total).ok()?)?));
        let Some(mut kept) = kept else {
            let (name, version) = (&self.place.name, &self.version);
            let target = self.place.target(&self.meter);
            let Some(cache) = cache() else { return target.fill(name, version, offset, places) };
            let fetch = |at, places: &mut [IoSliceMut<'_>]| target.fill(name, version, at, places);
            return cache.read(&Subject { name, version }, offset, places, fetch);
        };
        for place in places {
            let (now, later) = kept.split_at(place.len());
            place.copy_from_slice(now);
            kept = later;
        }
        Ok(())
    }
}

//! Objects behind a network: S3, GCS, Azure and plain HTTP.
//!
//! Opening an object is one GET of its first bytes, which tells size and version as well (a HEAD fails on presigned URLs);
//! every later request is conditional on that version. What was asked for by `kind` is kept for a moment, so that looking
//! for a store costs no request twice.

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
use super::{Kind, Meter, Opened, Ranges, Storage, Version};
use bucket::Bucket;
use request::Target;

/// Bytes that opening an object fetches: most metadata files, and the start of an HDF5 file, are no longer.
const HEAD: u64 = 1 << 20;
/// How long what `kind` has found is true.
const MOMENT: Duration = Duration::from_secs(5);
/// Answers that are kept for that time.
const MOST_RECENT: usize = 256;
/// Time to the first byte of an object store.
const USUAL: Duration = Duration::from_millis(30);
/// Bytes of what is kept for the next mount.
const INDEX_BYTES: u64 = 4 << 30;
/// Objects whose version is remembered.
const KNOWN: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();
/// Files that a zarr store or group begins with.
const ROOTS: [&str; 4] = ["zarr.json", ".zgroup", ".zmetadata", ".zarray"];

/// How remote objects are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Requests are not signed.
    pub anonymous: bool,
    /// How long one read may take, tries and pauses included.
    pub patience: Duration,
    /// Where what is read before the mount is usable is kept, for the next mount.
    pub index: Option<PathBuf>,
    /// Where what is read later is kept, and bytes of it at most.
    pub cache: Option<(PathBuf, u64)>,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// Says how remote objects are asked for; the first word counts.
pub fn configure(settings: Settings) {
    let _ = SETTINGS.set(settings);
}

/// What is called after each answer.
static ON_ANSWER: OnceLock<fn()> = OnceLock::new();

/// Has a function called after each answer: for a process whose progress is watched from outside.
pub fn on_answer(call: fn()) {
    let _ = ON_ANSWER.set(call);
}

/// How remote objects are asked for.
pub fn settings() -> &'static Settings {
    SETTINGS.get_or_init(|| Settings { anonymous: false, patience: Duration::from_secs(50), index: None, cache: None })
}

/// Whether stores are still being opened.
static OPENING: AtomicBool = AtomicBool::new(true);

/// All stores are open: what is read from now on is data.
pub fn opened() {
    OPENING.store(false, Ordering::Relaxed);
}

/// Opens the data cache, so that an unusable directory is an error of the mount and not of a read.
///
/// # Errors
/// It cannot be made or written.
pub fn try_cache() -> io::Result<()> {
    let Some((directory, most)) = &settings().cache else { return Ok(()) };
    let cache = Cache::open(directory, *most)?;
    let _ = DATA.set(Some(cache));
    Ok(())
}

/// Hits and misses of the cache of data; none without one.
pub fn cache_counts() -> Option<(u64, u64)> {
    let cache = DATA.get()?.as_ref()?;
    Some((cache.hits.load(Ordering::Relaxed), cache.misses.load(Ordering::Relaxed)))
}

static DATA: OnceLock<Option<Cache>> = OnceLock::new();

/// The cache for what is read now.
fn cache() -> Option<&'static Cache> {
    static INDEX: OnceLock<Option<Cache>> = OnceLock::new();
    if OPENING.load(Ordering::Relaxed) {
        // Without it, the next mount asks again.
        let open = || Cache::open(&settings().index.as_ref()?.join("remote"), INDEX_BYTES).ok();
        INDEX.get_or_init(open).as_ref()
    } else {
        DATA.get()?.as_ref()
    }
}

/// All remote services: an object's name says which.
#[derive(Debug)]
pub struct Remote;

type Head = (Version, Arc<[u8]>);

/// What is known for a moment.
struct Recent {
    at: Instant,
    /// The start of an object; none where there is no such object.
    head: Option<Head>,
}

type Known = HashMap<String, Recent>;

static RECENT: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

fn recent() -> MutexGuard<'static, Known> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Versions of objects as they were first seen. An object that is opened again must be the same, so that it need not be
/// asked for before it is read.
static VERSIONS: LazyLock<Mutex<LruCache<String, Version>>> = LazyLock::new(|| Mutex::new(LruCache::new(KNOWN)));

fn versions() -> MutexGuard<'static, LruCache<String, Version>> {
    VERSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes an object's version from another process, which has just seen it: then it is not asked for again.
pub fn recall(name: &str, version: Version) {
    versions().put(name.to_owned(), version.clone());
    recent().insert(name.to_owned(), Recent { at: Instant::now(), head: Some((version, Arc::default())) });
}

/// The client of a bucket, made when it is first needed.
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

/// An object of a bucket.
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
            // The client has its whole URL.
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

    /// The start of the object, from what is known or by a request.
    fn head(&self, meter: &Meter, keep: bool) -> io::Result<Head> {
        if let Some(known) = recent().get(&self.name).filter(|known| known.at.elapsed() < MOMENT) {
            return known.head.clone().ok_or_else(|| ErrorKind::NotFound.into());
        }
        let read = meter.measure(0, || self.target(meter).open(HEAD));
        let head = match read {
            Ok((version, bytes)) => Ok((version, Arc::from(bytes))),
            // Without the right to list, S3 answers 403 for what is not there.
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

    /// Whether a zarr store or group begins here: all of its possible files are asked for at once.
    fn is_root(&self, meter: &Meter) -> io::Result<bool> {
        let asked = std::thread::scope(|scope| {
            let ask = |name| scope.spawn(move || self.below(name)?.head(meter, true).map(|_| ()));
            let threads: Vec<_> = ROOTS.into_iter().map(ask).collect();
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
        let is_file_of_zarr = path.file_name().is_some_and(|name| ROOTS.iter().any(|root| name == *root));
        // A name that looks like a directory is asked for as one first: an object of that name would be odd.
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

    /// Every read says which version it wants.
    fn changed(&self, _: &Path, _: &Version) -> io::Result<Option<String>> {
        Ok(None)
    }
}

/// One version of an object.
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

//! Requests for ranges of one version of an object, repeated while there is time.
//!
//! Every answer is compared with the version that was opened, as some servers ignore `If-Match`. An answer that breaks off is continued
//! where it broke; one that ends regularly although bytes are missing is discarded.

use std::io::{self, Error, ErrorKind, IoSliceMut};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, GetResult, ListResult, ObjectMeta, ObjectStore};
use tokio::runtime::Runtime;

use super::bucket::Bucket;
use super::trouble::Trouble;
use crate::storage::{Meter, Stamp, Version};

/// Shortest and longest pause between two tries.
const PAUSE: Range<Duration> = Duration::from_millis(50)..Duration::from_secs(2);
/// How long to try a server that has never answered, so that a wrong name is reported soon.
const FIRST: Duration = Duration::from_secs(4);

/// The network's threads, started on first use: they would not survive a fork, and local mounts need none.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).max_blocking_threads(8).thread_name("network").enable_all().build()
    });
    made.as_ref().map_err(|error| Error::new(error.kind(), format!("the network's threads: {error}")))
}

/// An object, and the time limit of its requests.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub bucket: &'a Bucket,
    pub key: &'a Key,
    pub patience: Duration,
    pub meter: &'a Meter,
}

impl Target<'_> {
    /// Repeats an attempt until it succeeds, fails finally, or no time is left. `what` was requested, for messages.
    fn persist<T>(&self, what: &str, mut attempt: impl AsyncFnMut() -> Result<T, Trouble>) -> io::Result<T> {
        let began = Instant::now();
        let proven = &self.bucket.proven;
        let patience = if proven.load(Ordering::Relaxed) { self.patience } else { self.patience.min(FIRST) };
        let until = began + patience;
        let mut pause = PAUSE.start;
        let mut tries = 1;
        loop {
            let Some(permit) = self.bucket.flight.enter(until) else {
                return Err(Trouble::Busy("too many requests are under way".to_owned()).error(what));
            };
            let answer = runtime()?.block_on(async {
                let attempt = tokio::time::timeout_at(until.into(), attempt());
                attempt.await.unwrap_or_else(|_| Err(Trouble::Passing("no answer in time".to_owned())))
            });
            drop(permit);
            let trouble = match answer {
                Ok(answer) => {
                    self.bucket.flight.answered();
                    proven.store(true, Ordering::Relaxed);
                    if let Some(call) = super::ON_ANSWER.get() {
                        call();
                    }
                    return Ok(answer);
                }
                Err(trouble) => trouble,
            };
            let cause = match &trouble {
                Trouble::Busy(cause) => {
                    self.bucket.flight.refused();
                    cause
                }
                Trouble::Passing(cause) => cause,
                _ => return Err(trouble.error(what)),
            };
            let next = jittered(pause);
            if Instant::now() + next >= until {
                let cause = format!(
                    "{cause} ({tries} tries in {} s); check network and server, or raise --timeout",
                    began.elapsed().as_secs()
                );
                return Err(Trouble::Passing(cause).error(what));
            }
            tracing::debug!("{what}: {trouble:?}; trying again");
            self.meter.retried();
            std::thread::sleep(next);
            pause = (pause * 2).min(PAUSE.end);
            tries += 1;
        }
    }

    /// The version of the object and its first `most` bytes, or all if it is shorter.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`; others with their cause.
    pub fn open(&self, most: u64) -> io::Result<(Version, Vec<u8>)> {
        self.persist("", async || {
            let options = GetOptions { range: Some(GetRange::Bounded(0..most)), ..GetOptions::default() };
            let answer = match self.bucket.client.get_opts(self.key, options).await {
                Ok(answer) => answer,
                Err(error) => match Trouble::of(&error) {
                    // A range request of an empty object fails.
                    Trouble::Range => {
                        self.bucket.client.get_opts(self.key, GetOptions::default()).await.map_err(said)?
                    }
                    trouble => return Err(trouble),
                },
            };
            let version = version(&answer.meta)?;
            let wanted = version.size.min(most);
            let mut bytes = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
            whole(receive(answer, wanted, |part| bytes.extend_from_slice(part)).await?)?;
            Ok((version, bytes))
        })
    }

    /// Fills the slices with the bytes from `offset` on, in version `was`; `name` is for messages.
    ///
    /// # Errors
    /// `StaleNetworkFileHandle` if the version differs; others with the range and their cause.
    pub fn fill(&self, name: &str, was: &Version, offset: u64, places: &mut [IoSliceMut<'_>]) -> io::Result<()> {
        let total: u64 = places.iter().map(|place| place.len() as u64).sum();
        if total == 0 {
            return Ok(());
        }
        let end = offset.checked_add(total).filter(|&end| end <= was.size).ok_or(ErrorKind::UnexpectedEof)?;
        let what = format!("bytes {offset}-{} of {name}", end - 1);
        let mut cursor = Cursor { places, at: Position::default() };
        let filled = self.persist(&what, async || {
            let begun = cursor.at;
            let from = offset + begun.written;
            let answer = self.bucket.client.get_opts(self.key, conditions(was, from..end)).await.map_err(said)?;
            unchanged(was, &answer.meta)?;
            let left = receive(answer, end - from, |part| cursor.put(part)).await?;
            if left > 0 {
                cursor.at = begun;
            }
            whole(left)
        });
        filled.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Error::new(ErrorKind::StaleNetworkFileHandle, format!("{what}: it was removed (404)"))
            }
            _ => error,
        })
    }

    /// Lists the names directly below.
    ///
    /// # Errors
    /// The cause.
    pub fn list(&self) -> io::Result<ListResult> {
        let prefix = (!self.key.as_ref().is_empty()).then_some(self.key);
        self.persist("", async || self.bucket.client.list_with_delimiter(prefix).await.map_err(said))
    }

    /// Whether any object exists below.
    ///
    /// # Errors
    /// The cause.
    pub fn has_any(&self) -> io::Result<bool> {
        self.persist("", async || {
            let mut found = self.bucket.client.list(Some(self.key));
            found.next().await.transpose().map(|one| one.is_some()).map_err(said)
        })
    }
}

fn said(error: object_store::Error) -> Trouble {
    Trouble::of(&error)
}

/// Half to all of a pause, so that clients that failed together do not retry together.
fn jittered(pause: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    pause / 2 + pause / 2 * (nanos % 1024) / 1024
}

/// The version in an answer.
fn version(meta: &ObjectMeta) -> Result<Version, Trouble> {
    let modified = SystemTime::from(meta.last_modified);
    let modified = (modified > SystemTime::UNIX_EPOCH).then_some(modified);
    let tag = meta.e_tag.clone().unwrap_or_default();
    if tag.is_empty() && modified.is_none() {
        return Err(Trouble::Final(
            "the server tells no version of the object (no ETag, no Last-Modified), so that changes would go unseen; \
             serve it from another server, or download it"
                .to_owned(),
        ));
    }
    Ok(Version { size: meta.size, stamp: Stamp::Tag { tag, modified } })
}

/// Whether an ETag is strong: weak ones may stand for different bytes, and never satisfy `If-Match`.
fn is_strong(tag: &str) -> bool {
    !tag.is_empty() && !tag.starts_with("W/")
}

fn conditions(was: &Version, range: Range<u64>) -> GetOptions {
    let mut options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
    if let Stamp::Tag { tag, modified } = &was.stamp {
        if is_strong(tag) {
            options.if_match = Some(tag.clone());
        } else {
            options.if_unmodified_since = modified.map(Into::into);
        }
    }
    options
}

/// Fails if an answer is of another version.
fn unchanged(was: &Version, meta: &ObjectMeta) -> Result<(), Trouble> {
    if meta.size != was.size {
        return Err(Trouble::Changed(format!("it has {} bytes, it had {}", meta.size, was.size)));
    }
    let now = version(meta)?;
    let same = match (&was.stamp, &now.stamp) {
        (Stamp::Tag { tag: was, .. }, Stamp::Tag { tag: now, .. }) if is_strong(was) => was == now,
        (was, now) => was == now,
    };
    if same { Ok(()) } else { Err(Trouble::Changed("another version is in its place".to_owned())) }
}

/// Passes on the body of an answer, which must not exceed `wanted` bytes; returns how many bytes were missing when it ended.
async fn receive(answer: GetResult, wanted: u64, mut put: impl FnMut(&[u8])) -> Result<u64, Trouble> {
    let mut left = wanted;
    let mut stream = answer.into_stream();
    while let Some(part) = stream.next().await {
        let part = part.map_err(said)?;
        let Some(rest) = left.checked_sub(part.len() as u64) else {
            return Err(Trouble::Final("the answer has more bytes than were asked for".to_owned()));
        };
        left = rest;
        put(&part);
    }
    Ok(left)
}

/// Fails if bytes are missing.
fn whole(left: u64) -> Result<(), Trouble> {
    if left == 0 { Ok(()) } else { Err(Trouble::Passing(format!("the answer ended {left} bytes early"))) }
}

/// A slice, a byte in it, and the number of bytes before that.
#[derive(Clone, Copy, Default)]
struct Position {
    place: usize,
    within: usize,
    written: u64,
}

/// The destination of the next bytes.
struct Cursor<'a, 'b> {
    places: &'a mut [IoSliceMut<'b>],
    at: Position,
}

impl Cursor<'_, '_> {
    /// Appends bytes; they fit, as `receive` has counted them.
    fn put(&mut self, mut bytes: &[u8]) {
        let at = &mut self.at;
        while let Some(place) = self.places.get_mut(at.place).filter(|_| !bytes.is_empty()) {
            let room = place.get_mut(at.within..).unwrap_or_default();
            let count = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(count);
            room[..count].copy_from_slice(now);
            bytes = later;
            at.within += count;
            at.written += count as u64;
            if at.within == place.len() {
                at.place += 1;
                at.within = 0;
            }
        }
    }
}

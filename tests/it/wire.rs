//! Servers with answers that fail, break off or are wrong: a read of objects and stores gives the right bytes, or an error in one
//! line; temporary faults are retried; nothing hangs.
//!
//! The number of a case determines which answers are faulty, and how (`serve_objects.py`, modes `mix` and `passing`).
//! `SHUFFLEFS_TEST_WIRE=N` makes N cases instead of 60, a tenth of them with whole stores.

use std::fs;
use std::io::IoSliceMut;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use shufflefs::engine::{Engine, ImageKey};
use shufflefs::format::Extension;
use shufflefs::plan::Sampling;
use shufflefs::session::spec::ViewSpec;
use shufflefs::session::{Session, Spec};
use shufflefs::storage;

use crate::area::in_time;
use crate::cached::ask;
use crate::damaged::Random;
use crate::remote::{SMALL, Server};
use crate::support::{Mount, list, store, stores, succeed};

/// One store of each kind: one file, shards, an object a chunk, an archive.
const STORES: [&str; 5] = [
    "wide-csr.h5ad",
    "csr-int16-zstd.sharded.zarr",
    "csr-float32-none.v3.zarr",
    "csr-float32-blosc.v2.zarr",
    "zip64.zarr.zip",
];
/// Larger than what opening reads.
const OBJECT: usize = 3 << 20;
/// The time limit of a case, including its retries.
const MOST: Duration = Duration::from_secs(60);

/// The results of all cases.
#[derive(Default)]
struct Tally {
    whole: AtomicU64,
    part: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    /// Counts a case with this many successful and failed reads.
    fn add(&self, right: u64, failed: u64) {
        let count = match (right, failed) {
            (_, 0) => &self.whole,
            (0, _) => &self.refused,
            _ => &self.part,
        };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

/// Checks the error of a case: one line, and none with only temporary faults.
fn told(case: u64, error: &str) {
    let is_fine = !["\n", "panicked", "internal error"].iter().any(|word| error.contains(word)) && !error.is_empty();
    assert!(is_fine && mode(case) == "mix", "case {case}: {error}");
}

/// Every second case has only temporary faults.
fn mode(case: u64) -> &'static str {
    if case.is_multiple_of(2) { "passing" } else { "mix" }
}

/// Reads ranges of an object by four threads, into up to four buffers each; returns successful and failed reads.
fn object(url: &Path, bytes: &[u8], case: u64) -> (u64, u64) {
    let opened = storage::locate(url).expect("an address").open();
    let object = match opened {
        Ok(object) => object,
        Err(error) => {
            told(case, &error.to_string());
            return (0, 1);
        }
    };
    assert_eq!(object.len(), bytes.len() as u64, "case {case}");
    let read = |random: &mut Random| {
        let mut below = |n: usize| random.below(n as u64) as usize;
        let start = below(bytes.len());
        let most = (bytes.len() - start).min([10, 5_000, 300_000, 2_000_000][below(4)]);
        let mut places: Vec<Vec<u8>> = (0..1 + below(4)).map(|_| vec![0; below(most / 4 + 1)]).collect();
        let mut parts: Vec<IoSliceMut<'_>> = places.iter_mut().map(|place| IoSliceMut::new(place)).collect();
        match object.read_vectored_at(start as u64, &mut parts) {
            Ok(()) => {
                let got = places.concat();
                assert!(got == bytes[start..start + got.len()], "case {case}: wrong bytes at {start}");
                true
            }
            Err(error) => {
                told(case, &error.to_string());
                false
            }
        }
    };
    std::thread::scope(|scope| {
        let reader = |number| {
            scope.spawn(move || {
                let mut random = Random::new(case * 4 + number);
                (0..4).filter(|_| read(&mut random)).count() as u64
            })
        };
        let readers: Vec<_> = (0..4).map(reader).collect();
        let right: u64 = readers.into_iter().map(|reader| reader.join().expect("a reader")).sum();
        (right, 16 - right)
    })
}

fn engine(store: &Path) -> Result<Engine, String> {
    let sampling = Sampling { batch_size: 32, block_size: 8, fetch_factor: 4, seed: 7, drop_last: false };
    let spec = Spec {
        views: vec![ViewSpec::sampled(sampling)],
        memory: Some(64 << 20),
        threads: 2,
        timeout: MOST,
        ..Spec::of(vec![store.to_owned()], std::env::temp_dir())
    };
    let session = Session::builder(spec).unprobed().derive().map_err(|error| error.to_string())?;
    session.engine().map_err(|error| error.to_string())
}

/// The batches of two epochs.
fn epochs(engine: &Engine) -> Vec<Result<Vec<u8>, String>> {
    let all = (0..2).flat_map(|epoch| (0..engine.plan(0).batches().min(12)).map(move |batch| (epoch, batch)));
    let read = |(epoch, batch)| {
        let key = ImageKey::file(0, epoch, batch, Extension::ALL[0]);
        let (sender, receiver) = mpsc::channel();
        let reply = move |bytes: Result<&[u8], &shufflefs::engine::ReadError>| {
            let _ = sender.send(bytes.map(<[u8]>::to_vec).map_err(ToString::to_string));
        };
        let size = engine.size(key).expect("a file of this plan") as usize;
        engine.read(key, None, (0, size), None, Box::new(reply));
        receiver.recv_timeout(2 * MOST).expect("every read is answered")
    };
    all.map(read).collect()
}

/// Reads a store; returns successful and failed batches.
fn whole_store(url: &Path, expected: &[Result<Vec<u8>, String>], case: u64) -> (u64, u64) {
    let got = match engine(url) {
        Ok(engine) => epochs(&engine),
        Err(error) => {
            told(case, &error);
            return (0, 1);
        }
    };
    let mut right = 0;
    for (got, expected) in got.iter().zip(expected) {
        match got {
            Ok(_) => {
                assert!(got == expected, "case {case}: {}: wrong bytes", url.display());
                right += 1;
            }
            Err(error) => told(case, error),
        }
    }
    (right, expected.len() as u64 - right)
}

#[test]
fn answers_that_fail_or_lie_end_in_right_bytes_or_an_error() {
    let cases: u64 = std::env::var("SHUFFLEFS_TEST_WIRE").map_or(60, |value| value.parse().expect("a number"));
    let first = std::env::var("SHUFFLEFS_TEST_WIRE_FROM").map_or(0, |value| value.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a directory");
    let mut random = Random::new(0);
    let bytes: Vec<u8> = (0..OBJECT).map(|_| random.below(256) as u8).collect();
    fs::write(folder.path().join("object"), &bytes).expect("writes");
    let local = stores(&STORES);
    for path in &local {
        succeed(std::process::Command::new("cp").arg("-r").arg(path).arg(folder.path()));
    }
    let expected: Vec<_> = local.iter().map(|path| epochs(&engine(path).expect("opens"))).collect();
    // One server for each kind of case, so that cases with temporary faults use no connection to a server that sent wrong answers.
    let servers = [Server::objects(folder.path()), Server::objects(folder.path())];
    for server in &servers {
        // Without faults first: a server that has never answered is not retried.
        assert_eq!(object(&server.url("none-0", "object"), &bytes, 0), (16, 0));
    }
    let (next, objects, wholes) = (AtomicU64::new(first), Tally::default(), Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let case = next.fetch_add(1, Ordering::SeqCst);
                    if case >= first + cases {
                        return;
                    }
                    let server = &servers[(case % 2) as usize];
                    let (place, began) = (format!("{}-{case}", mode(case)), Instant::now());
                    if case % 10 < 9 {
                        let (right, failed) = object(&server.url(&place, "object"), &bytes, case);
                        objects.add(right, failed);
                    } else {
                        let number = (case / 10) as usize % STORES.len();
                        let (right, failed) = whole_store(&server.url(&place, STORES[number]), &expected[number], case);
                        wholes.add(right, failed);
                    }
                    assert!(began.elapsed() < MOST, "case {case}: {:?}", began.elapsed());
                }
            });
        }
    });
    let [requests, faults]: [u64; 2] =
        ["count", "faults"].map(|what| servers.iter().map(|server| ask(server, what)).sum());
    let show = |tally: &Tally| {
        let [whole, part, refused] =
            [&tally.whole, &tally.part, &tally.refused].map(|count| count.load(Ordering::SeqCst));
        assert!(cases < 60 || whole > 0, "the test shows nothing");
        format!("{whole} whole, {part} in part, {refused} an error")
    };
    println!(
        "{cases} cases, {requests} requests, {faults} of them ill; objects: {}; stores: {}",
        show(&objects),
        show(&wholes)
    );
    assert!(faults > cases, "{faults} faults in {cases} cases");
}

/// The first files of an epoch below a mount; bytes or errno.
fn files(mount: &Mount) -> Vec<Result<Vec<u8>, i32>> {
    let place = mount.join("epoch-0000");
    in_time("reads of an epoch", move || {
        let read = |name: String| fs::read(place.join(name)).map_err(|error| error.raw_os_error().unwrap_or(0));
        list(&place).into_iter().take(4).map(read).collect()
    })
}

/// The answers of servers for an absent chunk, and whether they may be read as fill values.
#[test]
fn an_absent_chunk_is_fill_values_and_one_that_cannot_be_had_is_an_error() {
    let name = "dense-float32-none.v3.zarr";
    let folder = tempfile::tempdir().expect("a directory");
    succeed(std::process::Command::new("cp").arg("-r").arg(store(name)).arg(folder.path()));
    let here = folder.path().join(name);
    let all = files(&Mount::new(std::slice::from_ref(&here), &SMALL));
    let mut chunks: Vec<PathBuf> = Vec::new();
    let mut folders = vec![here.join("X/c")];
    while let Some(folder) = folders.pop() {
        for path in list(&folder).into_iter().map(|name| folder.join(name)) {
            if path.is_dir() { folders.push(path) } else { chunks.push(path) }
        }
    }
    chunks.sort();
    assert!(chunks.len() >= 4, "{} chunks", chunks.len());
    chunks.iter().step_by(2).for_each(|path| fs::remove_file(path).expect("removes"));
    let filled = files(&Mount::new(std::slice::from_ref(&here), &SMALL));
    assert!(all.iter().chain(&filled).all(Result::is_ok) && all != filled);
    // The answers for it: 404; 403, as from S3 without the right to list; 500; and 404 for all objects, as the store was removed while
    // mounted.
    let server = Server::objects(folder.path());
    for (mode, errno, words) in [
        ("none", 0, [""; 2]),
        ("denied", libc::EACCES, ["s3:ListBucket"; 2]),
        // On a busy machine, the mount's timeout may end first.
        ("broken", libc::EIO, ["answered 500", "no progress"]),
        ("removed", libc::ESTALE, ["removed"; 2]),
    ] {
        let mount = Mount::new(&[server.url(&format!("{mode}-0"), name)], &[&SMALL[..], &["--timeout", "3s"]].concat());
        let got = files(&mount);
        for (got, right) in got.iter().zip(&filled) {
            assert!(got == right || *got == Err(errno), "{mode}: {:?}", got.as_ref().err());
        }
        let log = fs::read_to_string(mount.join(".shufflefs/log")).expect("reads");
        assert_eq!(got.iter().any(Result::is_err), errno != 0, "{mode}: {log}");
        assert!(words.iter().any(|words| log.contains(words)), "{mode}: {log}");
    }
}

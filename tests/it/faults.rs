//! Stores on files that fail, are slow, hang or return wrong data: a read gives the right bytes or the documented errno, the mount
//! continues, and no buffer is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::area::{in_time, until};
use crate::ill_files::{ANY, Ail, Fault, IllFiles, OPEN, READ};
use crate::support::{Mount, list, store, succeed, text};

const SMALL: [&str; 6] = ["--batch-size", "128", "--block-size", "16", "--fetch-factor", "3"];

/// Stores with each kind of container and codec: raw and encoded, one file and many, a shard index, a zip directory.
const STORES: [&str; 6] = [
    "csr-float32-gzip.h5ad",
    "dense-float32-none.h5ad",
    "csr-float32-blosc.v2.zarr",
    "csr-int16-zstd.sharded.zarr",
    "csr-float32-none.v3.zarr",
    "zip64.zarr.zip",
];

/// The files of an epoch, read by three readers; bytes, or the errno.
fn epoch(mount: &Path, number: u64) -> Vec<Result<Vec<u8>, i32>> {
    let place = mount.join(format!("epoch-{number:04}"));
    let names = list(&place);
    let next = AtomicUsize::new(0);
    let mut read: Vec<(usize, Result<Vec<u8>, i32>)> = std::thread::scope(|scope| {
        let reader = || {
            let mut mine = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::SeqCst);
                let Some(name) = names.get(at) else { return mine };
                mine.push((at, fs::read(place.join(name)).map_err(|error| error.raw_os_error().unwrap())));
            }
        };
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(reader)).collect();
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    });
    read.sort_by_key(|(at, _)| *at);
    read.into_iter().map(|(_, bytes)| bytes).collect()
}

/// A copy of a store on files that can fail, and the correct bytes of two epochs.
struct Patient {
    files: IllFiles,
    name: &'static str,
    right: [Vec<Result<Vec<u8>, i32>>; 2],
    _place: tempfile::TempDir,
}

impl Patient {
    fn of(name: &'static str) -> Patient {
        let whole = store(name);
        let mount = Mount::new(std::slice::from_ref(&whole), &SMALL);
        let right = [0, 1].map(|number| epoch(mount.path(), number));
        mount.unmount();
        let place = tempfile::tempdir().unwrap();
        succeed(std::process::Command::new("cp").arg("-r").arg(&whole).arg(place.path()));
        Patient { files: IllFiles::show(place.path()), name, right, _place: place }
    }

    fn store(&self) -> PathBuf {
        self.files.path().join(self.name)
    }

    /// With a short timeout if the fault is a wait.
    fn mount(&self, ail: Ail) -> Mount {
        let patience = if ail == Ail::Stuck { "1s" } else { "60s" };
        Mount::new(&[self.store()], &[&SMALL[..], &["--timeout", patience]].concat())
    }
}

/// Error lines of the log. One cause has one line.
fn errors(mount: &Mount) -> Vec<String> {
    let log = fs::read_to_string(mount.join(".shufflefs/log")).unwrap();
    let lines: Vec<String> = log.lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    for line in log.lines() {
        assert!(!line.contains("panicked") && !line.contains("internal error"), "{line}");
    }
    let told: BTreeSet<&str> = lines.iter().map(|line| line.split_once("ERROR").unwrap().1).collect();
    assert_eq!(told.len(), lines.len(), "one cause has one line: {lines:#?}");
    lines
}

/// Waits until nothing is loading and checks that no buffer is lost; returns how many loads failed.
pub fn settled(mount: &Mount) -> u64 {
    until("the gauges are back at zero", || {
        let stats = mount.json(".shufflefs/stats.json");
        stats["images"]["loading"] == 0 && stats["memory"]["loading_bytes"] == 0
    });
    let stats = mount.json(".shufflefs/stats.json");
    assert!(stats["memory"]["used_bytes"].as_u64() <= stats["memory"]["budget_bytes"].as_u64(), "{stats}");
    stats["loads"]["failed"].as_u64().unwrap()
}

/// The errnos allowed if all calls have this fault; None: reads must give the right bytes.
fn expected(ail: Ail, scattered: bool) -> Option<&'static [i32]> {
    match ail {
        Ail::Errno(libc::EACCES) => Some(&[libc::EACCES]),
        Ail::Errno(libc::EMFILE) => Some(&[libc::EMFILE]),
        Ail::Errno(libc::ENFILE) => Some(&[libc::ENFILE]),
        Ail::Errno(libc::ENOMEM) => Some(&[libc::ENOMEM]),
        Ail::Errno(libc::ESTALE) => Some(&[libc::ESTALE]),
        // One of many files that ends early is a damaged chunk; the only file was truncated under the mount.
        Ail::Empty if scattered => Some(&[libc::ESTALE, libc::EIO]),
        Ail::Empty => Some(&[libc::ESTALE]),
        Ail::Errno(_) | Ail::Stuck => Some(&[libc::EIO]),
        Ail::Short | Ail::Slow => None,
        Ail::Flip => Some(&[libc::EIO]),
    }
}

const AILS: [(Ail, u8); 11] = [
    (Ail::Errno(libc::EIO), READ),
    (Ail::Short, READ),
    (Ail::Empty, READ),
    (Ail::Errno(libc::EACCES), READ | OPEN),
    (Ail::Slow, READ | OPEN),
    (Ail::Errno(libc::EMFILE), READ | OPEN),
    (Ail::Errno(libc::ENOMEM), READ),
    (Ail::Errno(libc::ESTALE), READ),
    (Ail::Errno(libc::ETIMEDOUT), READ),
    (Ail::Stuck, READ),
    (Ail::Errno(libc::EIO), ANY),
];

/// Reads while all calls of a kind, and while every third, have a fault; then without faults.
#[test]
fn reads_end_in_right_bytes_or_the_documented_errno() {
    let all = std::env::var_os("SHUFFLEFS_TEST_FAULTS").is_some();
    let (mut cases, mut faults) = (0, 0);
    for (number, name) in STORES.into_iter().enumerate() {
        let patient = Patient::of(name);
        let scattered = !name.ends_with(".h5ad");
        // Each store has a third of the faults, and each fault has two stores of different kinds.
        let mine = AILS.into_iter().enumerate().filter(|(at, _)| all || at % 3 == number % 3).map(|(_, ail)| ail);
        for (ail, calls) in mine {
            let mount = patient.mount(ail);
            let mut failures = false;
            for every in [1, 3] {
                patient.files.fall_ill(Fault { ail, calls, from: 0, every, once: false });
                let path = mount.path();
                let ill = in_time("reads of ill files", move || epoch(path, 0));
                let (met, of) = patient.files.recover();
                let what = format!("{name}: {ail:?} at every {every} of {of} calls");
                (cases, faults) = (cases + 1, faults + met);
                assert!(met > 0 || every > 1, "{what}: the test shows nothing");
                for (got, right) in ill.iter().zip(&patient.right[0]) {
                    match (got, expected(ail, scattered)) {
                        (Ok(_), _) => assert!(got == right, "{what}: wrong bytes"),
                        (Err(errno), Some(errnos)) => assert!(errnos.contains(errno), "{what}: errno {errno}"),
                        (Err(errno), None) => panic!("{what}: errno {errno}: {:#?}", errors(&mount)),
                    }
                }
                let must_fail = every == 1 && expected(ail, scattered).is_some();
                assert!(!must_fail || ill.iter().all(Result::is_err), "{what}: reads that need what failed");
                failures |= ill.iter().any(Result::is_err);
            }
            // Failures are not remembered, and nothing is lost.
            let what = format!("{name}: after {ail:?}");
            for (number, right) in patient.right.iter().enumerate() {
                let got = epoch(mount.path(), number as u64);
                let wrong: Vec<_> = got.iter().zip(right).map(|(got, right)| got == right || got.is_err()).collect();
                let errnos: Vec<_> = got.iter().filter_map(|got| got.as_ref().err()).collect();
                assert!(got == *right, "{what}: epoch {number}: {wrong:?}, errnos {errnos:?}");
            }
            assert_eq!(settled(&mount) > 0, failures, "{what}: failures are counted");
            assert_eq!(errors(&mount).is_empty(), !failures, "{what}: failures are told");
            mount.unmount();
        }
    }
    println!("{cases} epochs with {faults} faults, each read twice more without any");
}

/// If there is a checksum, changed bytes are an error of the batches that need them.
#[test]
fn wrong_bytes_are_found_by_checksums() {
    for name in ["csr-float32-gzip.h5ad", "zip64.zarr.zip"] {
        let patient = Patient::of(name);
        let mount = patient.mount(Ail::Flip);
        patient.files.fall_ill(Fault::always(Ail::Flip, READ));
        let ill = epoch(mount.path(), 0);
        let (met, _) = patient.files.recover();
        assert!(met > 0, "{name}");
        for (got, right) in ill.iter().zip(&patient.right[0]) {
            assert!(got == right || *got == Err(libc::EIO), "{name}: {:?}", got.as_ref().err());
        }
        assert!(ill.iter().any(Result::is_err), "{name}: the test shows nothing");
        assert!(epoch(mount.path(), 0) == patient.right[0], "{name}: after it");
        settled(&mount);
        mount.unmount();
    }
}

/// Between two reads a file gets another mtime or size: ESTALE and one line, until it is restored.
#[test]
fn another_version_is_stale_while_it_is_there() {
    for name in STORES {
        let patient = Patient::of(name);
        for (later, longer) in [(1, 0), (-1_000_000_000, 0), (0, 1), (0, -1)] {
            let mount = patient.mount(Ail::Slow);
            assert!(fs::read(mount.join("epoch-0001").join(&list(&mount.join("epoch-0001"))[0])).is_ok(), "{name}");
            patient.files.change(later, longer);
            let ill = epoch(mount.path(), 0);
            patient.files.change(0, 0);
            for (got, right) in ill.iter().zip(&patient.right[0]) {
                assert!(got == right || *got == Err(libc::ESTALE), "{name} {later} {longer}: {:?}", got.as_ref().err());
            }
            assert!(ill.iter().any(Result::is_err), "{name}: the change is not noticed");
            let lines = errors(&mount);
            assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(name)), "{lines:?}");
            settled(&mount);
            mount.unmount();
        }
    }
}

/// Each call of a mount to its store fails in turn: one line and code 3, nothing left; or the call was not needed.
#[test]
fn a_mount_of_ill_files_is_refused_in_one_line() {
    let share = if std::env::var_os("SHUFFLEFS_TEST_FAULTS").is_some() { 1 } else { 16 };
    let (mut refused, mut served) = (0, 0);
    for name in STORES {
        let patient = Patient::of(name);
        patient.files.fall_ill(Fault { ail: Ail::Slow, calls: ANY, from: u64::MAX, every: 1, once: true });
        patient.mount(Ail::Slow).unmount();
        let (_, calls) = patient.files.recover();
        assert!(calls > 4, "{name}: {calls} calls");
        let ails = [Ail::Errno(libc::EIO), Ail::Empty, Ail::Errno(libc::EACCES), Ail::Errno(libc::ENOENT)];
        for from in (0..calls).step_by(share) {
            let ail = ails[(from as usize / share) % ails.len()];
            patient.files.fall_ill(Fault { ail, calls: ANY, from, every: 1, once: true });
            let tried = Mount::try_new(&[patient.store()], &SMALL);
            patient.files.recover();
            let what = format!("{name}: {ail:?} at call {from} of {calls}");
            match tried {
                Err(output) => {
                    refused += 1;
                    let line = text(&output.stderr);
                    assert_eq!(output.status.code(), Some(3), "{what}: {line}");
                    assert_eq!(line.trim_end().lines().count(), 1, "{what}: {line}");
                    assert!(line.contains(name) && !line.contains("panicked"), "{what}: {line}");
                }
                Ok(mount) => {
                    served += 1;
                    let got = epoch(mount.path(), 0);
                    let same = got.iter().zip(&patient.right[0]).all(|(got, right)| got == right);
                    // A zarr document that is reported as absent counts as an element that the store does not have.
                    // libhdf5 reads missing bytes of a file as zeros (docs/damage.md).
                    let blind = ail == Ail::Errno(libc::ENOENT) || (ail == Ail::Empty && name.ends_with(".h5ad"));
                    assert!(
                        same || blind,
                        "{what}: it is mounted, and other bytes are served:\n{}",
                        fs::read_to_string(mount.join(".shufflefs/log")).unwrap()
                    );
                    mount.unmount();
                }
            }
        }
    }
    println!("{} mounts with a fault each: {refused} refused, {served} mounted", refused + served);
}

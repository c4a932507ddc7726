//! Damage of every kind in many places: no panic, no hang, no wrong value in undamaged parts, nothing left behind.
//!
//! The cases run in separate processes, hundreds in each, because libhdf5 is C: if it crashes, a mount's probe would have crashed
//! too, and the case counts as isolated. A crash in a zarr case would be a fault of shufflefs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::area::patience;
use crate::damaged::{CRASH, DIFFERS, HANG, REFUSED, RIGHT, SOME_FAILED, Subject, WRONG};
use crate::support::{Mount, made_by, python, shufflefs, succeed, text};
use serde_json::Value;

/// Stores, and how many cases each has in all.
const SUBJECTS: [(&str, u64); 7] = [
    ("tiny.h5ad", 6000),
    ("checked.h5ad", 2000),
    ("plain.h5ad", 3000),
    ("tiny.v2.zarr", 3500),
    ("tiny.v3.zarr", 3500),
    ("plain.v3.zarr", 2500),
    ("tiny.zarr.zip", 1500),
];

/// The directory of the tiny stores.
pub fn tiny() -> PathBuf {
    made_by("tiny_stores.py")
}

/// A directory in memory that is removed with the test.
fn memory() -> tempfile::TempDir {
    let base = Path::new("/dev/shm");
    let base = if base.is_dir() { base.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("shufflefs-damage-").tempdir_in(base).unwrap()
}

/// Not a test: the processes of `flips_and_cuts` run this for cases FROM.. of a store, whose numbers begin at FIRST. Outcomes are
/// written to a file.
#[test]
#[ignore = "run by flips_and_cuts in a process of its own"]
fn worker() {
    let job = std::env::var("SHUFFLEFS_DAMAGE").unwrap();
    let [store, work, first, from, count] = job.split('|').collect::<Vec<_>>()[..] else { panic!("{job}") };
    let first: u64 = first.parse().unwrap();
    let work = Path::new(work);
    // As in the program: caught panics are not printed.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !shufflefs::array::catch_panic::is_catching_panics() {
            print(panic);
        }
    }));
    // Files that another worker left when it died.
    let _ = fs::remove_dir_all(work.join("case.zarr"));
    let subject = Subject::open(Path::new(store), work);
    let report = File::options().write(true).open(work.join("report")).unwrap();
    // SAFETY: the handle of this thread, which outlives the watchdog's use of it.
    let this = unsafe { libc::pthread_self() };
    let is_h5ad = store.ends_with("h5ad");
    std::thread::spawn(move || watchdog(this, is_h5ad));
    for number in from.parse().unwrap()..count.parse().unwrap() {
        report.write_all_at(&[OPENING], number).unwrap();
        CASE.store(2 * number, Ordering::SeqCst);
        let opened = || {
            CASE.store(2 * number + 1, Ordering::SeqCst);
            report.write_all_at(&[READING], number).unwrap();
        };
        let (outcome, why) = subject.run(first + number, work, &opened);
        CASE.store(NONE, Ordering::SeqCst);
        report.write_all_at(&[outcome], number).unwrap();
        if outcome == WRONG {
            println!("WRONG {store} {why}");
        }
    }
}

/// The report's byte for a case that has not ended.
const OPENING: u8 = b'?';
const READING: u8 = b'!';
/// Twice the number of the running case, plus one once its store is open.
static CASE: AtomicU64 = AtomicU64::new(NONE);
const NONE: u64 = u64::MAX;

/// Ends the process when a case uses processor time without end. Not wall clock time, as the machine may be busy.
///
/// libhdf5 opening a damaged file hangs in one case of a hundred, which is allowed: the limit is fifty times what any case takes
/// that ends. The limit for code that must not hang is more than any machine needs.
fn watchdog(thread: libc::pthread_t, is_h5ad: bool) {
    let most = |case: u64| if is_h5ad && case.is_multiple_of(2) { 0.2 } else { 10.0 };
    const LOOK: Duration = Duration::from_millis(50);
    let spent = || {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the thread lives as long as the process, and both pointers are to locals.
        unsafe {
            libc::pthread_getcpuclockid(thread, &raw mut clock);
            libc::clock_gettime(clock, &raw mut time);
        }
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let (mut case, mut last, mut taken) = (NONE, 0.0, 0.0);
    loop {
        std::thread::sleep(LOOK);
        let (now, clock) = (CASE.load(Ordering::SeqCst), spent());
        // A pause of a virtual machine counts as processor time of the running process, so each period counts as at most its length.
        taken = if now == case && case != NONE { taken + LOOK.as_secs_f64().min(clock - last) } else { 0.0 };
        (case, last) = (now, clock);
        if taken > most(case) {
            // SAFETY: does not return.
            unsafe { libc::_exit(STUCK) };
        }
    }
}

/// Exit code of a worker that hangs.
const STUCK: i32 = 99;

/// A worker for the remaining cases, and the pipe for its messages.
fn start(store: &Path, work: &Path, (first, from, count): (u64, u64, u64)) -> Child {
    let said = File::options().create(true).append(true).open(work.join("said")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "damage::worker", "--nocapture", "--test-threads=1"]);
    command.env("SHUFFLEFS_DAMAGE", format!("{}|{}|{first}|{from}|{count}", store.display(), work.display()));
    // Symbolising a backtrace takes longer than any case.
    command.env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
    // SAFETY: between fork and exec, system calls only.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            for (resource, bytes) in [(libc::RLIMIT_AS, 6 << 30), (libc::RLIMIT_CORE, 0)] {
                let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
                libc::setrlimit(resource, &raw const limit);
            }
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// Runs cases of one store, from number `first` on; returns the outcome of each, and the messages.
fn cases(store: &Path, first: u64, count: u64) -> (Vec<u8>, String) {
    let patience = 6 * patience();
    let place = memory();
    let work = place.path();
    fs::write(work.join("report"), vec![b' '; count as usize]).unwrap();
    let report = File::options().read(true).write(true).open(work.join("report")).unwrap();
    let outcomes = || fs::read(work.join("report")).unwrap();
    let mut from = 0;
    while from < count {
        let mut child = start(store, work, (first, from, count));
        let (mut last, mut since) = (Vec::new(), Instant::now());
        let (status, outcome) = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break (Some(status), if status.code() == Some(STUCK) { HANG } else { CRASH });
            }
            let now = outcomes();
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > patience {
                child.kill().unwrap();
                child.wait().unwrap();
                break (None, HANG);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let outcomes = outcomes();
        let at = outcomes.iter().position(|outcome| [OPENING, READING].contains(outcome));
        // A mount's probe only opens stores, so a crash while reading is a fault of shufflefs.
        let ours = at.is_some_and(|at| outcomes[at] == READING);
        if ours {
            println!("{}: case {first} + {at:?} ended its process ({status:?}) while it was read", store.display());
        }
        let outcome = if ours { WRONG } else { outcome };
        match (at, status) {
            (None, Some(status)) if status.success() => break,
            (Some(at), _) => {
                report.write_all_at(&[outcome], at as u64).unwrap();
                from = at as u64 + 1;
            }
            (None, status) => panic!("a worker ended ({status:?}): {}", said(work)),
        }
    }
    (outcomes(), said(work))
}

fn said(work: &Path) -> String {
    text(&fs::read(work.join("said")).unwrap_or_default())
}

/// A quarter of the cases, or SHUFFLEFS_DAMAGE_CASES percent: `scripts/test --all` runs all. Skips the first SHUFFLEFS_DAMAGE_FROM
/// percent, so that a long run can be divided.
#[test]
fn flips_and_cuts() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (percent, before) =
        (number("SHUFFLEFS_DAMAGE_CASES").unwrap_or(25), number("SHUFFLEFS_DAMAGE_FROM").unwrap_or(0));
    let place = tiny();
    let began = Instant::now();
    let results: Vec<(&str, Vec<u8>, String)> = std::thread::scope(|scope| {
        let one = |(name, count): (&'static str, u64)| {
            let store = place.join(name);
            scope.spawn(move || {
                let (outcomes, said) = cases(&store, count * before / 100, count * percent / 100);
                (name, outcomes, said)
            })
        };
        let running: Vec<_> = SUBJECTS.into_iter().map(one).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut wrong = String::new();
    let mut total = 0;
    for (name, outcomes, said) in &results {
        let count = |outcome| outcomes.iter().filter(|&&other| other == outcome).count();
        println!(
            "{name}: {} cases: {} refused, {} right, {} with EIO, {} unnoticeable, {} crashes isolated, {} hangs isolated",
            outcomes.len(),
            count(REFUSED),
            count(RIGHT),
            count(SOME_FAILED),
            count(DIFFERS),
            count(CRASH),
            count(HANG)
        );
        total += outcomes.len();
        let ours = !name.ends_with("h5ad") && count(CRASH) + count(HANG) > 0;
        // A panic in a thread or a failed allocation is not a crash of libhdf5.
        if count(WRONG) > 0 || ours || said.contains("memory allocation of") || said.contains("panicked at src") {
            let lines: Vec<&str> = said
                .lines()
                .filter(|line| line.contains("WRONG") || line.contains("panicked") || line.contains("allocation"))
                .take(20)
                .collect();
            wrong.push_str(&format!("{name}: {}\n", lines.join("\n")));
        }
        assert!(outcomes.iter().all(|outcome| !b" ?!".contains(outcome)), "{name}: cases were left out");
        assert!(count(RIGHT) > 0 && count(REFUSED) > 0, "{name}: the test shows nothing");
    }
    println!("{total} cases after {before} % in {:.0} s", began.elapsed().as_secs_f64());
    assert!(wrong.is_empty(), "{wrong}");
}

/// Stores with wrong shapes, types, chunks and names: one line and exit code 3, or EIO; in a short time, and with little memory.
#[test]
fn stores_that_lie() {
    let place = memory();
    let made = succeed(python("hostile_stores.py").arg(tiny()).arg(place.path().join("stores")));
    let cases: Value = serde_json::from_str(&made).unwrap();
    let cases = cases.as_object().unwrap();
    assert!(cases.len() > 120);
    let mut wrong = Vec::new();
    for (path, word) in cases {
        let (path, word) = (PathBuf::from(path), word.as_str().unwrap());
        let mut complain = |what: String| wrong.push(format!("{}: {what}", path.file_name().unwrap().display()));
        let began = Instant::now();
        match Mount::try_new(std::slice::from_ref(&path), &["--batch-size", "16", "--timeout", "10s"]) {
            Ok(mount) => {
                let files = ["npz", "npy"].iter().flat_map(|extension| (0..3).map(move |batch| (batch, *extension)));
                let read =
                    |(batch, extension)| fs::read(mount.join(format!("epoch-0000/batch-{batch:06}.{extension}")));
                let errors: Vec<_> = files.map(read).filter_map(Result::err).map(|e| e.raw_os_error()).collect();
                if word == "MOUNTS" {
                    // Paths that leave the store are treated as absent.
                    let served = mount.json("dataset.json")["columns"].to_string();
                    assert!(errors.is_empty() && !served.contains("plain/obs"), "{path:?}: {errors:?} {served}");
                    // The matrix is unchanged.
                    let whole = if path.is_dir() { "plain.v3.zarr" } else { "plain.h5ad" };
                    succeed(python("check_rows.py").arg(mount.path()).arg(tiny().join(whole)));
                } else if word != "EIO" || errors.is_empty() || errors.iter().any(|&error| error != Some(libc::EIO)) {
                    complain(format!("was mounted; errors of reads: {errors:?}"));
                }
                mount.unmount();
            }
            Err(output) => {
                let line = text(&output.stderr);
                let name = path.file_name().unwrap().to_str().unwrap();
                let good = output.status.code() == Some(3) && line.trim_end().lines().count() == 1;
                if !good
                    || !line.contains(word)
                    || !line.contains(name)
                    || matches!(word, "EIO" | "MOUNTS")
                    || line.contains("panic")
                {
                    complain(format!("{}: {line}", output.status));
                }
            }
        }
        if began.elapsed() > Duration::from_secs(20) {
            complain(format!("took {:?}", began.elapsed()));
        }
        let output = shufflefs().args(["info", "--check", "--json"]).arg(&path).output().unwrap();
        // Parts with an unknown encoding are not damage: they are listed as not read.
        let not_read = text(&output.stdout).contains("\"reason\"");
        if output.status.code() != Some(3) && !not_read && word != "MOUNTS" {
            complain(format!("info --check: {}: {}{}", output.status, text(&output.stdout), text(&output.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Overwrites a chunk of a store in place; returns the number of the chunk that `info --check` must name.
fn overwrite(store: &Path, name: &str, element: &str) -> u64 {
    const CHUNK: usize = 2;
    if store.is_dir() {
        let file = store.join(element).join("c/0");
        let file = if file.exists() { file } else { store.join(element).join(CHUNK.to_string()) };
        let mut bytes = fs::read(&file).unwrap();
        // The first inner chunk of a shard, or the chunk that is a file.
        let chunk = if file.ends_with("c/0") { 0 } else { CHUNK as u64 };
        bytes[11] ^= 0x55;
        fs::write(file, bytes).unwrap();
        return chunk;
    }
    let map = tiny().join(format!("{name}.json"));
    let map: Value = serde_json::from_slice(&fs::read(map).unwrap()).unwrap();
    let chunks: Vec<&Value> = map.as_array().unwrap().iter().filter(|extent| extent[0] == element).collect();
    let file = File::options().read(true).write(true).open(store).unwrap();
    let at = chunks[CHUNK][1].as_u64().unwrap() + 7;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
    CHUNK as u64
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

/// A chunk that fails its checksum or does not decode: named by `--check`, EIO only for its batches, one line in the log.
#[test]
fn a_damaged_chunk_is_named() {
    for name in ["tiny.h5ad", "checked.h5ad", "tiny.v2.zarr", "tiny.v3.zarr"] {
        let place = memory();
        let store = place.path().join(name);
        copy(&tiny().join(name), &store);
        let whole = shufflefs().args(["info", "--check"]).arg(&store).output().unwrap();
        assert_eq!(whole.status.code(), Some(0), "{name}: {}{}", text(&whole.stdout), text(&whole.stderr));
        let chunk = overwrite(&store, name, "X/data");
        let output = shufflefs().args(["info", "--check", "--json"]).arg(&store).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{name}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let damage = report[0]["check"]["damage"].as_array().unwrap();
        assert_eq!(damage.len(), 1, "{name}: {damage:?}");
        assert_eq!((&damage[0]["element"], &damage[0]["chunk"]), (&"X/data".into(), &chunk.into()), "{name}");
        let words = text(&shufflefs().args(["info", "--check"]).arg(&store).output().unwrap().stdout);
        let line = words.lines().filter(|line| line.contains(&format!("{name}: X/data: chunk {chunk}: "))).count();
        assert_eq!(line, 1, "{name}: {words}");

        let log = place.path().join("log");
        let options = ["--batch-size", "8", "--block-size", "4", "--log", log.to_str().unwrap()];
        let mount = Mount::new(std::slice::from_ref(&store), &options);
        let good = Mount::new(&[tiny().join(name)], &options[..4]);
        let (mut failed, mut right) = (0, 0);
        for batch in 0..6 {
            let file = format!("epoch-0000/batch-{batch:06}.npy");
            match fs::read(mount.join(&file)) {
                Ok(bytes) => {
                    assert_eq!(bytes, fs::read(good.join(&file)).unwrap(), "{name}: {file}");
                    right += 1;
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}: {file}");
                    failed += 1;
                }
            }
            let rows = format!("epoch-0000/batch-{batch:06}.tsv");
            assert_eq!(fs::read(mount.join(&rows)).unwrap(), fs::read(good.join(&rows)).unwrap(), "{name}");
        }
        assert!(failed > 0 && right > 0, "{name}: {failed} failed, {right} right: the test shows nothing");
        let lines = fs::read_to_string(&log).unwrap();
        let told = lines.lines().filter(|line| line.contains(&format!("{name}: X/data: chunk {chunk}: "))).count();
        assert_eq!(told, 1, "{name}:\n{lines}");
        mount.unmount();
        good.unmount();
    }
}

/// An uncompressed store that was truncated before the mount is refused, because its lengths do not fit.
#[test]
fn a_store_that_was_cut_is_refused() {
    let place = memory();
    for name in ["plain.h5ad", "tiny.h5ad"] {
        let store = place.path().join(name);
        copy(&tiny().join(name), &store);
        let len = fs::metadata(&store).unwrap().len();
        for cut in [len - 1, len - 500, len / 2] {
            File::options().write(true).open(&store).unwrap().set_len(cut).unwrap();
            let Err(output) = Mount::try_new(std::slice::from_ref(&store), &[]) else { panic!("{name} cut to {cut}") };
            let line = text(&output.stderr);
            assert!(line.contains("truncated") && output.status.code() == Some(3), "{cut}: {line}");
        }
    }
}

/// `run` and `mount` report a crash of libhdf5 in one line, and continue if a store hangs for less than the limit.
#[test]
fn a_crash_of_libhdf5_is_one_line() {
    let place = memory();
    let store = place.path().join("crash.h5ad");
    // Found by fuzzing; HDF5 2.2.0 reads address 0 when it opens it.
    let packed = Path::new(crate::support::ROOT).join("tests/it/crash.h5ad.gz");
    let status = Command::new("gzip").arg("-dc").arg(packed).stdout(File::create(&store).unwrap()).status();
    assert!(status.unwrap().success());
    let good = tiny().join("tiny.h5ad");
    for command in ["mount", "run", "info"] {
        let mut line = shufflefs();
        line.arg(command);
        match command {
            "mount" => line.args([&good, &store]).arg(place.path().join("mnt")),
            "run" => line.args([&store, &good]).args(["--", "true"]),
            _ => line.arg(&store),
        };
        let output = line.output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(if command == "run" { 125 } else { 3 }), "{command}: {message}");
        assert!(message.contains("crash.h5ad: libhdf5 crashed on it (SIG"), "{command}: {message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{command}: {message}");
    }
    assert!(!place.path().join("mnt").exists(), "the mountpoint is left");
}

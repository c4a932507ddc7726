//! Load: 64 readers of every kind at once; nothing grows, nothing is lost, no byte is wrong. And limits: mounts with little
//! memory, few descriptors or threads, and little locked memory.
//!
//! `SHUFFLEFS_TEST_LOAD_SECONDS=N` reads for N seconds instead of 20.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::area::{Area, Ran, in_time, is_root, until};
use crate::faults::settled;
use crate::support::{Mount, bounded, list, sha256, store};

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The kinds of readers.
const KINDS: [&str; 8] = ["whole", "pieces", "mapped", "backwards", "two epochs", "stat", "cp", "tar"];

/// Reads one file as this kind of reader; returns the number of bytes.
fn read(kind: &str, path: &Path, wanted: &[u8]) -> u64 {
    let file = || File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let got = match kind {
        "pieces" => {
            let (file, mut got) = (file(), vec![0; wanted.len()]);
            for (at, piece) in got.chunks_mut(7001).enumerate() {
                file.read_exact_at(piece, at as u64 * 7001).unwrap();
            }
            got
        }
        "backwards" => {
            let (file, mut got) = (file(), vec![0; wanted.len()]);
            for (at, piece) in got.chunks_mut(40_000).enumerate().rev() {
                file.read_exact_at(piece, at as u64 * 40_000).unwrap();
            }
            got
        }
        "mapped" => {
            // SAFETY: a file of a read-only mount, which does not change.
            let map = unsafe { memmap2::Mmap::map(&file()).unwrap() };
            map.to_vec()
        }
        "stat" => {
            assert_eq!(fs::metadata(path).unwrap().len(), wanted.len() as u64);
            return 1;
        }
        _ => fs::read(path).unwrap(),
    };
    assert!(got == wanted, "{kind}: {} has other bytes", path.display());
    got.len() as u64
}

/// Resources of a process: resident memory, threads, descriptors.
#[derive(Clone, Copy, Debug, Default)]
struct Gauges {
    rss_kib: u64,
    threads: u64,
    files: u64,
}

impl Gauges {
    fn of(pid: u64) -> Gauges {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        Gauges { rss_kib: number("VmRSS:"), threads: number("Threads:"), files }
    }

    fn most(self, other: Gauges) -> Gauges {
        Gauges {
            rss_kib: self.rss_kib.max(other.rss_kib),
            threads: self.threads.max(other.threads),
            files: self.files.max(other.files),
        }
    }
}

#[test]
fn sixty_four_readers_of_every_kind() {
    let seconds = std::env::var("SHUFFLEFS_TEST_LOAD_SECONDS").map_or(20, |count| count.parse().unwrap());
    let paths = [store("sparse.h5ad")];
    let options = ["--batch-size", "64", "--block-size", "16", "--fetch-factor", "4", "--split", "a=0.7,b=0.3"];
    let truth = Mount::new(&paths, &options);
    let mut files = Files::new();
    for folder in ["a/epoch-0000", "a/epoch-0001", "b/epoch-0000", "b/epoch-0001"] {
        for name in list(&truth.join(folder)) {
            let path = Path::new(folder).join(name);
            files.insert(path.clone(), fs::read(truth.join(&path)).unwrap());
        }
    }
    truth.unmount();
    let mount = Mount::new(&paths, &[&options[..], &["--memory", "16MiB"]].concat());
    let pid = mount.json(".shufflefs/options.json")["pid"].as_u64().unwrap();
    let stop = AtomicBool::new(false);
    let bytes: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
    let (files, root) = (&files, mount.path());
    let reader = |number: usize| {
        let kind = KINDS[number % KINDS.len()];
        let view = ["a", "b"][number / 8 % 2];
        let copies = tempfile::tempdir().unwrap();
        for round in 0.. {
            let epoch = if kind == "two epochs" { round % 2 } else { number / 16 % 2 };
            let folder = format!("{view}/epoch-{epoch:04}");
            match kind {
                "cp" | "tar" => {
                    let script = if kind == "cp" {
                        "rm -rf c; cp -r \"$0\" c"
                    } else {
                        "rm -rf c; mkdir c; tar -C \"$0\" -cf - . | tar -C c -xf -"
                    };
                    let mut copy = bounded(120, "sh");
                    let status = copy
                        .args(["-c", &format!("{script}; chmod -R u+w c")])
                        .arg(root.join(&folder))
                        .current_dir(copies.path())
                        .status();
                    assert!(status.unwrap().success(), "{kind}");
                    for name in list(&copies.path().join("c")) {
                        let got = fs::read(copies.path().join("c").join(&name)).unwrap();
                        assert!(got == files[&Path::new(&folder).join(&name)], "{kind}: {name} has other bytes");
                        bytes[number].fetch_add(got.len() as u64, Ordering::Relaxed);
                    }
                }
                _ => {
                    for (path, wanted) in
                        files.range(PathBuf::from(&folder)..).take_while(|(path, _)| path.starts_with(&folder))
                    {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        bytes[number].fetch_add(read(kind, &root.join(path), wanted), Ordering::Relaxed);
                    }
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..64)
            .map(|number| {
                scope.spawn({
                    let reader = &reader;
                    move || reader(number)
                })
            })
            .collect();
        let began = Instant::now();
        // On a busy machine, until there are enough samples to compare.
        let enough = |samples: usize| began.elapsed() >= Duration::from_secs(seconds) && samples >= 30;
        while !enough(samples.len()) && !readers.iter().any(|reader| reader.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            samples.push(Gauges::of(pid));
        }
        stop.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    let largest = files.values().map(|bytes| bytes.len() as u64).max().unwrap();
    let epoch =
        |folder| files.iter().filter(|(path, _)| path.starts_with(folder)).map(|(_, bytes)| bytes.len() as u64).sum();
    let whole: u64 = ["a/epoch-0000", "a/epoch-0001"].into_iter().map(epoch).max().unwrap();
    let total: u64 = bytes.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    for (at, kind) in KINDS.into_iter().enumerate() {
        let mine: Vec<u64> =
            bytes.iter().skip(at).step_by(KINDS.len()).map(|count| count.load(Ordering::Relaxed)).collect();
        let (least, most) = (*mine.iter().min().unwrap(), *mine.iter().max().unwrap());
        println!("{kind}: from {least} to {most} bytes a reader");
        assert!(least > 0, "{kind}: a reader starved: {mine:?}");
        // Readers of a kind differ in view and epoch. Their bytes grow by a file or, for cp and tar, by an epoch.
        let step = if matches!(kind, "cp" | "tar") { whole } else { largest };
        // The kernel answers `stat`, without the daemon.
        assert!(
            kind == "stat" || most <= 2 * (least + step),
            "{kind}: readers of a kind are served unequally: {mine:?}"
        );
    }
    // The maximum in each third of the time.
    let third = |number| {
        let part = &samples[samples.len() * number / 3..samples.len() * (number + 1) / 3];
        part.iter().copied().fold(Gauges::default(), Gauges::most)
    };
    let thirds = [0, 1, 2].map(third);
    println!("{total} bytes in {seconds} s; {thirds:?}");
    let [_, middle, end] = thirds;
    assert!(end.rss_kib <= middle.rss_kib + middle.rss_kib / 10 + (8 << 10), "memory grows: {thirds:?}");
    assert!(
        end.threads <= middle.threads + 2 && end.files <= middle.files + 16,
        "threads or descriptors grow: {thirds:?}"
    );
    settled(&mount);
    // No mappings are left.
    until("no image is lent", || mount.json(".shufflefs/stats.json")["memory"]["leased_bytes"] == 0);
    mount.unmount();
}

/// A cgroup with a limit, of either version; None if the system does not allow one.
struct Group(PathBuf);

impl Group {
    /// With the name of the controller, and of its limit in versions 1 and 2.
    fn new(controller: &str, limits: [&str; 2], most: u64) -> Option<Group> {
        if !is_root() {
            return None;
        }
        let name = format!("shufflefs-test-{}-{controller}-{most}", std::process::id());
        let (v1, v2) = (Path::new("/sys/fs/cgroup").join(controller), Path::new("/sys/fs/cgroup"));
        let (group, limit) = if v1.is_dir() { (v1.join(&name), limits[0]) } else { (v2.join(&name), limits[1]) };
        fs::create_dir(&group).ok()?;
        let made = Group(group);
        fs::write(made.0.join(limit), most.to_string()).ok()?;
        Some(made)
    }

    fn of_memory(mib: u64) -> Option<Group> {
        Group::new("memory", ["memory.limit_in_bytes", "memory.max"], mib << 20)
    }

    /// With at most this many processes and threads.
    fn of_threads(most: u64) -> Option<Group> {
        Group::new("pids", ["pids.max"; 2], most)
    }

    /// The program, in the group.
    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]).arg(&self.0);
        command.arg(env!("CARGO_BIN_EXE_shufflefs"));
        command
    }

    /// The number of processes killed in it for lack of memory.
    fn killed(&self) -> u64 {
        let told = ["memory.oom_control", "memory.events"].map(|name| fs::read_to_string(self.0.join(name)));
        let lines: String = told.into_iter().flatten().collect();
        lines.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes may still be ending.
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// `--memory auto` in a container: an epoch larger than its memory is read, and nothing is killed.
#[test]
fn a_container_with_little_memory() {
    let stores = store("sparse.h5ad");
    for mib in [256, 512, 2048] {
        let Some(group) = Group::of_memory(mib) else {
            eprintln!("skipped: no group of processes can be made");
            return;
        };
        let area = Area::new();
        // 400,000 dense rows of 120 genes: 192 MB an epoch, in batches of 4 MB.
        let mut command = group.command();
        command.args([
            "mount",
            "--format",
            "npy",
            "--obs",
            "n_genes",
            "--dense",
            "--batch-size",
            "8192",
            "--fetch-factor",
            "2",
        ]);
        command.args(vec![&stores; 200]).arg(area.path("d"));
        let ran = Ran::from(command.output().unwrap());
        assert_eq!(ran.code, Some(0), "{mib} MiB: {ran:?}");
        let place = area.path("d/epoch-0000");
        let names = list(&place);
        let some = if mib == 256 { names.len() } else { names.len() / 6 };
        let mut read = 0;
        // Four at a time, so that each is fast enough on a busy machine.
        for four in names[..some].chunks(4) {
            let four: Vec<PathBuf> = four.iter().map(|name| place.join(name)).collect();
            let sizes = in_time("reads", move || {
                std::thread::scope(|scope| {
                    let readers: Vec<_> = four.iter().map(|file| scope.spawn(move || fs::read(file))).collect();
                    readers.into_iter().map(|reader| Ok(reader.join().unwrap()?.len())).collect::<io::Result<Vec<_>>>()
                })
            });
            read += sizes.unwrap_or_else(|error| panic!("{mib} MiB: {error}")).iter().sum::<usize>();
        }
        assert!(read > 16 << 20, "{mib} MiB: {read} bytes");
        assert_eq!(group.killed(), 0, "{mib} MiB");
        assert_eq!(area.run(["umount", "d"]).code, Some(0));
    }
}

/// Few descriptors, no locked memory, few processes, little address space: it works, or prints the reason in one line.
#[test]
fn limits_of_a_process() {
    let area = Area::new();
    let mount = |resource: Option<(Resource, u64)>| {
        let mut command = area.command(["mount", "store.h5ad", "d"]);
        if let Some((resource, most)) = resource {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            // SAFETY: between fork and exec only a system call.
            unsafe { command.pre_exec(move || Ok(setrlimit(resource, limit)?)) };
        }
        Ran::from(command.output().unwrap())
    };
    let epoch = || {
        let place = area.path("d/epoch-0000");
        in_time("an epoch", move || list(&place).iter().map(|name| sha256(&place.join(name))).collect::<Vec<_>>())
    };
    let mut expected = None;
    for resource in [
        None,
        Some((Resource::Nofile, 64)),
        Some((Resource::Memlock, 0)),
        Some((Resource::Fsize, 0)),
        Some((Resource::Core, 0)),
        Some((Resource::As, 600 << 20)),
        Some((Resource::Nofile, 24)),
        Some((Resource::As, 100 << 20)),
    ] {
        let ran = mount(resource);
        match ran.code {
            Some(0) => {
                assert_eq!(ran.stderr, "", "{resource:?}");
                let got = epoch();
                assert_eq!(*expected.get_or_insert(got.clone()), got, "{resource:?}");
                assert_eq!(area.run(["umount", "d"]).code, Some(0), "{resource:?}");
            }
            _ => {
                assert!(
                    matches!(resource, Some((Resource::As, 0..200_000_000) | (Resource::Nofile, 0..30))),
                    "{resource:?}: {ran:?}"
                );
                assert!(ran.code.is_some() && ran.stderr.trim_end().lines().count() == 1, "{resource:?}: {ran:?}");
                assert!(crate::area::mounts_below(&area.path("")).is_empty());
            }
        }
    }
}

/// Few processes and threads (`pids.max`; `ulimit -u` has the same effect): it works, or prints the reason in one line, and a mount
/// that was usable does not end.
#[test]
fn a_container_with_few_threads() {
    let area = Area::new();
    let mut refused = 0;
    for most in [4, 9, 14, 19, 24, 500] {
        let Some(group) = Group::of_threads(most) else {
            eprintln!("skipped: no group of processes can be made");
            return;
        };
        let mut command = group.command();
        let ran = Ran::from(command.arg("mount").arg(&area.store).arg(area.path("d")).output().unwrap());
        if ran.code == Some(0) {
            assert_eq!(ran.stderr, "", "{most}");
            let place = area.path("d/epoch-0000");
            let read = move || list(&place).iter().map(|name| fs::read(place.join(name)).unwrap().len()).sum::<usize>();
            assert!(in_time("an epoch", read) > 0, "{most}");
            assert_eq!(area.run(["umount", "d"]).code, Some(0), "{most}");
        } else {
            assert!(most < 500, "{ran:?}");
            assert!(matches!(ran.code, Some(1 | 3)) && ran.stderr.trim_end().lines().count() == 1, "{most}: {ran:?}");
            assert!(!ran.stderr.contains("please report") && !ran.stderr.contains("panicked"), "{most}: {ran:?}");
            assert!(crate::area::mounts_below(&area.path("")).is_empty(), "{most}");
            refused += 1;
        }
    }
    assert!(refused > 1, "the test shows nothing");
}

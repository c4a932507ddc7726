//! kill -9 of any process at any time: nothing is left behind, no partial file is used as a complete one, and the next mount serves
//! the same bytes.
//!
//! `SHUFFLEFS_TEST_KILLS=N` makes N kills instead of 30.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::area::{Area, Serving, in_time, is_alive, kill, mounts_below, processes, until};
use crate::damaged::Random;
use crate::remote::Server;
use crate::support::{list, sha256, store};

/// The work that is interrupted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    /// A mount that goes to the background, its daemon, and the children that parse its stores.
    Mount,
    /// A mount that first writes an index.
    Index,
    /// A mount whose reader fills a cache.
    Cache,
    /// `run`, its command, and the mount.
    Run,
    Shuffle,
}

const WORKS: [Work; 5] = [Work::Mount, Work::Index, Work::Run, Work::Shuffle, Work::Cache];

/// The parent of a process.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Processes of an area, and their descendants.
fn workers(area: &Area) -> Vec<i32> {
    let place = area.path("").display().to_string();
    let place = place.trim_end_matches('/').to_owned();
    let mut found = processes(|line| line.contains(&place));
    let all = processes(|line| line.contains("shufflefs") || line.contains("sleep"));
    loop {
        let more: Vec<i32> = all
            .iter()
            .copied()
            .filter(|pid| !found.contains(pid) && parent(*pid).is_some_and(|parent| found.contains(&parent)))
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// The bytes of the first epoch of the mount there.
fn epoch(place: &Path) -> Vec<String> {
    let place = place.join("epoch-0000");
    list(&place).iter().map(|name| sha256(&place.join(name))).collect()
}

struct Harness {
    server: Server,
    /// The directory of the server.
    served: PathBuf,
    random: Random,
    /// The expected bytes of each kind of store.
    plain: Vec<String>,
    by_column: Vec<String>,
    remote: Vec<String>,
    shuffled: String,
    /// How many kills found a process.
    hit: [u32; WORKS.len()],
}

/// A remote store: larger than the first answer for an object, so that blocks of it are cached, if there is
/// such a store.
fn remote() -> PathBuf {
    crate::cached::large().into_iter().next().map_or_else(|| store("wide-csr.h5ad"), |(_, path)| path)
}

fn serve(store: &Path) -> Server {
    Server::objects(store.parent().unwrap())
}

/// Sizes that do not depend on where a store is.
const SIZES: [&str; 6] = ["--batch-size", "64", "--block-size", "16", "--fetch-factor", "4"];

fn arguments(words: &[&str], paths: &[PathBuf]) -> Vec<OsString> {
    words.iter().map(OsString::from).chain(paths.iter().map(OsString::from)).collect()
}

impl Harness {
    fn new() -> Harness {
        let path = remote();
        let server = serve(&path);
        let area = Area::new();
        let served = |path: &Path, options: &[&str]| {
            let line = arguments(&[&["mount"], options].concat(), &[path.to_owned(), area.path("d")]);
            let ran = area.run(line);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let bytes = epoch(&area.path("d"));
            assert_eq!(area.run(["umount", "d"]).code, Some(0));
            bytes
        };
        let (plain, by_column) = (served(&area.store, &[]), served(&store("csc-int64.zarr"), &[]));
        let remote = served(&path, &SIZES);
        let out = area.path("out.h5ad");
        assert_eq!(area.run(arguments(&["shuffle"], &[area.store.clone(), out.clone()])).code, Some(0));
        Harness {
            server,
            served: path,
            random: Random::new(7),
            plain,
            by_column,
            remote,
            shuffled: sha256(&out),
            hit: [0; WORKS.len()],
        }
    }

    /// The command line of the work in an area.
    fn line(&self, work: Work, area: &Area) -> Vec<OsString> {
        let (index, cache, d) = (area.path("index"), area.path("cache"), area.path("d"));
        let (index, cache) = (index.to_str().unwrap().to_owned(), cache.to_str().unwrap().to_owned());
        match work {
            Work::Mount => arguments(&["mount"], &[area.store.clone(), d]),
            Work::Index => arguments(&["mount", "--index-dir", &index], &[store("csc-int64.zarr"), d]),
            Work::Cache => arguments(
                &[&["mount", "--index-dir", &index, "--cache-dir", &cache], &SIZES[..]].concat(),
                &[self.server.url("none-0", self.served.file_name().unwrap().to_str().unwrap()), d],
            ),
            Work::Run => {
                let mut line = arguments(&["run"], std::slice::from_ref(&area.store));
                line.extend(["--", "sh", "-c", "cat {}/epoch-0000/* > /dev/null; exec sleep 600"].map(OsString::from));
                line
            }
            Work::Shuffle => arguments(&["shuffle"], &[area.store.clone(), area.path("out.h5ad")]),
        }
    }

    /// Starts the work, kills one of its processes, or all, at a random time, and checks what is left.
    fn kill(&mut self, work: Work) {
        let area = Area::new();
        if work == Work::Cache {
            // Servers of tests end after some minutes, and a long run takes longer.
            self.server = serve(&self.served);
        }
        let mut command = area.command(self.line(work, &area));
        let mut started = Serving(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        // A random time, not a wait for an event: the same must hold whenever the process is killed.
        let most = if work == Work::Run { 400_000 } else { 250_000 };
        std::thread::sleep(Duration::from_micros(self.random.below(most)));
        if work == Work::Cache && self.random.below(2) == 0 && area.path("d/epoch-0000").exists() {
            // While somebody reads an epoch.
            let place = area.path("d/epoch-0000");
            std::thread::spawn(move || {
                for file in fs::read_dir(&place).into_iter().flatten().flatten() {
                    let _ = fs::read(file.path());
                }
            });
            std::thread::sleep(Duration::from_micros(self.random.below(50_000)));
        }
        let mut there = workers(&area);
        there.sort_unstable();
        let all = self.random.below(4) == 0;
        let chosen = self.random.below(there.len() as u64) as usize;
        for (at, pid) in there.iter().enumerate() {
            if all || at == chosen {
                kill(*pid, libc::SIGKILL);
            }
        }
        self.hit[WORKS.iter().position(|other| *other == work).unwrap()] += u32::from(!there.is_empty());
        if work == Work::Run {
            // The death of any process ends all; but the command may outlive a daemon that it does not need.
            kill(started.pid(), libc::SIGTERM);
        }
        started.end();
        match work {
            Work::Run => self.nothing_runs(&area),
            Work::Shuffle => self.goes_on(&area),
            _ => self.mounts_again(work, &area),
        }
    }

    /// Nothing of a job is left: no process and no mount.
    fn nothing_runs(&self, area: &Area) {
        until("all processes of the job are gone", || workers(area).is_empty());
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(&*area.store.to_string_lossy()), "{table}");
        let ran = area.run(["run", "store.h5ad", "--", "sh", "-c", "cd {}/epoch-0000 && sha256sum *"]);
        let sums: Vec<&str> = ran.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(ran.code == Some(0) && sums == self.plain, "{ran:?}");
    }

    /// No partial file has the final name, and the next run makes the same file.
    fn goes_on(&self, area: &Area) {
        let out = area.path("out.h5ad");
        if !out.exists() {
            let ran = area.run(self.line(Work::Shuffle, area));
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
        assert_eq!(sha256(&out), self.shuffled);
        let mut names = list(&area.path(""));
        names.retain(|name| name != "store.h5ad");
        assert_eq!(names, ["out.h5ad"]);
    }

    /// The same mount again serves the same bytes, whatever is left there; then nothing is left.
    fn mounts_again(&self, work: Work, area: &Area) {
        let place = area.path("d");
        // A mount whose parent was killed may still be starting, and then becomes a mount or ends.
        let line = self.line(work, area);
        let mut ran = area.run(&line);
        until("another is gone", || {
            if ran.code != Some(4) {
                return true;
            }
            // It mounts, or it ends and removes the mountpoint that it created, at this moment.
            let reasons = ["already a mount", "another process", "No such file"];
            assert!(reasons.iter().any(|reason| ran.stderr.contains(reason)), "{ran:?}");
            if !mounts_below(&place).is_empty() {
                let ended = area.run(["umount", "d"]);
                assert!(ended.code == Some(0) || ended.stderr.contains("not a mount"), "{ended:?}");
            }
            ran = area.run(&line);
            false
        });
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{work:?}");
        assert_eq!(mounts_below(&place).len(), 1);
        let wanted = match work {
            Work::Index => &self.by_column,
            Work::Cache => &self.remote,
            _ => &self.plain,
        };
        let path = place.clone();
        assert!(in_time("the epoch", move || epoch(&path)) == *wanted, "{work:?}: other bytes");
        let daemon = area.pid("d");
        assert_eq!(area.run(["umount", "d"]).code, Some(0));
        until("the daemon is gone", || !is_alive(daemon));
        until("all are gone", || workers(area).is_empty());
        assert!(mounts_below(&area.path("")).is_empty());
        if work == Work::Index {
            assert_eq!(
                list(&area.path("index")).len(),
                1,
                "what a killed builder left: {:?}",
                list(&area.path("index"))
            );
        }
    }
}

#[test]
fn whatever_is_killed_nothing_stays_and_the_next_serves_the_same() {
    let kills = std::env::var("SHUFFLEFS_TEST_KILLS").map_or(30, |count| count.parse().unwrap());
    let mut harness = Harness::new();
    for number in 0..kills {
        harness.kill(WORKS[number % WORKS.len()]);
        if number % 20 == 19 {
            println!("{} kills", number + 1);
        }
    }
    println!("{kills} kills; with something there: {:?} of {WORKS:?}", harness.hit);
    assert!(harness.hit.iter().all(|hit| *hit > 0), "the test shows nothing: {:?}", harness.hit);
}

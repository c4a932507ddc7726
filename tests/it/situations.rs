//! Situations of users: environments, limits, paths and file systems that differ from those of a developer's machine.
//! One numbered test for each report, with the number of the report.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, prlimit, setrlimit};
use serde_json::Value;

use crate::area::{Area, Ran};
use crate::support::{sha256, store, stores, succeed, walk};

/// Variables that clusters set, and that break all HDF5 files if libhdf5 sees them.
const VARIABLES: [(&str, &str); 6] = [
    ("HDF5_VOL_CONNECTOR", "async under_vol=0;under_info={}"),
    ("HDF5_DRIVER", "mpio"),
    ("HDF5_PLUGIN_PATH", "/nowhere"),
    ("HDF5_PLUGIN_PRELOAD", "::"),
    ("HDF5_USE_FILE_LOCKING", "TRUE"),
    ("BLOSC_NTHREADS", "7"),
];

fn ran(command: &mut Command) -> Ran {
    Ran::from(command.output().unwrap())
}

/// Soft and hard limit of open files for a child.
fn with_files(command: &mut Command, soft: u64, hard: u64) {
    let limit = Rlimit { current: Some(soft), maximum: Some(hard) };
    // SAFETY: between fork and exec only a system call.
    unsafe { command.pre_exec(move || Ok(setrlimit(Resource::Nofile, limit)?)) };
}

#[test]
fn s07_libraries_do_not_see_the_environment_and_the_command_of_run_does() {
    let area = Area::new();
    let mut command = area.command(["info", "store.h5ad"]);
    let told = ran(command.envs(VARIABLES));
    assert!(told.code == Some(0) && told.stdout.contains("mounts: yes"), "{told:?}");
    let script =
        "cat {}/epoch-0000/batch-000000.npz >/dev/null && env | grep -E '^(HDF5|BLOSC)_'; ulimit -Sn; ulimit -Hn";
    let mut command = area.command(["run", "store.h5ad", "--", "sh", "-c", script]);
    with_files(command.envs(VARIABLES), 300, 3000);
    let told = ran(&mut command);
    let mut lines: Vec<&str> = told.stdout.lines().collect();
    let limits = lines.split_off(lines.len() - 2);
    lines.sort_unstable();
    let mut expected: Vec<String> = VARIABLES.iter().map(|(name, value)| format!("{name}={value}")).collect();
    expected.sort_unstable();
    assert_eq!(
        (told.code, lines, limits),
        (Some(0), expected.iter().map(String::as_str).collect(), vec!["300", "3000"])
    );
}

/// Limits of address space and data for a child.
fn with_memory(command: &mut Command, resource: Resource, bytes: u64) {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // SAFETY: between fork and exec only a system call.
    unsafe { command.pre_exec(move || Ok(setrlimit(resource, limit)?)) };
}

/// Every file of the first epoch, by name and content.
fn epoch(mount: &Path) -> Vec<(String, String)> {
    let files = walk(&mount.join("epoch-0000")).into_keys();
    files.map(|file| (file.display().to_string(), sha256(&mount.join("epoch-0000").join(&file)))).collect()
}

/// Mounts at `d`, reads the first epoch and unmounts.
fn read_epoch(area: &Area, arguments: &[&OsStr], prepare: impl Fn(&mut Command)) -> Vec<(String, String)> {
    let mut command = area.command([OsStr::new("mount")]);
    command.args(arguments).arg("d");
    prepare(&mut command);
    let told = ran(&mut command);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    let files = epoch(&area.path("d"));
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
    files
}

#[test]
fn s08_a_path_need_not_be_text() {
    let area = Area::new();
    let folder = area.path(".").join(OsStr::from_bytes(b"donn\xe9es"));
    fs::create_dir(&folder).unwrap();
    for path in stores(&["sparse.h5ad", "join-c.zarr", "zip64.zarr.zip"]) {
        let copy = folder.join(path.file_name().unwrap());
        succeed(Command::new("cp").arg("-r").arg(&path).arg(&copy));
        let expected = read_epoch(&area, &[path.as_os_str()], |_| {});
        assert_eq!(read_epoch(&area, &[copy.as_os_str()], |_| {}), expected, "{path:?}");
        let told = ran(area.command(["info"]).arg(&copy));
        assert!(told.code == Some(0) && told.stdout.contains("mounts: yes"), "{told:?}");
    }
    let config = folder.join("mount.toml");
    fs::write(&config, "batch_size = 16\n").unwrap();
    let small = read_epoch(&area, &[OsStr::new("--config"), config.as_os_str(), area.store.as_os_str()], |_| {});
    let expected = read_epoch(&area, &[OsStr::new("--batch-size"), OsStr::new("16"), area.store.as_os_str()], |_| {});
    assert_eq!(small, expected);
    let list = [OsStr::from_bytes(b"config="), config.as_os_str(), OsStr::new(",ro")].join(OsStr::new(""));
    assert_eq!(read_epoch(&area, &[OsStr::new("-o"), &list, area.store.as_os_str()], |_| {}), expected);
}

#[test]
fn s09_more_stores_than_descriptors() {
    let area = Area::new();
    let small = store("join-b.h5ad");
    let paths: Vec<PathBuf> = (0..300).map(|number| area.path(&format!("store-{number:03}.h5ad"))).collect();
    for path in &paths {
        fs::copy(&small, path).unwrap();
    }
    let mut arguments = ["--batch-size", "4096"].map(OsStr::new).to_vec();
    arguments.extend(paths.iter().map(|path| path.as_os_str()));
    let expected = read_epoch(&area, &arguments, |_| {});
    assert_eq!(read_epoch(&area, &arguments, |command| with_files(command, 100, 100)), expected);
    // A file that is replaced while it is closed is noticed when it is reopened.
    let mut command = area.command([OsStr::new("mount")]);
    with_files(command.args(&arguments).arg("d"), 100, 100);
    assert_eq!(ran(&mut command).code, Some(0));
    let other = area.path("other");
    fs::copy(&small, &other).unwrap();
    fs::rename(&other, &paths[0]).unwrap();
    let files = walk(&area.path("d/epoch-0000")).into_keys();
    let stale = |file: PathBuf| fs::read(area.path("d/epoch-0000").join(file)).err()?.raw_os_error();
    assert!(files.filter_map(stale).any(|error| error == libc::ESTALE));
}

/// Many copies of one small store: 2,000 with `scripts/test --all`, as that takes some seconds.
fn many(area: &Area) -> Vec<PathBuf> {
    let count = std::env::var("SHUFFLEFS_TEST_STORES").map_or(400, |count| count.parse().unwrap());
    let small = store("join-b.h5ad");
    let paths: Vec<PathBuf> = (0..count).map(|number| area.path(&format!("many-{number:04}.h5ad"))).collect();
    for path in &paths {
        fs::copy(&small, path).unwrap();
    }
    paths
}

#[test]
fn s09_thousands_of_stores_with_few_descriptors() {
    let area = Area::new();
    let paths = many(&area);
    let rows = |area: &Area| {
        let told: Value = serde_json::from_slice(&fs::read(area.path("d/dataset.json")).unwrap()).unwrap();
        told["rows_per_epoch"].as_u64().unwrap()
    };
    let batches = |area: &Area| {
        let files: Vec<PathBuf> = walk(&area.path("d/epoch-0000")).into_keys().collect();
        let read = |file: &PathBuf| sha256(&area.path("d/epoch-0000").join(file));
        [files.first(), files.last()].map(|file| read(file.unwrap()))
    };
    let mut seen = Vec::new();
    for (soft, hard) in [(1024, 4096), (256, 256)] {
        let mut command = area.command(["mount", "--batch-size", "64"]);
        with_files(command.args(&paths).arg("d"), soft, hard);
        let began = Instant::now();
        let told = ran(&mut command);
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
        println!("{} stores mount in {:?} at a limit of {soft}", paths.len(), began.elapsed());
        seen.push((rows(&area), batches(&area)));
        assert_eq!(area.run(["umount", "d"]).code, Some(0));
    }
    assert_eq!(seen[0], seen[1]);
    // Too few for any mount.
    let mut command = area.command(["mount"]);
    with_files(command.args(&paths[..20]).arg("d"), 14, 14);
    let told = ran(&mut command);
    assert!(told.code != Some(0) && told.stderr.contains("ulimit -n"), "{told:?}");
}

#[test]
fn s10_a_limit_of_address_space_bounds_the_budget() {
    const MIB: u64 = 1 << 20;
    let area = Area::new();
    let arguments = [area.store.as_os_str()];
    let expected = read_epoch(&area, &arguments, |_| {});
    for (resource, mib) in [(Resource::As, 300), (Resource::As, 1000), (Resource::As, 2000), (Resource::Data, 300)] {
        assert_eq!(
            read_epoch(&area, &arguments, |command| with_memory(command, resource, mib * MIB)),
            expected,
            "{mib}"
        );
    }
    for (arguments, mib, words) in [
        (&["mount", "store.h5ad", "d"][..], 180, &["ulimit -v", "raise it to"][..]),
        (&["mount", "--memory", "900MiB", "store.h5ad", "d"], 1000, &["--memory 900.0 MiB", "ulimit -v"]),
    ] {
        let mut command = area.command(arguments);
        with_memory(&mut command, Resource::As, mib * MIB);
        let told = ran(&mut command);
        assert_eq!(told.code, Some(3), "{told:?}");
        assert!(words.iter().all(|word| told.stderr.contains(word)), "{told:?}");
    }
}

/// Address space of a mount's daemon, in bytes.
fn mapped(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A daemon that gets no memory for a batch returns EIO and continues; it serves right bytes again once there is memory.
///
/// Only the memory for data is refused: the batch is larger than the daemon's remaining memory, which is enough for threads and small
/// objects, without which no process can continue (starting a thread ends a process that cannot map memory, in any language).
#[test]
fn s10_an_allocation_that_fails_fails_its_batch() {
    const MIB: u64 = 1 << 20;
    let area = Area::new();
    // 400,000 dense rows of 120 genes: a batch of 192 MB.
    let arguments = ["mount", "--format", "npy", "--obs", "n_genes", "--dense", "--batch-size", "400000"];
    let stores = vec![area.store.as_os_str(); 200];
    let batch = || area.path("d/epoch-0000/batch-000000.npy");
    let mut expected = None;
    for limit in [None, Some(1000), Some(2000)] {
        let mut command = area.command(arguments);
        command.args(&stores).arg("d");
        if let Some(mib) = limit {
            with_memory(&mut command, Resource::As, mib * MIB);
        }
        let told = ran(&mut command);
        assert_eq!(told.code, Some(0), "{limit:?}: {told:?}");
        let options: Value =
            serde_json::from_slice(&fs::read(area.path("d/.shufflefs/options.json")).unwrap()).unwrap();
        let number = options["pid"].as_u64().unwrap();
        let pid = Pid::from_raw(i32::try_from(number).unwrap());
        let to = |bytes: Option<u64>| {
            prlimit(pid, Resource::As, Rlimit { current: bytes, maximum: limit.map(|mib| mib * MIB) }).unwrap()
        };
        to(Some(mapped(number) + 128 * MIB));
        let error = fs::read(batch()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{limit:?}");
        let log = fs::read_to_string(area.path("d/.shufflefs/log")).unwrap();
        assert!(log.contains("no memory") && log.contains("ulimit -v"), "{log}");
        to(limit.map(|mib| mib * MIB));
        let read = sha256(&batch());
        assert_eq!(*expected.get_or_insert_with(|| read.clone()), read, "{limit:?}");
        assert_eq!(area.run(["umount", "d"]).code, Some(0));
    }
}

#[test]
fn s13_info_of_what_does_not_mount_is_a_failure() {
    let area = Area::new();
    let told = area.run(["info", "store.h5ad"]);
    assert!(told.code == Some(0) && told.stdout.contains("mounts: yes"), "{told:?}");
    // An empty group.
    let odd = area.path("odd.zarr");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join(".zgroup"), r#"{"zarr_format": 2}"#).unwrap();
    for arguments in [&["info"][..], &["info", "--json"]] {
        let told = ran(area.command(arguments).arg(&odd).arg("store.h5ad"));
        assert_eq!(told.code, Some(3), "{told:?}");
        let word = if arguments.len() == 1 { "mounts: no" } else { "\"mounts\": false" };
        assert!(told.stdout.contains(word), "{told:?}");
    }
}

#[test]
fn s13_info_tells_of_a_mount_with_these_genes() {
    let area = Area::new();
    let first = {
        area.mount("d");
        let genes = fs::read_to_string(area.path("d/var.tsv")).unwrap();
        assert_eq!(area.run(["umount", "d"]).code, Some(0));
        genes.lines().nth(1).unwrap().split('\t').nth(1).unwrap().to_owned()
    };
    let of = |options: &[&str]| ran(area.command(["info", "store.h5ad"]).args(options));
    let told = of(&["--genes", &first]);
    assert!(told.code == Some(0) && told.stdout.contains("mounts: yes"), "{told:?}");
    let absent = format!("{first},no such gene");
    let told = of(&["--genes", &absent]);
    assert!(told.code == Some(3) && told.stdout.contains("mounts: no"), "{told:?}");
    let told = of(&["--genes", &absent, "--absent", "zero"]);
    assert!(told.code == Some(0) && told.stdout.contains("mounts: yes"), "{told:?}");
    let told = of(&["--genes-column", "no such column"]);
    assert!(told.code == Some(3) && told.stdout.contains("no such column"), "{told:?}");
    of(&["--absent", "zero"]).refused(2, "--genes");
}

/// The kernel frees an inode for each name, which takes time: unmounting waits for it.
#[test]
fn s14_a_million_listed_names() {
    let area = Area::new();
    let names: usize = std::env::var("SHUFFLEFS_TEST_NAMES").map_or(200_000, |count| count.parse().unwrap());
    let mut command = area.command(["mount", "--batch-size", "1", "--block-size", "1", "--epochs", "5000"]);
    assert_eq!(ran(command.args(["store.h5ad", "d"])).code, Some(0));
    let mut seen = 0;
    for epoch in 0.. {
        // Each name becomes an inode when it is looked at.
        for entry in fs::read_dir(area.path(&format!("d/epoch-{epoch:04}"))).unwrap() {
            seen += usize::from(entry.unwrap().metadata().unwrap().len() > 0);
        }
        if seen >= names {
            break;
        }
    }
    let began = Instant::now();
    let told = area.run(["umount", "d"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    println!("{seen} names: unmounted in {:?}", began.elapsed());
}

#[test]
fn s16_an_index_directory_below_tmp_is_ours_alone() {
    let csc = store("csc-unsorted.h5ad");
    let user = rustix::process::geteuid().as_raw();
    let attempt = |prepare: &dyn Fn(&Path)| {
        let area = Area::new();
        let index = area.path(&format!("shufflefs-{user}"));
        prepare(&index);
        let mut command = area.command([Path::new("mount"), &csc, Path::new("d")]);
        command.env_remove("HOME").env_remove("XDG_CACHE_HOME").env("TMPDIR", area.path("."));
        (ran(&mut command), index, area)
    };
    let (told, index, _area) = attempt(&|_| {});
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    assert_eq!(fs::metadata(&index).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&index).unwrap().count(), 1);

    let open = |path: &Path| {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    };
    let link = |path: &Path| {
        let other = path.with_file_name("other");
        fs::create_dir(&other).unwrap();
        symlink(other, path).unwrap();
    };
    type Case<'a> = (&'a dyn Fn(&Path), &'a str);
    let cases: [Case<'_>; 2] = [(&open, "mode 777"), (&link, "no directory")];
    for (prepare, word) in cases {
        let (told, index, area) = attempt(prepare);
        assert!(told.code == Some(3) && told.stderr.contains(word) && told.stderr.contains("--index-dir"), "{told:?}");
        assert_eq!(fs::read_dir(&index).unwrap().count(), 0, "{word}");
        // A mount that needs no index works.
        let mut command = area.command(["mount", "store.h5ad", "d"]);
        let told = ran(command.env_remove("HOME").env_remove("XDG_CACHE_HOME").env("TMPDIR", area.path(".")));
        assert!(told.code == Some(0) && told.stderr.contains("warning"), "{told:?}");
    }
}

#[test]
fn s20_df_shows_an_epoch_and_free_inodes() {
    let area = Area::new();
    let place = area.mount("d");
    let size: u64 = walk(&place.join("epoch-0000")).values().sum();
    let shown = succeed(Command::new("df").args(["-B1", "--output=size,used,avail"]).arg(&place));
    let numbers: Vec<u64> = shown.lines().last().unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers, [size.next_multiple_of(4096), size.next_multiple_of(4096), 0]);
    let shown = succeed(Command::new("df").args(["--output=ipcent"]).arg(&place));
    assert_eq!(shown.lines().last().unwrap().trim(), "1%");
}

//! The mount as programs see it: a read-only tree of plain files with exact sizes, that every tool can read.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Mount, bounded, list, python, sha256, shuffled, shufflefs, store, stores, succeed, walk};

const EXTENSIONS: [&str; 12] =
    ["npz", "safetensors", "npy", "h5ad", "tsv", "arrow", "parquet", "tar", "tfrecord", "mds", "litdata", "record.npy"];
const PARTS: [&str; 3] = ["part-a.h5ad", "part-b.zarr", "part-c.h5ad"];

fn few_epochs(names: &[&str]) -> Mount {
    Mount::new(&stores(names), &["--epochs", "2", "--batch-size", "128", "--block-size", "16", "--fetch-factor", "4"])
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// The errno of a system call that must fail.
fn errno(what: &str, result: i32) -> i32 {
    assert_eq!(result, -1, "{what}: it worked");
    io::Error::last_os_error().raw_os_error().unwrap()
}

#[test]
fn every_mutation_is_erofs() {
    let mount = few_epochs(&["sparse.h5ad"]);
    let (file, other) = (c(&mount.join("epoch-0000/batch-000000.npz")), c(&mount.join("epoch-0000/batch-000001.npz")));
    let (new, directory) = (c(&mount.join("epoch-0000/new")), c(&mount.join("epoch-0001")));
    let (listed, hidden) = (c(&mount.join("dataset.json")), c(&mount.join("epoch-0000/batch-000000.h5ad")));
    let now = [libc::timespec { tv_sec: 1, tv_nsec: 0 }; 2];
    let name = c"user.test";
    // SAFETY: plain system calls on paths that live until the end of the function.
    let calls: Vec<(&str, i32)> = unsafe {
        vec![
            ("open for writing", errno("open for writing", libc::open(file.as_ptr(), libc::O_WRONLY))),
            ("open for both", errno("open for both", libc::open(listed.as_ptr(), libc::O_RDWR))),
            ("open unlisted for writing", errno("unlisted", libc::open(hidden.as_ptr(), libc::O_WRONLY))),
            ("append", errno("append", libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_APPEND))),
            ("open to truncate", errno("open to truncate", libc::open(file.as_ptr(), libc::O_RDONLY | libc::O_TRUNC))),
            ("create", errno("create", libc::open(new.as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o644))),
            ("mkdir", errno("mkdir", libc::mkdir(new.as_ptr(), 0o755))),
            ("unlink", errno("unlink", libc::unlink(file.as_ptr()))),
            ("rmdir", errno("rmdir", libc::rmdir(directory.as_ptr()))),
            ("rename", errno("rename", libc::rename(file.as_ptr(), new.as_ptr()))),
            ("rename onto", errno("rename onto", libc::rename(file.as_ptr(), other.as_ptr()))),
            ("symlink", errno("symlink", libc::symlink(c"target".as_ptr(), new.as_ptr()))),
            ("link", errno("link", libc::link(file.as_ptr(), new.as_ptr()))),
            ("chmod", errno("chmod", libc::chmod(file.as_ptr(), 0o600))),
            ("chown", errno("chown", libc::lchown(file.as_ptr(), 0, 0))),
            ("utimes", errno("utimes", libc::utimensat(libc::AT_FDCWD, file.as_ptr(), now.as_ptr(), 0))),
            ("truncate", errno("truncate", libc::truncate(file.as_ptr(), 0))),
            ("setxattr", errno("setxattr", libc::setxattr(file.as_ptr(), name.as_ptr(), c"x".as_ptr().cast(), 1, 0))),
            ("removexattr", errno("removexattr", libc::removexattr(file.as_ptr(), name.as_ptr()))),
            ("mknod", errno("mknod", libc::mknod(new.as_ptr(), libc::S_IFIFO | 0o600, 0))),
            ("access to write", errno("access to write", libc::access(file.as_ptr(), libc::W_OK))),
        ]
    };
    let wrong: Vec<_> = calls.iter().filter(|(_, errno)| *errno != libc::EROFS).collect();
    assert!(wrong.is_empty(), "not EROFS ({}): {wrong:?}", libc::EROFS);
    succeed(python("check_clients.py").arg("mutations").arg(mount.path()));
}

#[test]
fn unknown_names_are_enoent() {
    let mount = few_epochs(&["sparse.h5ad"]);
    let unknown = [
        "nothing",
        "README",
        "readme.txt",
        "dataset.json.bak",
        "epoch-0",
        "epoch-00001",
        "epoch-000",
        "Epoch-0000",
        "epoch-0000.npz",
        "epoch--001",
        "epoch-+001",
        "epoch- 000",
        "epoch-0x00",
        "epoch-99999999999999999999999999",
        "epoch-0000/batch-1.npz",
        "epoch-0000/batch-0000000.npz",
        "epoch-0000/batch-999999.npz",
        "epoch-0000/batch-000016.npz",
        "epoch-0000/batch-000000.xyz",
        "epoch-0000/batch-000000.NPZ",
        "epoch-0000/batch-000000",
        "epoch-0000/batch-000000.",
        "epoch-0000/batch-000000.npz.gz",
        "epoch-0000/batch-000000.npz~",
        "epoch-0000/.batch-000000.npz",
        "epoch-0000/batch--00001.npz",
        "epoch-0000/README.txt",
        "epoch-0000/epoch-0000",
        "epoch-0000/.shufflefs",
        "categories/nothing.txt",
        "categories/cell_type",
        "categories/score.txt",
        ".shufflefs/nothing",
        ".Trash-0",
        "rank-4-of-4",
        "rank-0-of-0",
        "rank-00-of-4",
    ];
    let wrong: Vec<String> = unknown
        .iter()
        .filter_map(|name| {
            let answer = fs::metadata(mount.join(name));
            (answer.as_ref().err().and_then(io::Error::raw_os_error) != Some(libc::ENOENT))
                .then(|| format!("{name}: {answer:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "not ENOENT:\n{}", wrong.join("\n"));
    let below = fs::metadata(mount.join("epoch-0000/batch-000000.npz/x")).unwrap_err();
    assert_eq!(below.raw_os_error(), Some(libc::ENOTDIR));
    // Linux lets FUSE see names of up to 1024 bytes, so both answers are right for a longer one.
    let long = fs::metadata(mount.join("x".repeat(300))).unwrap_err().raw_os_error();
    assert!([Some(libc::ENOENT), Some(libc::ENAMETOOLONG)].contains(&long), "{long:?}");
    assert_eq!(fs::metadata(mount.join("é\u{1F9EC}\n")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_tree_is_as_documented() {
    let mount = few_epochs(&PARTS);
    assert_eq!(
        list(mount.path()),
        ["README.txt", "categories", "dataset.json", "epoch-0000", "epoch-0001", "var.tsv"],
        ".shufflefs is not listed, --epochs of the epochs are"
    );
    let labels: Vec<String> = list(&mount.join("categories"));
    assert_eq!(
        labels,
        ["cell_type", "cluster", "donor", "dose", "größe é", "label", "plate", "stage"]
            .map(|name| format!("{name}.txt"))
    );
    for epoch in ["epoch-0000", "epoch-0001", "epoch-0002", "epoch-0777", "epoch-12345"] {
        let names = list(&mount.join(epoch));
        assert_eq!(names.len(), 1601_usize.div_ceil(128));
        assert!(names.iter().enumerate().all(|(i, name)| *name == format!("batch-{i:06}.npz")), "{epoch}: {names:?}");
        for extension in EXTENSIONS {
            let file = mount.join(epoch).join("batch-000001").with_extension(extension);
            let size = fs::metadata(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).len();
            assert_eq!(fs::read(&file).unwrap().len() as u64, size, "{}", file.display());
        }
    }
    for name in ["stats.json", "stats.prom", "options.json", "log", "advice"] {
        fs::read(mount.join(".shufflefs").join(name)).unwrap_or_else(|e| panic!(".shufflefs/{name}: {e}"));
    }
    assert!(fs::read_to_string(mount.join("README.txt")).unwrap().lines().count() <= 60);
}

#[test]
fn statistics_are_read_by_prometheus() {
    // One fetch, so that nothing is being loaded when all is read.
    let options = ["--epochs", "1", "--batch-size", "128", "--fetch-factor", "100", "--format", "safetensors"];
    let mount = Mount::new(&[store("dense.h5ad")], &options);
    let files = list(&mount.join("epoch-0000"));
    let bytes: usize = files.iter().map(|name| fs::read(mount.join("epoch-0000").join(name)).unwrap().len()).sum();
    let rows = mount.json("dataset.json")["rows"].to_string();
    succeed(python("check_prometheus.py").arg(mount.path()).args([rows, bytes.to_string()]));
}

/// `--format` selects the listed files; the others can be opened too.
#[test]
fn the_listed_format_is_the_chosen_one() {
    let mount = Mount::new(&[store("dense.h5ad")], &["--format", "tsv", "--batch-size", "500", "--epochs", "1"]);
    assert_eq!(list(&mount.join("epoch-0000")), ["batch-000000.tsv", "batch-000001.tsv", "batch-000002.tsv"]);
    assert!(fs::read(mount.join("epoch-0000/batch-000002.npz")).unwrap().starts_with(b"PK\x03\x04"));
}

/// A format that cannot hold the data has no files: README.txt, the log and `info` say why.
#[test]
fn a_format_that_cannot_hold_the_data_says_so() {
    let path = store("csr-float64-blosc.h5ad");
    let reason = "values of X are float64; `.tfrecord` has float32 only; --dtype f32 rounds them";
    let mount = Mount::new(std::slice::from_ref(&path), &["--epochs", "1"]);
    let file = fs::metadata(mount.join("epoch-0000/batch-000000.tfrecord"));
    assert_eq!(file.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let readme = fs::read_to_string(mount.join("README.txt")).unwrap();
    assert!(readme.contains(&format!("  no .tfrecord: {reason}\n")), "{readme}");
    assert!(fs::read_to_string(mount.join(".shufflefs/log")).unwrap().contains(reason));
    let info = succeed(shufflefs().args(["info", "--json"]).arg(&path));
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert!(info.to_string().contains(&reason.replace('"', "\\\"")), "{info}");
    let refused = Mount::try_new(&[path], &["--format", "tfrecord"]).err().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    let images = Mount::new(&[store("images-uint8.h5ad")], &["--x", "obsm/images"]);
    assert!(
        fs::read_to_string(images.join("README.txt"))
            .unwrap()
            .contains("no .parquet: rows of obsm/images have the shape")
    );
    assert!(fs::metadata(images.join("epoch-0000/batch-000000.arrow")).is_ok());
}

#[test]
fn attributes_are_right_and_stable() {
    let paths = stores(&PARTS);
    let options = ["--epochs", "2", "--batch-size", "128", "--uid", "1234", "--gid", "4321"];
    let (one, two) = (Mount::new(&paths, &options), Mount::new(&paths, &options));
    let newest = paths.iter().map(|path| fs::metadata(path).unwrap().mtime()).max().unwrap();
    let mut inodes = std::collections::BTreeMap::new();
    let mut files: Vec<PathBuf> = walk(one.path()).into_keys().collect();
    files.extend(["", "epoch-0000", "epoch-0001", "categories", "epoch-0700", ".shufflefs"].map(PathBuf::from));
    files.extend(EXTENSIONS.map(|extension| Path::new("epoch-0900/batch-000003").with_extension(extension)));
    files.sort();
    files.dedup();
    for path in &files {
        let (meta, again) =
            (fs::symlink_metadata(one.join(path)).unwrap(), fs::symlink_metadata(two.join(path)).unwrap());
        let place = path.display();
        assert_eq!(meta.permissions().mode() & 0o7777, if meta.is_dir() { 0o555 } else { 0o444 }, "mode of {place}");
        assert_eq!((meta.uid(), meta.gid()), (1234, 4321), "owner of {place}");
        if !path.starts_with(".shufflefs") {
            assert_eq!(meta.mtime(), newest, "mtime of {place}");
            assert_eq!(meta.len(), again.len(), "size of {place} on another mount");
        }
        assert_eq!(meta.ino(), again.ino(), "inode of {place} on another mount");
        if let Some(other) = inodes.insert(meta.ino(), path) {
            panic!("{place} and {} have the same inode number", other.display());
        }
        if !meta.is_dir() {
            assert_eq!(meta.nlink(), 1, "nlink of {place}");
        }
    }
}

/// `stat`, `ls`, `find` and `open` read no matrix data: the counters of the stores do not change.
#[test]
fn stat_reads_no_matrix_data() {
    for names in [&["sparse.h5ad"][..], &["dense.h5ad"], &["sharded.zarr"], &PARTS] {
        let mount = Mount::new(&stores(names), &["--epochs", "20", "--batch-size", "64"]);
        let counters = || {
            let store = mount.json(".shufflefs/stats.json")["store"].clone();
            ["bytes_read", "chunks", "reads"]
                .map(|field| store[field].as_u64().unwrap_or_else(|| panic!("store.{field}: {store}")))
        };
        let before = counters();
        succeed(bounded(60, "ls").arg("-lR").arg(mount.path()));
        succeed(bounded(60, "find").arg(mount.path()).args(["-size", "+1"]));
        succeed(bounded(60, "du").arg("-s").arg(mount.path()));
        for batch in list(&mount.join("epoch-0003")) {
            for extension in EXTENSIONS {
                let path = mount.join("epoch-0003").join(&batch).with_extension(extension);
                assert!(File::open(&path).unwrap().metadata().unwrap().len() > 0);
            }
        }
        assert_eq!(counters(), before, "{names:?}: store.bytes_read, chunks, reads moved");
        fs::read(mount.join("epoch-0003/batch-000000.npz")).unwrap();
        assert!(counters()[0] > before[0], "{names:?}: reading a batch is not counted, so the test shows nothing");
    }
}

#[test]
fn find_ls_and_du_agree_with_stat() {
    let mount = few_epochs(&PARTS);
    let files = walk(mount.path());
    let total: u64 = files.values().sum();
    let found = succeed(bounded(60, "find").arg(mount.path()).args(["-type", "f", "-printf", "%s %P\n"]));
    let mut found: Vec<(PathBuf, u64)> = found
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(size, path)| (path.into(), size.parse().unwrap()))
        .collect();
    found.sort();
    assert_eq!(found, files.clone().into_iter().collect::<Vec<_>>());
    let listing = succeed(bounded(60, "ls").arg("-lR").arg(mount.path()));
    assert_eq!(listing.lines().filter(|line| line.starts_with("-r--r--r--")).count(), files.len());
    let paths: Vec<PathBuf> = files.keys().map(|path| mount.join(path)).collect();
    let du = succeed(bounded(60, "du").args(["-cb"]).args(&paths));
    assert_eq!(du.lines().last().unwrap().split('\t').next().unwrap().parse::<u64>().unwrap(), total);
}

/// Copies by cp, tar and rsync are equal to the mount, file by file.
#[test]
fn copies_are_equal() {
    let mount = few_epochs(&PARTS);
    let place = tempfile::tempdir().unwrap();
    let mut want: Vec<(PathBuf, u64, String)> = Vec::new();
    for (path, size) in walk(mount.path()) {
        let hash = sha256(&mount.join(&path));
        want.push((path, size, hash));
    }
    let copies = ["cp", "tar", "rsync"].map(|tool| place.path().join(tool));
    succeed(bounded(120, "cp").arg("-r").arg(mount.path()).arg(&copies[0]));
    fs::create_dir(&copies[1]).unwrap();
    let archive = place.path().join("all.tar");
    succeed(bounded(120, "tar").arg("-C").arg(mount.path()).arg("-cf").arg(&archive).arg("."));
    succeed(bounded(120, "tar").arg("-C").arg(&copies[1]).arg("-xf").arg(&archive));
    let source = format!("{}/", mount.path().display());
    succeed(bounded(120, "rsync").args(["-a", &source]).arg(&copies[2]));
    let again = succeed(bounded(120, "rsync").args(["-ai", "--checksum", &source]).arg(&copies[2]));
    assert_eq!(again, "", "rsync sees changes where there are none");
    for copy in &copies {
        let got: Vec<(PathBuf, u64, String)> = walk(copy)
            .into_iter()
            .map(|(path, size)| {
                let hash = sha256(&copy.join(&path));
                (path, size, hash)
            })
            .collect();
        assert_eq!(got, want, "{}", copy.display());
    }
    let sums = succeed(bounded(120, "sha256sum").args(want.iter().map(|(path, ..)| mount.join(path))));
    for (line, (path, _, hash)) in sums.lines().zip(&want) {
        // sha256sum begins a line with a backslash if the name needs escaping.
        assert!(line.trim_start_matches('\\').starts_with(hash.as_str()), "sha256sum of {}", path.display());
    }
    assert_eq!(sums.lines().count(), want.len());
    for copy in &copies {
        // Directories are copied with mode 0555; let the temporary directory remove them.
        succeed(Command::new("chmod").args(["-R", "u+w"]).arg(copy));
    }
}

/// Reads of any offset and length give the bytes of the whole file, and nothing past its end.
#[test]
fn reads_at_any_offset_agree() {
    let mount = few_epochs(&["sparse.h5ad"]);
    for extension in EXTENSIONS {
        let path = mount.join("epoch-0001/batch-000005").with_extension(extension);
        let whole = fs::read(&path).unwrap();
        let file = File::open(&path).unwrap();
        for at in shuffled(whole.len(), 7).into_iter().take(200) {
            let mut buffer = vec![0xAA; 1 + (at * 31) % 5000];
            let n = file.read_at(&mut buffer, at as u64).unwrap();
            assert_eq!(buffer[..n], whole[at..whole.len().min(at + buffer.len())], "{extension}: at {at}");
        }
        let mut buffer = [0; 16];
        for past in [0, 1, 1 << 40] {
            assert_eq!(file.read_at(&mut buffer, whole.len() as u64 + past).unwrap(), 0, "{extension}: past the end");
        }
    }
}

#[test]
fn numpy_maps_npy_files() {
    let mount = few_epochs(&["dense.h5ad"]);
    succeed(python("check_clients.py").arg("mmap").arg(mount.path()));
}

#[test]
fn h5py_opens_with_default_locking() {
    let mount = few_epochs(&["sparse.h5ad"]);
    succeed(python("check_clients.py").arg("locking").arg(mount.path()).env_remove("HDF5_USE_FILE_LOCKING"));
}

#[test]
fn many_readers_see_the_same_bytes() {
    let mount = few_epochs(&["sparse.h5ad"]);
    let epoch = mount.join("epoch-0000");
    let names = list(&epoch);
    let read = |seed: u64| -> Vec<(usize, String)> {
        let mut all: Vec<_> =
            shuffled(names.len(), seed).into_iter().map(|i| (i, sha256(&epoch.join(&names[i])))).collect();
        all.sort();
        all
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let read = &read;
        let readers: Vec<_> = (0..8).map(|seed| scope.spawn(move || read(seed))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    assert!(all.iter().all(|one| *one == all[0]), "two readers saw different bytes");
}

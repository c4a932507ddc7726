//! Mapped files, which are lent to the kernel where possible (root, Linux 6.9): their bytes do not change as long as they are
//! mapped, whatever else is read, evicted or loaded.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::{Mount, list, shuffled, store};
use memmap2::Mmap;
use sha2::{Digest, Sha256};

const EPOCHS: u64 = 60;

fn mount(memory: &str) -> Mount {
    let epochs = EPOCHS.to_string();
    let options = ["--batch-size", "16", "--block-size", "8", "--fetch-factor", "4", "--format", "safetensors"];
    Mount::new(&[store("dense.h5ad")], &[&options[..], &["--epochs", &epochs, "--memory", memory]].concat())
}

/// Files of some epochs in the order of their names.
fn files(mount: &Mount, epochs: std::ops::Range<u64>) -> Vec<PathBuf> {
    let epoch = |epoch: u64| {
        let directory = PathBuf::from(format!("epoch-{epoch:04}"));
        list(&mount.join(&directory)).into_iter().map(move |name| directory.join(name))
    };
    epochs.flat_map(epoch).collect()
}

/// The content of the files, read as a whole from a separate mount, where nothing is mapped.
fn expected(epochs: std::ops::Range<u64>) -> BTreeMap<PathBuf, Vec<u8>> {
    let mount = mount("256MiB");
    let content = |path: PathBuf| (path.clone(), fs::read(mount.join(path)).unwrap());
    files(&mount, epochs).into_iter().map(content).collect()
}

/// Maps a file and closes it.
pub fn map(path: &Path) -> Mmap {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // SAFETY: nobody may change the file: these tests check that.
    unsafe { Mmap::map(&file) }.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Bytes that are lent and bytes in use, from the daemon.
fn memory(mount: &Mount) -> [u64; 2] {
    let stats = mount.json(".shufflefs/stats.json");
    ["leased_bytes", "used_bytes"].map(|name| stats["memory"][name].as_u64().unwrap())
}

/// Whether images can be lent to the kernel here.
pub fn can_lend() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // SAFETY: it touches no memory.
    let can = unsafe { libc::geteuid() } == 0 && version >= (6, 9);
    if !can {
        eprintln!("files are not lent here: only their content is tested");
    }
    can
}

/// Mappings that outlive their handles and the eviction of their images, more than may be lent at a time.
#[test]
fn mappings_stay_as_they_are() {
    let want = expected(0..EPOCHS);
    let mount = mount("64MiB");
    let mut maps: Vec<(&PathBuf, Mmap)> = Vec::new();
    let mut most = [0, 0];
    for (number, (path, bytes)) in want.iter().enumerate() {
        let map = map(&mount.join(path));
        assert!(map[..] == bytes[..], "{} when it is mapped", path.display());
        // A third is unmapped sooner or later, so that memory is reused.
        maps.push((path, map));
        if number % 3 == 0 {
            maps.swap_remove(number * 31 % maps.len());
        }
        if number % 50 == 0 {
            let now = memory(&mount);
            most = [most[0].max(now[0]), most[1].max(now[1])];
        }
    }
    let mapped: usize = maps.iter().map(|(_, map)| map.len()).sum();
    assert!(mapped > 24 << 20, "only {mapped} bytes are mapped at once, so the test shows nothing");
    for (path, map) in &maps {
        assert!(map[..] == want[*path][..], "{} has changed under its mapping", path.display());
    }
    assert!(most[0] <= 16 << 20 && most[1] <= 64 << 20, "lent, used: {most:?}");
    assert!(!can_lend() || most[0] > 8 << 20, "lent: {} bytes", most[0]);
    drop(maps);
    assert_eq!(memory(&mount)[0], 0, "lent though nothing is mapped");
    mount.unmount();
}

/// Concurrent readers of all kinds, of the same files.
#[test]
fn readers_of_all_kinds_agree() {
    let want: BTreeMap<PathBuf, [u8; 32]> =
        expected(0..3).into_iter().map(|(path, bytes)| (path, hash(&bytes))).collect();
    let mount = mount("64MiB");
    let paths: Vec<&PathBuf> = want.keys().collect();
    // After this, files of these directories are lent.
    for path in paths.iter().take(40) {
        assert!(hash(&map(&mount.join(path))) == want[*path]);
    }
    let mapped = |path: &Path| hash(&map(path));
    let read = |path: &Path| hash(&fs::read(path).unwrap());
    let pieces = |path: &Path| {
        let (mut file, mut hash, mut piece) = (File::open(path).unwrap(), Sha256::new(), [0; 5000]);
        loop {
            match file.read(&mut piece).unwrap() {
                0 => return hash.finalize().into(),
                n => hash.update(&piece[..n]),
            }
        }
    };
    // Page by page without the page cache; the last read is short.
    let direct = |path: &Path| {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        hash(&bytes)
    };
    // The kernel moves the bytes: copy_file_range, sendfile or splice.
    let copied = |path: &Path| {
        let mut copy = tempfile::tempfile().unwrap();
        std::io::copy(&mut File::open(path).unwrap(), &mut copy).unwrap();
        copy.rewind().unwrap();
        let mut bytes = Vec::new();
        copy.read_to_end(&mut bytes).unwrap();
        hash(&bytes)
    };
    let both = |path: &Path| {
        let kept = map(path);
        assert!(hash(&fs::read(path).unwrap()) == hash(&kept));
        hash(&kept)
    };
    type Reader<'a> = &'a (dyn Fn(&Path) -> [u8; 32] + Sync);
    let readers: [(&str, Reader); 7] = [
        ("map", &mapped),
        ("map", &mapped),
        ("read", &read),
        ("pieces", &pieces),
        ("direct", &direct),
        ("copy", &copied),
        ("map and read", &both),
    ];
    std::thread::scope(|scope| {
        for (seed, (name, reader)) in readers.into_iter().enumerate() {
            let (paths, want, mount) = (&paths, &want, &mount);
            scope.spawn(move || {
                // Half of them in order, half of them at random.
                let order = if seed % 2 == 0 { (0..paths.len()).collect() } else { shuffled(paths.len(), seed as u64) };
                for path in order.into_iter().map(|i| paths[i]) {
                    assert!(reader(&mount.join(path)) == want[path], "{name}: {}", path.display());
                }
            });
        }
    });
    mount.unmount();
}

/// Two jobs on one epoch, each keeping what it mapped last.
#[test]
fn jobs_share_what_is_lent() {
    let want = Arc::new(expected(0..4));
    let mount = mount("64MiB");
    std::thread::scope(|scope| {
        for lag in [1_usize, 30] {
            let (want, mount) = (want.clone(), &mount);
            scope.spawn(move || {
                let mut held: Vec<(&PathBuf, Mmap)> = Vec::new();
                for path in want.keys() {
                    held.push((path, map(&mount.join(path))));
                    if held.len() > lag {
                        let (path, map) = held.remove(0);
                        assert!(map[..] == want[path][..], "{}", path.display());
                    }
                }
            });
        }
    });
    mount.unmount();
}

/// Lent images can be read after the daemon was killed.
#[test]
fn a_killed_daemon_takes_nothing_along() {
    let want = expected(0..1);
    let mount = mount("64MiB");
    let maps: Vec<(&PathBuf, Mmap)> = want.keys().map(|path| (path, map(&mount.join(path)))).collect();
    let lent: Vec<&(&PathBuf, Mmap)> = if can_lend() { maps.iter().skip(maps.len() / 2).collect() } else { Vec::new() };
    for (path, map) in &lent {
        assert!(map[..] == want[*path][..]);
    }
    let pid = mount.json(".shufflefs/options.json")["pid"].as_i64().unwrap() as i32;
    // SAFETY: the process serves a directory that only this test knows.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    for (path, map) in &lent {
        assert!(map[..] == want[*path][..], "{} after the daemon's end", path.display());
    }
}

//! Files kept for later mounts, if they cannot be written: index directories on full disks, homes that are read-only or do not
//! exist. The same bytes are served, or the mount is refused in one line; no partial file is left.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::area::{Area, Ran, is_root, mounts_below};
use crate::scale::large;
use crate::support::{list, sha256, store, succeed, walk};

/// A tmpfs of some KiB, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(place: PathBuf, options: &str) -> Disk {
        fs::create_dir(&place).unwrap();
        succeed(Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&place));
        Disk(place)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

const OPTIONS: [&str; 7] = ["mount", "--batch-size", "4096", "--block-size", "64", "--fetch-factor", "2"];

/// Checksums of two files of the mount at `d`, which is then unmounted.
fn sums(area: &Area) -> Vec<String> {
    let files = ["d/epoch-0000/batch-000000.npz", "d/epoch-0001/batch-000000.tsv"];
    let sums = files.map(|file| sha256(&area.path(file))).to_vec();
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
    sums
}

/// A store with a copy by row (CSC), and one with a row index.
fn subjects() -> [(PathBuf, bool); 2] {
    [(store("csc-gzip.h5ad"), true), (large("a.h5ad", &[]), false)]
}

/// The disk of the index directory becomes full, at every page that is written there.
#[test]
fn a_full_disk_leaves_no_half_index() {
    if !is_root() {
        return;
    }
    for (path, needed) in subjects() {
        let area = Area::new();
        let mount = |index: &Path| {
            let mut command = area.command(OPTIONS);
            Ran::from(command.arg("--index-dir").arg(index).arg(&path).arg("d").output().unwrap())
        };
        assert_eq!(mount(&area.path("roomy")).code, Some(0));
        let right = sums(&area);
        let pages = walk(&area.path("roomy")).values().sum::<u64>().div_ceil(4096) + 2;
        let (mut full, mut whole) = (0, 0);
        let steps = 8;
        for step in 0..=steps {
            // Temporary files need space too.
            let kib = 4 * (1 + 3 * pages * step / steps);
            let disk = Disk::new(area.path("disk"), &format!("size={kib}k"));
            let ran = mount(&disk.0);
            let what = format!("{}: {kib} KiB of {} needed: {ran:?}", path.display(), 4 * pages);
            // An index without space leaves no file.
            let kept = list(&disk.0);
            assert!(kept.iter().all(|name| !name.contains(".part") && !name.contains(".scratch")), "{what}: {kept:?}");
            (full, whole) = (full + u32::from(kept.is_empty()), whole + u32::from(!kept.is_empty()));
            if ran.code == Some(0) {
                assert_eq!(sums(&area), right, "{what}");
                assert!(!needed || !kept.is_empty(), "{what}");
            } else {
                assert!(needed && kept.is_empty(), "{what}");
                ran.refused(3, "No space left on device");
            }
            assert!(mounts_below(&area.path("d")).is_empty());
        }
        assert!(full > 2 && whole > 0, "{}: {full} disks filled up, {whole} did not", path.display());
    }
}

/// A home that is read-only, missing or not a directory: an index that is needed is an error that names the remedy, one that is not
/// needed is not written.
#[test]
fn homes_that_cannot_be_written() {
    if !is_root() {
        return;
    }
    let [(by_column, _), (many_rows, _)] = subjects();
    let area = Area::new();
    let read_only = Disk::new(area.path("read-only"), "ro");
    fs::write(area.path("file"), "").unwrap();
    symlink(area.path("nowhere/at/all"), area.path("link")).unwrap();
    let homes =
        [read_only.0.clone(), read_only.0.join("absent"), area.path("file"), "/proc/self".into(), area.path("link")];
    let mount = |home: &Path, store: &Path| {
        let mut command = area.command(OPTIONS);
        let command = command.env_remove("XDG_CACHE_HOME").env("HOME", home).arg(store).arg("d");
        Ran::from(command.output().unwrap())
    };
    let mut right = None;
    for home in &homes {
        let ran = mount(home, &area.store);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", home.display());
        assert_eq!(area.run(["umount", "d"]).code, Some(0));
        // A dangling link is a home that can be created.
        if !home.ends_with("link") {
            let ran = mount(home, &by_column);
            ran.refused(3, "--index-dir");
            assert!(ran.stderr.contains("csc-gzip.h5ad") && ran.stderr.contains("stored by column"), "{ran:?}");
        }
        let ran = mount(home, &many_rows);
        assert_eq!(ran.code, Some(0), "{}: {ran:?}", home.display());
        let got = sums(&area);
        assert_eq!(*right.get_or_insert(got.clone()), got, "{}", home.display());
    }
}

//! `shufflefs shuffle`: what it writes is each row once, as anndata and annbatch read it; and nothing half-made has the final name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::area::{Area, Ran};
use crate::support::{python, store, succeed};

/// Rows, rows that are at another place, and datasets, as read by anndata.
#[track_caller]
fn checked(out: &Path, stores: &[PathBuf]) -> Vec<usize> {
    let said = succeed(python("check_shuffled.py").arg(out).args(stores));
    said.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

fn shuffle(area: &Area, options: &[&str], stores: &[PathBuf], out: &Path) -> Ran {
    let mut command = area.command(["shuffle"]);
    command.args(options).args(stores).arg(out);
    Ran::from(command.output().unwrap())
}

/// Entries of the area that are not the store's.
fn entries(area: &Area) -> Vec<String> {
    let names = fs::read_dir(area.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "store.h5ad").collect();
    names.sort();
    names
}

#[test]
fn each_row_once_in_every_form() {
    let area = Area::new();
    for (stores, out, options) in [
        (vec![store("sparse.h5ad")], "a.zarr", &["--verify"][..]),
        (vec![store("sparse.h5ad")], "b.zarr", &["--compress", "zstd", "--seed", "3"]),
        (vec![store("sparse.h5ad")], "c.zarr", &["--compress", "none"]),
        (vec![store("sparse.h5ad")], "d.h5ad", &["--verify"]),
        (vec![store("dense.h5ad")], "e.zarr", &["--verify"]),
        (vec![store("dense.h5ad")], "f.h5ad", &[]),
    ] {
        let ran = shuffle(&area, options, &stores, &area.path(out));
        assert_eq!(ran.code, Some(0), "{out}: {ran:?}");
        let [rows, moved, datasets] = checked(&area.path(out), &stores)[..] else { panic!("{out}") };
        assert!(datasets == 1 && moved > rows / 2, "{out}: {moved} of {rows} rows are at another place");
    }
    assert_eq!(entries(&area), ["a.zarr", "b.zarr", "c.zarr", "d.h5ad", "e.zarr", "f.h5ad"]);
    // Mounted again, its rows are those of the store.
    let ran = area.run(["info", "a.zarr"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // The same again in its own order.
    let ran = shuffle(&area, &["--order", "sequential"], &[store("sparse.h5ad")], &area.path("g.zarr"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(checked(&area.path("g.zarr"), &[store("sparse.h5ad")])[1], 0, "no row is at another place");
}

/// Parts that are written in any order, each by a process of its own, are one collection.
#[test]
fn parts_are_one_collection() {
    let area = Area::new();
    let (stores, out) = ([store("sparse.h5ad")], area.path("out.zarr"));
    let part = |part: &str, more: &[&str]| {
        shuffle(&area, &[&["--part", part, "--batch-size", "64"], more].concat(), &stores, &out)
    };
    for i in [2, 0] {
        assert_eq!(part(&format!("{i}/3"), &[]).code, Some(0));
    }
    let finish = |of: &str| shuffle(&area, &["--finish", of, "--batch-size", "64"], &stores, &out);
    finish("3").refused(2, "part 1/3 is not written");
    assert_eq!(part("1/3", &["--seed", "8"]).code, Some(0));
    finish("3").refused(2, "part 1 is");
    assert_eq!(part("1/3", &[]).code, Some(0));
    finish("2").refused(2, "write it again");
    // Done is done: it is not written anew.
    let file = area.path(".out.zarr.part/dataset_0/X/data/c.0");
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(part("0/3", &[]).code, Some(0));
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
    assert_eq!(finish("3").code, Some(0));
    assert_eq!(entries(&area), ["out.zarr"]);
    assert_eq!(checked(&out, &stores)[2], 3);
    part("0/3", &[]).refused(2, "exists already");
}

/// Killed anywhere, it goes on, and the result is the same bytes.
#[test]
fn a_killed_run_goes_on() {
    let area = Area::new();
    let stores = [store("sparse.h5ad")];
    for name in ["whole.h5ad", "whole.zarr"] {
        assert_eq!(shuffle(&area, &[], &stores, &area.path(name)).code, Some(0));
    }
    // What a killed run leaves: a beginning, and a word of how much of it is on the disk.
    let whole = fs::read(area.path("whole.h5ad")).unwrap();
    let mut killed = area.command(["shuffle"]);
    let mut killed = crate::area::Serving(killed.args(&stores).arg(area.path("cut.h5ad")).spawn().unwrap());
    crate::area::until("it writes, or has written", || {
        area.path(".cut.h5ad.part").exists() || area.path("cut.h5ad").exists()
    });
    crate::area::kill(killed.pid(), libc::SIGKILL);
    killed.end();
    assert!(!area.path("cut.h5ad").exists() || fs::read(area.path("cut.h5ad")).unwrap() == whole);
    if !area.path("cut.h5ad").exists() {
        assert_eq!(shuffle(&area, &[], &stores, &area.path("cut.h5ad")).code, Some(0));
    }
    assert!(fs::read(area.path("cut.h5ad")).unwrap() == whole);
    let mut killed = area.command(["shuffle"]);
    let mut killed = crate::area::Serving(killed.args(&stores).arg(area.path("cut.zarr")).spawn().unwrap());
    crate::area::until("it writes, or has written", || {
        area.path(".cut.zarr.part").exists() || area.path("cut.zarr").exists()
    });
    crate::area::kill(killed.pid(), libc::SIGKILL);
    killed.end();
    if !area.path("cut.zarr").exists() {
        assert_eq!(shuffle(&area, &[], &stores, &area.path("cut.zarr")).code, Some(0));
    }
    succeed(std::process::Command::new("diff").arg("-r").arg(area.path("whole.zarr")).arg(area.path("cut.zarr")));
    assert_eq!(entries(&area), ["cut.h5ad", "cut.zarr", "whole.h5ad", "whole.zarr"]);
}

/// The sums of an epoch, which sha256sum reads too; another seed is told apart.
#[test]
fn a_manifest_is_evidence() {
    let area = Area::new();
    area.mount("d");
    let printed = area.run(["manifest", "d", "epoch-0000", "epoch-0001"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    fs::write(area.path("sums"), &printed.stdout).unwrap();
    let files = printed.stdout.lines().filter(|line| !line.starts_with('#')).count();
    assert!(files == 16 && printed.stdout.contains("  epoch-0001/batch-000007.npz\n"), "{printed:?}");
    succeed(
        std::process::Command::new("sha256sum")
            .args(["--check", "--quiet", "--strict"])
            .arg(area.path("sums"))
            .current_dir(area.path("d")),
    );
    let same = area.run(["manifest", "--check", "sums", "d"]);
    assert_eq!((same.code, same.stdout.as_str()), (Some(0), "16 of 16 files are the same\n"), "{same:?}");
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
    assert_eq!(area.run(["mount", "--seed", "9", "store.h5ad", "d"]).code, Some(0));
    let other = area.run(["manifest", "--check", "sums", "d"]);
    assert!(other.code == Some(3) && other.stdout.ends_with("0 of 16 files are the same\n"), "{other:?}");
    area.run(["manifest", "d", "epoch-x"]).refused(3, "epoch-x");
    area.run(["manifest", "--check", "store.h5ad", "d"]).refused(3, "store.h5ad");
    fs::write(area.path("odd"), "x\n").unwrap();
    area.run(["manifest", "--check", "odd", "d"]).refused(2, "line 1");
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
}

#[test]
fn what_cannot_be_written_is_said() {
    let area = Area::new();
    let stores = [store("sparse.h5ad")];
    fs::write(area.path("there.h5ad"), "x").unwrap();
    shuffle(&area, &[], &stores, &area.path("there.h5ad")).refused(2, "exists already");
    assert_eq!(fs::read(area.path("there.h5ad")).unwrap(), b"x");
    shuffle(&area, &[], &stores, &area.path("out.parquet")).refused(2, "name it .zarr or .h5ad");
    shuffle(&area, &["--part", "3/3"], &stores, &area.path("out.zarr")).refused(2, "I from 0 to N - 1");
    shuffle(&area, &["--part", "0/3"], &stores, &area.path("out.h5ad")).refused(2, "parts are written to a .zarr");
    shuffle(&area, &["--view", "x"], &stores, &area.path("out.zarr")).refused(2, "there is no view x");
    shuffle(&area, &[], &[area.path("no.h5ad")], &area.path("out.zarr")).refused(3, "no.h5ad");
    shuffle(&area, &[], &stores, &area.path("no/out.zarr")).refused(1, "No such file");
    assert_eq!(entries(&area), ["there.h5ad"]);
}

/// A disk without room: nothing under the final name, and said before anything is written.
#[test]
fn a_full_disk_publishes_nothing() {
    if !crate::area::is_root() {
        return;
    }
    let area = Area::new();
    let small = area.path("small");
    fs::create_dir(&small).unwrap();
    succeed(std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&small));
    let stores = [store("sparse.h5ad")];
    for name in ["out.h5ad", "out.zarr"] {
        let ran = shuffle(&area, &["--compress", "none"], &stores, &small.join(name));
        ran.refused(1, "are needed");
        assert!(!small.join(name).exists());
    }
}

//! `shufflefs shuffle`: the output has each row once, as anndata and annbatch read it; no partial output has the final name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::area::{Area, Ran};
use crate::support::{python, store, succeed};

/// Rows, moved rows, and datasets, as read by anndata.
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
    // Mounted, its rows are those of the store.
    let ran = area.run(["info", "a.zarr"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // The same in stored order.
    let ran = shuffle(&area, &["--order", "sequential"], &[store("sparse.h5ad")], &area.path("g.zarr"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(checked(&area.path("g.zarr"), &[store("sparse.h5ad")])[1], 0, "no row is at another place");
}

/// Parts written in any order, each by a separate process, are one collection.
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
    // A finished part is not written again.
    let file = area.path(".out.zarr.part/dataset_0/X/data/c.0");
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(part("0/3", &[]).code, Some(0));
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
    assert_eq!(finish("3").code, Some(0));
    assert_eq!(entries(&area), ["out.zarr"]);
    assert_eq!(checked(&out, &stores)[2], 3);
    part("0/3", &[]).refused(2, "exists already");
}

/// A run that was killed anywhere continues, and the result has the same bytes.
#[test]
fn a_killed_run_goes_on() {
    let area = Area::new();
    let stores = [store("sparse.h5ad")];
    for name in ["whole.h5ad", "whole.zarr"] {
        assert_eq!(shuffle(&area, &[], &stores, &area.path(name)).code, Some(0));
    }
    // A killed run leaves the first part, and a note of how much of it is on the disk.
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

/// The checksums of an epoch, which sha256sum can check; another seed has other checksums.
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
    shuffle(&area, &[], &stores, &area.path("out.csv")).refused(2, "name it .zarr, .h5ad or .parquet");
    shuffle(&area, &["--part", "3/3"], &stores, &area.path("out.zarr")).refused(2, "I from 0 to N - 1");
    shuffle(&area, &["--part", "0/3"], &stores, &area.path("out.h5ad"))
        .refused(2, "parts are written to a .zarr or .parquet");
    shuffle(&area, &["--view", "x"], &stores, &area.path("out.zarr")).refused(2, "there is no view x");
    shuffle(&area, &[], &[area.path("no.h5ad")], &area.path("out.zarr")).refused(3, "no.h5ad");
    shuffle(&area, &[], &stores, &area.path("no/out.zarr")).refused(1, "No such file");
    assert_eq!(entries(&area), ["there.h5ad"]);
}

/// A full disk: no output, and an error before anything is written.
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

/// A directory of parquet files: each row once and in the order of the epoch, also in parts.
#[test]
fn parquet_files_are_the_epoch() {
    let area = Area::new();
    for (cells, out, options) in [
        (
            "sparse.h5ad",
            "a.parquet",
            &["--verify", "--batch-size", "50", "--block-size", "10", "--fetch-factor", "8"][..],
        ),
        ("dense.h5ad", "b.parquet", &["--order", "sequential"]),
    ] {
        let ran = shuffle(&area, options, &[store(cells)], &area.path(out));
        assert_eq!(ran.code, Some(0), "{out}: {ran:?}");
        let options: Vec<&str> = options.iter().copied().filter(|option| *option != "--verify").collect();
        let place = crate::support::Mount::new(&[store(cells)], &options);
        let said = succeed(python("check_parquet.py").arg(area.path(out)).arg(place.path()).arg(store(cells)));
        assert!(said.contains(" rows "), "{said}");
        place.unmount();
    }
    let options = ["--batch-size", "50", "--block-size", "10", "--fetch-factor", "8"];
    let out = area.path("c.parquet");
    let part = |more: &[&str]| shuffle(&area, &[&options, more].concat(), &[store("sparse.h5ad")], &out);
    for i in ["2/3", "0/3", "0/3"] {
        assert_eq!(part(&["--part", i]).code, Some(0));
    }
    part(&["--finish", "3"]).refused(2, "part 1/3 is not written");
    assert_eq!(part(&["--part", "1/3", "--seed", "4"]).code, Some(0));
    part(&["--finish", "3"]).refused(2, "of other stores or options");
    assert_eq!(part(&["--part", "1/3"]).code, Some(0));
    assert_eq!(part(&["--finish", "3"]).code, Some(0));
    succeed(std::process::Command::new("diff").arg("-r").arg(area.path("a.parquet")).arg(&out));
    part(&[]).refused(2, "exists already");
    shuffle(&area, &["--drop-last"], &[store("sparse.h5ad")], &area.path("d.parquet")).refused(2, "--drop-last");
    assert_eq!(entries(&area), ["a.parquet", "b.parquet", "c.parquet"]);
}

/// A disk that becomes full during the run: one line, no output, and with room again the same command continues.
#[test]
fn a_disk_that_fills_up_is_gone_on_with() {
    if !crate::area::is_root() {
        return;
    }
    let area = Area::new();
    succeed(python("random_store.py").arg(area.path("cells.h5ad")).arg("3000"));
    let stores = [area.path("cells.h5ad")];
    assert_eq!(shuffle(&area, &[], &stores, &area.path("whole.zarr")).code, Some(0));
    let whole: u64 = files(&area.path("whole.zarr")).iter().map(|(_, len)| len.next_multiple_of(4096)).sum();
    let small = area.path("small");
    fs::create_dir(&small).unwrap();
    // More than the space checked in advance (a quarter of the decoded size), and less than the written size.
    let size = |bytes: u64| format!("size={}k", bytes / 1024);
    succeed(std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &size(whole / 2), "none"]).arg(&small));
    let out = small.join("whole.zarr");
    let ran = shuffle(&area, &[], &stores, &out);
    ran.refused(1, "No space left on device");
    assert!(ran.stderr.contains("what is written is kept") && !out.exists(), "{ran:?}");
    let remount = |options: &str| {
        succeed(std::process::Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&small));
    };
    remount(&size(whole * 4));
    assert_eq!(shuffle(&area, &[], &stores, &out).code, Some(0));
    succeed(std::process::Command::new("diff").arg("-r").arg(area.path("whole.zarr")).arg(&out));
    // Out of inodes after some files.
    let taken = files(&small).len() + 20;
    remount(&format!("nr_inodes={}", taken + 3));
    let options = ["--batch-size", "64", "--fetch-factor", "1", "--block-size", "16"];
    let out = small.join("many.parquet");
    let ran = shuffle(&area, &options, &stores, &out);
    assert!(ran.code == Some(1) && ran.stderr.lines().count() == 1 && !out.exists(), "{ran:?}");
    remount("nr_inodes=4096");
    assert_eq!(shuffle(&area, &options, &stores, &out).code, Some(0));
    assert_eq!(files(&out).len(), 3000_usize.div_ceil(64));
}

/// All files below a directory, and their bytes.
fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        match entry.metadata().unwrap() {
            about if about.is_dir() => found.extend(files(&entry.path())),
            about => found.push((entry.path(), about.len())),
        }
    }
    found
}

/// A damaged chunk, and a store that is replaced between two parts: an error that names it, and no output.
#[test]
fn bad_sources_publish_nothing() {
    let area = Area::new();
    let cells = area.path("cells.h5ad");
    fs::copy(store("sparse.h5ad"), &cells).unwrap();
    succeed(python("damage_chunk.py").arg(&cells).arg("X/data"));
    for name in ["out.zarr", "out.h5ad", "out.parquet"] {
        let ran = shuffle(&area, &["--memory", "16MiB"], std::slice::from_ref(&cells), &area.path(name));
        ran.refused(3, "X/data");
        assert!(ran.stderr.contains("cells.h5ad") && ran.stderr.contains("chunk"), "{ran:?}");
        assert!(!area.path(name).exists());
    }
    // Once repaired, the same command starts again, as the store has changed.
    fs::copy(store("sparse.h5ad"), &cells).unwrap();
    for name in ["out.zarr", "out.h5ad"] {
        let ran = shuffle(&area, &["--memory", "16MiB", "--verify"], std::slice::from_ref(&cells), &area.path(name));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(checked(&area.path(name), std::slice::from_ref(&cells))[0], 2000);
    }
    let part = |part: &str| shuffle(&area, &["--part", part], std::slice::from_ref(&cells), &area.path("two.zarr"));
    assert_eq!(part("0/2").code, Some(0));
    // Other bytes, and another mtime.
    fs::remove_file(&cells).unwrap();
    fs::copy(store("sparse.h5ad"), &cells).unwrap();
    succeed(std::process::Command::new("touch").args(["-d", "2020-01-01"]).arg(&cells));
    assert_eq!(part("1/2").code, Some(0));
    let ran = shuffle(&area, &["--finish", "2"], std::slice::from_ref(&cells), &area.path("two.zarr"));
    ran.refused(2, "of other stores or options");
    assert!(!area.path("two.zarr").exists());
}

/// A store that is replaced while it is read: an error that names it, or the epoch of one of the two; never a mixture.
#[test]
fn a_source_that_changes_is_not_mixed() {
    let area = Area::new();
    let cells = area.path("cells.h5ad");
    fs::copy(store("sparse.h5ad"), &cells).unwrap();
    let out = area.path("out.zarr");
    let mut command = area.command([
        "shuffle",
        "--memory",
        "16MiB",
        "--batch-size",
        "16",
        "--block-size",
        "16",
        "--fetch-factor",
        "1",
    ]);
    let mut running = crate::area::Serving(command.arg(&cells).arg(&out).spawn().unwrap());
    crate::area::until("it writes, or has written", || area.path(".out.zarr.part").exists() || out.exists());
    crate::area::kill(running.pid(), libc::SIGSTOP);
    // In place: the same file, other values.
    succeed(python("damage_chunk.py").arg(&cells).args(["X/data", "--values"]));
    crate::area::kill(running.pid(), libc::SIGCONT);
    let code = running.end().code();
    assert_eq!(out.exists(), code == Some(0));
    if out.exists() {
        assert_eq!(checked(&out, &[store("sparse.h5ad")])[0], 2000, "it had read all before");
    } else {
        assert_eq!(code, Some(3));
        let ran = shuffle(&area, &[], std::slice::from_ref(&cells), &out);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(checked(&out, std::slice::from_ref(&cells))[0], 2000);
    }
}

/// A signal after any number of files: it ends by that signal, without output, and continues to the same bytes.
#[test]
fn signals_at_any_point() {
    let area = Area::new();
    let stores = [store("sparse.h5ad")];
    let options = ["--batch-size", "32", "--block-size", "8", "--fetch-factor", "4"];
    for (kind, points) in [("zarr", [0, 2, 5, 9]), ("parquet", [0, 1, 4, 8]), ("h5ad", [0, 1, 1, 1])] {
        let whole = area.path(&format!("whole.{kind}"));
        assert_eq!(shuffle(&area, &options, &stores, &whole).code, Some(0));
        for (signal, point) in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGKILL].into_iter().zip(points) {
            let out = area.path(&format!("cut.{kind}"));
            let partial = area.path(&format!(".cut.{kind}.part"));
            let mut command = area.command(["shuffle"]);
            let mut running = crate::area::Serving(command.args(options).args(&stores).arg(&out).spawn().unwrap());
            let count = || if partial.is_dir() { files(&partial).len() } else { usize::from(partial.exists()) };
            crate::area::until("so many files are written", || out.exists() || count() >= point);
            crate::area::kill(running.pid(), signal);
            let ended = running.end();
            if !out.exists() {
                assert!(!ended.success(), "{kind} {signal}: {ended}");
                assert_eq!(shuffle(&area, &options, &stores, &out).code, Some(0));
            }
            succeed(std::process::Command::new("diff").arg("-r").arg(&whole).arg(&out));
            match kind {
                "h5ad" => fs::remove_file(&out).unwrap(),
                _ => fs::remove_dir_all(&out).unwrap(),
            }
            assert!(!partial.exists());
        }
    }
}

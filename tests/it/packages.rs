//! The packages: the wheel installed into an empty environment, the Debian package unpacked into an empty directory. They are made
//! from the binary under test; packaging/build makes the released ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::area::{Area, is_root, until};
use crate::support::{ROOT, bounded, is_mounted, python, store, succeed, text};

fn script(name: &str) -> PathBuf {
    Path::new(ROOT).join("packaging").join(name)
}

/// The binary under test without its symbols, as packages have it.
fn binary(area: &Area) -> PathBuf {
    let stripped = area.path("shufflefs");
    succeed(Command::new("strip").arg("-o").arg(&stripped).arg(env!("CARGO_BIN_EXE_shufflefs")));
    stripped
}

#[test]
fn the_wheel_is_the_whole_set_up() {
    if !is_root() {
        return;
    }
    let area = Area::new();
    let binary = binary(&area);
    let wheel = |directory: &str| {
        let mut command = bounded(120, script("wheel.py"));
        PathBuf::from(succeed(command.arg(&binary).arg(area.path(directory))).trim_end())
    };
    let (first, second) = (wheel("one"), wheel("two"));
    assert_eq!(fs::read(&first).unwrap(), fs::read(second).unwrap(), "the same bytes");
    assert!(first.to_str().unwrap().contains("-py3-none-manylinux_2_"), "{first:?}");

    let venv = area.path("venv");
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    let python_of = |arguments: &[&str]| {
        let mut command = bounded(300, venv.join("bin/python"));
        command.args(arguments).env("PATH", "/usr/bin:/bin").current_dir(area.path(""));
        command
    };
    succeed(python_of(&["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).arg(&first));
    assert!(text(&python_of(&["-m", "pip", "check"]).output().unwrap().stdout).contains("No broken requirements"));
    assert!(venv.join("share/man/man1/shufflefs-mount.1").exists());

    let (checks, cells, out) =
        (Path::new(ROOT).join("tests/python/check_module.py"), store("sparse.h5ad"), area.path("read.npz"));
    let (checks, cells) = (checks.to_str().unwrap(), cells.to_str().unwrap());
    succeed(python_of(&[checks, "read", cells]).arg(&out));
    succeed(python("check_module.py").args(["compare", cells]).arg(&out));
    // The training script of the demo, in a separate mount.
    let line = format!(
        "{} run --batch-size 64 {cells} -- {} -c",
        venv.join("bin/shufflefs").display(),
        venv.join("bin/python").display()
    );
    let code = "import shufflefs; m = shufflefs.attach(); print(sum(len(b['row']) for b in m.batches(0)))";
    let mut words: Vec<&str> = line.split(' ').collect();
    words.push(code);
    let mut command = bounded(60, words[0]);
    assert_eq!(succeed(command.args(&words[1..])).trim(), "2000");

    // However the program ends, its mount ends.
    let mut command = python_of(&[checks, "orphan", cells]);
    let place = text(&command.stdout(Stdio::piped()).output().unwrap().stdout);
    let place = Path::new(place.trim_end());
    assert!(place.is_absolute());
    until("the mount of the killed program ends", || !is_mounted(place) && !place.exists());
    let _ = fs::remove_dir(place.parent().unwrap());

    let torch = Path::new(ROOT).join("target/clusters/torch/bin/python");
    if !torch.exists() {
        eprintln!("skipped: PyTorch is not in target/clusters/torch (scripts/setup --torch)");
        return;
    }
    let mut command = bounded(300, torch);
    command.args([checks, "torch", cells]).env("PYTHONPATH", Path::new(ROOT).join("python"));
    succeed(command.env("SHUFFLEFS_BINARY", &binary));
}

/// A minimal Debian 12 and 13, made by debootstrap: minutes and 600 MB, so only for `scripts/test --all`.
#[test]
fn the_wheel_runs_in_bare_debians() {
    if std::env::var_os("SHUFFLEFS_TEST_ALL").is_none() || !is_root() {
        eprintln!("skipped: scripts/test --all runs it");
        return;
    }
    let area = Area::new();
    let wheel = succeed(bounded(120, script("wheel.py")).arg(binary(&area)).arg(area.path("wheel")));
    for suite in ["bookworm", "trixie"] {
        let tree = Path::new(ROOT).join("target/debian").join(suite);
        fs::create_dir_all(tree.parent().unwrap()).unwrap();
        let mut job = bounded(1800, script("try-wheel"));
        let job = job.arg(wheel.trim_end()).arg(store("sparse.h5ad")).arg(suite).arg(&tree);
        assert_eq!(succeed(job).trim(), "2000", "{suite}");
    }
}

#[test]
fn the_debian_package_has_all_of_it() {
    let area = Area::new();
    let binary = binary(&area);
    let package = succeed(bounded(120, script("deb")).arg(&binary).arg(area.path("deb")));
    let package = package.trim_end();
    let field = |name: &str| succeed(Command::new("dpkg-deb").args(["--field", package, name]));
    assert!(field("Depends").contains("fuse3") && field("Depends").contains("libc6 (>= 2."));
    let root = area.path("root");
    succeed(Command::new("dpkg-deb").args(["--extract", package]).arg(&root));
    for file in [
        "usr/bin/shufflefs",
        "usr/share/man/man1/shufflefs-run.1.gz",
        "usr/share/man/man1/shufflefs-doctor.1.gz",
        "usr/share/bash-completion/completions/shufflefs",
        "usr/share/zsh/vendor-completions/_shufflefs",
        "usr/share/fish/vendor_completions.d/shufflefs.fish",
        "usr/share/doc/shufflefs/copyright",
        "usr/share/doc/shufflefs/examples/mnt-cells.automount",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    // mount(8) calls it by the name of its helper link.
    let place = area.path("d");
    let status = Command::new(root.join("usr/sbin/mount.fuse.shufflefs"))
        .arg(&area.store)
        .arg(&place)
        .args(["-o", "rw"])
        .status();
    assert!(status.unwrap().success() && is_mounted(&place));
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
}

/// The program, the list of its crates, and units that systemd accepts.
#[test]
fn what_else_a_release_has() {
    let list: serde_json::Value =
        serde_json::from_str(&succeed(bounded(120, script("sbom.py")).current_dir(ROOT))).unwrap();
    let names: Vec<&str> =
        list["components"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert!(list["bomFormat"] == "CycloneDX" && names.contains(&"fuser") && !names.contains(&"proptest"));
    let area = Area::new();
    let version = area.run(["--version"]);
    for word in ["shufflefs 0.", "commit", "features: ", "HDF5: 2.", "FUSE: protocol 7."] {
        assert!(version.stdout.contains(word), "{word}: {version:?}");
    }
    let doctor = area.run(["doctor"]);
    for word in [
        "/dev/fuse",
        "fusermount3",
        "user namespaces",
        "passthrough",
        "io_uring",
        "memlock",
        "nofile",
        "memory",
        "cache",
    ] {
        assert!(doctor.stdout.contains(word), "{word}: {doctor:?}");
    }
    assert!(doctor.stdout.lines().all(|line| ["ok ", "note ", "problem "].iter().any(|word| line.starts_with(word))));
    let refused = area.run(["doctor", "--index-dir", "/proc/no-such"]);
    assert!(refused.code == Some(1) && refused.stdout.contains("give another with --index-dir"), "{refused:?}");
}

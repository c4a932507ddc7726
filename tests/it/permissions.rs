//! What other users of the machine can do: the lines of the threat model in SECURITY.md that no other test covers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::area::{Area, Ran, Serving, is_root, mounts_below, processes, until};
use crate::ill_files::{Ail, Fault, IllFiles, READ};
use crate::remote::Server;
use crate::support::{list, store};

/// Run as nobody.
fn nobody(program: &str) -> Command {
    let mut command = Command::new(program);
    command.uid(65534).gid(65534);
    command
}

/// Directories of indexes and of cached blocks are closed to others, for any umask: they contain parts of stores that others may not
/// read.
#[test]
fn kept_directories_are_closed_to_others() {
    // Larger than the first answer for an object, so that blocks of it are cached.
    let Some((name, path)) = crate::cached::large().into_iter().next() else { return };
    let server = Server::objects(path.parent().unwrap());
    let area = Area::new();
    let (index, cache) = (area.path("new/index"), area.path("new/cache"));
    let mount = |store: &std::path::Path| {
        let mut command = area.command(["mount", "--index-dir"]);
        command.arg(&index).arg("--cache-dir").arg(&cache).arg(store).arg("d");
        // SAFETY: between fork and exec only a system call.
        unsafe {
            command.pre_exec(|| {
                libc::umask(0);
                Ok(())
            });
        }
        let ran = Ran::from(command.output().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        fs::read(area.path("d/epoch-0000/batch-000000.npz")).unwrap();
        assert_eq!(area.run(["umount", "d"]).code, Some(0));
    };
    mount(&server.url("none-0", &name));
    mount(&store("csc-int64.zarr"));
    let mut folders = vec![area.path("new"), index.clone(), cache.clone()];
    folders.extend(list(&cache).iter().map(|name| cache.join(name)));
    assert!(folders.len() > 3 && !list(&index).is_empty(), "the test shows nothing: {folders:?}");
    for folder in folders.iter().filter(|path| path.is_dir()) {
        assert_eq!(fs::metadata(folder).unwrap().mode() & 0o777, 0o700, "{}", folder.display());
    }
}

/// A user who can write to an index directory cannot make shufflefs write through a link there.
#[test]
fn a_link_in_the_index_directory_is_not_written_through() {
    let area = Area::new();
    let (index, path) = (area.path("index"), store("csc-int64.zarr"));
    let mount = || {
        let mut command = area.command(["mount", "--index-dir"]);
        Ran::from(command.arg(&index).arg(&path).arg("d").output().unwrap())
    };
    assert_eq!(mount().code, Some(0));
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
    let name = list(&index).remove(0);
    fs::remove_file(index.join(&name)).unwrap();
    let precious = area.path("precious");
    fs::write(&precious, "mine").unwrap();
    symlink(&precious, index.join(format!("{name}.part"))).unwrap();
    mount().refused(3, "--index-dir");
    assert_eq!(fs::read(&precious).unwrap(), b"mine");
    assert!(mounts_below(&area.path("")).is_empty());
}

/// Another user can neither read a mount nor end it, nor mount an unreadable store.
#[test]
fn another_user_has_no_way_in() {
    let Some(area) = Area::of_nobody() else { return };
    let binary = area.path("shufflefs");
    let owner = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shufflefs"));
        Ran::from(command.args(arguments).current_dir(area.path("")).output().unwrap())
    };
    assert_eq!(owner(&["mount", "store.h5ad", "d"]).code, Some(0));
    for (program, arguments) in [
        ("cat", &["d/README.txt"][..]),
        ("cat", &["d/.shufflefs/options.json"]),
        ("ls", &["d"]),
        ("stat", &["d/epoch-0000"]),
        ("fusermount3", &["-u", "d"]),
        ("umount", &["d"]),
    ] {
        let Ok(output) = nobody(program).args(arguments).current_dir(area.path("")).output() else { continue };
        assert!(!output.status.success(), "{program} {arguments:?}: {output:?}");
    }
    area.run(["umount", "d"]).refused(5, "d");
    assert_eq!(mounts_below(&area.path("d")).len(), 1);
    // The other user's mountpoint is usable, but the store is not readable.
    fs::set_permissions(&area.store, fs::Permissions::from_mode(0o600)).unwrap();
    let ran = Ran::from(
        nobody(binary.to_str().unwrap())
            .args(["mount", "store.h5ad", "e"])
            .current_dir(area.path(""))
            .output()
            .unwrap(),
    );
    ran.refused(3, "permission denied");
    assert!(is_root() && owner(&["umount", "d"]).code == Some(0));
}

/// The child that parses an HDF5 file can gain no rights, and as root it has only the capabilities to read files.
#[test]
fn the_child_that_parses_is_confined() {
    let whole = store("csr-float32-gzip.h5ad");
    let place = tempfile::tempdir().unwrap();
    fs::copy(&whole, place.path().join("cells.h5ad")).unwrap();
    let files = IllFiles::show(place.path());
    let area = Area::new();
    // It hangs in the middle of its work, so that it can be inspected.
    files.fall_ill(Fault { ail: Ail::Stuck, calls: READ, from: 4, every: 1, once: false });
    let mut command = area.command(["mount"]);
    let mut mount = Serving(command.arg(files.path().join("cells.h5ad")).arg("d").spawn().unwrap());
    let told = |pid: i32, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    let children = || {
        let parsing = processes(|line| line.trim_end() == "shufflefs probe");
        parsing.into_iter().filter(|pid| told(*pid, "NoNewPrivs:") == "1").collect::<Vec<_>>()
    };
    let ours = || {
        let is_ours = |pid: &i32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file.ends_with("cells.h5ad"))
        };
        children().into_iter().find(is_ours)
    };
    until("the child that parses is confined", || ours().is_some());
    assert_eq!(told(ours().unwrap(), "Seccomp:"), "2", "it has a filter of system calls");
    let effective = u64::from_str_radix(&told(ours().unwrap(), "CapEff:"), 16).unwrap();
    // CAP_DAC_OVERRIDE is 1, CAP_DAC_READ_SEARCH 2.
    assert_eq!(effective & !(1 << 1 | 1 << 2), 0, "{effective:x}");
    files.recover();
    assert_eq!(mount.end().code(), Some(0));
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
}

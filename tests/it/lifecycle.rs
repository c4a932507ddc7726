//! The life of mounts, with the real kernel: background, foreground, signals, unmounting, dead mounts, refusals.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::area::{Area, README, Serving, in_time, is_alive, is_root, kill, mounts_below, until};

#[test]
fn background_is_usable_when_the_parent_returns() {
    let area = Area::new();
    let place = area.mount("made/d");
    assert!(place.join(README).is_file());
    let daemon = area.pid("made/d");
    assert!(is_alive(daemon));
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap(), Path::new("/"));
    for number in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{daemon}/fd/{number}")).unwrap(), Path::new("/dev/null"));
    }
    let line = mount_line(&place);
    for word in ["ro,nosuid,nodev,noatime", "fuse.shufflefs", "store.h5ad", "default_permissions"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let ran = area.run(["umount", "made/d"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(!is_alive(daemon), "umount waits for the daemon");
    assert!(!area.path("made").exists(), "what was made is removed");
}

#[test]
fn background_failure_is_reported_by_the_parent() {
    let area = Area::new();
    area.run(["mount", "no-such.h5ad", "d"]).refused(3, "no-such.h5ad");
    assert!(!area.path("d").exists());
    area.run(["mount", "--log", "no/such/place", "store.h5ad", "d"]).refused(2, "no/such/place");
    area.run(["mount", "--batch-size", "0", "store.h5ad", "d"]).refused(2, "1..=16777216");
    area.run(["mount", "store.h5ad"]).refused(2, "mountpoint is missing");
    area.run(["mount", "-f", "no-such.h5ad", "d"]).refused(3, "no-such.h5ad");
}

#[test]
fn several_stores_and_mount_options() {
    let area = Area::new();
    let ran = area.run(["mount", "-o", "seed=7,noauto,x-systemd.automount", "store.h5ad", "store.h5ad", "d"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(mount_line(&area.path("d")).contains("(+1)"));
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
}

/// Other users see a mount only with `--allow-other`.
#[test]
fn allow_other() {
    if !is_root() {
        return;
    }
    let area = Area::new();
    // Only its owner may enter the temporary directory by default.
    fs::set_permissions(area.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    for (options, readable) in [(&["mount"][..], false), (&["mount", "--allow-other"], true)] {
        let ran = area.run(options.iter().copied().chain(["store.h5ad", "d"]));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let mut reader = Command::new("cat");
        reader.arg(area.path("d").join(README)).uid(65534).gid(65534);
        let output = reader.output().unwrap();
        assert_eq!(output.status.success(), readable, "{output:?}");
        assert!(!readable || output.stdout == fs::read(area.path("d").join(README)).unwrap());
        assert_eq!(area.run(["umount", "d"]).code, Some(0));
    }
}

#[test]
fn mount_8_helper() {
    let area = Area::new();
    let helper = area.path("mount.fuse.shufflefs");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_shufflefs"), &helper).unwrap();
    let mut command = Command::new(helper);
    command.arg(&area.store).arg(area.path("d")).args(["-o", "rw,seed=1"]);
    assert!(command.status().unwrap().success());
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
    area.run(["mount", "-o", "remount", "store.h5ad", "d"]).refused(2, "mount it again");
}

/// Without the helper link, mount(8) runs mount.fuse, which runs shufflefs with other arguments.
#[test]
fn mount_8_without_the_helper() {
    let area = Area::new();
    let (store, place) = (area.store.to_str().unwrap(), area.path("d"));
    let ran = area.run([store, place.to_str().unwrap(), "-o", r#"rw,split="train=0.8,val=0.2""#]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(place.join("train/epoch-0000").is_dir() && place.join("val/epoch-0000").is_dir());
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
    if !is_root() || !Path::new("/sbin/mount.fuse").exists() {
        return;
    }
    // mount.fuse searches only the system's directories, so the binary is in one of them, in a namespace of the script. Several
    // stores are named in a file.
    let toml = area.path("cells.toml");
    fs::write(&toml, "stores = ['store.h5ad', 'store.h5ad']\nbatch_size = 32\n").unwrap();
    let line = |source: &Path, name: &str| {
        fs::create_dir_all(area.path(name)).unwrap();
        format!("{} {} fuse.shufflefs ro,nofail,_netdev,seed=7 0 0\n", source.display(), area.path(name).display())
    };
    fs::write(area.path("fstab"), line(&area.store, "d") + &line(&toml, "e")).unwrap();
    let script = "mount --bind \"$0\" /usr/local/sbin; mount -t fuse.shufflefs -o ro,batch_size=64,_netdev \"$1\" \"$PWD/d\"; \
                  cat d/dataset.json > first.json; shufflefs umount d; mount -a -T fstab; \
                  cat d/dataset.json > d.json; cat e/dataset.json > e.json; shufflefs umount d; shufflefs umount e";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", script]);
    command.arg(Path::new(env!("CARGO_BIN_EXE_shufflefs")).parent().unwrap()).arg(store);
    let ran = crate::area::Ran::from(command.current_dir(area.path("")).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let rows = |name: &str| {
        let told: serde_json::Value = serde_json::from_slice(&fs::read(area.path(name)).unwrap()).unwrap();
        told["rows"].as_u64().unwrap()
    };
    assert_eq!((rows("first.json"), rows("d.json"), rows("e.json")), (2000, 2000, 4000));
}

#[test]
fn signals_end_the_foreground_and_the_background() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let area = Area::new();
        let mut serving = area.foreground();
        kill(serving.pid(), signal);
        assert_eq!(serving.end().code(), Some(0), "signal {signal}");
        assert!(!area.path("d").exists());
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let area = Area::new();
        let place = area.mount("d");
        let daemon = area.pid("d");
        kill(daemon, signal);
        until("the daemon ends", || !is_alive(daemon));
        assert!(mounts_below(&place).is_empty() && !place.exists(), "signal {signal}");
    }
}

#[test]
fn a_signal_while_a_file_is_open() {
    let area = Area::new();
    let mut serving = area.foreground();
    let mut file = File::open(area.path("d").join(README)).unwrap();
    kill(serving.pid(), libc::SIGTERM);
    assert_eq!(serving.end().code(), Some(0));
    assert!(!area.path("d").exists());
    let read = in_time("reading after the end", move || file.read(&mut [0; 100]));
    assert!(read.is_err(), "{read:?}");
}

#[test]
fn umount_while_a_file_is_open() {
    let area = Area::new();
    area.mount("d");
    let daemon = area.pid("d");
    let mut file = File::open(area.path("d").join(README)).unwrap();
    let ran = area.run(["umount", "d"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("detached") && ran.stderr.contains(&format!("pid {}", std::process::id())), "{ran:?}");
    assert!(mounts_below(&area.path("d")).is_empty());
    // It continues until the file is closed.
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert!(!text.is_empty() && is_alive(daemon));
    drop(file);
    until("the daemon ends", || !is_alive(daemon));
    assert!(!area.path("d").exists());
}

/// A new mount namespace, as of a container, has copies of all mounts.
#[test]
fn umount_while_another_namespace_shows_the_mount() {
    if !is_root() {
        return;
    }
    let area = Area::new();
    area.mount("d");
    let daemon = area.pid("d");
    let other = Serving(Command::new("unshare").args(["--mount", "sleep", "600"]).spawn().unwrap());
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt")).unwrap();
    until("the namespace is there", || namespace(&other.pid().to_string()) != namespace("self"));
    let ran = area.run(["umount", "d"]);
    assert_eq!(ran.code, Some(5));
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    assert!(ran.stderr.contains("namespace") && ran.stderr.contains(&format!("kill {daemon}")), "{ran:?}");
    assert!(mounts_below(&area.path("d")).is_empty() && is_alive(daemon));
    kill(daemon, libc::SIGTERM);
    until("the daemon ends", || !is_alive(daemon));
    assert!(!area.path("d").exists());
}

#[test]
fn an_outside_umount_ends_the_session() {
    if !is_root() {
        return;
    }
    let area = Area::new();
    let mut serving = area.foreground();
    umount_from_outside(&area.path("d"));
    assert_eq!(serving.end().code(), Some(0));
    assert!(!area.path("d").exists());
}

#[test]
fn a_daemon_never_unmounts_its_successor() {
    if !is_root() {
        return;
    }
    let area = Area::new();
    fs::create_dir(area.path("d")).unwrap();
    for _ in 0..10 {
        let mut first = area.foreground();
        umount_from_outside(&area.path("d"));
        area.mount("d");
        first.end();
        assert!(area.path("d").join(README).is_file());
        assert_eq!(area.run(["umount", "d"]).code, Some(0));
    }
}

#[test]
fn an_aborted_connection_leaves_no_dead_mount() {
    if !is_root() {
        return;
    }
    let area = Area::new();
    let mut serving = area.foreground();
    let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata(area.path("d")).unwrap());
    // A separate control file system: not every machine has it at /sys/fs/fuse/connections.
    let control = area.path("control");
    fs::create_dir(&control).unwrap();
    let mount = Command::new("mount").args(["-t", "fusectl", "none"]).arg(&control).status();
    assert!(mount.unwrap().success());
    fs::write(control.join(format!("{}/abort", libc::minor(device))), "1").unwrap();
    serving.end();
    assert!(mounts_below(&area.path("d")).is_empty() && !area.path("d").exists());
}

#[test]
fn a_killed_daemon_is_named_and_cleared() {
    let area = Area::new();
    let place = area.mount("d");
    let daemon = area.pid("d");
    kill(daemon, libc::SIGKILL);
    until("the daemon is gone", || !is_alive(daemon));
    area.run(["mount", "--refuse-dead", "store.h5ad", "d"]).refused(4, "shufflefs umount");
    area.run(["mount", "-o", "refuse_dead", "store.h5ad", "d"]).refused(4, "shufflefs umount");
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
    area.mount("d");
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
    assert!(place.is_dir(), "it was not made by the second mount");
}

/// A restarted container starts the same command again.
#[test]
fn a_dead_mount_is_unmounted_by_the_next_mount() {
    for area in [Some(Area::new()), Area::of_nobody()].into_iter().flatten() {
        for _ in 0..2 {
            let place = area.mount("d");
            let daemon = area.pid("d");
            kill(daemon, libc::SIGKILL);
            until("the daemon is gone", || !is_alive(daemon));
            assert_eq!(mounts_below(&place).len(), 1);
        }
        let place = area.mount("d");
        assert_eq!(mounts_below(&place).len(), 1);
        assert!(is_alive(area.pid("d")));
        // A live mount is not affected.
        area.run(["mount", "store.h5ad", "d"]).refused(4, "already a mount");
        assert_eq!(area.run(["umount", "d"]).code, Some(0));
    }
}

/// If several commands find the same dead mount, one mounts, and none detaches the mount of another.
#[test]
fn a_dead_mount_is_cleared_by_one() {
    let area = Area::new();
    let place = area.mount("d");
    for _ in 0..3 {
        let daemon = area.pid("d");
        kill(daemon, libc::SIGKILL);
        until("the daemon is gone", || !is_alive(daemon));
        let start = |_| area.command(["mount", "store.h5ad", "d"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        let started: Vec<_> = (0..4).map(start).collect();
        let codes = started.into_iter().map(|mut child| child.wait().unwrap().code());
        assert_eq!(codes.filter(|code| *code == Some(0)).count(), 1);
        assert_eq!(mounts_below(&place).len(), 1);
        assert!(place.join(README).is_file());
    }
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
}

/// The program that mounts keeps the daemon's stdin open; however it ends, the mount ends.
#[test]
fn an_attached_mount_ends_with_its_input() {
    let area = Area::new();
    let mut command = area.command(["mount", "--attached", "store.h5ad", "d"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut serving = Serving(command.spawn().unwrap());
    let mut line = String::new();
    let mut output = std::io::BufReader::new(serving.0.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(Path::new(line.trim_end()), area.path("d"));
    assert!(area.path("d").join(README).is_file());
    drop(serving.0.stdin.take());
    assert_eq!(serving.end().code(), Some(0));
    assert!(!area.path("d").exists());
}

#[test]
fn unusable_mountpoints_are_refused() {
    let area = Area::new();
    fs::create_dir_all(area.path("full/x")).unwrap();
    area.run(["mount", "store.h5ad", "full"]).refused(4, "not empty");
    area.run(["mount", "store.h5ad", "store.h5ad"]).refused(4, "not a directory");
    area.run(["mount", "store.h5ad", "store.h5ad/d"]).refused(4, "not a directory");
    area.run(["mount", "store.h5ad", "/proc"]).refused(4, "already a mount");
    area.run(["mount", "store.h5ad", "/proc/no/such"]).refused(4, "/proc/no/such");
    area.run(["mount", "store.h5ad", "/dev/fd/99"]).refused(4, "descriptor");
    area.mount("d");
    area.run(["mount", "store.h5ad", "d"]).refused(4, "already a mount");
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
}

#[test]
fn umount_refuses_what_is_not_ours() {
    let area = Area::new();
    fs::create_dir(area.path("plain")).unwrap();
    area.run(["umount", "plain"]).refused(5, "not a mount");
    area.run(["umount", "no-such"]).refused(5, "not a mount");
    area.run(["umount", "/proc"]).refused(5, "proc");
}

#[test]
fn as_a_user_through_fusermount3() {
    let Some(area) = Area::of_nobody() else {
        return;
    };
    if Command::new("fusermount3").arg("-V").output().is_err() {
        return;
    }
    let place = area.mount("d");
    assert!(mount_line(&place).contains("user_id=65534"));
    let daemon = area.pid("d");
    let ran = area.run(["umount", "d"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(!is_alive(daemon) && !place.exists());

    // By a signal, while the same user has a file open.
    area.mount("d");
    let daemon = area.pid("d");
    let readme = place.join(README);
    let mut holder = Command::new("setpriv");
    holder.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    holder.args(["sh", "-c", "exec sleep 100 < \"$0\""]).arg(&readme);
    let holder = crate::area::Serving(holder.spawn().unwrap());
    let held = format!("/proc/{}/fd/0", holder.pid());
    until("the file is held", || fs::read_link(&held).is_ok_and(|target| target == readme));
    kill(daemon, libc::SIGTERM);
    until("the daemon ends", || !is_alive(daemon));
    assert!(mounts_below(&place).is_empty() && !place.exists());
    drop(holder);

    // Killed, then unmounted.
    area.mount("d");
    let daemon = area.pid("d");
    kill(daemon, libc::SIGKILL);
    until("the daemon is gone", || !is_alive(daemon));
    area.run(["mount", "--refuse-dead", "store.h5ad", "d"]).refused(4, "shufflefs umount");
    assert_eq!(area.run(["umount", "d"]).code, Some(0));

    let mut without = area.command(["mount", "store.h5ad", "d"]);
    without.env("PATH", "/nonexistent");
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    let mut command = Command::new(setpriv);
    command.args(without.get_args()).env("PATH", "/nonexistent").current_dir(area.path("."));
    crate::area::Ran::from(command.output().unwrap()).refused(4, "install the package fuse3");
}

/// umount(8), repeated while the daemon still accesses its new mount.
fn umount_from_outside(place: &Path) {
    let umount = || Command::new("umount").arg(place).output().unwrap().status.success();
    until("umount succeeds", umount);
}

fn mount_line(place: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = place.to_str().unwrap();
    table.lines().find(|line| line.split(' ').nth(4) == Some(place)).unwrap_or_default().to_owned()
}

/// A store on a file system that hangs: another shufflefs mount, whose daemon is stopped.
#[test]
fn a_store_that_hangs_is_an_error_in_time() {
    let area = Area::new();
    let first = area.mount("first");
    let daemon = area.pid("first");
    let store = first.join("epoch-0000/batch-000000.h5ad");
    let ran = area.run(["mount", "--timeout", "1s", "--batch-size", "16", store.to_str().unwrap(), "second"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let batch = area.path("second").join("epoch-0000/batch-000001.npz");
    kill(daemon, libc::SIGSTOP);
    // On a busy machine its threads may run for a while.
    let is_stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
    until("all threads of the daemon are stopped", || {
        let mut threads = fs::read_dir(format!("/proc/{daemon}/task")).unwrap();
        threads.all(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).is_ok_and(is_stopped))
    });
    let path = batch.clone();
    let hung = in_time("a read of a store that hangs", move || fs::read(path).map(|_| ()));
    kill(daemon, libc::SIGCONT);
    assert_eq!(hung.unwrap_err().raw_os_error(), Some(libc::EIO));
    // A failed load is not remembered.
    until("the store answers again", || fs::read(&batch).is_ok());
    assert_eq!(area.run(["umount", "second"]).code, Some(0));
    assert_eq!(area.run(["umount", "first"]).code, Some(0));
}

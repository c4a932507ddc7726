//! Containers: Charliecloud and podman are run; Apptainer is simulated by what `--fusemount` passes (an opened `/dev/fuse` that is
//! mounted already).
//!
//! `scripts/setup --tests` installs both. If one is missing, a test says so and passes, unless SHUFFLEFS_REQUIRE_CLUSTERS is set.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::area::{Area, README, Ran, Serving, in_time, installed, is_alive, is_root, kill, mounts_below, until};
use crate::passthrough::{can_lend, map};
use crate::support::{bounded, list, succeed};

/// Rows of the area's store.
const ROWS: u64 = 2000;

/// The command run in a container: the main process, with the data bound to /data.
const JOB: &str = "exec /usr/bin/shufflefs run --format tsv --batch-size 100 /data/store.h5ad -- \
                   sh -c 'cat {}/epoch-0000/*.tsv | cut -f 1 | grep -v row > /data/rows'";

/// The root directory of an image: the binary under test, a shell, a few tools, and the libraries that they need.
fn image(area: &Area) -> PathBuf {
    let root = area.path("image");
    for directory in
        ["bin", "usr/bin", "lib64", "dev", "proc", "sys", "tmp", "run", "etc", "home", "root", "data", "mnt"]
    {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for file in ["etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf"] {
        fs::write(root.join(file), "").unwrap();
    }
    let add = |path: &Path, name: &Path| {
        let target = root.join(name.strip_prefix("/").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        // Copied by another process: see `Area::of_nobody`.
        succeed(Command::new("cp").arg("-L").arg(path).arg(&target));
    };
    let program = |path: &Path, name: &Path| {
        add(path, name);
        for word in succeed(Command::new("ldd").arg(path)).split_whitespace().filter(|word| word.starts_with('/')) {
            add(Path::new(word), Path::new(word));
        }
    };
    program(Path::new(env!("CARGO_BIN_EXE_shufflefs")), Path::new("/usr/bin/shufflefs"));
    for tool in ["sh", "cat", "cut", "grep", "id"] {
        let path = ["/usr/bin", "/bin"].iter().map(|directory| Path::new(directory).join(tool));
        program(&path.into_iter().find(|path| path.exists()).unwrap(), &Path::new("/bin").join(tool));
    }
    root
}

/// Checks that the job in the container has read each row once, and that no mount is left.
#[track_caller]
fn each_row_once(area: &Area, ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let text = fs::read_to_string(area.path("data/rows")).unwrap();
    let mut rows: Vec<u64> = text.lines().map(|row| row.parse().unwrap()).collect();
    assert!(!rows.is_sorted(), "the rows are shuffled");
    rows.sort_unstable();
    assert!(rows.into_iter().eq(0..ROWS), "each row once");
    assert_eq!(mounts_below(&area.path("")), Vec::<PathBuf>::new());
    fs::remove_file(area.path("data/rows")).unwrap();
}

/// The directory that a container sees as /data: only the store, writable for everybody.
fn data(area: &Area) -> PathBuf {
    let data = area.path("data");
    fs::create_dir(&data).unwrap();
    fs::copy(&area.store, data.join("store.h5ad")).unwrap();
    succeed(Command::new("chmod").args(["-R", "a+rwX"]).arg(&data));
    data
}

#[test]
fn charliecloud() {
    if !installed("Charliecloud", &[Path::new("/usr/bin/ch-run")]) {
        return;
    }
    let Some(area) = Area::of_nobody() else { return };
    let (image, data) = (image(&area), data(&area));
    let arguments = |command: &mut Command| {
        command.arg("-b").arg(format!("{}:/data", data.display())).arg(&image);
        command.args(["--", "sh", "-c", JOB]);
    };
    let mut root = bounded(60, "ch-run");
    root.env("USER", "root");
    arguments(&mut root);
    each_row_once(&area, &Ran::from(root.output().unwrap()));
    let mut user = bounded(60, "setpriv");
    user.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "HOME=/tmp", "USER=nobody", "ch-run"]);
    arguments(&mut user);
    each_row_once(&area, &Ran::from(user.output().unwrap()));
}

#[test]
fn podman() {
    if !installed("podman", &[Path::new("/usr/bin/podman"), Path::new("/usr/bin/crun")]) {
        return;
    }
    let area = Area::new();
    let (image, data) = (image(&area), data(&area));
    let place = |name: &str| area.path(name).display().to_string();
    // podman 4 fails if both versions of cgroups are mounted; this is hidden in a namespace.
    let mut command = bounded(120, "unshare");
    command.args(["-m", "sh", "-c", "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"", "sh", "podman"]);
    command.args(["--root", &place("podman"), "--runroot", &place("podman-run"), "--tmpdir", &place("podman-tmp")]);
    command.args(["--cgroup-manager", "cgroupfs", "--runtime", "crun", "--storage-driver", "vfs", "run", "--rm"]);
    command.args([
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=4096:4096",
        "--cgroups=disabled",
        "--network=none",
    ]);
    command.args(["--device", "/dev/fuse", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"]);
    command.args(["-v", &format!("{}:/data", data.display()), "--rootfs"]).arg(&image).args(["sh", "-c", JOB]);
    each_row_once(&area, &Ran::from(command.output().unwrap()));
}

/// A mount made by another program, as Apptainer does, and its open device.
fn mounted_by_another(area: &Area) -> File {
    fs::create_dir(area.path("d")).unwrap();
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let target = std::ffi::CString::new(area.path("d").to_str().unwrap()).unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let (options, kind) = (std::ffi::CString::new(options).unwrap(), c"fuse.shufflefs");
    // SAFETY: strings that end with zero and live on.
    let code =
        unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), libc::MS_RDONLY, options.as_ptr().cast()) };
    assert_eq!(code, 0);
    device
}

/// A command that gets the device as descriptor 200.
fn handed_over(area: &Area, device: &File, arguments: &[&str]) -> Command {
    let number = device.as_raw_fd();
    let mut command = area.command([&["mount", "store.h5ad", "/dev/fd/200"][..], arguments].concat());
    let dup =
        move || if unsafe { libc::dup2(number, 200) } == 200 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    // SAFETY: dup2 may be called between fork and exec.
    unsafe { command.pre_exec(dup) };
    command
}

#[test]
fn apptainer_in_the_foreground() {
    if !is_root() {
        return;
    }
    let area = Area::new();
    let device = mounted_by_another(&area);
    let mut serving = Serving(handed_over(&area, &device, &["-f"]).spawn().unwrap());
    drop(device);
    let file = area.path("d").join(README);
    assert!(in_time("reading", move || fs::read(file)).is_ok());
    kill(serving.pid(), libc::SIGTERM);
    assert_eq!(serving.end().code(), Some(0));
    assert_eq!(mounts_below(&area.path("d")).len(), 1, "who mounted it unmounts it");
}

/// In the background, with all ways to serve files: pages are pushed to readers of pieces, images lent to readers that map.
#[test]
fn apptainer_as_a_daemon() {
    if !is_root() {
        return;
    }
    let area = Area::new();
    let device = mounted_by_another(&area);
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", device.as_raw_fd())).unwrap();
    let tells = about.contains("fuse_connection:");
    if !tells {
        eprintln!(
            "this kernel does not tell which mount a descriptor serves (Linux 6.11 does): only content is tested"
        );
    }
    let started = Ran::from(handed_over(&area, &device, &["--format", "safetensors"]).output().unwrap());
    assert_eq!((started.code, started.stderr.as_str()), (Some(0), ""), "{started:?}");
    drop(device);
    let place = area.path("d");
    let daemon = area.pid("d");
    let stats = || -> serde_json::Value {
        serde_json::from_slice(&fs::read(place.join(".shufflefs/stats.json")).unwrap()).unwrap()
    };
    let mut epochs = (0..).map(|epoch| place.join(format!("epoch-{epoch:04}")));
    let mut files = || {
        let epoch = epochs.next().unwrap();
        list(&epoch).into_iter().map(move |name| epoch.join(name))
    };
    if tells && can_lend() {
        until("images are lent", || {
            // One after another, and their pages are read: mapping alone sends no request.
            let touched = |path: PathBuf| Some(map(&path)).filter(|map| map.iter().any(|&byte| byte > 0)).unwrap();
            let maps: Vec<_> = files().map(touched).collect();
            assert!(!maps.is_empty());
            stats()["memory"]["leased_bytes"].as_u64().unwrap() > 0
        });
    }
    if tells {
        until("pages are pushed", || {
            for path in files() {
                let (mut file, mut piece) = (File::open(path).unwrap(), [0; 4096]);
                while file.read(&mut piece).unwrap() > 0 {}
            }
            stats()["served"]["page_cached"].as_u64().unwrap() > 0
        });
    }
    kill(daemon, libc::SIGTERM);
    until("the daemon ends", || !is_alive(daemon));
    assert_eq!(mounts_below(&place).len(), 1, "who mounted it unmounts it");
}

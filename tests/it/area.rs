//! Shared parts of tests with real mounts: a temporary directory, a guard that cleans up, waiting with a deadline.
//!
//! A failed test must not leave a mount: when an `Area` is dropped, it detaches the mounts below it and kills the daemons that it
//! started, by pid.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The timeout for events that must happen; SHUFFLEFS_TEST_PATIENCE seconds on a busy machine.
pub fn patience() -> Duration {
    Duration::from_secs(std::env::var("SHUFFLEFS_TEST_PATIENCE").map_or(20, |seconds| seconds.parse().unwrap()))
}

/// A file that every mount shows at its top.
pub const README: &str = "README.txt";

/// A small real store, copied to where every user can read it.
pub fn store(directory: &Path) -> PathBuf {
    let path = directory.join("store.h5ad");
    fs::copy(crate::support::store("sparse.h5ad"), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path
}

/// A fresh directory, with a store in it.
pub struct Area {
    directory: tempfile::TempDir,
    pub store: PathBuf,
    /// Commands run as nobody instead of as root.
    unprivileged: Option<DeviceForAll>,
}

impl Area {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let store = store(directory.path());
        Self { directory, store, unprivileged: None }
    }

    /// Everything in it runs as nobody. None unless the tests run as root.
    pub fn of_nobody() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let mut area = Self::new();
        // The build directory may be closed to other users. Copied by another process: a file that this process has open for writing
        // while another test forks cannot be executed ("text file busy").
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_shufflefs")).arg(area.path("shufflefs")).status();
        assert!(copied.unwrap().success());
        area.unprivileged = Some(DeviceForAll::open());
        Some(area)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    /// `shufflefs` with these arguments, in this directory.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = match self.unprivileged {
            None => Command::new(env!("CARGO_BIN_EXE_shufflefs")),
            Some(_) => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"])
                    .arg(self.path("shufflefs"));
                command
            }
        };
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        // Children inherit ignored signals, and the tests may run with some (`nohup`, a script's `&`).
        // SAFETY: between fork and exec only calls that a signal handler may make.
        unsafe { command.pre_exec(heed_signals) };
        command
    }

    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// Mounts in the background at this name.
    pub fn mount(&self, name: &str) -> PathBuf {
        let ran = self.run([OsStr::new("mount"), self.store.as_os_str(), OsStr::new(name)]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        self.path(name)
    }

    /// Mounts in the foreground at `d` and waits until it is usable.
    pub fn foreground(&self) -> Serving {
        let mut command =
            self.command([OsStr::new("mount"), OsStr::new("-f"), self.store.as_os_str(), OsStr::new("d")]);
        let child = Serving(command.stderr(Stdio::piped()).spawn().unwrap());
        until("the mount is there", || self.path("d").join(README).exists());
        child
    }

    /// The pid of the daemon, from the mount.
    pub fn pid(&self, name: &str) -> i32 {
        let mut reader = Command::new("cat");
        if self.unprivileged.is_some() {
            reader = Command::new("setpriv");
            reader.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "cat"]);
        }
        let output = reader.arg(self.path(name).join(".shufflefs/options.json")).output().unwrap();
        let options: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        options["pid"].as_i64().unwrap() as i32
    }
}

/// For a child before exec: restores the default action of the signals that end a process.
pub fn heed_signals() -> std::io::Result<()> {
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: a valid signal and a disposition that needs no handler.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    Ok(())
}

impl Drop for Area {
    fn drop(&mut self) {
        for mountpoint in mounts_below(self.directory.path()) {
            let _ = Command::new("umount").arg("-l").arg(mountpoint).stderr(Stdio::null()).status();
        }
        for pid in processes(|line| line.contains("mount") && line.contains(&*self.store.to_string_lossy())) {
            kill(pid, libc::SIGKILL);
        }
    }
}

/// A process that is killed if the test dies first.
pub struct Serving(pub std::process::Child);

impl Serving {
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Waits for the process to end.
    pub fn end(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The result of a finished command.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The command failed with this code and printed one line with this word.
    #[track_caller]
    pub fn refused(&self, code: i32, word: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("shufflefs: "), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.contains(word), "{word}: {self:?}");
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Makes `/dev/fuse` accessible to all, as on any machine where users mount, until it is dropped. One at a time.
struct DeviceForAll {
    mode: u32,
    _lock: File,
}

impl DeviceForAll {
    fn open() -> Self {
        let lock = File::create(std::env::temp_dir().join("shufflefs-tests-dev-fuse.lock")).unwrap();
        lock.lock().unwrap();
        let mode = fs::metadata("/dev/fuse").unwrap().permissions().mode() & 0o777;
        fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).unwrap();
        Self { mode, _lock: lock }
    }
}

impl Drop for DeviceForAll {
    fn drop(&mut self) {
        let _ = fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(self.mode));
    }
}

/// Whether all of these programs are installed, and the tests run as root, which starting them needs.
#[track_caller]
pub fn installed(what: &str, programs: &[&Path]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|path| !path.exists()).collect();
    if !is_root() {
        eprintln!("skipped: starting {what} needs root");
        return false;
    }
    let required = std::env::var_os("SHUFFLEFS_REQUIRE_CLUSTERS").is_some();
    assert!(
        missing.is_empty() || !required,
        "{what} is required: {missing:?} missing; scripts/setup --tests installs it"
    );
    if !missing.is_empty() {
        eprintln!("skipped: {what} is not installed ({missing:?}); scripts/setup --tests installs it");
    }
    missing.is_empty()
}

pub fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

pub fn kill(pid: i32, signal: i32) {
    unsafe { libc::kill(pid, signal) };
}

/// Whether the process runs; false for a zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Mounts at or below a path, the last first.
pub fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut found: Vec<_> = places.filter(|place| place.starts_with(&path)).collect();
    found.reverse();
    found
}

/// The processes with a matching command line (arguments separated by blanks).
pub fn processes(wanted: impl Fn(&str) -> bool) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let line = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
    pids.filter(|pid| *pid != std::process::id() as i32 && is_alive(*pid) && wanted(&line(pid))).collect()
}

#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The result of `work`, which must not hang.
#[track_caller]
pub fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(patience()).unwrap_or_else(|_| panic!("hangs: {what}"))
}

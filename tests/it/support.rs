//! Shared parts of end-to-end tests: mounts that are always unmounted, stores made once, Python readers.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The binary under test, ended by `timeout` if it hangs.
pub fn shufflefs() -> Command {
    let mut command = bounded(120, env!("CARGO_BIN_EXE_shufflefs"));
    // Files kept for later mounts go here, not to the user's cache.
    command.env("XDG_CACHE_HOME", Path::new(ROOT).join("target/test-cache"));
    command
}

/// A command that is killed after this many seconds: a hang is a failure of one test, not of the whole run.
pub fn bounded(seconds: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", &seconds.to_string()]).arg(program).stdin(Stdio::null());
    command
}

/// Runs a command that must succeed; returns its standard output.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// ---------------------------------------------------------------- Python and stores

fn python_path() -> PathBuf {
    match std::env::var_os("SHUFFLEFS_PYTHON") {
        Some(path) => path.into(),
        None => Path::new(ROOT).join("target/venv/bin/python"),
    }
}

/// The venv's Python with a script of `tests/python`.
pub fn python(script: &str) -> Command {
    let inner = unbounded_python(script);
    let mut command = bounded(300, inner.get_program());
    command.args(inner.get_args()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn unbounded_python(script: &str) -> Command {
    let program = python_path();
    assert!(program.exists(), "{} is missing: run scripts/setup, or set SHUFFLEFS_PYTHON", program.display());
    let mut command = Command::new(program);
    command.args(["-W", "ignore"]).arg(Path::new(ROOT).join("tests/python").join(script));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The same with a script of `examples/trainers`.
pub fn example(script: &str) -> Command {
    python(&format!("../../examples/trainers/{script}"))
}

/// All stores that can be made: name -> properties.
pub fn store_table() -> BTreeMap<String, Value> {
    serde_json::from_str(&succeed(python("make_stores.py").arg("--list"))).unwrap()
}

/// Paths of these stores; missing ones are made first. All tests of all runs share them, until the script changes.
pub fn stores(names: &[impl AsRef<str>]) -> Vec<PathBuf> {
    let mut hash = Sha256::new();
    for file in ["tests/python/make_stores.py", "tests/python/odd_stores.py", "tests/requirements.txt"] {
        hash.update(fs::read(Path::new(ROOT).join(file)).unwrap());
    }
    let directory = Path::new(ROOT).join("target/test-stores").join(&hex(&hash.finalize())[..16]);
    fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join(".lock")).unwrap();
    lock.lock().unwrap();
    let missing: Vec<&str> = names.iter().map(AsRef::as_ref).filter(|name| !directory.join(name).exists()).collect();
    if !missing.is_empty() {
        succeed(python("make_stores.py").arg(&directory).args(&missing));
    }
    names.iter().map(|name| directory.join(name.as_ref())).collect()
}

/// The output directory of `SCRIPT make DIRECTORY`; made once, until the script changes.
pub fn made_by(script: &str) -> PathBuf {
    let source = fs::read(Path::new(ROOT).join("tests/python").join(script)).unwrap();
    let root = Path::new(ROOT).join("target/test-stores");
    fs::create_dir_all(&root).unwrap();
    let lock = File::create(root.join(format!(".{script}-lock"))).unwrap();
    lock.lock().unwrap();
    let directory = root.join(format!("{script}-{}", &hex(&Sha256::digest(source))[..16]));
    if !directory.exists() {
        let making = tempfile::tempdir_in(&root).unwrap();
        succeed(python(script).arg("make").arg(making.path()));
        fs::rename(making.keep(), &directory).unwrap();
    }
    directory
}

pub fn store(name: &str) -> PathBuf {
    stores(&[name]).remove(0)
}

/// `check_epoch.py` as a server: Python starts once for each test thread, and checks all its mounts. It limits the time of each job,
/// and ends when its input ends.
pub struct Checker {
    _child: Child,
    jobs: ChildStdin,
    results: BufReader<ChildStdout>,
}

/// Checkers that no test is using.
static IDLE_CHECKERS: Mutex<Vec<Checker>> = Mutex::new(Vec::new());

/// A checker for as long as a test needs it.
pub struct CheckerGuard(Option<Checker>);

impl Checker {
    pub fn start() -> CheckerGuard {
        let idle = IDLE_CHECKERS.lock().unwrap_or_else(PoisonError::into_inner).pop();
        CheckerGuard(Some(idle.unwrap_or_else(|| {
            let mut command = unbounded_python("check_epoch.py");
            let mut child = command.arg("--serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (jobs, results) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
            Checker { _child: child, jobs, results }
        })))
    }

    /// Checks an epoch of `mount` through `format`; `more` holds other fields of the job (`x`, `obs`, `epoch`, `drop_last`).
    pub fn check(&mut self, mount: &Mount, format: &str, more: Value) -> Result<Value, String> {
        let mut job = json!({"mount": mount.path(), "stores": mount.stores, "format": format});
        job.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        writeln!(self.jobs, "{job}").map_err(|e| format!("the checker is gone: {e}"))?;
        let mut line = String::new();
        self.results.read_line(&mut line).map_err(|e| e.to_string())?;
        let result: Value = serde_json::from_str(&line).map_err(|e| format!("the checker is gone: {e}: {line:?}"))?;
        if result["ok"] == true { Ok(result) } else { Err(result["error"].as_str().unwrap_or("?").to_owned()) }
    }
}

impl Deref for CheckerGuard {
    type Target = Checker;
    fn deref(&self) -> &Checker {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for CheckerGuard {
    fn deref_mut(&mut self) -> &mut Checker {
        self.0.as_mut().unwrap()
    }
}

impl Drop for CheckerGuard {
    fn drop(&mut self) {
        // A checker left by a failing test may be in the middle of a job.
        if !std::thread::panicking() {
            IDLE_CHECKERS.lock().unwrap_or_else(PoisonError::into_inner).extend(self.0.take());
        }
    }
}

// ---------------------------------------------------------------- mounts

/// A mount in the background; unmounted in any case when dropped.
pub struct Mount {
    pub stores: Vec<PathBuf>,
    directory: tempfile::TempDir,
    mounted: bool,
}

impl Mount {
    /// Mounts and waits for the parent to exit: then the mount is usable.
    pub fn new(stores: &[PathBuf], options: &[&str]) -> Mount {
        Mount::try_new(stores, options).unwrap_or_else(|output| {
            panic!("mount of {stores:?} with {options:?}: {}\n{}", output.status, text(&output.stderr));
        })
    }

    /// Like `new`; returns the parent's exit status and messages if it fails.
    pub fn try_new(stores: &[PathBuf], options: &[&str]) -> Result<Mount, Output> {
        Mount::with(stores, options, &[])
    }

    /// As `try_new`, with variables in the environment.
    pub fn with(stores: &[PathBuf], options: &[&str], variables: &[(&str, &str)]) -> Result<Mount, Output> {
        let directory = tempfile::Builder::new().prefix("shufflefs-test-").tempdir().unwrap();
        let mut mount = Mount { stores: stores.to_vec(), directory, mounted: true };
        // Files, not pipes: a daemon that keeps its parent's stderr open would block a pipe.
        let (out, err) = (mount.directory.path().join("stdout"), mount.directory.path().join("stderr"));
        let status = shufflefs()
            .arg("mount")
            .args(options)
            .envs(variables.iter().copied())
            .args(stores)
            .arg(mount.path())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .status()
            .unwrap();
        if status.success() {
            assert!(is_mounted(mount.path()), "the parent exited 0 but {} is no mount", mount.path().display());
            return Ok(mount);
        }
        let output = Output { status, stdout: fs::read(out).unwrap(), stderr: fs::read(err).unwrap() };
        assert!(!is_mounted(mount.path()), "the mount failed and is there: {}", text(&output.stderr));
        mount.mounted = false;
        Err(output)
    }

    pub fn path(&self) -> &'static Path {
        // Leaked so that tests may hold paths and the guard at once; a few hundred bytes a test.
        Box::leak(self.directory.path().join("mnt").into_boxed_path())
    }

    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path().join(path)
    }

    pub fn json(&self, path: &str) -> Value {
        let text = fs::read_to_string(self.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}\n{text}"))
    }

    /// Unmounts, which must succeed and leave nothing: no mount, no mountpoint.
    pub fn unmount(mut self) {
        let path = self.path();
        succeed(shufflefs().arg("umount").arg(path));
        self.mounted = false;
        assert!(!is_mounted(path), "still mounted after umount");
        assert!(!path.exists(), "the mountpoint that the mount made is still there");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let path = self.path();
        if !self.mounted {
            return;
        }
        let _ = shufflefs().arg("umount").arg(path).stderr(Stdio::null()).status();
        if is_mounted(path) {
            let _ = bounded(30, "umount").arg("-l").arg(path).status();
            for pid in daemons(path) {
                // SAFETY: a plain system call; the process serves a directory that only this test knows.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            if !std::thread::panicking() {
                panic!("{}: `shufflefs umount` left the mount", path.display());
            }
        }
    }
}

/// Processes of the binary under test that serve this mountpoint.
fn daemons(mountpoint: &Path) -> Vec<i32> {
    let binary = fs::canonicalize(env!("CARGO_BIN_EXE_shufflefs")).unwrap();
    let serves = |pid: &i32| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        fs::read_link(process.join("exe")).is_ok_and(|exe| exe == binary)
            && arguments.split(|&b| b == 0).any(|argument| argument == mountpoint.as_os_str().as_bytes())
    };
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(serves).collect()
}

/// Whether something is mounted exactly there (also for dead mounts, where stat fails).
pub fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

// ---------------------------------------------------------------- files

/// Names in a directory, sorted.
pub fn list(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All files below a directory, relative to it, sorted, with their sizes.
pub fn walk(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut out = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(directory) = todo.pop() {
        for name in list(&root.join(&directory)) {
            let path = directory.join(name);
            let meta = fs::symlink_metadata(root.join(&path)).unwrap();
            if meta.is_dir() {
                todo.push(path);
            } else {
                out.insert(path, meta.len());
            }
        }
    }
    out
}

pub fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A permutation of `n`, drawn from `seed`: the same in every run.
pub fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut state = seed;
    for i in (1..n).rev() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        order.swap(i, (state >> 33) as usize % (i + 1));
    }
    order
}

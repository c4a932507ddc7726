//! Runs libhdf5 in a child process, so that a crash, an endless loop or excessive memory costs one line instead of the mount.
//!
//! libhdf5 is C code and parses the metadata of untrusted files. So before a mount opens HDF5 stores, a child process of our own binary
//! does. The library behaves the same on the same bytes, so what succeeded in the child succeeds here. This guards against accidents, not
//! against attacks: the child has the rights of its user.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{memory, one_line, remote, sandbox};
use crate::array::kinds::file_of;
use crate::mount::signals;
use crate::storage::name;

/// The task of a child, and its time limit.
pub struct ChildTask<'a> {
    /// The hidden subcommand and its options.
    pub arguments: Vec<OsString>,
    /// The files that it reads; their size bounds how much it may read.
    pub stores: &'a [PathBuf],
    /// How long it may run without reading a byte.
    pub patience: Duration,
    /// Whether its stderr is the terminal, for a progress bar; otherwise it is captured for the message.
    pub terminal: bool,
}

/// Why the child gave no result.
#[derive(Debug)]
pub enum Failed {
    /// It could not be started: the work may as well be done in this process.
    NotStarted(io::Error),
    /// How it ended, as the end of a sentence that starts with the store.
    Ended(String),
}

/// Minimum of the time limit: a disk may have to spin up.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);
/// Interval of checking a child's progress; its end is noticed at once.
const TICK: Duration = Duration::from_millis(200);
/// A child that has read the size of its stores this many times is in an endless loop.
const ROUNDS: u64 = 1000;
/// Bytes of a result, at most.
const ANSWER: u64 = 1 << 30;

/// Runs a task in a child; returns its standard output.
pub fn run(work: &ChildTask<'_>) -> Result<Vec<u8>, Failed> {
    let room = room();
    let network = work.stores.iter().any(|store| name::is_remote(store));
    let started = start(&work.arguments, Stdio::null(), work.terminal, room, network);
    let (mut child, answer, said) = started.map_err(Failed::NotStarted)?;
    // If these fail, the child ends because its pipes close.
    let answer = collect(answer).map_err(Failed::NotStarted)?;
    let said = said.map(collect).transpose().map_err(Failed::NotStarted)?;
    let mut meter = Meter::new(&child, work.patience);
    meter.begin(work.stores);
    let answer = loop {
        match answer.recv_timeout(TICK) {
            Ok(answer) => break answer,
            Err(RecvTimeoutError::Disconnected) => break Vec::new(),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(reason) = meter.lost() {
                    // The child may have ended in the meantime.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(Failed::Ended(reason));
                }
            }
        }
    };
    let status = child.wait().map_err(Failed::NotStarted)?;
    if status.success() {
        return Ok(answer);
    }
    let said = said.and_then(|said| said.recv_timeout(TICK).ok()).unwrap_or_default();
    Err(Failed::Ended(how_it_ended(status, &String::from_utf8_lossy(&said), room)))
}

/// A child that answers requests, one line each. Dropping it kills the child.
pub struct Helper {
    child: Child,
    requests: PipeWriter,
    answers: mpsc::Receiver<Vec<u8>>,
    said: Option<mpsc::Receiver<Vec<u8>>>,
    meter: Meter,
    room: u64,
}

impl Helper {
    /// Starts a hidden subcommand. `patience`: how long it may run without reading a byte; `network`: its stores are remote.
    ///
    /// # Errors
    /// Those of the system.
    pub fn start(subcommand: &str, patience: Duration, network: bool) -> io::Result<Helper> {
        let room = room();
        let (input, requests) = io::pipe()?;
        let (child, answers, said) = start(&[subcommand.into()], OwnedFd::from(input).into(), false, room, network)?;
        let meter = Meter::new(&child, patience);
        let (answers, said) = (lines(answers)?, said.map(collect).transpose()?);
        Ok(Helper { child, requests, answers, said, meter, room })
    }

    /// Sends a line that has no reply.
    ///
    /// # Errors
    /// The child has ended.
    pub fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.requests.write_all(line)
    }

    /// Sends a line and waits for the reply, which is one line; the child reads `file` for it.
    ///
    /// # Errors
    /// How the child ended, as the end of a sentence that starts with the store. It cannot be used afterwards.
    pub fn exchange(&mut self, line: &[u8], file: &Path) -> Result<Vec<u8>, String> {
        self.meter.begin(&[file]);
        // If the child has ended, this fails, and no reply arrives.
        let _ = self.requests.write_all(line);
        loop {
            match self.answers.recv_timeout(TICK) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(reason) = self.meter.lost() {
                        return Err(reason);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.child.wait().map_err(|error| format!("the process that parsed it is lost ({error})"))?;
        let said = self.said.as_ref().and_then(|said| said.recv_timeout(TICK).ok()).unwrap_or_default();
        Err(how_it_ended(status, &String::from_utf8_lossy(&said), self.room))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child, its standard output, and its standard error unless that is the terminal.
type Started = (Child, PipeReader, Option<PipeReader>);

fn start(arguments: &[OsString], input: Stdio, terminal: bool, room: u64, network: bool) -> io::Result<Started> {
    let (answer, output) = io::pipe()?;
    // The running binary, even if its file was replaced.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("shufflefs").args(arguments);
    command.env(remote::HANDED, remote::handed(network));
    command.stdin(input).stdout(OwnedFd::from(output));
    let said = if terminal {
        None
    } else {
        let (said, output) = io::pipe()?;
        command.stderr(OwnedFd::from(output));
        Some(said)
    };
    // SAFETY: getpid cannot fail.
    let parent = unsafe { libc::getpid() };
    // SAFETY: the closure runs between fork and exec, and only makes system calls: no allocation, no locks.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != parent {
                libc::_exit(125);
            }
            for (resource, bytes) in [(libc::RLIMIT_AS, room), (libc::RLIMIT_CORE, 0)] {
                let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
                libc::setrlimit(resource, &raw const limit);
            }
            // The parent has blocked the signals that end a mount; the child must not inherit that mask.
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            Ok(())
        });
    }
    Ok((command.spawn()?, answer, said))
}

/// Reads a pipe to its end, in a thread.
fn collect(pipe: PipeReader) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        // On an error, the bytes before it are used; the child's exit status tells whether they are complete.
        let _ = pipe.take(ANSWER).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    })?;
    Ok(receiver)
}

/// Reads the lines of a pipe, in a thread; without line ends.
fn lines(pipe: PipeReader) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().spawn(move || {
        let mut pipe = BufReader::new(pipe);
        loop {
            let mut line = Vec::new();
            let whole = pipe.by_ref().take(ANSWER).read_until(b'\n', &mut line).is_ok() && line.pop() == Some(b'\n');
            if !whole || sender.send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Limit of a child's address space: below the machine's memory, so that the child fails before the machine runs out, but at least 4 GiB
/// and what thread stacks and malloc's arenas reserve without using.
fn room() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let least = (4 << 30) + cores * (128 << 20);
    memory::metadata().unwrap_or(64 << 30).max(least)
}

/// Called first in the child: makes it the first victim if memory runs out, applies its parent's settings for remote stores, and gives
/// up all rights that it does not need.
pub fn volunteer() {
    // Fails without /proc.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let (network, index) = remote::take();
    sandbox::enter(network, index.as_deref());
}

/// Watches a child's progress by the bytes that it reads.
struct Meter {
    io: PathBuf,
    patience: Duration,
    /// Bytes read so far, and when that last changed.
    read: u64,
    since: Instant,
    most: Option<u64>,
}

impl Meter {
    fn new(child: &Child, patience: Duration) -> Meter {
        Meter {
            io: PathBuf::from(format!("/proc/{}/io", child.id())),
            patience: patience.max(LEAST_PATIENCE),
            read: 0,
            since: Instant::now(),
            most: None,
        }
    }

    /// Restarts the measurement, for these stores.
    fn begin(&mut self, stores: &[impl AsRef<Path>]) {
        let file = |path: &Path| fs::metadata(file_of(path)).ok().filter(|file| file.is_file());
        // The size of a directory is unknown, so only the time limit applies to it.
        let total = stores.iter().map(|path| file(path.as_ref()).map(|file| file.len())).sum::<Option<u64>>();
        let more = total.map(|total| total.saturating_mul(ROUNDS).saturating_add(1 << 30));
        self.since = Instant::now();
        self.most = more.map(|more| self.read.saturating_add(more));
    }

    /// Why the child must be ended, if so.
    fn lost(&mut self) -> Option<String> {
        let text = fs::read_to_string(&self.io).unwrap_or_default();
        let read = text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok()).unwrap_or(0);
        if read > self.read {
            self.read = read;
            self.since = Instant::now();
        }
        if self.most.is_some_and(|most| self.read > most) {
            return Some(format!("opening it reads in circles ({} bytes so far): it is damaged", self.read));
        }
        (self.since.elapsed() >= self.patience).then(|| {
            let seconds = self.patience.as_secs();
            format!(
                "opening it made no progress for {seconds} s: libhdf5 hangs on damaged metadata, or the file system does \
                 (a longer --timeout waits longer)"
            )
        })
    }
}

fn how_it_ended(status: ExitStatus, said: &str, room: u64) -> String {
    const REMEDY: &str = "its metadata are damaged; copy or download it again";
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).map(one_line).unwrap_or_default();
    if said.contains("memory allocation of") {
        return format!("opening it takes more than {} GiB of memory: {REMEDY}", room >> 30);
    }
    match (status.signal(), status.code()) {
        (Some(libc::SIGKILL), _) => {
            format!("the process that opens it was killed, perhaps for want of memory: {REMEDY}")
        }
        (Some(number), _) => format!("libhdf5 crashed on it ({}): {REMEDY}", signals::name(number)),
        (None, Some(code)) => format!("opening it ended with code {code} ({last}); please report it"),
        (None, None) => format!("opening it failed ({last}); please report it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words() {
        let crash = how_it_ended(ExitStatus::from_raw(libc::SIGSEGV), "", 0);
        assert!(crash.contains("SIGSEGV") && crash.contains("damaged"), "{crash}");
        let memory =
            how_it_ended(ExitStatus::from_raw(libc::SIGABRT), "memory allocation of 9 bytes failed\n", 5 << 30);
        assert!(memory.contains("5 GiB"), "{memory}");
        assert!(how_it_ended(ExitStatus::from_raw(101 << 8), "x\npanicked\n\n", 0).contains("101 (panicked)"));
    }
}

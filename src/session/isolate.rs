//! Work with libhdf5 in a process of its own, so that its crash, endless loop or runaway memory is one line and not ours.
//!
//! libhdf5 is C and parses the metadata of files that nobody vouches for. So before a mount opens HDF5 stores, a child of
//! our own binary does it. On the same bytes the library does the same again, so what passed there passes here. It is a guard against accidents, no wall against attackers: the child has the rights of its user.

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

/// What the child is to do, and how long it may take.
pub struct ChildTask<'a> {
    /// The hidden subcommand and its options.
    pub arguments: Vec<OsString>,
    /// The files that it reads: how much there is to read.
    pub stores: &'a [PathBuf],
    /// How long it may go on without reading a byte.
    pub patience: Duration,
    /// Whether its stderr is the terminal (for a progress bar); else it is kept for the message.
    pub terminal: bool,
}

/// Why the child gave no answer.
#[derive(Debug)]
pub enum Failed {
    /// It could not be started: then the work may as well be done here.
    NotStarted(io::Error),
    /// Why, as the end of a sentence that begins with the store.
    Ended(String),
}

/// The shortest patience: a disk may have to spin up.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);
/// How often a child is looked at; its end is noticed at once.
const TICK: Duration = Duration::from_millis(200);
/// A child that has read its stores this many times over is in an endless loop.
const ROUNDS: u64 = 1000;
/// Bytes of an answer at most.
const ANSWER: u64 = 1 << 30;

/// Does the work in a child; its standard output.
pub fn run(work: &ChildTask<'_>) -> Result<Vec<u8>, Failed> {
    let room = room();
    let network = work.stores.iter().any(|store| name::is_remote(store));
    let started = start(&work.arguments, Stdio::null(), work.terminal, room, network);
    let (mut child, answer, said) = started.map_err(Failed::NotStarted)?;
    // A child whose pipes nobody reads goes when they close.
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
                    // It may have ended just now.
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

/// A child that answers requests, a line each, for as long as it is wanted. It is killed when it is dropped.
pub struct Helper {
    child: Child,
    requests: PipeWriter,
    answers: mpsc::Receiver<Vec<u8>>,
    said: Option<mpsc::Receiver<Vec<u8>>>,
    meter: Meter,
    room: u64,
}

impl Helper {
    /// Starts a hidden subcommand that may go on for so long without reading a byte. `network`: it reads stores behind one.
    ///
    /// # Errors
    /// The system's.
    pub fn start(subcommand: &str, patience: Duration, network: bool) -> io::Result<Helper> {
        let room = room();
        let (input, requests) = io::pipe()?;
        let (child, answers, said) = start(&[subcommand.into()], OwnedFd::from(input).into(), false, room, network)?;
        let meter = Meter::new(&child, patience);
        let (answers, said) = (lines(answers)?, said.map(collect).transpose()?);
        Ok(Helper { child, requests, answers, said, meter, room })
    }

    /// Sends what is not answered.
    ///
    /// # Errors
    /// It has ended.
    pub fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.requests.write_all(line)
    }

    /// Sends a line and waits for the answer to it, which is one line; `file` is read for it.
    ///
    /// # Errors
    /// How it ended, as the end of a sentence that begins with the store. It is of no use then.
    pub fn exchange(&mut self, line: &[u8], file: &Path) -> Result<Vec<u8>, String> {
        self.meter.begin(&[file]);
        // One that has ended says so by giving no answer.
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
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child, its standard output, and its standard error unless that is the terminal.
type Started = (Child, PipeReader, Option<PipeReader>);

fn start(arguments: &[OsString], input: Stdio, terminal: bool, room: u64, network: bool) -> io::Result<Started> {
    let (answer, output) = io::pipe()?;
    // The binary that runs, also if its file was replaced meanwhile.
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
    // SAFETY: the closure runs between fork and exec and makes system calls only: no allocation, no locks.
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
            // The parent has blocked the signals that end a mount; the child must not inherit that.
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            Ok(())
        });
    }
    Ok((command.spawn()?, answer, said))
}

/// Reads a pipe to its end in a thread of its own.
fn collect(pipe: PipeReader) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is all there is; whether it is enough, the child's exit status tells.
        let _ = pipe.take(ANSWER).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    })?;
    Ok(receiver)
}

/// Reads the lines of a pipe in a thread of its own, without their ends.
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

/// Address space of a child: what this machine could give, so that it fails before the machine does. Thread stacks and
/// malloc's arenas reserve much that they never use.
fn room() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let least = (4 << 30) + cores * (128 << 20);
    memory::metadata().unwrap_or(64 << 30).max(least)
}

/// In the child, first of all: if memory runs out nevertheless, it is this process that goes. It reads remote stores
/// as its parent does, and gives up all other rights.
pub fn volunteer() {
    // Without /proc there is no such choice.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let (network, index) = remote::take();
    sandbox::enter(network, index.as_deref());
}

/// Watches a child's progress by the bytes that it reads.
struct Meter {
    io: PathBuf,
    patience: Duration,
    /// Bytes it has read so far, and when that last changed.
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

    /// From now on it reads these stores.
    fn begin(&mut self, stores: &[impl AsRef<Path>]) {
        let file = |path: &Path| fs::metadata(file_of(path)).ok().filter(|file| file.is_file());
        // What a directory holds is not known; only its reader's patience ends that.
        let total = stores.iter().map(|path| file(path.as_ref()).map(|file| file.len())).sum::<Option<u64>>();
        let more = total.map(|total| total.saturating_mul(ROUNDS).saturating_add(1 << 30));
        self.since = Instant::now();
        self.most = more.map(|more| self.read.saturating_add(more));
    }

    /// Why there is no more hope, if there is none.
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

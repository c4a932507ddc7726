//! Starts the daemon. The parent waits until the mount is usable, or reports why it is not.
//!
//! The fork precedes any thread and any open store: threads do not survive a fork, and locks that they hold would stay locked. The
//! child reports through a pipe; if it crashes, the pipe ends without a report, which the parent notices, too.

use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read, Write};

use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitOptions, setsid, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::error::MountError;
use super::signals;

/// Which of the two processes this is after the fork.
#[derive(Debug)]
pub enum Fork {
    /// The caller's process, after the child has reported or died.
    Parent(Report),
    Daemon(Ready),
}

/// What became of the daemon.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    Ready,
    /// It failed with this exit code, for this reason.
    Failed(u8, String),
    /// It ended without a report.
    Died(String),
}

/// The daemon's end of the report pipe.
#[derive(Debug)]
pub struct Ready {
    pipe: PipeWriter,
}

/// Forks; the parent returns when the daemon has reported or died.
pub fn fork() -> Result<Fork, MountError> {
    let (reader, writer) = io::pipe().map_err(MountError::system("making a pipe"))?;
    // SAFETY: the process has one thread (this is called before any other starts), so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(MountError::System { what: "starting the daemon", cause: io::Error::last_os_error() }),
        0 => {
            drop(reader);
            Ok(Fork::Daemon(Ready { pipe: writer }))
        }
        child => {
            drop(writer);
            Ok(Fork::Parent(listen(reader, child)))
        }
    }
}

fn listen(mut reader: PipeReader, child: libc::pid_t) -> Report {
    let mut report = Vec::new();
    let _ = reader.read_to_end(&mut report);
    match report.split_first() {
        Some((0, _)) => Report::Ready,
        Some((&code, message)) => Report::Failed(code, String::from_utf8_lossy(message).into_owned()),
        None => Report::Died(how_it_ended(child)),
    }
}

pub(super) fn how_it_ended(child: libc::pid_t) -> String {
    let status = match retry_on_intr(|| waitpid(Pid::from_raw(child), WaitOptions::empty())) {
        Ok(Some((_, status))) => status,
        Ok(None) => return "the daemon is lost".to_owned(),
        Err(error) => return format!("the daemon is lost: {}", io::Error::from(error)),
    };
    if let Some(number) = status.terminating_signal() {
        format!("the daemon was killed by {} before the mount was usable", signals::name(number))
    } else {
        let code = status.exit_status().unwrap_or_default();
        format!("the daemon ended with code {code} before the mount was usable")
    }
}

/// Leaves the caller's session, terminal, directory and standard streams. Call it once the mount is usable: until then, an automounter
/// (autofs, systemd) blocks all processes outside of the process group that it started, and the daemon must access its own mountpoint.
pub(super) fn cut_ties() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    std::env::set_current_dir("/")?;
    // Cannot fail: a forked child leads no process group.
    let _ = setsid();
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

impl Ready {
    /// Reports that the mount is usable, and detaches from the caller's terminal and directory. Fails if the parent is gone; the mount
    /// should then end, as nobody knows of it.
    pub fn succeed(mut self) -> Result<(), MountError> {
        // Before the report: a caller that reads our output to its end must not wait for the daemon.
        cut_ties().and_then(|()| self.pipe.write_all(&[0])).map_err(MountError::system("going to the background"))
    }

    /// The mount failed: the parent prints the message and exits with the code.
    pub fn fail(mut self, code: u8, message: &str) {
        let mut report = vec![code.max(1)];
        report.extend_from_slice(message.as_bytes());
        // If the parent is gone, nobody reads the report.
        let _ = self.pipe.write_all(&report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    // `listen` reaps it.
    #[allow(clippy::zombie_processes)]
    #[test]
    fn a_daemon_that_dies_without_a_word_is_noticed() {
        for (script, word) in [("kill -9 $$", "SIGKILL"), ("kill -SEGV $$", "SIGSEGV"), ("exit 101", "code 101")] {
            let (reader, writer) = io::pipe().unwrap();
            let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            drop(writer);
            let Report::Died(how) = listen(reader, child.id() as libc::pid_t) else {
                panic!("{script}");
            };
            assert!(how.contains(word), "{how}");
        }
    }

    #[test]
    fn reports_arrive() {
        let (reader, pipe) = io::pipe().unwrap();
        Ready { pipe }.fail(4, "no place");
        assert_eq!(listen(reader, 0), Report::Failed(4, "no place".into()));
    }
}

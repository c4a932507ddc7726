//! The command of `run`: starts it in the private namespace, forwards signals, returns how it ended.
//!
//! For the caller it should be as if it had started the command directly. So the command stays in the caller's process group and on its
//! terminal, receives every signal that we receive exactly once, starts with the signal mask that we started with, and dies when we
//! are killed.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, Resource, Rlimit, WaitOptions, getpgrp, getpid, getppid, getsid, kill_process,
    set_parent_process_death_signal, setrlimit, waitpid,
};

use super::error::MountError;
use super::namespace::Namespace;
use super::signals::{self, Signal, Signals};

/// Signals to forward to the command; and SIGCHLD, which reports its end.
pub const SIGNALS: [i32; 10] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGCHLD,
];

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Code(u8),
    Signal(i32),
}

/// Why the command did not start.
#[derive(Debug)]
pub struct NotStarted(pub io::Error);

/// Starts the command with extra variables and a limit of open files. Call it from the main thread: the command is killed when the thread
/// that starts it ends.
pub fn start(
    command: &[OsString],
    variables: Vec<(OsString, OsString)>,
    files: Option<Rlimit>,
    signals: &Signals,
    namespace: Namespace,
) -> Result<Child, NotStarted> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(NotStarted(io::ErrorKind::NotFound.into()));
    };
    let mask = signals.mask_before();
    let parent = getpid();
    let mut command = Command::new(program);
    command.args(arguments).envs(variables);
    // SAFETY: the closure runs between fork and exec, and only makes system calls: no allocation, no locks.
    unsafe {
        command.pre_exec(move || {
            let _ = set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
            if getppid() != Some(parent) {
                // Our process died before the death signal was set.
                libc::_exit(125);
            }
            namespace.restrict_child()?;
            if let Some(files) = files {
                setrlimit(Resource::Nofile, files)?;
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &mask, std::ptr::null_mut());
            Ok(())
        });
    }
    let child = command.spawn().map_err(NotStarted)?;
    Ok(Child { pid: Pid::from_child(&child) })
}

/// The running command.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
}

impl Child {
    /// Waits until the command ends, and forwards signals meanwhile. `mount` becomes readable when the mount on `place` has ended.
    pub fn supervise(self, mount: BorrowedFd<'_>, place: &Path, signals: &Signals) -> Result<Ended, MountError> {
        let fail = |cause| MountError::System { what: "waiting for the command", cause };
        let mut serving = true;
        loop {
            // The command may have ended before SIGCHLD was blocked.
            if let Some(ended) = self.news().map_err(fail)? {
                return Ok(ended);
            }
            let ready = if serving {
                signals::wait(&[signals.as_fd(), mount], None)
            } else {
                signals::wait(&[signals.as_fd()], None)
            };
            if ready.map_err(fail)?.get(1) == Some(&true) {
                tracing::error!("the mount on {} has ended before the command", place.display());
                serving = false;
            }
            while let Some(signal) = signals.next() {
                self.pass_on(signal);
            }
        }
    }

    fn pass_on(&self, signal: Signal) {
        // Signals of a terminal go to the whole foreground group, so the command has them already.
        if signal.number != libc::SIGCHLD && !signal.from_kernel {
            self.kill(signal.number);
        }
    }

    fn kill(&self, number: i32) {
        // SAFETY: the child is reaped only when its end is returned, so the pid is still its own.
        unsafe { libc::kill(self.pid.as_raw_pid(), number) };
    }

    /// How the command ended, if it has. If it was stopped from the terminal, stops this process, too, until it is continued: the shell
    /// waits for us, not for the command.
    fn news(&self) -> io::Result<Option<Ended>> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        while let Some((_, status)) = retry_on_intr(|| waitpid(Some(self.pid), options))? {
            if let Some(number) = status.stopping_signal() {
                self.stopped(number);
            } else if let Some(number) = status.terminating_signal() {
                return Ok(Some(Ended::Signal(number)));
            } else {
                let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
                return Ok(Some(Ended::Code(code.unwrap_or(u8::MAX))));
            }
        }
        Ok(None)
    }

    fn stopped(&self, number: i32) {
        let from_terminal = matches!(number, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
        // Otherwise we go on serving: whoever stopped the command will continue it directly.
        if from_terminal && has_job_control() {
            let _ = kill_process(getpid(), rustix::process::Signal::STOP);
            self.kill(libc::SIGCONT);
        }
    }
}

/// Whether we are a job of an interactive shell: our process group is not that of the session leader, and there is a terminal.
fn has_job_control() -> bool {
    let is_job = getsid(None).is_ok_and(|session| session != getpgrp());
    is_job && std::fs::File::open("/dev/tty").is_ok()
}

/// Ends this process with the signal that ended the command, as the caller expects of the command.
pub fn die_by(number: i32) {
    // The command has dumped its core if it should; ours is useless.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let set = signals::set_of(&[number]);
    // SAFETY: the set outlives the calls; the default action is restored before the signal is unblocked.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::kill(libc::getpid(), number);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

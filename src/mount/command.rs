//! The command of `run`: started in the private namespace, watched, and its end passed on.
//!
//! The caller should see no difference to running the command directly. So it stays in the caller's process group and
//! on its terminal, gets every signal that we get, once, starts with the signal mask that we started with, and dies
//! when we are killed.

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

/// What is passed on to the command, and SIGCHLD, which tells of its end.
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

/// Starts the command, with these variables besides our own and this limit of open files. Call it from the main thread: the command is killed when the thread that started it ends.
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
    // SAFETY: the closure runs between fork and exec and makes system calls only: no allocation, no locks.
    unsafe {
        command.pre_exec(move || {
            let _ = set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
            if getppid() != Some(parent) {
                // We died before the line above.
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
    /// Waits for its end; signals are passed on meanwhile. `mount` becomes readable when the mount on `place` has ended.
    pub fn supervise(self, mount: BorrowedFd<'_>, place: &Path, signals: &Signals) -> Result<Ended, MountError> {
        let fail = |cause| MountError::System { what: "waiting for the command", cause };
        let mut serving = true;
        loop {
            // It may have ended before we began to listen.
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
        // What a terminal sends goes to the whole foreground group, the command included.
        if signal.number != libc::SIGCHLD && !signal.from_kernel {
            self.kill(signal.number);
        }
    }

    fn kill(&self, number: i32) {
        // SAFETY: the child is not reaped before its end is returned, so the number is still its own.
        unsafe { libc::kill(self.pid.as_raw_pid(), number) };
    }

    /// Its end, if it has ended. If it was stopped from a terminal, so are we, until somebody continues us: the shell
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
        // Elsewhere we must go on serving: who stopped the command will continue it alone.
        if from_terminal && has_job_control() {
            let _ = kill_process(getpid(), rustix::process::Signal::STOP);
            self.kill(libc::SIGCONT);
        }
    }
}

/// Whether we are a job of an interactive shell: our process group is not the session's first, and there is a
/// terminal.
fn has_job_control() -> bool {
    let is_job = getsid(None).is_ok_and(|session| session != getpgrp());
    is_job && std::fs::File::open("/dev/tty").is_ok()
}

/// Ends this process by the signal that ended the command, so that the caller sees what it would have seen without us.
pub fn die_by(number: i32) {
    // The command has written its core if it wanted one; ours is of no interest.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let set = signals::set_of(&[number]);
    // SAFETY: the set lives through the calls; the default action is restored before the signal is let through.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::kill(libc::getpid(), number);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

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

use rustix::process::{Resource, Rlimit, setrlimit};

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
    // SAFETY: getpid cannot fail.
    let parent = unsafe { libc::getpid() };
    let mut command = Command::new(program);
    command.args(arguments).envs(variables);
    // SAFETY: the closure runs between fork and exec and makes system calls only: no allocation, no locks.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != parent {
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
    Ok(Child { pid: child.id() as libc::pid_t })
}

/// The running command.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
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
        unsafe { libc::kill(self.pid, number) };
    }

    /// Its end, if it has ended. If it was stopped from a terminal, so are we, until somebody continues us: the shell
    /// waits for us, not for the command.
    fn news(&self) -> io::Result<Option<Ended>> {
        loop {
            let mut status = 0;
            // SAFETY: waits for our own child and writes the status into a live integer.
            let pid = unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG | libc::WUNTRACED) };
            match pid {
                0 => return Ok(None),
                -1 => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                _ if libc::WIFSTOPPED(status) => self.stopped(libc::WSTOPSIG(status)),
                _ if libc::WIFSIGNALED(status) => {
                    return Ok(Some(Ended::Signal(libc::WTERMSIG(status))));
                }
                _ => return Ok(Some(Ended::Code(libc::WEXITSTATUS(status) as u8))),
            }
        }
    }

    fn stopped(&self, number: i32) {
        let from_terminal = matches!(number, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
        // Elsewhere we must go on serving: who stopped the command will continue it alone.
        if from_terminal && has_job_control() {
            // SAFETY: kill and getpid without pointers.
            unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
            self.kill(libc::SIGCONT);
        }
    }
}

/// Whether we are a job of an interactive shell: our process group is not the session's first, and there is a
/// terminal.
fn has_job_control() -> bool {
    // SAFETY: calls without pointers that cannot fail for the calling process.
    let is_job = unsafe { libc::getpgrp() != libc::getsid(0) };
    is_job && std::fs::File::open("/dev/tty").is_ok()
}

/// Ends this process by the signal that ended the command, so that the caller sees what it would have seen without us.
pub fn die_by(number: i32) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let set = signals::set_of(&[number]);
    // SAFETY: the structs live through the calls; the default action is restored before the signal is let through.
    unsafe {
        // The command has written its core if it wanted one; ours is of no interest.
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::signal(number, libc::SIG_DFL);
        libc::kill(libc::getpid(), number);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

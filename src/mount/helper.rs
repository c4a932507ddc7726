//! fusermount3, the set-uid program that mounts and unmounts for users.
//!
//! It sends the opened `/dev/fuse` through a socket whose number is in `_FUSE_COMMFD`, as ancillary data of a one-byte message. If it
//! closes the socket without a message, it failed, and its stderr says why.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};

use super::error::MountError;
use super::passing;

/// The second is the name in FUSE 2, with the same protocol.
const NAMES: [&str; 2] = ["fusermount3", "fusermount"];

/// Mounts on a directory with these options.
pub(super) fn mount(path: &Path, options: &str) -> Result<OwnedFd, MountError> {
    let fail = |cause| MountError::System { what: "running fusermount3", cause };
    let (ours, theirs) = UnixStream::pair().map_err(fail)?;
    let number = theirs.as_raw_fd();
    let child = first_that_exists(|name| {
        let mut command = Command::new(name);
        command.args(["-o", options, "--"]).arg(path).env("_FUSE_COMMFD", number.to_string());
        // SAFETY: fcntl is async-signal-safe, and the descriptor is open until after the spawn.
        unsafe { command.pre_exec(move || keep_on_exec(number)) };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    })?;
    // Only the child may hold a copy of its end: otherwise we would not see it close.
    drop(theirs);
    let received = receive(&ours);
    let output = child.wait_with_output().map_err(fail)?;
    match received {
        Ok(Some(descriptor)) => Ok(descriptor),
        Ok(None) => Err(MountError::Helper { path: path.to_owned(), message: message(&output) }),
        Err(cause) => Err(fail(cause)),
    }
}

/// Unmounts; with `lazy` also while files are open, else a busy mount is `EBUSY`.
pub(super) fn unmount(path: &Path, lazy: bool) -> Result<(), MountError> {
    let output = first_that_exists(|name| {
        let mut command = Command::new(name);
        command.arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(path).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()
    })?;
    if output.status.success() {
        return Ok(());
    }
    let message = message(&output);
    let cause =
        if message.contains("busy") { io::Error::from_raw_os_error(libc::EBUSY) } else { io::Error::other(message) };
    Err(MountError::Unmount { path: path.to_owned(), cause, hint: String::new() })
}

fn first_that_exists<T>(run: impl Fn(&str) -> io::Result<T>) -> Result<T, MountError> {
    for name in NAMES {
        match run(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => return result.map_err(MountError::system("running fusermount3")),
        }
    }
    Err(MountError::NoHelper)
}

/// Its error output in one line, without its own name.
fn message(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let line = NAMES.iter().fold(line, |line, name| line.replace(&format!("{name}: "), ""));
    if line.is_empty() { format!("it ended with {}", output.status) } else { line }
}

fn keep_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: the caller keeps the descriptor open.
    Ok(fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::empty())?)
}

/// Receives the descriptor; `None` if the other end closed without sending.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let (bytes, mut files) = passing::receive(socket, 1)?;
    match files.pop() {
        _ if bytes.is_empty() => Ok(None),
        Some(device) => Ok(Some(device)),
        None => Err(io::Error::other("it sent no descriptor")),
    }
}

//! One mount for several processes of a node (*members*). The first starts a daemon, which mounts in namespaces of its own; members
//! enter these, and the daemon ends when the last member has ended.
//!
//! Members find the daemon at an abstract Unix socket. The kernel gives its name to one process, and frees it when that process ends for
//! whatever reason, so nothing must be cleaned up. Each member keeps its connection open while it runs, so the daemon notices its end,
//! even by SIGKILL. No root is needed: the user who made a user namespace may enter it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

use super::error::MountError;
use super::namespace::Namespace;
use super::signals::{self, Signals};
use super::{Mounted, background, passing};

/// The role of this process: a member, or the daemon that the first member has started.
#[derive(Debug)]
pub enum Meeting {
    Member(Member),
    Daemon(Daemon),
}

/// A process that uses the mount.
#[derive(Debug)]
pub struct Member {
    connection: UnixStream,
    /// The daemon's pid, if this process has started it.
    daemon: Option<libc::pid_t>,
}

/// What the daemon tells a member.
#[derive(Debug)]
pub enum Answer {
    Usable {
        place: PathBuf,
        namespace: Namespace,
    },
    /// The mount failed, for this reason.
    Refused(String),
    /// The daemon has ended without an answer, because the member that started it has: start again with [`meet`].
    Gone,
}

/// The process that serves the mount.
#[derive(Debug)]
pub struct Daemon {
    listener: UnixListener,
    first: UnixStream,
}

/// Attempts and pauses while another process binds or frees the name: ten seconds in total.
const ATTEMPTS: usize = 1000;
const PAUSE: Duration = Duration::from_millis(10);

/// Bytes of a message, at most: a path or a line.
const MESSAGE: usize = 16 << 10;

/// Connects to the daemon of this name, or starts it. Call it before any thread exists.
pub fn meet(name: &str) -> Result<Meeting, MountError> {
    let fail = MountError::system("meeting the other processes of the node");
    let address = SocketAddr::from_abstract_name(name);
    let attempt = |address: &SocketAddr| -> io::Result<Option<Meeting>> {
        match UnixStream::connect_addr(address) {
            Ok(connection) => {
                is_ours(&connection)?;
                return Ok(Some(Meeting::Member(Member { connection, daemon: None })));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
        match UnixListener::bind_addr(address) {
            Ok(listener) => fork(listener).map(Some),
            // Another process has just bound the name, and does not listen yet.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    };
    let met = address.and_then(|address| {
        for _ in 0..ATTEMPTS {
            if let Some(meeting) = attempt(&address)? {
                return Ok(meeting);
            }
            std::thread::sleep(PAUSE);
        }
        Err(io::ErrorKind::TimedOut.into())
    });
    met.map_err(fail)
}

fn fork(listener: UnixListener) -> io::Result<Meeting> {
    let (ours, theirs) = UnixStream::pair()?;
    let parent = getpid();
    // SAFETY: the process has one thread (see `meet`), so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(ours);
            end_with_parent(true);
            if getppid() != Some(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(Meeting::Daemon(Daemon { listener, first: theirs }))
        }
        child => {
            // Only the daemon may hold the name.
            drop(listener);
            drop(theirs);
            Ok(Meeting::Member(Member { connection: ours, daemon: Some(child) }))
        }
    }
}

/// While on, the daemon dies with the member that started it: before the mount is usable it does not watch its members.
fn end_with_parent(on: bool) {
    let _ = set_parent_process_death_signal(on.then_some(Signal::KILL));
}

/// Fails if the peer is a process of another user: abstract names have no owner.
fn is_ours(connection: &UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(connection)?;
    if peer.uid == rustix::process::geteuid() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "a process of another user has taken the name"))
}

impl Member {
    /// Waits until the mount is usable, and enters the namespace where it is. Call it before any thread exists.
    pub fn answer(&self, signals: &Signals) -> Result<Answer, MountError> {
        let fail = |cause| MountError::System { what: "meeting the other processes of the node", cause };
        loop {
            let ready = signals::wait(&[self.connection.as_fd(), signals.as_fd()], None).map_err(fail)?;
            if ready[0] {
                break;
            }
            if let Some(signal) = signals.next().filter(|signal| signals::is_end(signal.number)) {
                return Err(MountError::Interrupted { signal: signals::name(signal.number) });
            }
        }
        // A connection that the daemon has not accepted before its end is reset: that counts as no answer.
        let (bytes, files) = passing::receive(&self.connection, MESSAGE).unwrap_or_default();
        match bytes.split_first() {
            Some((0, path)) => {
                let namespace = Namespace::join(files)?;
                Ok(Answer::Usable { place: PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())), namespace })
            }
            Some((_, line)) => Ok(Answer::Refused(String::from_utf8_lossy(line).into_owned())),
            None => match self.daemon {
                Some(child) => Ok(Answer::Refused(background::how_it_ended(child))),
                None => Ok(Answer::Gone),
            },
        }
    }

    /// Becomes readable when the daemon has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Daemon {
    /// Serves the mount, and accepts members until the last has ended. Signals do not end it, since a scheduler sends them to members as
    /// well, and these may still want to read.
    pub fn serve(self, mounted: &Mounted, namespace: &Namespace, signals: &Signals) -> Result<(), MountError> {
        let fail = |cause| MountError::System { what: "serving the processes of the node", cause };
        let files = namespace.files().map_err(fail)?;
        background::cut_ties().map_err(fail)?;
        let mut message = vec![0];
        message.extend_from_slice(mounted.path().as_os_str().as_bytes());
        let ask_in = |member: &UnixStream| {
            let files: Vec<BorrowedFd<'_>> = files.iter().map(OwnedFd::as_fd).collect();
            passing::send(member, &message, &files).is_ok()
        };
        self.listener.set_nonblocking(true).map_err(fail)?;
        let mut members: Vec<UnixStream> = Vec::new();
        if ask_in(&self.first) {
            members.push(self.first);
        }
        end_with_parent(false);
        loop {
            while let Ok((member, _)) = self.listener.accept() {
                if is_ours(&member).is_ok() && ask_in(&member) {
                    members.push(member);
                }
            }
            if members.is_empty() {
                return Ok(());
            }
            let watched = [mounted.ended(), signals.as_fd(), self.listener.as_fd()];
            let watched: Vec<BorrowedFd<'_>> =
                watched.into_iter().chain(members.iter().map(|one| one.as_fd())).collect();
            let ready = signals::wait(&watched, None).map_err(fail)?;
            if ready[0] {
                return Ok(());
            }
            while let Some(signal) = signals.next() {
                tracing::debug!("{}: {} processes use the mount", signals::name(signal.number), members.len());
            }
            // Members send nothing, so a readable connection is one whose member has ended.
            let mut ended = ready[3..].iter();
            members.retain(|_| ended.next() != Some(&true));
        }
    }

    /// Tells all waiting members why the mount failed.
    pub fn refuse(self, line: &str) {
        let mut message = vec![1];
        message.extend_from_slice(&line.as_bytes()[..line.len().min(MESSAGE / 2)]);
        // Errors are ignored: the member may have ended.
        let _ = passing::send(&self.first, &message, &[]);
        if self.listener.set_nonblocking(true).is_ok() {
            while let Ok((member, _)) = self.listener.accept() {
                let _ = passing::send(&member, &message, &[]);
            }
        }
    }
}

//! Mounts and unmounts: the mountpoint, the FUSE session, background, signals, private namespaces.
//!
//! Nothing is left behind: every exit detaches the mount first, and fails its readers instead of waiting for them: a process that ends
//! closes `/dev/fuse`, and the kernel then answers all pending requests with an error.

mod attach;
pub mod background;
pub mod command;
pub mod error;
mod helper;
pub mod mountpoint;
pub mod namespace;
pub mod node;
mod passing;
pub mod signals;
mod table;
pub mod unmount;

use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::{Config, Filesystem, Session, SessionACL};

use crate::fuse::look::Look;
use crate::fuse::page_cache::Kernel;

use error::MountError;
use mountpoint::Mountpoint;
use signals::Signals;
use unmount::Left;

/// Time limits: for the root of a fresh mount to answer, and for a session to end.
const ANSWER: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(2);

/// Read-ahead of the page cache: four requests of the largest size.
const READ_AHEAD_KIB: &str = "4096";

/// How to mount.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The source in the kernel's table of mounts.
    pub source: String,
    pub allow_other: bool,
    /// Session threads; more than 4 do not help.
    pub threads: usize,
    /// Whether to try fusermount3 if mount(2) is denied. It does not work in a namespace.
    pub helper: bool,
}

/// A live mount. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    /// The device number of our mount; `None` for `/dev/fd/N`, which another program mounts and unmounts.
    device: Option<(u32, u32)>,
    session: Option<JoinHandle<io::Result<()>>>,
    /// Becomes readable when the session ends.
    ended: PipeReader,
    mountpoint: Mountpoint,
}

impl Mounted {
    /// Mounts and serves; returns once the root of the mount answers, after calling `started`. For `/dev/fd/N`, which another program
    /// has mounted, `started` is called if the mount is visible to this process.
    pub fn start<F: Filesystem>(
        filesystem: F,
        mut mountpoint: Mountpoint,
        settings: &Settings,
        started: impl FnOnce(Kernel),
    ) -> Result<Self, MountError> {
        let path = mountpoint.path().to_owned();
        let given = mountpoint.take_descriptor();
        let is_given = given.is_some();
        let visible = given.as_ref().and_then(|given| table::of_descriptor(given.as_fd()));
        let descriptor = match given {
            Some(descriptor) => descriptor,
            None => attach::attach(&path, settings)?,
        };
        let detach_on_error = |error| {
            if !is_given {
                unmount::force(&path);
            }
            error
        };
        let (acl, config) = configuration(settings);
        let session = Session::from_fd(filesystem, descriptor, acl, config)
            .map_err(|cause| detach_on_error(MountError::Handshake { path: path.clone(), cause }))?;
        let notifier = session.notifier();
        let (ended, end) = io::pipe().map_err(MountError::system("making a pipe")).map_err(detach_on_error)?;
        let session = std::thread::Builder::new()
            .name("shufflefs-session".into())
            .spawn(move || {
                let result = session.run();
                drop(end);
                result
            })
            .map_err(|cause| detach_on_error(MountError::System { what: "starting a thread", cause }))?;
        let device = if is_given { None } else { Some(answering(&path).map_err(detach_on_error)?) };
        let root = visible.map_or_else(|| (device, path.clone()), |entry| (Some(entry.device), entry.mountpoint));
        if let (Some((major, minor)), root) = root {
            // Only root may do this, so the error is ignored. Readers that map files (safetensors, torch) then request 1 MiB at a
            // time instead of 128 KiB, which is 1.5 times as fast.
            let _ = fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD_KIB);
            started(Kernel { notifier, root, device: rustix::fs::makedev(major, minor) });
        }
        mountpoint.unlock();
        tracing::info!("mounted on {}", path.display());
        Ok(Self { device, session: Some(session), ended, mountpoint })
    }

    /// The mountpoint: absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        self.mountpoint.path()
    }

    /// Becomes readable when the session has ended.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Serves until the mount is unmounted from outside, a signal arrives or `input` ends; then unmounts. A second signal makes it
    /// detach without waiting.
    pub fn wait(mut self, signals: &Signals, input: Option<BorrowedFd<'_>>) -> Result<(), MountError> {
        loop {
            let watched: Vec<BorrowedFd<'_>> = [self.ended(), signals.as_fd()].into_iter().chain(input).collect();
            let ready = signals::wait(&watched, None).map_err(MountError::system("waiting"))?;
            if ready[0] {
                return self.finish();
            }
            if ready.get(2) == Some(&true) && input.is_some_and(has_ended) {
                tracing::info!("standard input has ended: unmounting {}", self.path().display());
                return self.leave(signals);
            }
            if let Some(signal) = signals.next() {
                tracing::info!("{}: unmounting {}", signals::name(signal.number), self.path().display());
                return self.leave(signals);
            }
        }
    }

    /// Collects the result of a session that has ended.
    fn finish(&mut self) -> Result<(), MountError> {
        let result = match self.session.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("a thread panicked")),
            None => Ok(()),
        };
        // `is_there` reads the table of mounts first: `statfs` on the path would make an automounter mount it again.
        if result.is_ok() && !(self.is_there() && table::is_dead(self.path())) {
            // Unmounted from outside, not aborted through /sys/fs/fuse: nothing, or another mount, answers here. The kernel may now
            // give our device number to another mount.
            self.device = None;
        }
        result.map_err(|cause| MountError::Session { path: self.path().to_owned(), cause })
    }

    /// Unmounts in a thread, since fusermount3 may take long, and listens for a second signal meanwhile.
    fn leave(&mut self, signals: &Signals) -> Result<(), MountError> {
        if !self.is_there() {
            // Detached from outside (or never ours): those who hold files get an error when this process ends.
            self.device = None;
            return Ok(());
        }
        let path = self.path().to_owned();
        let (sender, receiver) = mpsc::sync_channel(1);
        let (done, end) = io::pipe().map_err(MountError::system("making a pipe"))?;
        let detach = move || {
            let _ = sender.send(unmount::detach(&path));
            drop(end);
        };
        std::thread::Builder::new().spawn(detach).map_err(MountError::system("starting a thread"))?;
        let ready = signals::wait(&[done.as_fd(), signals.as_fd()], None).map_err(MountError::system("waiting"))?;
        if !ready[0] {
            tracing::warn!("a second signal: detaching {}", self.path().display());
            return Ok(());
        }
        let left = receiver.recv().unwrap_or(Ok(Left::Clean));
        match left {
            Err(error) if self.is_there() => return Err(error),
            // Unmounted, by us or from outside.
            Err(_) | Ok(Left::Clean) => {
                self.device = None;
                let ended = signals::wait(&[self.ended(), signals.as_fd()], Some(END));
                if ended.is_ok_and(|ready| ready[0]) {
                    self.finish()?;
                }
            }
            Ok(Left::Detached { holders }) => {
                self.device = None;
                tracing::warn!("{} was still open by {}: detached", self.path().display(), list(&holders));
            }
        }
        Ok(())
    }

    /// Whether our mount is still at the mountpoint: after an outside unmount another one may be.
    fn is_there(&self) -> bool {
        let Some(device) = self.device else {
            return false;
        };
        matches!(table::at(self.path()), Ok(Some(entry)) if entry.device == device)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_there() {
            unmount::force(self.path());
        }
    }
}

/// Reads what a readable descriptor has, and returns whether it is at its end.
fn has_ended(input: BorrowedFd<'_>) -> bool {
    match rustix::io::read(input, &mut [0u8; 256]) {
        Ok(length) => length == 0,
        Err(error) => error != rustix::io::Errno::INTR && error != rustix::io::Errno::AGAIN,
    }
}

/// Joins names for a message.
pub fn list(holders: &[String]) -> String {
    if holders.is_empty() { "another process".to_owned() } else { holders.join(", ") }
}

fn configuration(settings: &Settings) -> (SessionACL, Config) {
    let acl = if settings.allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut config = Config::default();
    config.acl = acl;
    config.n_threads = Some(settings.threads.clamp(2, 4));
    config.clone_fd = attach::can_clone();
    (acl, config)
}

/// The device number of a mount, once its root has answered.
fn answering(path: &Path) -> Result<(u32, u32), MountError> {
    let look = Look::new().map_err(MountError::system("starting a thread"))?;
    let answer = look.at(path.to_owned(), ANSWER).map(|found| found.dev());
    let device = answer.map_err(|cause| MountError::NotAnswering { path: path.to_owned(), cause })?;
    Ok((rustix::fs::major(device), rustix::fs::minor(device)))
}

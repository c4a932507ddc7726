//! Signals as a descriptor that can be polled.
//!
//! They are blocked before the first thread starts, so all threads inherit the block, and no signal can interrupt or kill the process
//! in the middle of an unmount. They are read from a signalfd in ordinary code, which may allocate, log and lock.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use super::error::MountError;

/// A received signal.
#[derive(Debug, Clone, Copy)]
pub struct Signal {
    pub number: i32,
    /// Sent by the kernel; if from a terminal, to the whole foreground process group.
    pub from_kernel: bool,
}

/// A set of blocked signals and the descriptor to read them from.
#[derive(Debug)]
pub struct Signals {
    descriptor: OwnedFd,
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks signals for this thread and all that it starts. Call it before any thread exists.
    pub fn block(numbers: &[i32]) -> Result<Self, MountError> {
        let fail = |cause| MountError::System { what: "blocking signals", cause };
        let set = set_of(numbers);
        let mut before = set_of(&[]);
        // SAFETY: both sets are initialised and live through the call.
        let code = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before) };
        if code != 0 {
            return Err(fail(io::Error::from_raw_os_error(code)));
        }
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let descriptor = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if descriptor == -1 {
            return Err(fail(io::Error::last_os_error()));
        }
        // SAFETY: a fresh descriptor that nothing else owns.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) }, before })
    }

    /// The signal mask before, for children that should start with it.
    pub fn mask_before(&self) -> libc::sigset_t {
        self.before
    }

    /// The next pending signal; does not wait.
    pub fn next(&self) -> Option<Signal> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is `size` bytes long and any bytes are a valid signalfd_siginfo.
        let read = unsafe { libc::read(self.descriptor.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if read != size as isize {
            return None;
        }
        // SAFETY: zeroed above and filled by the kernel.
        let info = unsafe { info.assume_init() };
        Some(Signal { number: info.ssi_signo as i32, from_kernel: info.ssi_code == libc::SI_KERNEL })
    }

    /// Runs slow work in a thread, so that a signal can end the wait for it. The thread is then abandoned: the caller must end the
    /// process.
    pub fn during<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, MountError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let (ended, end) = io::pipe().map_err(MountError::system("making a pipe"))?;
        std::thread::Builder::new()
            .name("shufflefs-open".into())
            .spawn(move || {
                let _ = sender.send(work());
                // Dropped after the result is sent, and also on a panic: it wakes the waiting thread.
                drop(end);
            })
            .map_err(MountError::system("starting a thread"))?;
        loop {
            wait(&[self.as_fd(), ended.as_fd()], None).map_err(MountError::system("waiting"))?;
            if let Ok(result) = receiver.try_recv() {
                return Ok(result);
            }
            match self.next() {
                Some(signal) if is_end(signal.number) => {
                    return Err(MountError::Interrupted { signal: name(signal.number) });
                }
                Some(_) => continue,
                None => {}
            }
            if let Err(std::sync::mpsc::TryRecvError::Disconnected) = receiver.try_recv() {
                return Err(MountError::System {
                    what: "opening the stores",
                    cause: io::Error::other("it ended without a result (a bug; please report it)"),
                });
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

pub(super) fn is_end(number: i32) -> bool {
    matches!(number, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT)
}

/// Whether our parent made us ignore this signal (`nohup`, a shell's `&`).
pub fn is_ignored(number: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only reads the present one into the zeroed struct.
    let code = unsafe { libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeroed, so initialised in any case.
    code == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// The usual name of a signal.
pub fn name(number: i32) -> String {
    match number {
        libc::SIGTERM => "SIGTERM".into(),
        libc::SIGINT => "SIGINT".into(),
        libc::SIGHUP => "SIGHUP".into(),
        libc::SIGQUIT => "SIGQUIT".into(),
        libc::SIGKILL => "SIGKILL".into(),
        libc::SIGSEGV => "SIGSEGV".into(),
        libc::SIGABRT => "SIGABRT".into(),
        libc::SIGBUS => "SIGBUS".into(),
        _ => format!("signal {number}"),
    }
}

/// Waits until a descriptor is readable (data or end of file) or the time is over; returns a flag for each.
pub(super) fn wait(descriptors: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut polls: Vec<PollFd<'_>> =
        descriptors.iter().map(|&descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN)).collect();
    retry_on_intr(|| {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        poll(&mut polls, left.and_then(|left| Timespec::try_from(left).ok()).as_ref())
    })?;
    Ok(polls.iter().map(|poll| !poll.revents().is_empty()).collect())
}

pub(super) fn set_of(numbers: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset initialises the whole set; sigaddset only fails for numbers that are no signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &number in numbers {
            libc::sigaddset(set.as_mut_ptr(), number);
        }
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_work_is_interrupted_and_quick_work_is_not() {
        let signals = Signals::block(&[libc::SIGTERM]).unwrap();
        assert_eq!(signals.during(|| 7).unwrap(), 7);
        // SAFETY: sent to this thread only, which blocks it.
        unsafe { libc::raise(libc::SIGTERM) };
        let error = signals.during(|| std::thread::sleep(Duration::from_secs(60))).unwrap_err();
        assert!(matches!(error, MountError::Interrupted { signal } if signal == "SIGTERM"));
    }

    #[test]
    fn a_panic_in_the_work_is_an_error() {
        let signals = Signals::block(&[libc::SIGTERM]).unwrap();
        assert!(matches!(signals.during(|| panic!("on purpose")), Err(MountError::System { .. })));
    }
}

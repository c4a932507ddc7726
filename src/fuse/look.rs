//! Calls `stat` on our own mount from a thread that does not hold `/dev/fuse` open.
//!
//! Such a call is answered by other threads of this process, and a thread that waits for it cannot be killed, even by SIGKILL. Threads
//! share their descriptors; if the waiting thread kept `/dev/fuse` open, a daemon killed at that moment would never close it: the kernel
//! would not abort the connection, and every later access to the mount would hang. So this thread has a descriptor table of its own,
//! which is empty.

use std::fs::{self, Metadata};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// The thread; it ends when this is dropped.
pub struct Look {
    ask: Sender<PathBuf>,
    found: Receiver<io::Result<Metadata>>,
}

impl Look {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn new() -> io::Result<Look> {
        let (ask, asked) = mpsc::channel::<PathBuf>();
        let (tell, found) = mpsc::channel();
        std::thread::Builder::new().name("look".to_owned()).spawn(move || {
            hold_nothing();
            for path in asked {
                if tell.send(fs::symlink_metadata(path)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Look { ask, found })
    }

    /// Metadata of a path. Do not use it again after a timeout: the late answer would be taken for that of the next path.
    ///
    /// # Errors
    /// Those of `stat`; `TimedOut` after `patience`.
    pub fn at(&self, path: PathBuf, patience: Duration) -> io::Result<Metadata> {
        // Fails only if the thread has ended; then `recv_timeout` fails, too.
        let _ = self.ask.send(path);
        self.found.recv_timeout(patience).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => {
                    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", patience.as_secs()))
                }
                RecvTimeoutError::Disconnected => io::ErrorKind::BrokenPipe.into(),
            })
        })
    }
}

/// Gives this thread an empty descriptor table. Standard streams are closed as well, as our parent may wait for their end. Does nothing
/// before Linux 5.9.
fn hold_nothing() {
    // SAFETY: CLOSE_RANGE_UNSHARE copies the table first, and this thread owns no object with a descriptor.
    unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_thread_holds_no_descriptor() {
        let kept = fs::File::open("/proc/self/status").unwrap();
        let look = Look::new().unwrap();
        assert!(look.at("/".into(), Duration::from_secs(60)).unwrap().is_dir());
        assert!(look.at("/nonexistent".into(), Duration::from_secs(60)).is_err());
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path());
        let is_look = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "look\n");
        let mut looks = tasks.filter(|task| is_look(task));
        let task = looks.next().expect("the thread");
        let held = fs::read_dir(task.join("fd")).unwrap().flatten();
        assert_eq!(held.count(), 0);
        // The other threads' descriptors stay open.
        assert!(kept.metadata().is_ok());
    }
}

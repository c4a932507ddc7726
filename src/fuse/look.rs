//! Looks at files of our own mount from a thread that does not hold its device.
//!
//! Such a request is answered by other threads of ours, and the one that waits for it does not heed even SIGKILL. If it held
//! `/dev/fuse`, as all threads of a process hold what one has opened, a daemon that is killed at that moment would never
//! close the device: nobody answers, the kernel does not take the mount for dead, and whoever comes to it hangs. So this thread has
//! a table of descriptors for itself, and nothing in it.

use std::fs::{self, Metadata};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// The thread, which ends with this.
pub struct Look {
    ask: Sender<PathBuf>,
    found: Receiver<io::Result<Metadata>>,
}

impl Look {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no more threads.
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

    /// What is at a path. After an answer that came too late it is of no use.
    ///
    /// # Errors
    /// The system's; no answer came for so long.
    pub fn at(&self, path: PathBuf, patience: Duration) -> io::Result<Metadata> {
        // One that is gone gives no answer.
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

/// Takes all descriptors from this thread alone; the standard ones, too, as who started us may wait for their end. Before Linux 5.9
/// it keeps them.
fn hold_nothing() {
    // SAFETY: the thread gets a table of its own first, and holds no object that owns a descriptor of it.
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
        // Those of the others stay.
        assert!(kept.metadata().is_ok());
    }
}

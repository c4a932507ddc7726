//! Exit codes, and the one line that an error becomes.
//!
//! Scripts rely on the codes, so each failure is given its code where it happens; codes are not derived from messages.

use std::fmt::Display;
use std::io::Write;

pub use crate::anndata::one_line;
use crate::mount::error::MountError;

/// Shown at the end of every `--help` and man page.
pub const HELP: &str = "\
Exit codes:
  0    success
  1    internal or system error
  2    wrong usage
  3    a store cannot be read; info: it cannot be mounted as it is, or is damaged (--check);
       manifest: a file cannot be read, or is not the same (--check)
  4    the mountpoint is unusable or mounting failed
  5    unmounting failed
  125  run: shufflefs itself failed
  126  run: the command cannot be executed
  127  run: the command was not found
  Otherwise `run` ends as the command ends, by the same code or the same signal.

Environment:
  SHUFFLEFS_LOG  level of the log: error, warn, info (default), debug, trace, or filters as in shufflefs::mount=debug";

/// The kind of a failure, which is its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Internal = 1,
    Usage = 2,
    Store = 3,
    Mount = 4,
    Unmount = 5,
    Run = 125,
    NotExecutable = 126,
    NotFound = 127,
}

/// An error with its exit code.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub error: anyhow::Error,
}

/// The exit code of a command, or its failure.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    pub fn usage(message: impl Display) -> Self {
        Self { exit: Exit::Usage, error: anyhow::anyhow!("{message}") }
    }

    /// The error with all of its causes, in one line.
    pub fn line(&self) -> String {
        one_line(&format!("{:#}", self.error))
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let exit = match &error {
            MountError::NotMounted { .. }
            | MountError::NotOurs { .. }
            | MountError::Unmount { .. }
            | MountError::StillRunning { .. } => Exit::Unmount,
            MountError::System { .. } | MountError::Session { .. } | MountError::Interrupted { .. } => Exit::Internal,
            _ => Exit::Mount,
        };
        Self { exit, error: error.into() }
    }
}

/// Attaches an exit code to an error.
pub trait OrExit<T> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure { exit, error: error.into() })
    }
}

/// Prints `shufflefs: message` on stderr.
pub fn say(message: &str) {
    // Ignored if stderr is closed.
    let _ = writeln!(std::io::stderr(), "shufflefs: {message}");
}

/// Ends the process without the C library's exit handlers: HDF5 installs one that closes the library while other threads are decoding, and
/// a
/// crash there would replace the exit code.
pub fn leave(code: u8) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: does not return; everything that matters was flushed and dropped before.
    unsafe { libc::_exit(code.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_line() {
        let error = anyhow::anyhow!("no such\nmember").context("store a.h5ad");
        assert_eq!(Failure { exit: Exit::Store, error }.line(), "store a.h5ad: no such member");
    }
}

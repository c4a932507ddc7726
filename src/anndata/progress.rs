//! A progress bar on stderr for long work before a mount; nothing if stderr is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that disappears when dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar with `total` steps, labelled `what`.
    pub fn new(what: String, total: u64) -> Progress {
        let bar = ProgressBar::new(total).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {percent}% {eta}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress(bar)
    }

    pub fn add(&self, steps: u64) {
        self.0.inc(steps);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

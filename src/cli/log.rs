//! Where the log goes and how much of it: to a file if one is given, else to stderr; the newest lines always to
//! `.shufflefs/log` as well.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::exit::{Exit, Failure, OrExit};

const VARIABLE: &str = "SHUFFLEFS_LOG";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The newest lines of the log, kept for `.shufflefs/log`.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<Vec<u8>>>);

/// Bytes of log that are kept at most; beyond, the older half goes.
const KEPT: usize = 256 << 10;

impl Recent {
    /// The lines.
    pub fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, line: &[u8]) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(line);
        if text.len() > KEPT {
            let half = text.len() / 2;
            let cut = text[half..].iter().position(|&byte| byte == b'\n').map_or(half, |end| half + end + 1);
            text.drain(..cut);
        }
    }
}

/// One line to both places.
struct Tee {
    recent: Recent,
    file: Option<Arc<File>>,
    /// Only for `.shufflefs/log`.
    kept_only: bool,
}

impl Write for Tee {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.recent.add(line);
        match &self.file {
            Some(file) => file.as_ref().write_all(line)?,
            None if self.kept_only => {}
            None => std::io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Where a line goes, by its level.
struct Tees {
    recent: Recent,
    file: Option<Arc<File>>,
    quiet: bool,
}

impl<'a> MakeWriter<'a> for Tees {
    type Writer = Tee;

    fn make_writer(&'a self) -> Tee {
        Tee { recent: self.recent.clone(), file: self.file.clone(), kept_only: false }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Tee {
        Tee { kept_only: self.quiet && *about.level() > Level::WARN, ..self.make_writer() }
    }
}

/// Starts logging. `quiet` keeps stderr to warnings where it is not ours alone and no file is given: it belongs to the
/// command of `run`, or to the caller of a mount that goes to the background.
pub fn start(file: Option<&Path>, quiet: bool) -> Result<Recent, Failure> {
    let file = match file {
        None => None,
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.with_context(|| format!("log {}", path.display())).or_exit(Exit::Usage)?;
            Some(Arc::new(file))
        }
    };
    let recent = Recent::default();
    // A level that the user asks for is for stderr too.
    let quiet = quiet && std::env::var_os(VARIABLE).is_none();
    let tees = Tees { recent: recent.clone(), file: file.clone(), quiet };
    tracing_subscriber::fmt()
        .with_env_filter(filter("info")?)
        .with_target(false)
        .with_ansi(file.is_none() && std::io::stderr().is_terminal())
        .with_writer(tees)
        .init();
    Ok(recent)
}

/// Starts logging where a file is given or a level is asked for: for commands that read themselves and so end with what goes wrong, as
/// their one line.
pub fn start_if_asked(file: Option<&Path>) -> Result<(), Failure> {
    if file.is_some() || std::env::var_os(VARIABLE).is_some() {
        start(file, false)?;
    }
    Ok(())
}

fn filter(default: &str) -> Result<EnvFilter, Failure> {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    let directives = match wanted.as_str() {
        "" => format!("warn,shufflefs={default},fuser=error"),
        // A bare level is about us: fuser logs every request at debug.
        level if LEVELS.contains(&level) => format!("warn,shufflefs={level},fuser=error"),
        other => other.to_owned(),
    };
    EnvFilter::try_new(&directives).with_context(|| format!("{VARIABLE}={wanted}")).or_exit(Exit::Usage)
}

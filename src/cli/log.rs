//! The destinations of the log: a file if one is given, else stderr; the newest lines also go to `.shufflefs/log`.

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

/// The newest lines of the log, for `.shufflefs/log`.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<Vec<u8>>>);

/// Maximum bytes to keep; beyond that the older half is dropped.
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

/// Writes one line to both destinations.
struct Tee {
    recent: Recent,
    file: Option<Arc<File>>,
    /// Whether the line is for `.shufflefs/log` only.
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

/// Chooses destinations by level.
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

/// Starts logging. `quiet` limits stderr to warnings, unless a file is given: for commands that share stderr with the command of `run`, or
/// with the caller of a mount that goes to the background.
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
    // A level requested in the environment applies to stderr, too.
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

/// Starts logging only if a file is given or a level is requested: for commands that do not serve and report their error themselves.
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
        // A bare level is for this program only: fuser logs every request at debug.
        level if LEVELS.contains(&level) => format!("warn,shufflefs={level},fuser=error"),
        other => other.to_owned(),
    };
    EnvFilter::try_new(&directives).with_context(|| format!("{VARIABLE}={wanted}")).or_exit(Exit::Usage)
}

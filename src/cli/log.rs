//! Where the log goes and how much of it: to a file if one is given, else to stderr.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::path::Path;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use super::exit::{Exit, Failure, OrExit};

const VARIABLE: &str = "SHUFFLEFS_LOG";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging. `quiet` keeps to warnings where stderr is not ours alone and no file is given: it belongs to the
/// command of `run`, or to the caller of a mount that goes to the background.
pub fn start(file: Option<&Path>, quiet: bool) -> Result<(), Failure> {
    let level = if quiet && file.is_none() {
        "warn"
    } else {
        "info"
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_target(false);
    match file {
        None => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .init(),
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file
                .with_context(|| format!("log {}", path.display()))
                .or_exit(Exit::Usage)?;
            builder.with_ansi(false).with_writer(file).init();
        }
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
    EnvFilter::try_new(&directives)
        .with_context(|| format!("{VARIABLE}={wanted}"))
        .or_exit(Exit::Usage)
}

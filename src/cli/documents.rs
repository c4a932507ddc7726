//! Man pages and shell completions, generated from the definitions of the command line.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;

use super::exit::{Exit, OrExit, Outcome};

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory to write to; made if absent
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to complete for; the script goes to stdout
    shell: Shell,
}

/// Writes `shufflefs.1` and one page for each command.
pub fn man(args: &ManArgs, command: clap::Command) -> Outcome {
    let write = |directory: &Path| {
        std::fs::create_dir_all(directory)?;
        clap_mangen::generate_to(command, directory)
    };
    write(&args.directory).with_context(|| args.directory.display().to_string()).or_exit(Exit::Internal)?;
    Ok(0)
}

pub fn completions(args: &CompletionsArgs, mut command: clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "shufflefs", &mut script);
    std::io::stdout().write_all(&script).context("stdout").or_exit(Exit::Internal)?;
    Ok(0)
}

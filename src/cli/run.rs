//! `shufflefs run`: mounts for one command, in a namespace that ends with it.

mod node;

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::Args;

use super::checked::Options;
use super::exit::{Exit, Failure, OrExit, Outcome};
use super::inherited::Inherited;
use super::log::{self, Recent};
use super::options::OptionArgs;
use crate::mount::command::{self, Ended, NotStarted};
use crate::mount::mountpoint::{Dead, Mountpoint};
use crate::mount::namespace::Namespace;
use crate::mount::signals::Signals;
use crate::mount::{Mounted, Settings};

const EXAMPLES: &str = "\
Examples:
  shufflefs run cells.h5ad -- python train.py {}
  shufflefs run --at /tmp/epochs plate1.zarr plate2.zarr -- sh -c 'ls $SHUFFLEFS_MOUNT/epoch-0000'";

#[derive(Debug, Args)]
#[command(
    override_usage = "shufflefs run [OPTIONS] <STORE>... [--at DIR] -- <COMMAND>...",
    after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP),
)]
pub struct RunArgs {
    /// AnnData stores (.h5ad, .zarr, .zarr.zip; STORE::GROUP for one inside), seen as one table of rows; or one .toml file
    /// with stores = [...] and options
    #[arg(value_name = "STORE", required_unless_present = "modality")]
    pub stores: Vec<PathBuf>,

    #[command(flatten)]
    pub options: OptionArgs,

    /// Where the command finds the mount: an empty directory, or absent (made, and removed at the end) [default: a fresh
    /// directory; its path is in SHUFFLEFS_MOUNT and replaces {} in the command]
    #[arg(long, value_name = "DIR", help_heading = "Other")]
    at: Option<PathBuf>,

    /// One mount for all processes of a job on a node that have the same stores and options: the first one mounts, the others
    /// use its mount, and it ends with the last. Jobs are told apart by the launcher's variables, else by the parent process, or
    /// by a NAME. Each process reads its rank-R-of-W/ [default: a mount a process]
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "",
          conflicts_with = "rank", help_heading = "Other")]
    node: Option<String>,

    /// The command and its arguments; it sees the mount, others do not
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
}

pub fn run(args: RunArgs, inherited: &Inherited) -> Outcome {
    // Failures before the command runs have one exit code, as all others are the command's.
    inside(args, inherited).map_err(|failure| match failure.exit {
        Exit::NotFound | Exit::NotExecutable => failure,
        _ => Failure { exit: Exit::Run, ..failure },
    })
}

fn inside(mut args: RunArgs, inherited: &Inherited) -> Outcome {
    let job = args.node.as_deref().map(|name| node::job(name, &args));
    args.options.is_of_node = job.is_some();
    let options = args.options.validate(args.stores)?;
    let signals = Signals::block(&command::SIGNALS)?;
    let log = log::start(options.log.as_deref(), true)?;
    if let Some(job) = job {
        return node::run(&job, args.at.as_deref(), &args.command, options, &signals, log, inherited);
    }
    let namespace = Namespace::enter()?;
    let mounted = mount(&namespace, args.at.as_deref(), options, &signals, log)?;
    let ended = in_mount(&args.command, mounted.path(), mounted.ended(), &signals, namespace, inherited)?;
    // Unmounts, and removes the directory if it was created here.
    drop(mounted);
    Ok(end_as(ended))
}

/// Mounts in a namespace.
fn mount(
    namespace: &Namespace,
    at: Option<&Path>,
    options: Options,
    signals: &Signals,
    log: Recent,
) -> Result<Mounted, Failure> {
    let mountpoint = match at {
        Some(place) => Mountpoint::prepare(place, Dead::Clear)?,
        None => namespace.place(&temporary())?,
    };
    let settings = Settings {
        source: options.source(),
        allow_other: options.allow_other,
        threads: options.spec.threads,
        helper: false,
    };
    let filesystem = signals.during(move || options.filesystem(log))?.or_exit(Exit::Store)?;
    let started = filesystem.page_cache.starter();
    Ok(Mounted::start(filesystem, mountpoint, &settings, started)?)
}

/// Runs the command, which sees the mount on `place`; `mount` becomes readable when that ends.
fn in_mount(
    words: &[OsString],
    place: &Path,
    mount: BorrowedFd<'_>,
    signals: &Signals,
    namespace: Namespace,
    inherited: &Inherited,
) -> Result<Ended, Failure> {
    let line: Vec<OsString> = words.iter().map(|word| substituted(word, place.as_os_str())).collect();
    let mut variables = inherited.variables.clone();
    variables.push(("SHUFFLEFS_MOUNT".into(), place.as_os_str().to_owned()));
    let child = command::start(&line, variables, inherited.files, signals, namespace)
        .map_err(|error| not_started(&line, error))?;
    Ok(child.supervise(mount, place, signals)?)
}

/// The exit code of the command; if it was killed, ends this process by the same signal.
fn end_as(ended: Ended) -> u8 {
    match ended {
        Ended::Code(code) => code,
        Ended::Signal(number) => {
            command::die_by(number);
            // The signal does not kill us (as init of a pid namespace): use a shell's code for it.
            128u8.saturating_add(u8::try_from(number).unwrap_or(0))
        }
    }
}

fn not_started(line: &[OsString], NotStarted(error): NotStarted) -> Failure {
    let program = line.first().map(|program| program.display().to_string()).unwrap_or_default();
    let (exit, error) = match error.kind() {
        // execvp says "denied" if it may not search a directory of PATH, even if no directory has the program.
        ErrorKind::PermissionDenied if !is_anywhere(line.first()) => {
            (Exit::NotFound, anyhow::anyhow!("command not found: {program}"))
        }
        ErrorKind::NotFound => (Exit::NotFound, anyhow::anyhow!("command not found: {program}")),
        _ => (Exit::NotExecutable, anyhow::anyhow!("{program} cannot be executed: {error}")),
    };
    Failure { exit, error }
}

fn is_anywhere(program: Option<&OsString>) -> bool {
    let Some(program) = program else { return false };
    let search = std::env::var_os("PATH").unwrap_or_default();
    program.as_bytes().contains(&b'/') || std::env::split_paths(&search).any(|place| place.join(program).exists())
}

/// Parent of a temporary mountpoint, if the namespace has no place of its own.
fn temporary() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(runtime) if runtime.is_dir() => runtime,
        _ => std::env::temp_dir(),
    }
}

/// Replaces each `{}` in a word.
fn substituted(word: &OsStr, place: &OsStr) -> OsString {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match rest.strip_prefix(b"{}") {
            Some(after) => {
                out.extend_from_slice(Path::new(place).as_os_str().as_bytes());
                rest = after;
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_anywhere_in_a_word() {
        let word = |text: &str| substituted(OsStr::new(text), OsStr::new("/mnt/x"));
        assert_eq!(word("--data={}/epoch-0000:{}"), "--data=/mnt/x/epoch-0000:/mnt/x");
        assert_eq!(word("{a} { } }{"), "{a} { } }{");
        assert_eq!(word(""), "");
    }
}

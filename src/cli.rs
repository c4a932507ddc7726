//! The command line: one file for each command, from arguments to the exit code.
//!
//! Arguments are parsed once into plain, checked data; the rooms below read neither arguments nor environment. Every failure becomes one
//! line on stderr and a documented exit code.

mod assigned;
pub mod checked;
mod config;
mod doctor;
mod documents;
mod exit;
mod genes;
mod groups;
mod index_dir;
mod info;
mod inherited;
mod launcher;
mod log;
mod manifest;
mod modalities;
mod mount;
mod mount_options;
pub mod options;
mod plan;
mod probe;
mod reader;
mod run;
mod said;
mod sampling;
mod shuffle;
mod tokens;
mod tune;
mod umount;
mod values;
mod version;
mod views;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::array::catch_panic::{is_catching_panics, words};
use exit::{Exit, Failure, Outcome};
use inherited::Inherited;

/// Mounts AnnData stores and shows every training epoch as a directory of shuffled minibatch files.
///
/// Each epoch is a directory and each minibatch a file; reading the files in name order is one randomized pass over the
/// data.
#[derive(Debug, Parser)]
#[command(name = "shufflefs", version, after_help = exit::HELP, subcommand_required = true, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount stores on a directory
    #[command(args_override_self = true)]
    Mount(mount::MountArgs),
    /// End a mount
    Umount(umount::UmountArgs),
    /// Run a command with a mount that only it can see; needs neither root nor fusermount3
    #[command(args_override_self = true)]
    Run(run::RunArgs),
    /// Show what a mount would do, without mounting; or what remains of an epoch
    #[command(args_override_self = true)]
    Plan(plan::PlanArgs),
    /// Measure stores on this machine, and recommend options
    #[command(args_override_self = true)]
    Tune(tune::TuneArgs),
    /// Write an epoch to a store of its own: shuffled once and for all
    #[command(args_override_self = true)]
    Shuffle(shuffle::ShuffleArgs),
    /// Print the SHA-256 of all files of an epoch, or check them
    Manifest(manifest::ManifestArgs),
    /// Show what is in a store, and what would stop a mount of it
    Info(info::InfoArgs),
    /// Check whether this machine has what mounts need, and show remedies
    Doctor(doctor::DoctorArgs),
    /// Open stores as a mount would, in a process that may crash
    #[command(hide = true)]
    Probe,
    /// Read files that the parent process names
    #[command(hide = true)]
    Reader,
    /// Write the man pages to a directory
    #[command(hide = true)]
    Man(documents::ManArgs),
    /// Print the completion script of a shell
    #[command(hide = true)]
    Completions(documents::CompletionsArgs),
}

/// The whole program: runs the command, and returns the exit code.
pub fn main(arguments: Vec<OsString>) -> u8 {
    let inherited = Inherited::take();
    crate::session::address_space::keep_arenas_few();
    // Panics that are caught and reported as errors are not printed as well.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !is_catching_panics() {
            print(panic);
            // A daemon has no stderr, and its `.shufflefs/log` should name the place.
            let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            tracing::error!("internal error at {place}: {}; please report it", words(panic.payload()));
        }
    }));
    let is_run = arguments.get(1).is_some_and(|command| command == "run");
    let line = arguments.get(2..).unwrap_or_default().to_vec();
    match parse(arguments) {
        Ok(Some(command)) => report(dispatch(command, &inherited, &line)),
        Ok(None) => 0,
        // `run` has one code of its own, as all others are its command's.
        Err(failure) if is_run => report(Err(Failure { exit: Exit::Run, ..failure })),
        Err(failure) => report(Err(failure)),
    }
}

/// Whether a command line is valid; for the fuzz target.
#[doc(hidden)]
pub fn parses(arguments: Vec<OsString>) -> Result<(), String> {
    let command = parse(arguments).map_err(|failure| failure.line())?;
    let checked = match command {
        Some(Command::Mount(args)) => args.options.validate(Vec::new()),
        Some(Command::Run(args)) => args.options.validate(Vec::new()),
        _ => return Ok(()),
    };
    checked.map(|_| ()).map_err(|failure| failure.line())
}

/// Ends the process with a code.
pub use exit::leave;

fn report(outcome: Outcome) -> u8 {
    outcome.unwrap_or_else(|failure| {
        exit::say(&failure.line());
        failure.exit as u8
    })
}

/// `line`: the arguments after the command.
fn dispatch(command: Command, inherited: &Inherited, line: &[OsString]) -> Outcome {
    match command {
        Command::Mount(args) => mount::mount(args),
        Command::Run(args) => run::run(args, inherited),
        Command::Umount(args) => umount::umount(&args),
        Command::Plan(args) => {
            end_quietly_on_closed_pipe();
            plan::plan(args)
        }
        Command::Info(args) => {
            end_quietly_on_closed_pipe();
            info::info(&args)
        }
        Command::Doctor(args) => {
            end_quietly_on_closed_pipe();
            doctor::doctor(&args)
        }
        Command::Shuffle(args) => shuffle::shuffle(args),
        Command::Manifest(args) => {
            end_quietly_on_closed_pipe();
            manifest::manifest(&args)
        }
        Command::Probe => probe::probe(),
        Command::Reader => reader::reader(),
        Command::Tune(args) => tune::tune(args, line),
        Command::Man(args) => documents::man(&args, Cli::command()),
        Command::Completions(args) => {
            end_quietly_on_closed_pipe();
            documents::completions(&args, Cli::command())
        }
    }
}

/// Ends on SIGPIPE, as `| head` expects. Not for commands that serve: a closed log pipe must not kill a mount.
fn end_quietly_on_closed_pipe() {
    // SAFETY: restores the default action before any thread exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Parses the command; `None` if clap has answered it (`--help`, `--version`).
fn parse(arguments: Vec<OsString>) -> Result<Option<Command>, Failure> {
    let is_command = |word: &OsString| Cli::command().find_subcommand(word).is_some();
    let is_helper = arguments.first().is_some_and(|name| is_helper_name(name))
        || mount_options::is_from_mount_fuse(&arguments, is_command);
    let arguments = if is_helper {
        mount_options::helper(arguments.into_iter().skip(1)).map_err(Failure::usage)?
    } else {
        arguments
    };
    let Some(command) = read(&arguments)? else {
        return Ok(None);
    };
    let lists = match &command {
        Command::Mount(args) => &args.options.mount_options,
        Command::Run(args) => &args.options.mount_options,
        Command::Plan(args) => &args.options.mount_options,
        Command::Tune(args) => &args.options.mount_options,
        _ => return Ok(Some(command)),
    };
    let definition = Cli::command();
    let Some(subcommand) = arguments.get(1).and_then(|name| definition.find_subcommand(name)) else {
        return Ok(Some(command));
    };
    let extra = mount_options::expand(lists, subcommand, is_helper).map_err(Failure::usage)?;
    let (front, back) = arguments.split_at(2);
    // Parsed again with the expanded options in front: of two equal options the later one wins.
    let said: Vec<OsString> = front.iter().chain(&extra).chain(back).cloned().collect();
    let Some(mut command) = read(&said)? else {
        return Ok(None);
    };
    let named = command.options().and_then(|options| options.config.clone());
    let source = command.stores().and_then(|stores| stores.first()).filter(|first| config::is_source(first)).cloned();
    let path = match (named, &source) {
        (Some(_), Some(source)) => {
            return Err(Failure::usage(format_args!("{} names options itself: leave out --config", source.display())));
        }
        (Some(path), None) => path,
        (None, Some(source)) => source.clone(),
        (None, None) => return Ok(Some(command)),
    };
    let file = config::read(&path).map_err(Failure::usage)?;
    // The command line without defaults overrides the file.
    let name = subcommand.get_name().to_owned();
    let without_defaults = |command: clap::Command| command.mut_args(|arg| arg.default_value(Resettable::Reset));
    let matches = definition.clone().mut_subcommand(&name, without_defaults).try_get_matches_from(said);
    let matches = matches.map_err(|error| usage(&error))?;
    if let (Some(options), Some((_, matches))) = (command.options(), matches.subcommand()) {
        *options = file.options.overridden(matches).map_err(|error| usage(&error))?;
        options.file = file.views;
        options.config = Some(path.clone());
    }
    command.put_stores(&path, source.is_some(), file.stores)?;
    Ok(Some(command))
}

impl Command {
    /// The mount options of the commands that have them.
    fn options(&mut self) -> Option<&mut options::OptionArgs> {
        match self {
            Command::Mount(args) => Some(&mut args.options),
            Command::Run(args) => Some(&mut args.options),
            Command::Plan(args) => Some(&mut args.options),
            Command::Tune(args) => Some(&mut args.options),
            _ => None,
        }
    }
}

impl Command {
    /// The positional arguments of commands that take stores; for `mount` the last one is the mountpoint.
    fn stores(&mut self) -> Option<&mut Vec<PathBuf>> {
        match self {
            Command::Mount(args) => Some(&mut args.paths),
            Command::Run(args) => Some(&mut args.stores),
            Command::Plan(args) => Some(&mut args.stores),
            Command::Tune(args) => Some(&mut args.stores),
            _ => None,
        }
    }

    /// Inserts the stores that a file names: in place of the file, if that is given as a store (`stands`), or if the command line names
    /// none.
    fn put_stores(&mut self, file: &Path, stands: bool, named: Vec<PathBuf>) -> Result<(), Failure> {
        let is_mount = matches!(self, Command::Mount(_));
        let has_modalities = self.options().is_some_and(|options| !options.modality.is_empty());
        let Some(stores) = self.stores() else { return Ok(()) };
        if stands {
            if named.is_empty() && !has_modalities {
                let file = file.display();
                return Err(Failure::usage(format_args!("{file}: it stands for stores, so it needs stores = [...]")));
            }
            stores.splice(..1, named);
        } else if is_mount && stores.len() == 1 {
            stores.splice(..0, named);
        }
        Ok(())
    }
}

fn read(arguments: &[OsString]) -> Result<Option<Command>, Failure> {
    let parsed = Cli::command().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => Ok(Some(cli.command)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            end_quietly_on_closed_pipe();
            // Errors of printing help to a closed stdout are ignored.
            let _ = match error.kind() {
                ErrorKind::DisplayVersion => std::io::stdout().write_all(version::text().as_bytes()),
                _ => error.print(),
            };
            Ok(None)
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Failure::usage("a command is missing: mount, umount, run, plan, info or doctor (see --help)"))
        }
        Err(error) => Err(usage(&error)),
    }
}

fn usage(error: &clap::Error) -> Failure {
    Failure::usage(without_decoration(&error.to_string()))
}

/// clap's message as one line, without "error:" and usage.
fn without_decoration(message: &str) -> String {
    let text = message.split("\n\nUsage:").next().unwrap_or(message);
    let text = text.split("\n\nFor more information").next().unwrap_or(text);
    let text = text.strip_prefix("error: ").unwrap_or(text);
    // A tip is a separate sentence.
    format!("{} (see --help)", exit::one_line(&text.replace("\n\n", "; ")))
}

/// Whether mount(8) called this program as a helper, by its name.
fn is_helper_name(name: &OsStr) -> bool {
    let file = Path::new(name).file_name().and_then(OsStr::to_str);
    matches!(file, Some("mount.shufflefs" | "mount.fuse.shufflefs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(line: &[&str]) -> String {
        match parse(line.iter().map(OsString::from).collect()) {
            Err(failure) => failure.line(),
            Ok(_) => String::from("parsed"),
        }
    }

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_errors_are_one_line_that_says_what_is_allowed() {
        for (line, word) in [
            (&["shufflefs", "mount"][..], "MOUNTPOINT"),
            (&["shufflefs", "mount", "--batch-size", "0", "a", "b"], "1..=16777216"),
            (&["shufflefs", "mount", "--block-size", "x", "a", "b"], "1 to 1048576"),
            (&["shufflefs", "mount", "--bach-size", "1", "a", "b"], "--batch-size"),
            (&["shufflefs", "mount", "-o", "rw", "a", "b"], "read-only"),
            (&["shufflefs", "mount", "-o", "batch_size=x", "a", "b"], "--batch-size"),
            (&["shufflefs", "run", "a"], "<COMMAND>"),
            (&["shufflefs"], "umount"),
        ] {
            let message = failure(line);
            assert!(message.contains(word) && !message.contains('\n'), "{line:?}: {message}");
        }
    }

    #[test]
    fn the_last_positional_is_the_mountpoint_wherever_options_stand() {
        for line in [
            &["shufflefs", "mount", "a", "b", "m", "-f"][..],
            &["shufflefs", "mount", "-f", "a", "b", "m"],
            &["shufflefs", "mount", "a", "-f", "b", "m"],
        ] {
            let Ok(Some(Command::Mount(args))) = parse(line.iter().map(OsString::from).collect()) else {
                panic!("{line:?}");
            };
            let said = format!("{args:?}");
            assert!(said.contains(r#"paths: ["a", "b", "m"]"#) && said.contains("foreground: true"));
        }
    }

    #[test]
    fn a_file_stands_for_stores() {
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let file = directory.path().join("cells.toml");
        std::fs::write(&file, "stores = ['a', '/b']\nformat = 'npy'\n").unwrap_or_else(|error| panic!("{error}"));
        let file = file.to_str().unwrap_or_default();
        let places = [directory.path().join("a"), PathBuf::from("/b"), PathBuf::from("m")];
        for line in [&["shufflefs", "mount", file, "m"][..], &["shufflefs", "mount", "--config", file, "m"]] {
            let Ok(Some(Command::Mount(args))) = parse(line.iter().map(OsString::from).collect()) else {
                panic!("{line:?}");
            };
            assert_eq!(args.paths, places);
            assert_eq!((args.options.format.as_str(), args.options.config.is_some()), ("npy", true));
        }
        assert!(failure(&["shufflefs", "run", file, "--config", file, "--", "true"]).contains("leave out --config"));
    }

    #[test]
    fn the_command_line_wins_over_mount_options() {
        let line = ["shufflefs", "run", "-o", "seed=1,drop_last,obs=a,obs=b", "--seed", "2", "a", "--", "true", "-o"];
        let Ok(Some(Command::Run(args))) = parse(line.iter().map(OsString::from).collect()) else {
            panic!();
        };
        assert_eq!((args.options.sampling.seed, args.options.sampling.drop_last), (Some(2), Some(true)));
        assert_eq!(args.options.obs, Some(vec!["a".into(), "b".into()]));
    }
}

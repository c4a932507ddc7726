//! `shufflefs mount`: mounts and serves, in the background unless requested otherwise.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::checked::Options;
use super::exit::{Exit, Failure, OrExit, Outcome};
use super::log;
use super::options::OptionArgs;
use crate::mount::background::{self, Fork, Ready, Report};
use crate::mount::mountpoint::{Dead, Mountpoint};
use crate::mount::signals::{self, Signals};
use crate::mount::{Mounted, Settings};

const EXAMPLES: &str = "\
Examples:
  shufflefs mount cells.h5ad epochs
  shufflefs mount --batch-size 1024 --seed 7 plate1.zarr plate2.zarr /mnt/epochs
  shufflefs mount --split train=0.8,val=0.2 --split-by donor_id cells.h5ad /mnt/epochs
  mount -t fuse.shufflefs -o seed=7 /data/cells.h5ad /mnt/epochs   (with a link /sbin/mount.fuse.shufflefs to shufflefs)";

#[derive(Debug, Args)]
#[command(
    override_usage = "shufflefs mount [OPTIONS] <STORE>... <MOUNTPOINT>",
    after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP),
)]
pub struct MountArgs {
    /// AnnData stores (.h5ad, .zarr, .zarr.zip; STORE::GROUP for one inside), seen as one table of rows, or one .toml file with
    /// stores = [...] and options; and last the directory to mount on: empty, or absent (made, and removed at unmount), or
    /// /dev/fd/N for an opened /dev/fuse
    // One list, because clap does not accept options between it and a separate last argument.
    #[arg(value_name = "STORE... MOUNTPOINT", required = true, num_args = 1..)]
    pub paths: Vec<PathBuf>,

    #[command(flatten)]
    pub options: OptionArgs,

    /// Stay in the foreground and log to stderr [default: go to the background once the mount is usable]
    #[arg(short, long, help_heading = "Other")]
    foreground: bool,

    /// For a program that mounts for itself: stay in the foreground, print the mountpoint once it is usable, and unmount when
    /// standard input ends, so that no mount outlives the program [default: off]
    #[arg(long, help_heading = "Other")]
    attached: bool,

    /// Refuse a mountpoint where a killed daemon of shufflefs has left its mount [default: unmount it first]
    #[arg(long, help_heading = "Other")]
    refuse_dead: bool,
}

/// Runs the command. In the background, the caller's process returns when the mount is usable or has failed.
pub fn mount(args: MountArgs) -> Outcome {
    let mut stores = args.paths;
    let mountpoint = stores.pop().filter(|_| !stores.is_empty() || !args.options.modality.is_empty());
    let Some(mountpoint) = mountpoint else {
        return Err(Failure::usage("the mountpoint is missing: shufflefs mount [OPTIONS] <STORE>... <MOUNTPOINT>"));
    };
    let options = args.options.validate(stores)?;
    let place = Place { path: mountpoint, dead: if args.refuse_dead { Dead::Refuse } else { Dead::Clear } };
    if args.foreground || args.attached {
        return serve(options, place, args.attached, None).map(|()| 0);
    }
    match background::fork()? {
        Fork::Parent(Report::Ready) => Ok(0),
        Fork::Parent(Report::Failed(code, message)) => {
            super::exit::say(&message);
            Ok(code)
        }
        Fork::Parent(Report::Died(how)) => Err(Failure { exit: Exit::Internal, error: anyhow::anyhow!("{how}") }),
        Fork::Daemon(ready) => {
            let mut ready = Some(ready);
            let result = serve(options, place, false, Some(&mut ready));
            match (result, ready) {
                (Ok(()), _) => Ok(0),
                (Err(failure), Some(ready)) => {
                    ready.fail(failure.exit as u8, &failure.line());
                    Ok(failure.exit as u8)
                }
                // The parent and stderr are gone, so the error goes to the log.
                (Err(failure), None) => {
                    tracing::error!("{}", failure.line());
                    Ok(failure.exit as u8)
                }
            }
        }
    }
}

/// Where to mount.
struct Place {
    path: PathBuf,
    dead: Dead,
}

/// Mounts and serves until the end; if `attached`, also until standard input ends. `ready` is taken when the mount is usable.
fn serve(options: Options, place: Place, attached: bool, ready: Option<&mut Option<Ready>>) -> Result<(), Failure> {
    let mut ends = vec![libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
    if ready.is_none() {
        // `nohup` and a script's `&` make us ignore these: they must not end the mount then.
        ends.retain(|&number| number == libc::SIGTERM || !signals::is_ignored(number));
    }
    let signals = Signals::block(&ends)?;
    // Before any other file is opened and kept, as the path may name a descriptor.
    let mountpoint = Mountpoint::prepare(&place.path, place.dead)?;
    let log = log::start(options.log.as_deref(), ready.is_some())?;
    let settings = Settings {
        source: options.source(),
        allow_other: options.allow_other,
        threads: options.spec.threads,
        helper: true,
    };
    let filesystem = signals.during(move || options.filesystem(log))?.or_exit(Exit::Store)?;
    let started = filesystem.page_cache.starter();
    let mounted = Mounted::start(filesystem, mountpoint, &settings, started)?;
    if let Some(ready) = ready.and_then(Option::take) {
        ready.succeed()?;
    }
    let input = std::io::stdin();
    if attached {
        announce(mounted.path()).or_exit(Exit::Internal)?;
    }
    Ok(mounted.wait(&signals, attached.then(|| input.as_fd()))?)
}

/// Prints the mountpoint on stdout. Errors mean that the caller is gone, and then standard input has ended, too.
fn announce(path: &Path) -> std::io::Result<()> {
    let mut line = path.as_os_str().as_bytes().to_vec();
    line.push(b'\n');
    let mut out = std::io::stdout();
    out.write_all(&line).and_then(|()| out.flush())
}

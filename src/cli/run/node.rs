//! `run --node`: the processes of one job on a node share one mount.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{RunArgs, end_as, in_mount, mount};
use crate::cli::checked::Options;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::inherited::Inherited;
use crate::cli::launcher;
use crate::cli::log::Recent;
use crate::mount::namespace::Namespace;
use crate::mount::node::{self, Answer, Daemon, Meeting};
use crate::mount::signals::Signals;

/// Number of restarts if the daemon has ended together with another member.
const ATTEMPTS: usize = 100;

/// A name, for a socket, that exactly the processes that can share a mount have in common: it depends on user, job, stores and options,
/// place of the mount, and the namespaces of the file system.
pub fn job(name: &str, args: &RunArgs) -> String {
    let mut hash = DefaultHasher::new();
    let job = match name {
        "" => launcher::job(&|name| std::env::var(name).ok())
            .unwrap_or_else(|| format!("parent {}", std::os::unix::process::parent_id())),
        name => format!("name {name}"),
    };
    let namespace = |kind: &str| std::fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |file| file.ino());
    let stores: Vec<_> = args.stores.iter().map(std::path::absolute).map(Result::ok).collect();
    (env!("CARGO_PKG_VERSION"), job, namespace("mnt"), namespace("user")).hash(&mut hash);
    (stores, &args.at, format!("{:?}", args.options)).hash(&mut hash);
    format!("shufflefs-{}-{:016x}", rustix::process::geteuid(), hash.finish())
}

pub fn run(
    job: &str,
    at: Option<&Path>,
    words: &[OsString],
    options: Options,
    signals: &Signals,
    log: Recent,
    inherited: &Inherited,
) -> Outcome {
    let failed = |line: String| Failure { exit: Exit::Run, error: anyhow::anyhow!("{line}") };
    for _ in 0..ATTEMPTS {
        let member = match node::meet(job)? {
            Meeting::Daemon(daemon) => return serve(daemon, at, options, signals, log),
            Meeting::Member(member) => member,
        };
        match member.answer(signals)? {
            Answer::Usable { place, namespace } => {
                return Ok(end_as(in_mount(words, &place, member.ended(), signals, namespace, inherited)?));
            }
            Answer::Refused(line) => return Err(failed(line)),
            Answer::Gone => {}
        }
    }
    Err(failed("--node: the processes that were to mount for this job have ended, one after the other".into()))
}

/// Runs in the daemon: mounts for all members.
fn serve(daemon: Daemon, at: Option<&Path>, options: Options, signals: &Signals, log: Recent) -> Outcome {
    let mounted = Namespace::enter()
        .map_err(Failure::from)
        .and_then(|namespace| Ok((mount(&namespace, at, options, signals, log)?, namespace)));
    match mounted {
        Ok((mounted, namespace)) => {
            daemon.serve(&mounted, &namespace, signals)?;
            Ok(0)
        }
        Err(failure) => {
            daemon.refuse(&failure.line());
            Ok(failure.exit as u8)
        }
    }
}

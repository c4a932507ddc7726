//! `-o name=value,...`: the spelling of mount(8) and fstab.
//!
//! Each name becomes the long option of the same name, so a value is parsed and refused exactly as on the command
//! line. The long options are put in front of the others: what is said by `--name` wins.

use std::ffi::OsString;

use clap::Command;

/// Options of mount(8), systemd and the kernel that have no meaning for a read-only mount of ours, or are always on.
const IGNORED: &[&str] = &[
    "ro",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "_rnetdev",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "defaults",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "async",
    "sync",
    "dirsync",
    "silent",
    "loud",
    "default_permissions",
    "fsname",
    "subtype",
    "comment",
];

/// The long options that stand for these; `command` is the subcommand that knows them. `is_helper` when mount(8) calls
/// us, which always says `rw` unless told otherwise.
pub fn expand(lists: &[String], command: &Command, is_helper: bool) -> Result<Vec<OsString>, String> {
    let mut arguments = Vec::new();
    for item in lists.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|item| !item.is_empty()) {
        let (name, value) = match item.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (item, None),
        };
        if is_ignored(name) || (name == "rw" && is_helper) {
            continue;
        }
        if name == "rw" {
            return Err("-o rw: a shufflefs mount is read-only".into());
        }
        let long = name.replace('_', "-");
        let known = command.get_arguments().find(|argument| argument.get_long() == Some(&long));
        let Some(argument) = known else {
            return Err(format!("-o {name}: no such option; `shufflefs {} --help` lists them", command.get_name()));
        };
        match (argument.get_action().takes_values(), value) {
            (true, Some(value)) => arguments.push(format!("--{long}={value}").into()),
            // One that has a value of its own where none is said.
            (true, None) if argument.get_num_args().is_some_and(|count| count.min_values() == 0) => {
                arguments.push(format!("--{long}").into());
            }
            (true, None) => {
                return Err(format!("-o {name}: a value is missing, as in {name}=VALUE"));
            }
            (false, None) => arguments.push(format!("--{long}").into()),
            (false, Some(_)) => return Err(format!("-o {name}: takes no value")),
        }
    }
    Ok(arguments)
}

fn is_ignored(name: &str) -> bool {
    IGNORED.contains(&name) || name.starts_with("x-") || name.starts_with("X-")
}

/// The command line of a mount(8) helper, `mount.fuse.shufflefs SOURCE DIR [-sfnv] [-N NS] [-o OPTIONS] [-t TYPE]`, as
/// one of ours.
pub fn helper(arguments: impl Iterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut ours: Vec<OsString> = vec!["shufflefs".into(), "mount".into()];
    let mut places = Vec::new();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("-o") => {
                ours.push("-o".into());
                ours.extend(arguments.next());
            }
            Some("-t" | "-N") => drop(arguments.next()),
            // Quiet about unknown options, no mtab, verbose: nothing to do. "Fake" would mean not to mount.
            Some("-f") => return Err("-f (a mount that is only pretended) is not supported".into()),
            Some("-s" | "-n" | "-v") => {}
            _ => places.push(argument),
        }
    }
    if places.len() < 2 {
        return Err("usage: mount.fuse.shufflefs STORE MOUNTPOINT [-o OPTIONS]".into());
    }
    ours.push("--".into());
    ours.append(&mut places);
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction};

    fn command() -> Command {
        Command::new("mount")
            .arg(Arg::new("batch-size").long("batch-size"))
            .arg(Arg::new("drop-last").long("drop-last").action(ArgAction::SetTrue))
    }

    fn expanded(list: &str) -> Result<Vec<OsString>, String> {
        expand(&[list.to_owned()], &command(), false)
    }

    #[test]
    fn names_become_long_options() {
        let expected: Vec<OsString> = vec!["--batch-size=64".into(), "--drop-last".into()];
        assert_eq!(expanded("ro,batch_size=64,x-systemd.automount,drop-last,_netdev"), Ok(expected));
    }

    #[test]
    fn refusals_name_the_option() {
        for (list, word) in
            [("rw", "read-only"), ("bach_size=1", "no such"), ("batch_size", "value"), ("drop_last=1", "no value")]
        {
            assert!(expanded(list).unwrap_err().contains(word), "{list}");
        }
    }

    #[test]
    fn mount_8_always_says_rw() {
        assert_eq!(expand(&["rw,noatime".into()], &command(), true), Ok(Vec::new()));
    }

    #[test]
    fn the_helper_convention() {
        let line = ["/s.h5ad", "/mnt", "-n", "-o", "rw,seed=1", "-t", "fuse.shufflefs"].map(OsString::from);
        let ours: Vec<OsString> =
            ["shufflefs", "mount", "-o", "rw,seed=1", "--", "/s.h5ad", "/mnt"].map(Into::into).into();
        assert_eq!(helper(line.into_iter()), Ok(ours));
    }
}

//! `-o name=value,...`: the syntax of mount(8) and fstab.
//!
//! Each name is replaced by the long option with that name, so values are checked as on the command line. These options are inserted in
//! front of the others, so `--name` takes precedence.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::Command;

/// Options of mount(8), systemd and the kernel that have no meaning for a read-only mount, or are always on.
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

/// The long options for some `-o` lists; `command` is the subcommand that has them. `is_helper`: called by mount(8), which passes `rw`
/// unless told otherwise.
pub fn expand(lists: &[OsString], command: &Command, is_helper: bool) -> Result<Vec<OsString>, String> {
    let mut arguments = Vec::new();
    // Paths need not be UTF-8, so each byte is treated as a character below 256 until the arguments are made.
    let lists: Vec<String> =
        lists.iter().map(|list| list.as_bytes().iter().copied().map(char::from).collect()).collect();
    let items = lists.iter().map(|list| items(list)).collect::<Result<Vec<_>, _>>()?;
    for (name, value) in items.into_iter().flatten() {
        let name = bytes(name).to_string_lossy().into_owned();
        let name = name.as_str();
        if is_ignored(name) || (name == "rw" && is_helper) {
            continue;
        }
        if name == "remount" {
            return Err(
                "-o remount: the options of a mount are fixed, as its files depend on them; `shufflefs umount` it and \
                        mount it again"
                    .into(),
            );
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
            (true, Some(value)) => {
                let mut said = OsString::from(format!("--{long}="));
                said.push(bytes(&value));
                arguments.push(said);
            }
            // An option whose value is optional.
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

/// Converts characters below 256 back to bytes.
fn bytes(characters: &str) -> OsString {
    OsString::from_vec(characters.chars().filter_map(|character| u8::try_from(character).ok()).collect())
}

fn is_ignored(name: &str) -> bool {
    IGNORED.contains(&name) || name.starts_with("x-") || name.starts_with("X-")
}

/// Splits a list at commas into names and values, by mount(8)'s rules. A value that starts with a quotation mark ends at the next one and
/// may
/// contain commas; in it a backslash quotes the next character. The quotation marks are removed.
fn items(list: &str) -> Result<Vec<(&str, Option<String>)>, String> {
    let mut items = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let (name, after) = (trimmed(&rest[..end]), &rest[end..]);
        let value;
        (value, rest) = match after.strip_prefix('=') {
            None => (None, after),
            Some(quoted) if quoted.starts_with('"') => {
                let (value, after) = unquoted(&quoted[1..]).ok_or_else(|| {
                    format!(
                        "-o {name}: a quoted value ends with a quotation mark, and a comma or nothing comes after it"
                    )
                })?;
                (Some(value), after)
            }
            Some(plain) => {
                let end = plain.find(',').unwrap_or(plain.len());
                (Some(trimmed(&plain[..end]).to_owned()), &plain[end..])
            }
        };
        rest = rest.strip_prefix(',').unwrap_or(rest);
        if !name.is_empty() || value.is_some() {
            items.push((name, value));
        }
    }
    Ok(items)
}

/// Trims ASCII white space. Other characters are bytes, possibly within a UTF-8 sequence.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_ascii_whitespace())
}

/// Reads a value up to its closing quotation mark; also returns the rest.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let after = text.get(at + 1..)?;
                return (after.is_empty() || after.starts_with(',')).then_some((value, after));
            }
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// Whether mount.fuse called this program for a mount of type `fuse.shufflefs`, as it does if no helper of that name is installed:
/// `shufflefs SOURCE DIR -o OPTIONS`.
pub fn is_from_mount_fuse(arguments: &[OsString], is_command: impl Fn(&OsString) -> bool) -> bool {
    match arguments {
        [_, source, _, option, _] => option == "-o" && !is_command(source),
        _ => false,
    }
}

/// Converts the arguments of a mount(8) helper, `mount.fuse.shufflefs SOURCE DIR [-sfnv] [-N NS] [-o OPTIONS] [-t TYPE]`, to those of
/// this program.
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
            // -f would pretend to mount. -s (tolerate unknown options), -n (no mtab) and -v (verbose) have no effect here.
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
        expand(&[list.into()], &command(), false)
    }

    #[test]
    fn names_become_long_options() {
        let expected: Vec<OsString> = vec!["--batch-size=64".into(), "--drop-last".into()];
        assert_eq!(expanded("ro,batch_size=64,x-systemd.automount,drop-last,_netdev"), Ok(expected));
    }

    #[test]
    fn quoted_values_hold_commas() {
        let of = |list: &str| expanded(list).map(|words| words.join(std::ffi::OsStr::new(" ")));
        for (list, words) in [
            (r#"batch_size="a=0.8,b=0.2",drop_last"#, "--batch-size=a=0.8,b=0.2 --drop-last"),
            (r#"batch_size="x in [\"a\",\"b\"]""#, r#"--batch-size=x in ["a","b"]"#),
            // Quotation marks within a value are kept.
            (r#"batch_size=tissue == "lung",ro"#, r#"--batch-size=tissue == "lung""#),
            (r#"batch_size="","#, "--batch-size="),
        ] {
            assert_eq!(of(list), Ok(words.into()), "{list}");
        }
        for wrong in [r#"batch_size="a"#, r#"batch_size="a"b"#, r#"batch_size="a\"#] {
            assert!(expanded(wrong).is_err_and(|error| error.contains("quotation mark")), "{wrong}");
        }
    }

    #[test]
    fn values_need_not_be_text() {
        let list = OsString::from_vec(b"ro,batch_size=/donn\xe9es\xa0,drop_last".to_vec());
        let expected = [OsString::from_vec(b"--batch-size=/donn\xe9es\xa0".to_vec()), "--drop-last".into()];
        assert_eq!(expand(&[list], &command(), false), Ok(expected.to_vec()));
        assert_eq!(expanded("batch_size=größe é"), Ok(vec!["--batch-size=größe é".into()]));
    }

    #[test]
    fn mount_fuse_is_recognised() {
        let from = |line: &[&str]| {
            let line: Vec<OsString> = line.iter().map(OsString::from).collect();
            is_from_mount_fuse(&line, |word| word == "mount")
        };
        assert!(from(&["shufflefs", "/s.h5ad", "/mnt", "-o", "rw,seed=1"]));
        assert!(!from(&["shufflefs", "mount", "/s.h5ad", "-o", "seed=1"]));
        assert!(!from(&["shufflefs", "muont", "-o", "seed=1", "a", "b"]));
    }

    #[test]
    fn refusals_name_the_option() {
        for (list, word) in [
            ("rw", "read-only"),
            ("remount,seed=1", "mount it again"),
            ("bach_size=1", "no such"),
            ("batch_size", "value"),
            ("drop_last=1", "no value"),
        ] {
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

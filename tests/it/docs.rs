//! The documentation: its code blocks are run unchanged, its site is built and has no broken links.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::area::{Area, is_root};
use crate::support::{ROOT, bounded, python, succeed};

#[test]
fn code_blocks_run() {
    if !is_root() {
        eprintln!("skipped: the pages mount below /mnt, which needs root");
        return;
    }
    let area = Area::new();
    let directory = area.path("blocks");
    fs::create_dir(&directory).unwrap();
    // A separate /mnt in a namespace, whatever this machine has there.
    let mut command = bounded(600, "unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", "mount -t tmpfs none /mnt && exec \"$@\"", "sh"]);
    let check = python("check_docs.py");
    command.arg(check.get_program()).args(check.get_args()).arg("blocks").arg(env!("CARGO_BIN_EXE_shufflefs"));
    command.arg(&directory).arg(Path::new(ROOT).join("README.md"));
    let mut pages: Vec<_> =
        fs::read_dir(Path::new(ROOT).join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    command.args(pages.iter().filter(|path| path.extension().is_some_and(|end| end == "md")));
    let said = succeed(&mut command);
    for page in ["README.md", "first-steps.md", "train.md", "shuffle.md", "splits-and-resuming.md"] {
        assert!(said.lines().any(|line| line.starts_with(page) && line.ends_with(": run")), "{page}: {said}");
    }
    said.lines().filter(|line| line.contains("not run")).for_each(|line| eprintln!("{line}"));
}

#[test]
fn the_site_is_whole() {
    let area = Area::new();
    let site = area.path("site");
    if let Err(why) = Command::new("curl").arg("--version").output() {
        eprintln!("skipped: packaging/site needs curl to fetch mdBook: {why}");
        return;
    }
    let mut build = bounded(300, Path::new(ROOT).join("packaging/site"));
    succeed(build.arg(env!("CARGO_BIN_EXE_shufflefs")).arg(&site));
    succeed(python("check_docs.py").arg("links").arg(&site));
    let commands = fs::read_to_string(site.join("commands.html")).unwrap();
    for word in ["id=\"mount\"", "id=\"doctor\"", "--batch-size"] {
        assert!(commands.contains(word), "{word}");
    }
}

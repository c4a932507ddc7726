//! `shufflefs manifest`: the SHA-256 of all files of an epoch, so that others can verify the batches that a publication used.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::exit::{Exit, Failure, OrExit, Outcome};

const EXAMPLES: &str = "\
Examples:
  shufflefs manifest /mnt/cells epoch-0000 > epoch-0000.sha256
  shufflefs manifest --check epoch-0000.sha256 /mnt/cells
  cd /mnt/cells && sha256sum --check ~/epoch-0000.sha256";

#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP))]
pub struct ManifestArgs {
    /// Where it is mounted
    mount: PathBuf,

    /// Directories of batches below it, such as epoch-0000 or train/epoch-0003
    #[arg(value_name = "DIRECTORY", required_unless_present = "check")]
    directories: Vec<PathBuf>,

    /// Compare the mount with what was printed earlier; prints what differs, and ends with 3 if anything does
    #[arg(long, value_name = "FILE", conflicts_with = "directories")]
    check: Option<PathBuf>,
}

pub fn manifest(args: &ManifestArgs) -> Outcome {
    match &args.check {
        Some(file) => check(&args.mount, file),
        None => print(&args.mount, &args.directories),
    }
}

fn print(mount: &Path, directories: &[PathBuf]) -> Outcome {
    let mut text = String::new();
    // sha256sum ignores lines that start with `#`.
    for (name, key) in [("dataset.json", "options"), (".shufflefs/options.json", "stores")] {
        let document: serde_json::Value =
            fs::read(mount.join(name)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        if let Some(value) = document.get(key) {
            _ = writeln!(text, "# {key}: {value}");
        }
    }
    for directory in directories {
        let place = mount.join(directory);
        let entries = fs::read_dir(&place).map_err(|error| failure(&place, &error))?;
        let mut names: Vec<PathBuf> = entries.flatten().map(|entry| directory.join(entry.file_name())).collect();
        names.sort();
        for (name, sum) in names.iter().zip(sums(mount, &names)) {
            let sum = sum.map_err(|error| failure(&mount.join(name), &error))?;
            _ = writeln!(text, "{sum}  {}", name.display());
        }
    }
    io::stdout().write_all(text.as_bytes()).or_exit(Exit::Internal)?;
    Ok(0)
}

fn check(mount: &Path, file: &Path) -> Outcome {
    let text = fs::read_to_string(file).map_err(|error| failure(file, &error))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let line = |(number, line): (usize, &str)| match line.split_once("  ") {
        Some((sum, name)) if sum.len() == 64 => Ok((sum.to_owned(), PathBuf::from(name))),
        _ => Err(Failure::usage(format!("{}: line {} is no SHA-256 and name", file.display(), number + 1))),
    };
    let (wanted, names): (Vec<String>, Vec<PathBuf>) =
        lines.map(line).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    if names.is_empty() {
        return Err(Failure::usage(format!("{}: it names no file", file.display())));
    }
    let mut out = io::stdout().lock();
    let mut wrong = 0;
    for ((want, name), found) in wanted.iter().zip(&names).zip(sums(mount, &names)) {
        let why = match found {
            Ok(found) if found == *want => continue,
            Ok(_) => "other bytes".to_owned(),
            Err(error) => error.to_string(),
        };
        wrong += 1;
        writeln!(out, "{}: {why}", name.display()).or_exit(Exit::Internal)?;
    }
    let all = names.len();
    writeln!(out, "{} of {all} files are the same", all - wrong).or_exit(Exit::Internal)?;
    Ok(if wrong == 0 { 0 } else { Exit::Store as u8 })
}

/// Checksums of files, in order; computed in parallel, where the engine decodes each fetch once.
fn sums(mount: &Path, names: &[PathBuf]) -> Vec<io::Result<String>> {
    names.par_iter().map(|name| sum(&mount.join(name))).collect()
}

fn sum(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let (mut file, mut piece) = (File::open(path)?, vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => hash.update(&piece[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure { exit: Exit::Store, error: anyhow::anyhow!("{}: {error}", path.display()) }
}

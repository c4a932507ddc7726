//! The fuzz targets with the inputs of their corpora (`fuzz/corpus`): they compile, and earlier faults do not recur.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::text;

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

const VARIABLE: &str = "SHUFFLEFS_FUZZ_TARGET";

/// Not a test: one target with all inputs of its corpus, in a separate process.
#[test]
#[ignore = "run by inputs_of_the_corpora in a process of its own"]
fn worker() {
    targets::end_at_panics();
    let name = std::env::var(VARIABLE).unwrap();
    let (_, run) = targets::TARGETS.into_iter().find(|(other, _)| *other == name).unwrap();
    let inputs = fs::read_dir(targets::corpus().join(&name)).unwrap();
    let mut inputs: Vec<_> = inputs.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    for input in &inputs {
        println!("{}", input.display());
        run(&fs::read(input).unwrap());
    }
    println!("{} inputs", inputs.len());
}

#[test]
fn inputs_of_the_corpora() {
    let mut total = 0;
    for (name, _) in targets::TARGETS {
        let mut command = Command::new("timeout");
        command.arg("120").arg(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "fuzz_inputs::worker", "--nocapture", "--test-threads=1"]);
        command.env(VARIABLE, name).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stdout);
        let count = said.lines().find_map(|line| line.strip_suffix(" inputs")?.parse::<u64>().ok());
        // libhdf5 may crash on a damaged file; a mount opens it in a child first.
        let allowed = name == "h5ad" && output.status.code().is_none_or(|code| code > 128);
        assert!(
            count.is_some() || allowed,
            "{name}: {}: {}\n{}",
            output.status,
            said.lines().last().unwrap_or_default(),
            text(&output.stderr)
        );
        assert!(count != Some(0), "{name} has no inputs");
        total += count.unwrap_or_default();
    }
    println!("{total} inputs");
    for place in fs::read_dir("/dev/shm/shufflefs-fuzz").into_iter().flatten().flatten() {
        let process =
            place.file_name().into_string().ok().and_then(|name| name.rsplit('-').next()?.parse::<i32>().ok());
        if process.is_some_and(|process| !crate::area::is_alive(process)) {
            let _ = fs::remove_dir_all(place.path());
        }
    }
}

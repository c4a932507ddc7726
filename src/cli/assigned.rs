//! `--split-toml`: the file, read and checked before any store is opened, as its views are named by it.

use std::path::Path;

use super::exit::Failure;
use crate::session::spec::AssignedSpec;
use crate::view::assigned::Assigned;

/// Fills in the rules of the file. Paths in it begin in `here`, as cell-load has them.
///
/// # Errors
/// There is another split; the file cannot be read, or is none.
pub fn read(mut spec: AssignedSpec, is_split: bool, here: &Path) -> Result<AssignedSpec, Failure> {
    if is_split {
        return Err(Failure::usage("--split-toml divides the rows: not with --split"));
    }
    let file = spec.file.display();
    let text = std::fs::read_to_string(&spec.file);
    let text = text.map_err(|error| Failure::usage(format_args!("--split-toml {file}: {error}")))?;
    let mut rules =
        Assigned::parse(&text).map_err(|error| Failure::usage(format_args!("--split-toml {file}: {error}")))?;
    for path in rules.datasets.values_mut() {
        *path = here.join(&*path).to_string_lossy().into_owned();
    }
    spec.rules = rules;
    Ok(spec)
}

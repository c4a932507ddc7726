//! `--split-toml`: read before any store is opened, as the file determines the names of views.

use std::path::Path;

use super::exit::Failure;
use crate::session::spec::AssignedSpec;
use crate::view::assigned::Assigned;

/// Reads and checks the rules of the file. Relative paths in it are relative to `here`, as in cell-load.
///
/// # Errors
/// There is another split; the file cannot be read, or is invalid.
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

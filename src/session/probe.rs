//! The probe: a child process opens the stores before the mount does, so that a crash, an endless loop or runaway memory of
//! libhdf5 is one line and not the mount's end (see `isolate`).
//!
//! The child walks the code that the mount walks, [`Collection::open`] and [`Obs::load`], with the mount's own
//! [`Selection`]; so whatever a later version opens besides is opened in the child first. It skips what needs no library:
//! large arrays are opened and not read, nothing is derived. It gets the stores alone that a C library parses (`Kind::needs_trial`).

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::array::Counters;
use crate::array::container::{file_of, needs_trial};
use crate::collection::{Collection, Selection, Visit};
use crate::storage::{self, Identity};

use super::error::{About, SessionError};
use super::isolate::{self, ChildTask, Failed};
use super::memory;
use super::obs::Obs;
use super::spec::{ROW_NAMES, Spec};

/// The child's request, as JSON on its standard input; the stores are its arguments.
#[derive(Serialize, Deserialize)]
struct Request {
    selection: Selection,
    /// obs columns that views read.
    columns: Vec<String>,
    /// Whether the mount opens further stores, which no C library parses.
    partial: bool,
}

/// The child. What is refused is no failure here: the parent will come to the same error, and report it.
///
/// # Errors
/// The request cannot be read.
pub fn child(stores: &[PathBuf]) -> Result<(), SessionError> {
    isolate::volunteer();
    let Request { mut selection, columns, partial } =
        serde_json::from_reader(io::stdin().lock()).map_err(|error| SessionError::Refused(error.to_string()))?;
    // If it is the last word, the parent knows which store it was.
    selection.visit = Some(Visit { tell: |store| println!("{store}"), partial });
    let counters = Counters { room: memory::metadata(), ..Counters::default() };
    let Ok(collection) = Collection::open(stores, &selection, &counters) else { return Ok(()) };
    let Ok(mut obs) = Obs::new(&collection, &counters) else { return Ok(()) };
    for name in columns {
        drop(obs.load(&name));
    }
    Ok(())
}

/// Files that libhdf5 was seen to open; they must stay what they are.
#[derive(Debug, Default)]
pub struct Probed(Vec<Identity>);

impl Probed {
    /// # Errors
    /// A file is not the one that was probed.
    pub fn confirm(&self) -> Result<(), SessionError> {
        for file in &self.0 {
            if let Some(cause) = file.changed().about(&file.address)? {
                let again = "while it was being opened; try again once nobody writes it";
                return Err(SessionError::Refused(format!("{cause} {again}")));
            }
        }
        Ok(())
    }
}

/// Has a child open the stores, if libhdf5 is needed for any of them; `also` names columns that will be read besides.
///
/// # Errors
/// The child did not survive a store, or a file changed meanwhile.
pub fn stores(spec: &Spec, also: &[String]) -> Result<Probed, SessionError> {
    let parsed: Vec<PathBuf> = spec.stores.iter().filter(|path| needs_trial(path)).cloned().collect();
    if parsed.is_empty() {
        return Ok(Probed::default());
    }
    let mut files = Vec::new();
    for path in &parsed {
        let file = file_of(path);
        let identity = storage::locate(file).and_then(|address| Identity::of(&address));
        files.push(identity.about(file.display())?);
    }
    let probed = Probed(files);
    if let Some((store, reason)) = fate(spec, also, &parsed)? {
        return Err(SessionError::Refused(format!("{store}: {reason}")));
    }
    probed.confirm()?;
    Ok(probed)
}

/// Which store a child did not survive, if there is one, and how it ended.
fn fate(spec: &Spec, also: &[String], parsed: &[PathBuf]) -> Result<Option<(String, String)>, SessionError> {
    let selection = spec.selection(also);
    let mut columns = selection.also.clone();
    if spec.lists_rows() {
        columns.push(ROW_NAMES[0].to_owned());
    }
    let partial = parsed.len() < spec.stores.len();
    let request = serde_json::to_vec(&Request { selection, columns, partial }).map_err(io::Error::other)?;
    let mut arguments: Vec<OsString> = vec!["probe".into(), "--".into()];
    arguments.extend(parsed.iter().map(|path| path.clone().into_os_string()));
    let task = ChildTask { arguments, input: request, stores: parsed, patience: spec.timeout, terminal: false };
    Ok(match isolate::run(&task) {
        Ok(_) => None,
        Err(Failed::Ended(reason, said)) => {
            let last = String::from_utf8_lossy(&said).lines().last().map(str::to_owned);
            let first = || parsed.first().map(|store| store.display().to_string());
            Some((last.or_else(first).unwrap_or_default(), reason))
        }
        Err(Failed::NotStarted(error)) => {
            tracing::warn!("no process can be started to try the stores in, so they are opened untried: {error}");
            None
        }
    })
}

//! `shufflefs probe`: opens stores as a mount would and says nothing, or dies of it. Hidden; see `isolate`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::exit::Outcome;
use super::isolate::{self, Failed, Work, is_for_hdf5};
use super::memory;
use super::options::Options;
use crate::array::container::file_of;
use crate::array::{Counters, Identity};
use crate::collection::{Collection, Selection};

#[derive(Debug, Args)]
pub struct ProbeArgs {
    #[arg(long, default_value = "X")]
    x: String,
    /// As JSON, to keep names with commas whole
    #[arg(long)]
    obs: Option<String>,
    #[arg(value_name = "STORE", required = true)]
    stores: Vec<PathBuf>,
}

/// The child. Stores that are refused are no failure here: the parent will be told the same, and say it.
pub fn probe(args: &ProbeArgs) -> Outcome {
    isolate::volunteer();
    let obs = args.obs.as_deref().and_then(|names| serde_json::from_str(names).ok());
    let selection = Selection { x: args.x.clone(), obs };
    let counters = Counters { room: memory::metadata(), ..Counters::default() };
    let opened = Collection::open(&args.stores, &selection, &counters);
    // Closing is libhdf5's work as well.
    drop(opened);
    Ok(0)
}

/// Files that libhdf5 was seen to open; they must stay what they are.
#[derive(Debug, Default)]
pub struct Probed(Vec<Identity>);

impl Probed {
    /// Fails if a file is not the one that was probed.
    pub fn confirm(&self) -> anyhow::Result<()> {
        match self.0.iter().find_map(Identity::changed) {
            None => Ok(()),
            Some(cause) => anyhow::bail!("{cause} while it was being opened; try again once nobody writes it"),
        }
    }
}

/// Has a child open the stores, if libhdf5 is needed for any of them.
pub fn stores(options: &Options) -> anyhow::Result<Probed> {
    let parsed: Vec<PathBuf> = options.stores.iter().filter(|path| is_for_hdf5(path)).cloned().collect();
    if parsed.is_empty() {
        return Ok(Probed::default());
    }
    let mut files = Vec::new();
    for path in &parsed {
        let file = file_of(path);
        let metadata = std::fs::metadata(file).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
        files.push(Identity::of(file, &metadata));
    }
    let probed = Probed(files);
    if let Some(reason) = fate(options, &options.stores) {
        // Alone, each in a child of its own, to tell which it was.
        let alone = parsed.iter().find_map(|path| {
            let reason = if parsed.len() == 1 { reason.clone() } else { fate(options, std::slice::from_ref(path))? };
            Some((path.display().to_string(), reason))
        });
        let (store, reason) = alone.unwrap_or_else(|| (format!("one of {} stores", parsed.len()), reason));
        anyhow::bail!("{store}: {reason}");
    }
    probed.confirm()?;
    Ok(probed)
}

/// What became of a child that opened these stores, if it was not well.
fn fate(options: &Options, stores: &[PathBuf]) -> Option<String> {
    let mut arguments: Vec<OsString> = vec!["probe".into(), "--x".into(), options.x.clone().into()];
    if let Some(names) = &options.obs {
        arguments.extend(["--obs".into(), serde_json::json!(names).to_string().into()]);
    }
    match isolate::run(&Work { arguments, stores, patience: options.timeout, terminal: false }) {
        Ok(_) => None,
        Err(Failed::Ended(reason)) => Some(reason),
        Err(Failed::NotStarted(error)) => {
            tracing::warn!("no process can be started to try the stores in, so they are opened untried: {error}");
            None
        }
    }
}

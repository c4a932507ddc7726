//! `shufflefs probe`: opens stores as a mount would and says nothing, or dies of it. Hidden; see `isolate`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::exit::Outcome;
use super::isolate::{self, ChildTask, Failed, is_for_hdf5};
use super::memory;
use super::options::Options;
use super::select;
use crate::anndata;
use crate::anndata::dataframe::{ColumnKind, DataFrame};
use crate::anndata::index::rows::RowIndex;
use crate::anndata::matrix::Matrix;
use crate::array::container::file_of;
use crate::array::{Container, Counters};
use crate::collection::genes::Genes;
use crate::storage::{self, Identity};

#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Matrices, as JSON
    #[arg(long, default_value = "[]")]
    matrices: String,
    /// A column of var that chooses genes
    #[arg(long)]
    var: Option<String>,
    /// As JSON, to keep names with commas whole
    #[arg(long)]
    obs: Option<String>,
    /// Columns that views need besides, as JSON
    #[arg(long, default_value = "[]")]
    also: String,
    #[arg(value_name = "STORE", required = true)]
    stores: Vec<PathBuf>,
}

/// The child. What is refused is no failure here: the parent will be told the same, and say it.
pub fn probe(args: &ProbeArgs) -> Outcome {
    isolate::volunteer();
    let names: Option<Vec<String>> = args.obs.as_deref().and_then(|names| serde_json::from_str(names).ok());
    let matrices: Vec<String> = serde_json::from_str(&args.matrices).unwrap_or_default();
    let also: Vec<String> = serde_json::from_str(&args.also).unwrap_or_default();
    for (number, path) in args.stores.iter().enumerate() {
        // If it is the last word, the parent knows which store it was.
        println!("{number}");
        for (_, store) in anndata::stores(path).unwrap_or_default() {
            for x in &matrices {
                matrix(&store, x, args.var.as_deref());
            }
            obs(&store, names.as_deref(), &also);
        }
    }
    Ok(0)
}

/// Asks of a store all that a mount asks of a matrix; what a mount makes of several stores together asks for no more.
fn matrix(store: &Container, x: &str, var: Option<&str>) {
    let counters = Counters { room: memory::metadata(), ..Counters::default() };
    // A matrix stored by column is only opened: to transpose it is for the mount, and needs no more of the library.
    if !matches!(Matrix::open_by_column(store, x, &counters), Ok(Some(_))) {
        drop(Matrix::look(store, x, &counters));
    }
    let frame = if x.starts_with("raw/") { "raw/var" } else { "var" };
    let Ok(frame) = DataFrame::open(store, frame) else { return };
    drop(frame.names(&counters));
    if let Some(name) = var.filter(|name| frame.columns.iter().any(|known| known == name)) {
        drop(frame.column(name, &counters));
    }
}

/// Asks the same of obs.
fn obs(store: &Container, names: Option<&[String]>, also: &[String]) {
    let counters = Counters { room: memory::metadata(), ..Counters::default() };
    // Large arrays are opened, not read: that is for the mount, which needs no more of the library for it, or finds them
    // in its index.
    let looking = RowIndex::looking();
    let Ok(frame) = DataFrame::open(store, "obs").map(|frame| frame.with(&looking)) else { return };
    for name in names.unwrap_or(&frame.columns) {
        match frame.kind(name) {
            Ok(ColumnKind::Text) if names.is_none() => {}
            Ok(kind) if kind != ColumnKind::Other => drop(frame.column(name, &counters)),
            _ => {}
        }
    }
    for name in also {
        match frame.kind(name) {
            Ok(kind) if kind != ColumnKind::Other => drop(frame.column(name, &counters)),
            // Rows by name, or no column at all.
            _ => {}
        }
    }
    // Each is a string that the library reads: not for a mount that asks for none.
    if also.iter().any(|name| ["_index", "index"].contains(&name.as_str())) {
        drop(frame.names(&counters));
    }
}

/// Files that libhdf5 was seen to open; they must stay what they are.
#[derive(Debug, Default)]
pub struct Probed(Vec<Identity>);

impl Probed {
    /// Fails if a file is not the one that was probed.
    pub fn confirm(&self) -> anyhow::Result<()> {
        for file in &self.0 {
            let changed = file.changed().map_err(|e| anyhow::anyhow!("{}: {e}", file.address))?;
            if let Some(cause) = changed {
                anyhow::bail!("{cause} while it was being opened; try again once nobody writes it");
            }
        }
        Ok(())
    }
}

/// Has a child open the stores, if libhdf5 is needed for any of them; `also` names columns that will be read besides.
pub fn stores(options: &Options, also: &[String]) -> anyhow::Result<Probed> {
    let parsed: Vec<PathBuf> = options.stores.iter().filter(|path| is_for_hdf5(path)).cloned().collect();
    if parsed.is_empty() {
        return Ok(Probed::default());
    }
    let mut files = Vec::new();
    for path in &parsed {
        let file = file_of(path);
        let identity = storage::locate(file).and_then(|address| Identity::of(&address));
        files.push(identity.map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?);
    }
    let probed = Probed(files);
    if let Some((store, reason)) = fate(options, also, &parsed) {
        anyhow::bail!("{store}: {reason}");
    }
    probed.confirm()?;
    Ok(probed)
}

/// Which store a child did not survive, if there is one, and how it ended.
fn fate(options: &Options, also: &[String], stores: &[PathBuf]) -> Option<(String, String)> {
    let mut arguments: Vec<OsString> = vec!["probe".into(), "--matrices".into()];
    let matrices: Vec<&String> = std::iter::once(&options.x).chain(&options.with).collect();
    arguments.push(serde_json::json!(matrices).to_string().into());
    if let Some(Genes::Var(column)) = &options.genes {
        // As one word: a column may be called as an option.
        arguments.push(format!("--var={column}").into());
    }
    if let Some(names) = &options.obs {
        arguments.extend(["--obs".into(), serde_json::json!(names).to_string().into()]);
    }
    let mut also: Vec<String> = select::columns(options).into_iter().chain(also.iter().cloned()).collect();
    // A file of rows may name them.
    if options.rows.is_some() || options.views.iter().any(|view| view.rows.is_some()) {
        also.push("_index".to_owned());
    }
    arguments.extend(["--also".into(), serde_json::json!(also).to_string().into()]);
    match isolate::run(&ChildTask { arguments, stores, patience: options.timeout, terminal: false }) {
        Ok(_) => None,
        Err(Failed::Ended(reason, said)) => {
            let last = String::from_utf8_lossy(&said).lines().last().and_then(|line| line.parse::<usize>().ok());
            let store = last.and_then(|number| stores.get(number)).or(stores.first());
            Some((store.map(|store| store.display().to_string()).unwrap_or_default(), reason))
        }
        Err(Failed::NotStarted(error)) => {
            tracing::warn!("no process can be started to try the stores in, so they are opened untried: {error}");
            None
        }
    }
}

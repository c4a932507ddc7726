//! `shufflefs info`: shows the contents of stores, and what would prevent a mount of them.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::exit::{self, Exit, OrExit, Outcome};
use super::genes::GeneArgs;
use super::{index_dir, values};
use crate::anndata::expand;
use crate::anndata::index::IndexDir;
use crate::array::kinds::needs_trial;
use crate::collection::Selection;
use crate::session::isolate::{self, ChildTask, Failed};
use crate::session::{SessionError, describe, remote};
use crate::storage::{name, pattern};

#[derive(Debug, Args)]
#[command(after_help = super::exit::HELP)]
pub struct InfoArgs {
    /// AnnData stores (.h5ad, .zarr, .zarr.zip; STORE::GROUP for one inside)
    #[arg(value_name = "STORE", required = true)]
    pub stores: Vec<PathBuf>,

    /// Print JSON, one object a store [default: text]
    #[arg(long)]
    pub json: bool,

    /// Read everything that a mount could serve and list all damage
    #[arg(long)]
    pub check: bool,

    /// How long libhdf5 may go on without reading a byte; at least 10s
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = values::timeout)]
    pub timeout: Duration,

    /// Do not sign requests to remote stores: for public buckets
    #[arg(long)]
    pub anonymous: bool,

    #[command(flatten)]
    pub genes: GeneArgs,

    /// Set for the child process, which describes one store as JSON
    #[arg(long, hide = true)]
    pub alone: bool,
}

/// Describes every store that can be opened; fails if one cannot be opened, could not be mounted, or is damaged.
pub fn info(args: &InfoArgs) -> Outcome {
    let selection = args.genes.selection(IndexDir(index_dir::standard()))?;
    if args.alone {
        isolate::volunteer();
        let stores: Vec<Value> =
            args.stores.iter().flat_map(|path| describe::describe(path, args.check, &selection)).collect();
        println!("{}", Value::Array(stores));
        return Ok(0);
    }
    remote::configure(args.anonymous, args.timeout, index_dir::standard());
    let named: Vec<PathBuf> = args.stores.iter().cloned().map(named).collect::<Result<_, _>>()?;
    let stores = pattern::expand(&named).map_err(SessionError::Refused).or_exit(Exit::Store)?;
    let mut code = 0;
    let mut all = Vec::new();
    for store in stores.iter().flat_map(|path| expand(path)).flat_map(|path| isolated(&path, args, &selection)) {
        if let Some(error) = store["error"].as_str() {
            exit::say(error);
            code = Exit::Store as u8;
        } else {
            let is_damaged = store["check"]["damage"].as_array().is_some_and(|damage| !damage.is_empty());
            if is_damaged || store["mounts"] == false {
                code = Exit::Store as u8;
            }
            if !args.json {
                print!("{}", text(&store));
            }
            all.push(store);
        }
    }
    if args.json {
        println!("{:#}", Value::Array(all));
    }
    Ok(code)
}

/// The name of a store without its query, which may be secret.
fn named(path: PathBuf) -> Result<PathBuf, exit::Failure> {
    name::conceal(path).map_err(exit::Failure::usage)
}

/// The stores of a path as JSON, from a child process if libhdf5 must parse them; or `error`.
fn isolated(path: &Path, args: &InfoArgs, selection: &Selection) -> Vec<Value> {
    if !needs_trial(path) {
        return describe::describe(path, args.check, selection);
    }
    let mut arguments: Vec<OsString> = vec!["info".into(), "--alone".into()];
    if args.check {
        arguments.push("--check".into());
    }
    arguments.extend(args.genes.arguments());
    arguments.extend(["--".into(), path.into()]);
    let terminal = args.check && std::io::stderr().is_terminal();
    let stores = [path.to_owned()];
    let failed = |reason: String| vec![json!({"error": format!("{}: {reason}", path.display())})];
    match isolate::run(&ChildTask { arguments, stores: &stores, patience: args.timeout, terminal }) {
        Ok(answer) => serde_json::from_slice(&answer).unwrap_or_else(|error| failed(format!("no answer: {error}"))),
        Err(Failed::Ended(reason)) => failed(reason),
        Err(Failed::NotStarted(_)) => describe::describe(path, args.check, selection),
    }
}

/// The description as text.
fn text(store: &Value) -> String {
    let number = |value: &Value| value.as_u64().map_or("?".to_owned(), |n| n.to_string());
    let string = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let list = |value: &Value| match value.as_array() {
        Some(items) if !items.is_empty() => items
            .iter()
            .map(|item| item.as_str().map_or(item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(" x "),
        _ => "none".to_owned(),
    };
    let mut out =
        format!("{}: {} rows x {} genes\n", string(&store["store"]), number(&store["rows"]), number(&store["genes"]));
    for matrix in store["matrices"].as_array().into_iter().flatten() {
        let element = string(&matrix["element"]);
        if let Some(stops) = matrix["stops"].as_str() {
            out.push_str(&format!("  {element}: not served: {stops}\n"));
            continue;
        }
        out.push_str(&format!(
            "  {element}: {} {}, {}, {} values\n",
            string(&matrix["kind"]),
            string(&matrix["dtype"]),
            list(&matrix["shape"]),
            number(&matrix["stored_values"])
        ));
        for array in matrix["arrays"].as_array().into_iter().flatten() {
            out.push_str(&format!(
                "    {}: {}, chunks {}, filters {}\n",
                string(&array["element"]),
                string(&array["dtype"]),
                list(&array["chunk_shape"]),
                list(&array["filters"]).replace(" x ", ", ")
            ));
        }
    }
    out.push_str("  obs columns:\n");
    for column in store["columns"].as_array().into_iter().flatten() {
        let what = match (column["stops"].as_str(), column["categories"].as_u64()) {
            (Some(stops), _) => format!("not served: {stops}"),
            (None, Some(categories)) => format!("categorical, {categories} categories"),
            _ if column["unit"].is_string() => format!("{}64[{}]", string(&column["kind"]), string(&column["unit"])),
            _ => string(&column["kind"]),
        };
        out.push_str(&format!("    {}: {what}\n", string(&column["name"])));
    }
    match store["stops"].as_str() {
        None => out.push_str("  mounts: yes\n"),
        Some(stops) => out.push_str(&format!("  mounts: no: {stops}\n")),
    }
    for (format, reason) in store["formats_refused"].as_object().into_iter().flatten() {
        out.push_str(&format!("  no .{format}: {}\n", string(reason)));
    }
    if let Some(damage) = store["check"]["damage"].as_array() {
        let bytes = number(&store["check"]["bytes"]);
        match damage.len() {
            0 => out.push_str(&format!("  check: whole; {bytes} bytes read\n")),
            count => out.push_str(&format!("  check: {count} damaged; {bytes} bytes read\n")),
        }
        for finding in damage {
            let chunk = finding["chunk"].as_u64().map_or(String::new(), |chunk| format!("chunk {chunk}: "));
            let (name, element) = (string(&store["store"]), string(&finding["element"]));
            out.push_str(&format!("{name}: {element}: {chunk}{}\n", string(&finding["what"])));
        }
    }
    out
}

//! `shufflefs info`: what is in a store, and what would stop a mount of it.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::exit::{self, Exit, Outcome};
use super::isolate::{self, ChildTask, Failed};
use super::{check, index_dir, memory, values};
use crate::anndata;
use crate::anndata::dataframe::{ColumnKind, DataFrame};
use crate::anndata::index::IndexDir;
use crate::anndata::matrices;
use crate::anndata::matrix::Matrix;
use crate::array::{Array, ArrayError, Container, Counters};
use crate::collection::{Collection, Selection};
use crate::format::Writers;

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

    /// What the parent runs: describes one store as JSON
    #[arg(long, hide = true)]
    pub alone: bool,
}

/// The command: describes every store that can be opened; fails if one cannot, would not mount, or is damaged.
pub fn info(args: &InfoArgs) -> Outcome {
    if args.alone {
        isolate::volunteer();
        let stores: Vec<Value> = args.stores.iter().flat_map(|path| described(path, args.check)).collect();
        println!("{}", Value::Array(stores));
        return Ok(0);
    }
    let mut code = 0;
    let mut all = Vec::new();
    for store in args.stores.iter().flat_map(|path| describe(path, args)) {
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

/// The stores of a path as JSON, by a child if libhdf5 is to parse it; or `error`.
fn describe(path: &Path, args: &InfoArgs) -> Vec<Value> {
    if !isolate::is_for_hdf5(path) {
        return described(path, args.check);
    }
    let mut arguments: Vec<OsString> = vec!["info".into(), "--alone".into()];
    if args.check {
        arguments.push("--check".into());
    }
    let terminal = args.check && std::io::stderr().is_terminal();
    let stores = [path.to_owned()];
    let failed = |reason: String| vec![json!({"error": format!("{}: {reason}", path.display())})];
    match isolate::run(&ChildTask { arguments, stores: &stores, patience: args.timeout, terminal }) {
        Ok(answer) => serde_json::from_slice(&answer).unwrap_or_else(|error| failed(format!("no answer: {error}"))),
        Err(Failed::Ended(reason, _)) => failed(reason),
        Err(Failed::NotStarted(_)) => described(path, args.check),
    }
}

/// The store, or one by one those of an annbatch collection.
fn described(path: &Path, check: bool) -> Vec<Value> {
    // A path that cannot be opened is told by `open`.
    let stores = anndata::stores(path).unwrap_or_default();
    let parts =
        if stores.is_empty() { vec![path.to_owned()] } else { stores.into_iter().map(|(path, _)| path).collect() };
    let one =
        |path: &PathBuf| open(path, check).unwrap_or_else(|error| json!({"error": exit::one_line(&error.to_string())}));
    parts.iter().map(one).collect()
}

fn open(path: &Path, check: bool) -> Result<Value, ArrayError> {
    let counters = Counters { room: memory::metadata(), ..Counters::default() };
    let store = Container::open(path)?;
    let matrices: Vec<Value> = match matrices(&store) {
        Ok(elements) => elements.iter().map(|element| matrix(&store, element, &counters)).collect(),
        // To a check this is one finding among others.
        Err(error) if !check => return Err(error),
        Err(_) => Vec::new(),
    };
    let columns = DataFrame::open(&store, "obs").map(|obs| columns(&obs));
    let genes = DataFrame::open(&store, "var").map(|var| var.rows);
    let selection = Selection::of("X", IndexDir(index_dir::standard()));
    // A mount of a matrix stored by column would transpose it first: that is not for a description to do.
    let opened = match Matrix::open_by_column(&store, "X", &counters) {
        Ok(Some(_)) => Ok(None),
        Ok(None) => Collection::open(&[path.to_owned()], &selection, &counters).map(Some).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let refused: Map<String, Value> = match &opened {
        Ok(Some(collection)) => Writers::new(&collection.table)
            .refused()
            .into_iter()
            .map(|(format, reason)| (format.as_str().to_owned(), reason.into()))
            .collect(),
        _ => Map::new(),
    };
    let stops = opened.err().map(|error| exit::one_line(&error));
    let mut described = json!({
        "store": store.name(),
        "rows": DataFrame::open(&store, "obs").map(|obs| obs.rows).ok(),
        "genes": genes.ok(),
        "matrices": matrices,
        "columns": columns.unwrap_or_default(),
        "mounts": stops.is_none(),
        "stops": stops,
        "formats_refused": refused,
    });
    if check {
        described["check"] = check::check(&store);
    }
    Ok(described)
}

fn matrix(store: &Container, element: &str, counters: &Counters) -> Value {
    let by_column = Matrix::open_by_column(store, element, counters).transpose();
    let kind = if by_column.is_some() { "csc" } else { "csr" };
    match by_column.unwrap_or_else(|| Matrix::look(store, element, counters)) {
        Ok(matrix) => {
            let mut shape: Vec<u64> = std::iter::once(matrix.rows()).chain(matrix.row_shape()).collect();
            if kind == "csc" {
                shape.reverse();
            }
            json!({
                "element": element,
                "kind": if matrix.is_sparse() { kind } else { "dense" },
                "dtype": matrix.dtype().name(),
                "shape": shape,
                "stored_values": matrix.stored(),
                "arrays": matrix.arrays().into_iter().map(array).collect::<Vec<_>>(),
            })
        }
        Err(error) => json!({"element": element, "stops": exit::one_line(&error.to_string())}),
    }
}

fn array(array: &Array) -> Value {
    json!({
        "element": array.element.as_ref(),
        "dtype": array.dtype.name(),
        "chunk_shape": array.chunk_shape,
        "filters": array.source.filters(),
    })
}

fn columns(obs: &DataFrame<'_>) -> Vec<Value> {
    let one = |name: &String| {
        let kind = obs.kind(name)?;
        let categories = if kind == ColumnKind::Categorical { Some(obs.category_count(name)?) } else { None };
        Ok::<Value, ArrayError>(json!({"name": name, "kind": kind.name(), "categories": categories}))
    };
    let stopped = |name: &String, error: ArrayError| json!({"name": name, "stops": exit::one_line(&error.to_string())});
    obs.columns.iter().map(|name| one(name).unwrap_or_else(|error| stopped(name, error))).collect()
}

/// The same for people.
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

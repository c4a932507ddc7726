//! `shufflefs info`: what is in a store, and what would stop a mount of it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::exit::{self, Exit, Outcome};
use crate::anndata;
use crate::anndata::dataframe::{ColumnKind, DataFrame};
use crate::anndata::index::IndexDir;
use crate::anndata::matrices;
use crate::anndata::matrix::Matrix;
use crate::array::{Array, ArrayError, Container, Counters};
use crate::collection::genes::Join;
use crate::collection::{Collection, Selection};

#[derive(Debug, Args)]
#[command(after_help = super::exit::HELP)]
pub struct InfoArgs {
    /// AnnData stores (.h5ad, .zarr, .zarr.zip; STORE::GROUP for one inside)
    #[arg(value_name = "STORE", required = true)]
    pub stores: Vec<PathBuf>,

    /// Print JSON, one object a store [default: text]
    #[arg(long)]
    pub json: bool,
}

/// The command: describes every store that can be opened; fails if one cannot.
pub fn info(args: &InfoArgs) -> Outcome {
    let mut code = 0;
    let mut all = Vec::new();
    for path in args.stores.iter().flat_map(|path| parts(path)) {
        match describe(&path) {
            Ok(store) if args.json => all.push(store),
            Ok(store) => print!("{}", text(&store)),
            Err(error) => {
                exit::say(&exit::one_line(&error.to_string()));
                code = Exit::Store as u8;
            }
        }
    }
    if args.json {
        println!("{:#}", Value::Array(all));
    }
    Ok(code)
}

/// The stores of an annbatch collection, one by one; a path that cannot be opened is told by `describe`.
fn parts(path: &Path) -> Vec<PathBuf> {
    let stores = anndata::stores(path).unwrap_or_default();
    if stores.is_empty() { vec![path.to_owned()] } else { stores.into_iter().map(|(path, _)| path).collect() }
}

fn describe(path: &Path) -> Result<Value, ArrayError> {
    let counters = Counters::default();
    let store = Container::open(path)?;
    let matrices: Vec<Value> = matrices(&store)?.iter().map(|element| matrix(&store, element, &counters)).collect();
    let columns = DataFrame::open(&store, "obs").map(|obs| columns(&obs));
    let genes = DataFrame::open(&store, "var").map(|var| var.rows);
    let selection =
        Selection { x: "X".to_owned(), obs: None, join: Join::Exact, index: IndexDir(super::options::cache()) };
    // A mount of a matrix stored by column would transpose it first: that is not for a description to do.
    let stops = match Matrix::open_by_column(&store, "X", &counters) {
        Ok(Some(_)) => None,
        Ok(None) => Collection::open(&[path.to_owned()], &selection, &counters).err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    let stops = stops.map(|error| exit::one_line(&error));
    Ok(json!({
        "store": store.name(),
        "rows": DataFrame::open(&store, "obs").map(|obs| obs.rows).ok(),
        "genes": genes.ok(),
        "matrices": matrices,
        "columns": columns.unwrap_or_default(),
        "mounts": stops.is_none(),
        "stops": stops,
    }))
}

fn matrix(store: &Container, element: &str, counters: &Counters) -> Value {
    let by_column = Matrix::open_by_column(store, element, counters).transpose();
    let kind = if by_column.is_some() { "csc" } else { "csr" };
    match by_column.unwrap_or_else(|| Matrix::open(store, element, counters)) {
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
    out
}

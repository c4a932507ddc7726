//! The files that describe a mount: README.txt, dataset.json, var.tsv, categories/*.txt.

use serde_json::{Map, Value, json};

use crate::anndata::column::{Column, Values};
use crate::collection::companion::Beside;
use crate::collection::element::{Element, MatrixKind};
use crate::collection::genes::ColumnMap;
use crate::collection::{Collection, Companion, Table};
use crate::format::{Writers, names, obs, records};
use crate::plan::Plan;
use crate::plan::rank::Rank;
use crate::plan::strategy::Chances;

/// The documents of one mount, rendered once.
#[derive(Debug, Default)]
pub struct Documents {
    pub readme: String,
    pub dataset: String,
    pub var: String,
    /// A text for each categorical column, then the tables of sets and bags.
    pub categories: Vec<String>,
}

/// What the documents say about a view.
pub struct ViewDoc<'a> {
    pub name: &'a str,
    pub plan: &'a Plan,
    /// Further fields of `dataset.json`: how its rows were selected, and counts.
    pub more: Map<String, Value>,
}

impl Documents {
    /// Renders the documents of a mount with at least one view. `groups` are the tables of sets and bags, `options` the content of
    /// `.shufflefs/options.json`.
    pub fn new(
        collection: &Collection,
        writers: &Writers,
        views: &[ViewDoc<'_>],
        groups: &[&str],
        rank: Option<Rank>,
        options: &Value,
    ) -> Documents {
        let table = &collection.table;
        Documents {
            readme: views.first().map(|first| readme(collection, writers, first.plan, views, rank)).unwrap_or_default(),
            dataset: format!("{:#}\n", dataset(collection, views, options)),
            var: var(&table.x().genes),
            categories: categorical(table)
                .map(|column| lines(column.labels))
                .chain(groups.iter().map(|&text| text.to_owned()))
                .collect(),
        }
    }
}

/// A categorical column.
pub struct Labelled<'a> {
    /// Its name in the batches.
    pub served: String,
    pub labels: &'a [String],
}

/// The categorical columns, in the order of their files.
pub fn categorical(table: &Table) -> impl Iterator<Item = Labelled<'_>> {
    table.columns.iter().zip(names::columns(table)).filter_map(|(column, served)| match &column.values {
        Values::Categorical { categories, .. } => Some(Labelled { served, labels: &categories.labels }),
        _ => None,
    })
}

/// One label a line, so that the line number, from 0, is the code. Line breaks in labels are escaped.
fn lines(labels: &[String]) -> String {
    let mut text = String::new();
    for label in labels {
        escape(label, &mut text);
        text.push('\n');
    }
    text
}

fn var(genes: &[String]) -> String {
    let mut text = String::from("index\tname\n");
    for (i, gene) in genes.iter().enumerate() {
        text.push_str(&format!("{i}\t"));
        escape(gene, &mut text);
        text.push('\n');
    }
    text
}

fn escape(label: &str, text: &mut String) {
    crate::format::escape(label, text);
}

fn dataset(collection: &Collection, views: &[ViewDoc<'_>], options: &Value) -> Value {
    let table = &collection.table;
    let stores: Vec<Value> = collection
        .stores
        .iter()
        .map(|store| {
            let ColumnMap { shared, missing, extra, .. } = &store.x().columns;
            json!({
                "path": store.path.to_string_lossy(),
                "rows": store.rows,
                "first_row": store.first_row,
                "stored_values": store.x().matrix.stored(),
                "genes": {"shared": shared, "missing": missing, "extra": extra, "aligned": store.x().columns.map.is_some()},
            })
        })
        .collect();
    let left_out: Vec<Value> =
        collection.left_out.iter().map(|(name, reason)| json!({"name": name, "reason": reason})).collect();
    let taken = records::taken(table);
    let joined: Vec<Value> = collection.joined.iter().map(|(name, rule)| json!({"name": name, "rule": rule})).collect();
    let mut dataset = json!({
        "stores": stores,
        "rows": table.n_rows,
        "genes": table.x().genes.len(),
        "x": element(table.x()),
        "with": table.elements.iter().skip(1).map(element).collect::<Vec<_>>(),
        "columns": table.columns.iter().zip(names::columns(table)).map(|of| column(of, &table.below(), &taken)).collect::<Vec<_>>(),
        "columns_left_out": left_out,
        "columns_joined": joined,
        "companions": table.companions.iter().map(companion).collect::<Vec<_>>(),
        "options": options,
    });
    if let Some(dataset) = dataset.as_object_mut() {
        // A single view has its epochs at the root, and so its numbers at the top level.
        if let [view] = views {
            dataset.extend(sampled(view.plan));
            dataset.extend(view.more.clone());
        } else {
            let told = |view: &ViewDoc<'_>| {
                let mut told = sampled(view.plan);
                told.extend(view.more.clone());
                (view.name.to_owned(), Value::Object(told))
            };
            dataset.insert("views".to_owned(), Value::Object(views.iter().map(told).collect()));
        }
    }
    dataset
}

/// The batch of the epoch that is step s of rank r of W (`plan::partition`), as a Python expression, for restarts with another W.
/// Numbers past the last batch are dropped or padded.
const BATCH_OF_STEP: &str = "((s // fetch_factor) * W + r) * fetch_factor + s % fetch_factor \
    if s < batches // fetch_factor // W * fetch_factor else s * W + r";

/// How a view is sampled.
fn sampled(plan: &Plan) -> Map<String, Value> {
    let sampling = plan.sampling();
    let fields = json!({
        "seed": sampling.seed,
        "batch_size": sampling.batch_size,
        "block_size": sampling.block_size,
        "fetch_factor": sampling.fetch_factor,
        "k": plan.k(),
        "drop_last": sampling.drop_last,
        "batches": plan.batches(),
        "fetches": plan.fetches(),
        "blocks": plan.blocks(),
        "rows_per_epoch": plan.served_rows(),
        "ranks": {
            "uneven": plan.uneven().as_str(),
            "batch_of_step": BATCH_OF_STEP,
            "fetch_of_batch": "batch // fetch_factor",
            "remaining": "shufflefs plan --resume epoch=E,step=S,world=W --world V STORE...",
        },
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn element(element: &Element) -> Value {
    let (kind, row) = match &element.kind {
        MatrixKind::Sparse { .. } => ("csr", vec![element.n_vars()]),
        MatrixKind::Dense { row, .. } => ("dense", row.clone()),
    };
    let mut told =
        json!({"element": element.name, "kind": kind, "dtype": element.kind.dtype().name(), "row_shape": row});
    if let Some(tokens) = &element.tokens {
        told["kind"] = json!("tokens");
        told["row_shape"] = json!([tokens.spec.length]);
        told["vocabulary"] = json!(tokens.vocabulary());
    }
    // Columns of a dataframe have names; those of other obsm elements are numbered; genes are in var.tsv.
    if element.name.is_obsm() && element.genes.iter().zip(0..).any(|(name, at)| *name != at.to_string()) {
        told["columns"] = json!(*element.genes);
    }
    if element.absent_is_zero {
        const LISTED: usize = 20;
        let absent = &element.absent;
        let some: Vec<&String> = absent.iter().take(LISTED).collect();
        told["genes_in_no_store"] = json!({"count": absent.len(), "such_as": some});
    }
    told
}

/// Describes an obs column. `below` is the prefix of the table's names in files of tensors.
fn column((column, served): (&Column, String), below: &str, taken: &[String]) -> Value {
    let (kind, dtype, categories, ordered, nullable) = match &column.values {
        Values::Categorical { codes, categories, ordered } => {
            ("categorical", codes.dtype.name(), Some(categories.labels.len()), Some(*ordered), true)
        }
        Values::Numbers { numbers, mask, time } => {
            let number = if numbers.dtype == crate::array::Dtype::Bool { "boolean" } else { "number" };
            let kind = time.map_or(number, |time| time.kind());
            (kind, numbers.dtype.name(), None, None, mask.is_some())
        }
        Values::Text { mask, .. } => ("text", "string", None, None, mask.is_some()),
    };
    let unit = match &column.values {
        Values::Numbers { time: Some(time), .. } => Some(time.unit.name()),
        _ => None,
    };
    let tensor = format!("{below}obs/{served}");
    let record = obs::beside(served.clone(), taken);
    let file = categories.map(|_| format!("categories/{}", names::categories_file(&served)));
    json!({
        "name": column.name,
        "names": {
            "npz": tensor, "safetensors": tensor, "record.npy": tensor, "h5ad": served, "tsv": served,
            "arrow": record, "parquet": record, "tar": served, "tfrecord": record,
            "mds": record, "litdata": record,
        },
        "kind": kind,
        "dtype": dtype,
        "unit": unit,
        "categories": categories,
        "categories_file": file,
        "ordered": ordered,
        "nullable": nullable,
    })
}

/// A line for each format: its readers, or why it cannot be served.
fn formats(writers: &Writers) -> String {
    let served = writers
        .extensions()
        .into_iter()
        .map(|format| format!("  {:<26} {}\n", format!("batch-000000.{}", format.as_str()), format.readers()));
    let refused = writers.refused().into_iter().map(|(format, reason)| format!("  no .{format}: {reason}\n"));
    served.chain(refused).collect()
}

/// Describes a companion: its rows, and of a modality its matrices and columns.
fn companion(companion: &Companion) -> Value {
    match &companion.rows {
        Beside::Each(each) => json!({"name": companion.name, "rows_each": each}),
        Beside::Neighbours { weights, .. } => json!({"name": companion.name, "weights": weights.name()}),
        Beside::Joined(modality) => {
            let table = &companion.table;
            json!({
                "name": companion.name,
                "stores": modality.stores.iter().map(|store| store.path.to_string_lossy()).collect::<Vec<_>>(),
                "rows": table.n_rows,
                "genes": *table.x().genes,
                "x": element(table.x()),
                "with": table.elements.iter().skip(1).map(element).collect::<Vec<_>>(),
                "columns": table.columns.iter().zip(names::columns(table)).map(of_modality(&companion.name)).collect::<Vec<_>>(),
            })
        }
    }
}

/// Describes an obs column of a modality, whose labels are in no file.
fn of_modality(below: &str) -> impl Fn((&Column, String)) -> Value {
    move |(column, served)| {
        let labels = match &column.values {
            Values::Categorical { categories, .. } => Some(&categories.labels),
            _ => None,
        };
        json!({"name": column.name, "tensor": format!("{below}/obs/{served}"), "labels": labels.map(|labels| &labels[..])})
    }
}

/// README.txt on graphs.
fn graph(table: &Table) -> &'static str {
    match table.companions.iter().any(|companion| matches!(companion.rows, Beside::Neighbours { .. })) {
        true => {
            "\nNeighbours in a graph: neighbours/ has the arrays of the rows that edges come from. Nodes are the rows of the batch, then \
             these:\n  batch['edge_index']    # 2 x edges: from a neighbour, to the row whose neighbour it is\n  \
             batch['edge_weight']\n"
        }
        false => "",
    }
}

/// README.txt on modalities.
fn modalities(table: &Table) -> String {
    let names: Vec<String> = names::modalities(table).into_iter().map(|(_, name)| name).collect();
    let [first, .., last] = names.as_slice() else { return String::new() };
    let x = |name: &str, table: &Table| match table.x().is_sparse() {
        true => format!(
            "{name} = scipy.sparse.csr_matrix(tuple(batch[f'mod/{name}/{{k}}'] for k in ('data', 'indices', 'indptr')))"
        ),
        false => format!("{name} = batch['mod/{name}/X']"),
    };
    let beside = table.companions.iter().rfind(|companion| companion.modality().is_some());
    let of_last = beside.map_or_else(String::new, |companion| x(last, &companion.table));
    format!(
        "\nModalities of the same cells: {}. The arrays of each are below its name: mod/{first}/row, mod/{last}/obs/...\n  \
         {}\n  {of_last}   # the rows of the batch that have it\n  \
         batch['obsm/{last}']   # which rows these are: True or False for each row of {first}\n\
         .h5mu is a MuData of them: mudata.read_h5mu. Genes and labels: var.tsv and categories/ of {first}, of others dataset.json.\n",
        names.join(", "),
        x(first, table),
    )
}

/// README.txt on a companion with rows for each row.
fn beside(companion: &Companion) -> String {
    let Companion { name, rows: Beside::Each(each), table } = companion else { return String::new() };
    let (x, element) = match table.x().is_sparse() {
        true => (
            "data, indices, indptr, shape",
            "scipy.sparse.csr_matrix((b['N/data'], b['N/indices'], b['N/indptr']), b['N/shape'])",
        ),
        false => ("X", "b['N/X']"),
    };
    let of = if *each == 1 {
        "row i of them belongs to row i".to_owned()
    } else {
        format!("rows {each} * i to {each} * i + {} of them belong to row i", each - 1)
    };
    format!(
        "\nBeside the rows of a batch: {name}/ ({x}, row, obs/...); {of}.\n  {element}\n\
         In .h5ad: adata.uns['{name}'], an AnnData. In .npy: below the batch's own rows.\n",
        element = element.replace('N', name).replace("b[", "batch[")
    )
}

/// README.txt on sets and bags.
fn groups(views: &[ViewDoc<'_>]) -> String {
    let has = |kind: &str| views.iter().find_map(|view| view.more.get(kind));
    let mut text = String::new();
    if let Some(sets) = has("sets") {
        text.push_str(&format!(
            "\nSets: every {} rows that follow one another are cells of one group. obs/set is its number; categories/sets.tsv\n\
             tells of it.",
            sets["set_size"]
        ));
        let pads = sets.get("rows_of_padding").is_some();
        text.push_str(if pads {
            " Short sets are filled up with cells of the group; these have row -1.\n"
        } else {
            "\n"
        });
    }
    if has("bags").is_some() {
        text.push_str("\nBags: a batch is one bag. obs/bag is its number; categories/bags.tsv tells of it.\n");
    }
    text
}

fn readme(
    collection: &Collection,
    writers: &Writers,
    plan: &Plan,
    views: &[ViewDoc<'_>],
    rank: Option<Rank>,
) -> String {
    let (table, sampling) = (&collection.table, plan.sampling());
    let kind = match &table.x().kind {
        MatrixKind::Sparse { .. } if table.x().tokens.is_some() => "as tokens".to_owned(),
        MatrixKind::Sparse { dtype } => format!("sparse (CSR) {dtype}"),
        MatrixKind::Dense { dtype, .. } => format!("dense {dtype}"),
    };
    let below = table.below();
    let read = match &table.x().kind {
        _ if table.modality.is_some() => "# X of each modality: below",
        MatrixKind::Sparse { .. } if table.x().tokens.is_some() => {
            "ids = np.load(path)['input_ids']         # padded; length, expressions"
        }
        MatrixKind::Sparse { .. } => "X = scipy.sparse.load_npz(path)            # CSR, one row a cell",
        MatrixKind::Dense { .. } => "X = np.load(path)['X']                     # one row a cell",
    };
    let label = categorical(table).next().map_or("COLUMN".to_owned(), |column| column.served);
    let names: Vec<&str> = views.iter().map(|view| view.name).collect();
    let (above, told) = match names.as_slice() {
        [_] => (String::new(), String::new()),
        [first, ..] => {
            // At most this many views, so that the page stays short.
            const LISTED: usize = 12;
            let line = |view: &ViewDoc<'_>| format!("  {}/: {} rows\n", view.name, view.plan.rows());
            let mut each: String = views.iter().take(LISTED).map(line).collect();
            if views.len() > LISTED {
                each.push_str(&format!("  and {} more\n", views.len() - LISTED));
            }
            (format!("{first}/"), format!("\nViews, a directory each (sizes below are those of {first}):\n{each}"))
        }
        [] => Default::default(),
    };
    let ranks = match rank {
        Some(rank) => format!("This is the part of rank {} of {}: counts here are of the whole.", rank.index, rank.of),
        None => format!(
            "For several workers of one job: {above}rank-0-of-4/epoch-0000/... are four equal, disjoint parts of the epoch."
        ),
    };
    let formats = formats(writers);
    let beside: String =
        table.companions.iter().map(beside).chain([modalities(table), graph(table).to_owned()]).collect();
    let groups = groups(views);
    let directories: String = writers
        .directories()
        .into_iter()
        .map(|format| format!("  {:<26} {}\n", format!("{above}epoch-0000.{}/", format.as_str()), format.readers()))
        .collect();
    let many = match writers.whole(table).first() {
        Some(format) => format!(
            "The same rows as one file, not listed:
  {above}epoch-0000.{name}       a whole epoch; also rank-R-of-W/epoch-0000.{name}
  {above}stored.{name}           all rows in stored order
  {above}by-{label}.{name}       by label, shuffled within; one label: by-{label}/LABEL.{name}
{directories}\n",
            name = format.as_str()
        ),
        None if directories.is_empty() => String::new(),
        None => format!("The same rows as one directory, not listed:\n{directories}\n"),
    };
    format!(
        "\
This is a shufflefs mount: {rows} rows (cells) x {genes} columns (genes) of {x}, {kind},
from {stores} store(s), as shuffled minibatches.
{told}{groups}
  {above}epoch-0000/batch-000000.npz    one batch of {most}{batch} rows; {batches} batches an epoch
  {above}epoch-0001/                    the same rows in another order{once}
  dataset.json                   stores, options, obs columns, counts
  var.tsv                        the genes; line order = column order of X
  categories/                    labels of the categorical columns; line number from 0 = code

Read the files in name order: that is one randomized pass. Python:

  import glob, numpy as np, scipy.sparse
  for path in sorted(glob.glob('{above}epoch-0000/*')):
      {read}
      batch = np.load(path)
      codes, rows = batch['{below}obs/{label}'], batch['{below}row']   # label codes, global row numbers

The same arrays, several times as fast to load: b = np.load(path.replace('.npz', '.record.npy')); b['{below}row']
{beside}
Any format can be opened by its name, whatever ls shows:
{formats}
A label may be called NA or nan: tell readers of .tsv that only an empty field is missing:
  pandas  pd.read_csv(path, sep='\\t', quoting=3, keep_default_na=False, na_values=[''])
  R       read.delim(path, quote='', na.strings='', check.names=FALSE)

A name that cannot be a file's (with /, a line break, longer than 251 bytes, or called row) is escaped in all formats and
in categories/ alike: a/b is a%2Fb. dataset.json has each column's name and its names in the files.

{many}Any epoch can be opened (epoch-0123), also beyond those listed. To resume, go on at the next name.
{ranks}

Blocks of {block} consecutive rows are drawn at random; k = {k} of them are mixed in memory.
Seed {seed}. The same stores, options and seed give the same bytes on every machine.
What the mount does: cat .shufflefs/stats.json .shufflefs/log
",
        rows = table.n_rows,
        genes = if table.x().is_sparse() { table.x().genes.len() as u64 } else { table.x().n_vars() },
        x = table.x().name,
        stores = collection.stores.len(),
        most = if plan.strategy().has_full_batches() { "" } else { "up to " },
        once = match plan.strategy().told().is_empty() && matches!(plan.strategy().chances(), Chances::Equal) {
            true => "; each row once an epoch".to_owned(),
            false => format!("; {} rows an epoch", plan.served_rows()),
        },
        batch = sampling.batch_size,
        batches = plan.batches(),
        block = sampling.block_size,
        k = plan.k(),
        seed = sampling.seed,
    )
}

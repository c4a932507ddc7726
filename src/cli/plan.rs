//! `shufflefs plan`: shows what a mount of stores would do, without mounting, or what remains of an epoch.
//!
//! Figures come from a few fetches of the plan that a mount would serve, not from formulas. No matrix data is read.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, OrExit, Outcome};
use super::options::OptionArgs;
use super::views;
use crate::plan::resume::{Stopped, remaining};
use crate::session::{Session, figures};

const EXAMPLES: &str = "\
Examples:
  shufflefs plan cells.h5ad
  shufflefs plan --split train=0.8,val=0.2 --split-by donor_id --label cell_type --json plate1.zarr plate2.zarr
  shufflefs plan --resume epoch=7,step=1200,world=8 --world 4 cells.h5ad";

#[derive(Debug, Args)]
#[command(
    override_usage = "shufflefs plan [OPTIONS] <STORE>...",
    after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP),
)]
pub struct PlanArgs {
    /// AnnData stores (.h5ad, .zarr, .zarr.zip; STORE::GROUP for one inside), seen as one table of rows; or one .toml file
    /// with stores = [...] and options
    #[arg(value_name = "STORE", required_unless_present = "modality")]
    pub stores: Vec<PathBuf>,

    /// An obs column: show how well its labels are mixed within a batch, compared with perfect shuffling [default: none]
    #[arg(long, value_name = "COLUMN", help_heading = "Plan")]
    label: Option<String>,

    /// Print the files that remain of an epoch that stopped after STEP steps on WORLD ranks, and nothing else; with several
    /// views add view=NAME [default: off]
    #[arg(long, value_name = "epoch=E,step=S,world=W", help_heading = "Plan", value_parser = resume)]
    resume: Option<Resume>,

    /// Number of ranks to divide the remaining files among [default: 1]
    #[arg(long, value_name = "W", help_heading = "Plan", requires = "resume",
          value_parser = clap::value_parser!(u64).range(1..=super::values::MOST_RANKS))]
    world: Option<u64>,

    /// Price of a million requests to a remote store, in dollars
    #[arg(long, value_name = "DOLLARS", default_value_t = 0.4, help_heading = "Plan")]
    request_price: f64,

    /// Print JSON [default: text]
    #[arg(long, help_heading = "Plan")]
    json: bool,

    #[command(flatten)]
    pub options: OptionArgs,
}

/// Where an epoch stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resume {
    epoch: u64,
    stopped: Stopped,
    view: Option<String>,
}

fn resume(text: &str) -> Result<Resume, String> {
    let wrong = || "write epoch=7,step=1200,world=8, and view=NAME where there are several".to_owned();
    let (mut epoch, mut step, mut world, mut view) = (None, None, None, None);
    for item in text.split(',') {
        let (name, value) = item.split_once('=').ok_or_else(wrong)?;
        let number = value.trim().parse::<u64>();
        match name.trim() {
            "epoch" => epoch = Some(number.map_err(|_| wrong())?),
            "step" => step = Some(number.map_err(|_| wrong())?),
            "world" => world = Some(number.map_err(|_| wrong())?),
            "view" => view = Some(value.trim().to_owned()),
            _ => return Err(wrong()),
        }
    }
    match (epoch, step, world) {
        (Some(epoch), Some(step), Some(world @ 1..=super::values::MOST_RANKS)) => {
            Ok(Resume { epoch, stopped: Stopped { step, world }, view })
        }
        _ => Err(wrong()),
    }
}

pub fn plan(args: PlanArgs) -> Outcome {
    let options = args.options.validate(args.stores)?;
    let session = Session::builder(options.spec).also(args.label.as_deref()).derive().or_exit(Exit::Store)?;
    let text = match &args.resume {
        Some(resume) => remains(resume, args.world.unwrap_or(1), &session, args.json)?,
        None => {
            let mut told = figures::figures(&session, args.label.as_deref()).or_exit(Exit::Store)?;
            price(&mut told, args.request_price);
            if args.json { format!("{told:#}\n") } else { text(&told) }
        }
    };
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes()).map_err(anyhow::Error::from).or_exit(Exit::Internal)?;
    Ok(0)
}

/// The names of the remaining files, a list for each rank.
fn remains(
    Resume { epoch, stopped, view }: &Resume,
    world: u64,
    session: &Session,
    json: bool,
) -> Result<String, Failure> {
    let (spec, all) = (&session.spec, &session.views);
    let several = all.len() > 1;
    let found = match view {
        Some(name) => all.iter().find(|view| view.name == *name),
        None if several => None,
        None => all.first(),
    };
    let Some(view) = found else {
        let known = views::nearest(view.as_deref().unwrap_or_default(), &spec.views);
        return Err(Failure::usage(format_args!("--resume: say which view stopped, as in view=NAME; {known}")));
    };
    let tree = session.tree();
    let number = all.iter().position(|other| other.name == view.name).unwrap_or(0) as u16;
    let above = if several { format!("{}/", view.name) } else { String::new() };
    let rest = remaining(&view.plan, *stopped);
    let partition = rest.partition(world, spec.uneven);
    let of_rank = |rank: u64| {
        let batches = (0..partition.batches()).filter_map(move |i| partition.batch(rank, i));
        let name =
            |batch| format!("{above}{}/{}", tree.epoch_name(*epoch), tree.batch_name(number, batch, spec.format));
        batches.map(name).collect::<Vec<String>>()
    };
    let ranks: Vec<Vec<String>> = (0..world).map(of_rank).collect();
    if json {
        let told = json!({
            "view": view.name,
            "epoch": epoch,
            "step": stopped.step,
            "world": stopped.world,
            "remaining_batches": rest.count(),
            "ranks": ranks,
        });
        return Ok(format!("{told:#}\n"));
    }
    let mut text = String::new();
    for (rank, names) in ranks.iter().enumerate() {
        for name in names {
            // With a single rank, names have no number in front.
            let _ = if world == 1 { writeln!(text, "{name}") } else { writeln!(text, "{rank}\t{name}") };
        }
    }
    Ok(text)
}

/// Adds the price of an epoch's requests, if stores are remote.
fn price(told: &mut Value, million: f64) {
    for view in told["views"].as_object_mut().into_iter().flat_map(|views| views.values_mut()) {
        if let Some(requests) = view["requests_per_epoch"].as_f64() {
            view["requests_dollars"] = json!(requests / 1e6 * million);
        }
    }
}

/// The figures as text: one line each, one column for each view.
fn text(told: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let mut text = format!("{} rows, {} genes\n", number(&told["rows"]), number(&told["genes"]));
    if let Some(absent) = told["genes_in_no_store"].as_u64() {
        let asked = number(&told["genes"]);
        text.push_str(&format!("{absent} of the {asked} genes named are in no store: zero\n"));
    }
    let Some(views) = told["views"].as_object() else { return text };
    let label = told["label"].as_str().unwrap_or_default();
    let bytes = |value: &Value| bytesize::ByteSize(number(value)).to_string();
    let float = |value: &Value| value.as_f64().map_or("-".to_owned(), |value| format!("{value:.2}"));
    type Show<'a> = &'a dyn Fn(&Value) -> String;
    let plain: Show<'_> = &|value| value.to_string();
    let entropy = format!("entropy of {label}, bits");
    let rows: [(&str, &str, Show<'_>); 17] = [
        ("rows", "rows", plain),
        ("rows an epoch", "rows_per_epoch", plain),
        ("batches", "batches", plain),
        ("fetches", "fetches", plain),
        ("batch size", "batch_size", plain),
        ("block size", "block_size", plain),
        ("fetch factor", "fetch_factor", plain),
        ("k (blocks mixed)", "k", &float),
        ("bytes a batch", "bytes_per_batch", &bytes),
        ("memory a fetch", "bytes_per_fetch", &bytes),
        ("chunks read a row", "chunks_per_row", &float),
        ("read amplification", "read_amplification", &float),
        ("bytes read an epoch, about", "bytes_read_per_epoch", &bytes),
        ("requests an epoch, about", "requests_per_epoch", plain),
        ("  in dollars", "requests_dollars", &float),
        (&entropy, "label_entropy_bits", &float),
        ("  perfectly shuffled", "label_entropy_shuffled_bits", &float),
    ];
    let mut lines: Vec<Vec<String>> =
        vec![std::iter::once(String::new()).chain(views.keys().cloned()).collect::<Vec<_>>()];
    for (title, key, show) in rows {
        if views.values().all(|view| view.get(key).is_some()) {
            lines.push(std::iter::once(title.to_owned()).chain(views.values().map(|view| show(&view[key]))).collect());
        }
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=views.len()).map(width).collect();
    for line in &lines {
        let _ = write!(text, "{:width$}", line[0], width = widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    for (name, view) in views {
        if let Some(pairs) = view.get("pairs") {
            let n = |key: &str| number(&pairs[key]);
            let _ = writeln!(
                text,
                "{name}: {} controls a row, of {} in {} groups of {} to {}; rows without a control: {} ({})",
                n("controls_a_row"),
                n("controls"),
                n("groups"),
                n("smallest_group"),
                n("largest_group"),
                n("rows_unmatched"),
                pairs["unmatched"].as_str().unwrap_or_default()
            );
        }
        if let Some(of) = view.get("neighbours") {
            let (graph, edges) = (of["graph"].as_str().unwrap_or_default(), number(&of["edges"]));
            let (hops, largest) = (number(&of["hops"]), number(&of["largest_degree"]));
            let fanout = of["fanout"].as_u64().map_or("all".to_owned(), |fanout| fanout.to_string());
            let _ = writeln!(
                text,
                "{name}: neighbours in {graph}: {hops} hops of {fanout}; {edges} edges, at most {largest} of a row"
            );
        }
        for (modality, rows) in view.get("modalities").and_then(Value::as_object).into_iter().flatten() {
            let (with, without) = (number(&rows["rows"]), number(&rows["rows_without"]));
            let _ = writeln!(text, "{name}: {modality}: {with} rows have it, {without} do not");
        }
        for (kind, told) in ["sets", "bags"].into_iter().filter_map(|kind| Some((kind, view.get(kind)?.as_object()?))) {
            let counts: Vec<String> = told.iter().map(|(what, n)| format!("{} {n}", what.replace('_', " "))).collect();
            let _ = writeln!(text, "{name}: {kind}: {}", counts.join(", "));
        }
        for (column, counts) in view.get("rows_by_label").and_then(Value::as_object).into_iter().flatten() {
            let _ = writeln!(text, "{name}: {column}: {}", listed(counts));
        }
    }
    text
}

/// The first labels, with their numbers of rows.
fn listed(counts: &Value) -> String {
    const LISTED: usize = 12;
    let Some(counts) = counts.as_object() else { return String::new() };
    let first: Vec<String> = counts.iter().take(LISTED).map(|(label, rows)| format!("{label} {rows}")).collect();
    let more = counts.len().saturating_sub(LISTED);
    if more > 0 { format!("{}, and {more} more", first.join(", ")) } else { first.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_an_epoch_stopped() {
        let stopped = Stopped { step: 1200, world: 8 };
        assert_eq!(resume("epoch=7,step=1200,world=8"), Ok(Resume { epoch: 7, stopped, view: None }));
        assert_eq!(resume("view=val,world=8,step=1200,epoch=7").map(|resume| resume.view), Ok(Some("val".to_owned())));
        for wrong in ["", "epoch=7", "epoch=7,step=-1,world=8", "epoch=7,step=1,world=0", "epoch=7,step=1,world=8,x=1"]
        {
            assert!(resume(wrong).is_err_and(|error| error.contains("epoch=7")), "{wrong}");
        }
    }
}

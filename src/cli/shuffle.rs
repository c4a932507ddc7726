//! `shufflefs shuffle`: writes a shuffled epoch to a new store.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::exit::{Exit, Failure, OrExit, Outcome};
use super::log;
use super::options::OptionArgs;
use crate::collection::Store;
use crate::engine::view_file::ViewFiles;
use crate::export::{self, Compression, Export, ExportError, Part};
use crate::format::{DirectoryKind, Extension};
use crate::session::{Session, Spec};

const EXAMPLES: &str = "\
Examples:
  shufflefs shuffle plate1.h5ad plate2.zarr shuffled.zarr
  shufflefs shuffle --order sequential --compress zstd cells.h5ad chunked.zarr     (written anew in its own order)
  shufflefs shuffle --part 3/8 plates/*.h5ad shuffled.zarr                          (on each of 8 machines, then:)
  shufflefs shuffle --finish 8 plates/*.h5ad shuffled.zarr";

#[derive(Debug, Args)]
#[command(
    override_usage = "shufflefs shuffle [OPTIONS] <STORE>... <OUT>",
    after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP),
)]
pub struct ShuffleArgs {
    /// AnnData stores, seen as one table of rows; and last what to write: OUT.zarr, an annbatch collection, OUT.h5ad, or OUT.parquet, a
    /// directory of files
    #[arg(value_name = "STORE... OUT", required = true, num_args = 1..)]
    pub paths: Vec<PathBuf>,

    /// The epoch to write
    #[arg(long, value_name = "NUMBER", default_value_t = 0, help_heading = "Shuffle")]
    epoch: u64,

    /// The view to write, if there are several
    #[arg(long, value_name = "NAME", help_heading = "Shuffle")]
    view: Option<String>,

    /// How chunks of .zarr are compressed (blosc); .h5ad and .parquet are not
    #[arg(long, value_name = "CODEC", value_enum, default_value = "lz4", help_heading = "Shuffle")]
    compress: Compression,

    /// Write only part I of N, from 0; parts may be written in any order, on any machine; `auto`: the number of a Slurm array task
    /// (SLURM_ARRAY_TASK_ID). All parts need the same stores and options
    #[arg(long, value_name = "I/N|auto", value_parser = part, help_heading = "Shuffle")]
    part: Option<Part>,

    /// Complete the store from its N written parts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "part",
          help_heading = "Shuffle")]
    finish: Option<u64>,

    /// Read the written data again, and compare them with the stores
    #[arg(long, help_heading = "Shuffle")]
    verify: bool,

    #[command(flatten)]
    pub options: OptionArgs,
}

fn part(text: &str) -> Result<Part, String> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let found = if text == "auto" {
        let from = number("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
        let task = number("SLURM_ARRAY_TASK_ID").zip(number("SLURM_ARRAY_TASK_COUNT"));
        let (task, of) = task.ok_or("this is no task of a Slurm array (no SLURM_ARRAY_TASK_ID): write 3/8")?;
        Some(Part { index: task.wrapping_sub(from), of })
    } else {
        text.split_once('/').and_then(|(i, n)| Some(Part { index: i.parse().ok()?, of: n.parse().ok()? }))
    };
    found.filter(|part| part.index < part.of).ok_or_else(|| "write I/N with I from 0 to N - 1, such as 3/8".to_owned())
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Failure {
        let exit = match &error {
            ExportError::Exists { .. } | ExportError::Parts(_) => Exit::Usage,
            ExportError::Read(_) => Exit::Store,
            _ => Exit::Internal,
        };
        Failure { exit, error: error.into() }
    }
}

pub fn shuffle(args: ShuffleArgs) -> Outcome {
    let mut stores = args.paths;
    let Some(out) = stores.pop().filter(|_| !stores.is_empty()) else {
        return Err(Failure::usage("the place to write to is missing: shufflefs shuffle [OPTIONS] <STORE>... <OUT>"));
    };
    let extension = out.extension().and_then(|end| end.to_str());
    let kind = DirectoryKind::ALL.iter().copied().find(|kind| Some(kind.as_str()) == extension);
    let named = |name: &str| Extension::from_name(name).filter(|format| Some(format.as_str()) == extension);
    let (h5ad, parquet) = (named("h5ad"), named("parquet"));
    if kind.is_none() && h5ad.is_none() && parquet.is_none() {
        return Err(Failure::usage(format!("{}: name it .zarr, .h5ad or .parquet", out.display())));
    }
    if h5ad.is_some() && (args.part.is_some() || args.finish.is_some()) {
        return Err(Failure::usage("parts are written to a .zarr or .parquet"));
    }
    let options = args.options.validate(stores)?;
    log::start_if_asked(options.log.as_deref())?;
    let derive = |spec| Session::builder(spec).derive().or_exit(Exit::Store);
    let mut session = derive(options.spec.clone())?;
    if session.collection.table.has_modalities() {
        return Err(Failure::usage("a copy is of one AnnData: name one modality alone, as in file.h5mu::mod/rna"));
    }
    let view = match &args.view {
        None if session.views.len() == 1 => 0,
        None => return Err(Failure::usage(format!("which view? --view {}", names(&session)))),
        Some(name) => match session.views.iter().position(|view| view.name == *name) {
            Some(found) => found,
            None => return Err(Failure::usage(format!("there is no view {name}, but {}", names(&session)))),
        },
    };
    if let Some(format) = parquet {
        let refused = |why: &str| Failure { exit: Exit::Store, error: anyhow::anyhow!("OUT.parquet: {why}") };
        session.writers.get(format).map_err(refused)?;
        let merged = a_fetch_a_batch(&session, options.spec, view)?;
        session = derive(merged)?;
    }
    let (rows, batches) = (session.views[view].plan.drawn_rows(), session.views[view].plan.batches());
    let of_store = |store: &Store| {
        let versions: Vec<_> = store.container.identity().into_iter().map(|object| object.version).collect();
        format!("{}: {versions:?}", store.path.display())
    };
    let stores: Vec<String> = session.collection.stores.iter().map(of_store).collect();
    let identity = json!({
        "version": super::version::text(),
        "options": session.options(),
        "stores": stores,
        "view": view,
        "epoch": args.epoch,
    });
    let engine = Arc::new(session.engine().or_exit(Exit::Store)?);
    let export = Export {
        files: ViewFiles::new(engine.clone()),
        engine,
        view: u16::try_from(view).or_exit(Exit::Internal)?,
        epoch: args.epoch,
        batches,
        out,
        identity,
        compression: args.compress,
        verify: args.verify,
    };
    let start = Instant::now();
    let part = args.part.unwrap_or(Part { index: 0, of: 1 });
    let of = args.finish.unwrap_or(1);
    if args.finish.is_none() {
        match (h5ad, parquet, kind) {
            (Some(format), ..) => _ = export::h5ad(&export, format)?,
            (None, Some(format), _) => _ = export::files(&export, format, part)?,
            (None, None, Some(kind)) => _ = export::collection(&export, kind, part)?,
            (None, None, None) => {}
        }
    }
    if args.part.is_some() {
        return say(&format!("part {}/{} is written", part.index, part.of));
    }
    match (parquet, kind) {
        (Some(_), _) => export::finish_files(&export, of)?,
        (None, Some(_)) => export::finish(&export, of)?,
        (None, None) => {}
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = rows as f64 / seconds.max(1e-9);
    say(&format!("{}: {rows} rows in {seconds:.1} s, {rate:.0} rows/s", export.out.display()))
}

/// A spec that serves the same rows in the same order, with fetches as batches: files of 256 rows would be too small. Batches of one class
/// each stay as they are.
fn a_fetch_a_batch(session: &Session, mut spec: Spec, view: usize) -> Result<Spec, Failure> {
    let plan = &session.views[view].plan;
    let sampling = *plan.sampling();
    if sampling.drop_last {
        return Err(Failure::usage(
            "--drop-last leaves out rows of a short batch, and files of .parquet are no batches: leave it out",
        ));
    }
    if plan.strategy().has_full_batches() {
        let size = |number: u64| u32::try_from(number.max(1)).unwrap_or(u32::MAX);
        let asked = &mut spec.views[view];
        asked.block_size = Some(size(sampling.block_size));
        asked.batch_size = size(sampling.fetch_rows().min(plan.drawn_rows()));
        asked.fetch_factor = Some(1);
    }
    Ok(spec)
}

fn say(line: &str) -> Outcome {
    writeln!(std::io::stdout(), "{line}").or_exit(Exit::Internal)?;
    Ok(0)
}

fn names(session: &Session) -> String {
    session.views.iter().map(|view| view.name.as_str()).collect::<Vec<_>>().join(", ")
}

//! `shufflefs tune`: measures stores on this machine, and recommends options as a command line.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, OrExit, Outcome};
use super::log;
use super::options::OptionArgs;
use super::values;
use crate::format::Extension;
use crate::mount::namespace::Namespace;
use crate::tune::measure::{FileTime, Loading};
use crate::tune::model::{Modelled, Setting};
use crate::tune::{self, Asked, Report, plot};

const EXAMPLES: &str = "\
Examples:
  shufflefs tune cells.h5ad
  shufflefs tune --label plate --plot tune.svg --format safetensors plates/*.h5ad
  shufflefs tune --target-rate 20000 --max-memory 2GiB --json atlas.zarr";

#[derive(Debug, Args)]
#[command(
    override_usage = "shufflefs tune [OPTIONS] <STORE>...",
    after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP),
)]
pub struct TuneArgs {
    /// AnnData stores, seen as one table of rows; or one .toml file with stores = [...] and options
    #[arg(value_name = "STORE", required_unless_present = "modality")]
    pub stores: Vec<PathBuf>,

    /// The obs column whose labels are to be mixed [default: the sixteenth of the stored order that a row is in]
    #[arg(long, value_name = "COLUMN", help_heading = "Tune")]
    label: Option<String>,

    /// A sufficient rate, in rows a second: recommend the best mixed setting that reaches it, with the least memory [default: the
    /// fastest setting that mixes well]
    #[arg(long, value_name = "ROWS", help_heading = "Tune", value_parser = rate)]
    target_rate: Option<f64>,

    /// Maximum memory of the mount [default: as --memory]
    #[arg(long, value_name = "SIZE", help_heading = "Tune", value_parser = values::size)]
    max_memory: Option<u64>,

    /// Formats to try besides --format, comma-separated [default: npz, safetensors]
    #[arg(long, value_name = "FORMAT,...", value_delimiter = ',', help_heading = "Tune", value_parser = values::format())]
    formats: Vec<Extension>,

    /// The view to tune, if there are several [default: the first]
    #[arg(long, value_name = "NAME", help_heading = "Tune")]
    view: Option<String>,

    /// The Python interpreter to measure readers with (numpy, safetensors, pyarrow, anndata)
    #[arg(long, value_name = "PROGRAM", default_value = "python3", help_heading = "Tune")]
    python: PathBuf,

    /// Plot rate against entropy to this file (SVG) [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Tune")]
    plot: Option<PathBuf>,

    /// Print JSON [default: text]
    #[arg(long, help_heading = "Tune")]
    json: bool,

    #[command(flatten)]
    pub options: OptionArgs,
}

fn rate(text: &str) -> Result<f64, String> {
    let found = text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0);
    found.ok_or_else(|| "write rows a second, such as 20000".to_owned())
}

/// Options of `tune` with a value that mounts lack, and options that the recommendation sets.
const OWN: [&str; 7] = ["--label", "--target-rate", "--max-memory", "--formats", "--view", "--python", "--plot"];
const SAID: [&str; 6] = ["--batch-size", "--block-size", "--fetch-factor", "--format", "--threads", "--memory"];

/// Formats to try by default.
const DEFAULT: [&str; 2] = ["npz", "safetensors"];

pub fn tune(args: TuneArgs, line: &[OsString]) -> Outcome {
    let listed = args.options.format;
    let named = args.view.clone();
    let options = args.options.validate(args.stores)?;
    let view = match &named {
        None => 0,
        Some(name) => options.spec.views.iter().position(|view| view.name == *name).ok_or_else(|| {
            let known: Vec<&str> = options.spec.views.iter().map(|view| view.name.as_str()).collect();
            Failure::usage(format!("there is no view {name}, but {}", known.join(", ")))
        })?,
    };
    if let Some(plot) = &args.plot {
        // Tried first, so that half a minute of work is not lost at the end.
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(plot)
            .map_err(|error| Failure::usage(format_args!("--plot {}: {error}", plot.display())))?;
    }
    let mut formats = vec![listed];
    let others = if args.formats.is_empty() {
        DEFAULT.into_iter().filter_map(Extension::from_name).collect()
    } else {
        Vec::new()
    };
    for format in args.formats {
        if !formats.contains(&format) {
            formats.push(format);
        }
    }
    // Before any thread starts.
    let namespace = Namespace::enter().map_err(|error| error.to_string());
    log::start_if_asked(options.log.as_deref())?;
    let asked = Asked {
        view,
        formats,
        others,
        label: args.label,
        target_rate: args.target_rate,
        max_memory: args.max_memory,
        python: args.python,
        temporary: std::env::temp_dir(),
    };
    let report = tune::tune(&options.spec, &asked, namespace).or_exit(Exit::Store)?;
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::svg(&report))
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
            .or_exit(Exit::Internal)?;
    }
    let command = report.chosen.map(|chosen| recommended(&report.modelled[chosen].setting, line));
    let text = if args.json {
        format!("{:#}\n", told(&report, command.as_deref()))
    } else {
        text(&report, command.as_deref())
    };
    std::io::stdout().write_all(text.as_bytes()).or_exit(Exit::Internal)?;
    if report.chosen.is_none() {
        let fastest = report.modelled.iter().map(|one| one.rows_per_second).fold(0.0, f64::max);
        let wanted = asked.target_rate.map_or_else(String::new, |rate| format!(" {rate:.0} rows/s"));
        return Err(Failure {
            exit: Exit::Internal,
            error: anyhow::anyhow!(
                "no setting reaches{wanted} within the memory there is; the fastest has {fastest:.0} rows/s (see --max-memory)"
            ),
        });
    }
    Ok(0)
}

/// The command to mount with a setting: the given command line, with the tuned options replaced.
fn recommended(setting: &Setting, line: &[OsString]) -> String {
    let memory = ByteSize(setting.memory.div_ceil(1 << 20) << 20).as_u64() >> 20;
    let mut words: Vec<String> = ["shufflefs", "mount"].map(str::to_owned).to_vec();
    let said = [
        ("--batch-size", setting.batch_size.to_string()),
        ("--block-size", setting.block_size.to_string()),
        ("--fetch-factor", setting.fetch_factor.to_string()),
        ("--format", setting.format.to_owned()),
        ("--threads", setting.threads.to_string()),
        ("--memory", format!("{memory}MiB")),
    ];
    words.extend(said.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    let mut rest = line.iter().map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = rest.next() {
        let name = word.split('=').next().unwrap_or_default();
        if OWN.contains(&name) || SAID.contains(&name) {
            // Its value is in the same word, or the next one.
            if !word.contains('=') {
                rest.next();
            }
        } else if word != "--json" {
            words.push(quoted(&word));
        }
    }
    words.push("MOUNTPOINT".to_owned());
    words.join(" ")
}

/// A word, quoted for a shell if needed.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn shown(one: &Modelled) -> Value {
    let setting = &one.setting;
    json!({
        "batch_size": setting.batch_size,
        "block_size": setting.block_size,
        "fetch_factor": setting.fetch_factor,
        "k": setting.k,
        "format": setting.format,
        "threads": setting.threads,
        "memory": setting.memory,
        "rows_per_second": one.rows_per_second,
        "later_rows_per_second": one.later,
        "entropy_bits": one.entropy,
    })
}

fn told(report: &Report, command: Option<&str>) -> Value {
    let time =
        |time: Option<FileTime>| time.map(|time| json!({"seconds_per_file": time.file, "seconds_per_byte": time.byte}));
    let formats = report.formats.iter().map(|cost| {
        json!({
            "format": cost.format.as_str(),
            "bytes_per_row": cost.row_bytes,
            "loading": cost.load,
            "copy": time(cost.copy),
            "reader": time(cost.parse),
            "reader_missing": cost.missing,
            "reader_beside_loading": cost.beside,
        })
    });
    let loading = report.loading.iter().map(|one| {
        json!({
            "block_size": one.block_size,
            "rows_per_second": one.rows_per_second,
            "decode_seconds_per_row": one.decode,
            "read_seconds_per_row": one.read,
            "scatter_seconds_per_row": one.scatter,
        })
    });
    let measured =
        |i: usize| report.checked.iter().find(|(number, _)| *number == i).map(|(_, served)| served.rows_per_second);
    let one = |i: usize| {
        let mut told = shown(&report.modelled[i]);
        told["measured_rows_per_second"] = json!(measured(i));
        told
    };
    json!({
        "cores": report.cores,
        "threads": report.threads,
        "rows": report.rows,
        "label": report.label,
        "entropy_perfect_bits": report.perfect,
        "storage": {"latency_microseconds": report.latency_microseconds, "depth": report.depth},
        "loading": loading.collect::<Vec<_>>(),
        "formats": formats.collect::<Vec<_>>(),
        "not_mounted": report.unmounted,
        "modelled": report.modelled.iter().map(shown).collect::<Vec<_>>(),
        "front": report.front.iter().map(|&i| one(i)).collect::<Vec<_>>(),
        "checked": report.checked.iter().map(|(i, _)| one(*i)).collect::<Vec<_>>(),
        "batch_sizes": report.batches.iter().map(shown).collect::<Vec<_>>(),
        "recommended": report.chosen.map(one),
        "command": command,
        "seconds": report.seconds,
    })
}

fn text(report: &Report, command: Option<&str>) -> String {
    let mut out = format!(
        "Measured in {:.1} s: {} rows, {} cores, {} threads.\n",
        report.seconds, report.rows, report.cores, report.threads
    );
    let _ = writeln!(
        out,
        "storage: {:.0} us a request, {:.0} in flight (the page cache as it is)",
        report.latency_microseconds, report.depth
    );
    for Loading { block_size, rows_per_second, decode, read, scatter, .. } in &report.loading {
        let of = |seconds: &f64| seconds * 1e6;
        let _ = writeln!(
            out,
            "loading blocks of {block_size:>4}: {rows_per_second:>8.0} rows/s; us a row on all threads: decode {:.1}, read {:.1}, place {:.1}",
            of(decode),
            of(read),
            of(scatter)
        );
    }
    if let Some(why) = &report.unmounted {
        let _ = writeln!(out, "not mounted here ({why}): the copy to a reader is assumed, 1.2 GB/s");
    }
    for cost in &report.formats {
        let name = cost.format.as_str();
        let rate =
            |time: FileTime| format!("{:.0} us a file and {:.2} GB/s", time.file * 1e6, 1e-9 / time.byte.max(1e-15));
        if let Some(copy) = cost.copy {
            let _ = writeln!(out, "{name}: copied through the mount with {}", rate(copy));
        }
        match (cost.parse, &cost.missing) {
            (Some(parse), _) => {
                let beside = cost.beside;
                _ = writeln!(out, "{name}: read by Python with {}, {beside:.1} times that beside loading", rate(parse))
            }
            (None, Some(why)) => {
                _ = writeln!(out, "{name}: Python's reader is not measured ({why}): copying alone is counted")
            }
            _ => {}
        }
    }
    let _ = writeln!(out, "\nentropy of {} in bits; perfect shuffling: {:.2}", report.label, report.perfect);
    let head = ["block", "fetch", "k", "format", "threads", "memory", "rows/s", "later", "measured", "entropy"];
    let line = |one: &Modelled, measured: Option<f64>| {
        let setting = &one.setting;
        let measured = measured.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        [
            setting.block_size.to_string(),
            setting.fetch_factor.to_string(),
            format!("{:.0}", setting.k),
            setting.format.to_owned(),
            setting.threads.to_string(),
            ByteSize(setting.memory).to_string(),
            format!("{:.0}", one.rows_per_second),
            format!("{:.0}", one.later),
            measured,
            format!("{:.2}", one.entropy),
        ]
    };
    let measured =
        |i: usize| report.checked.iter().find(|(number, _)| *number == i).map(|(_, served)| served.rows_per_second);
    let mut numbers = report.front.clone();
    numbers.extend(report.checked.iter().map(|(i, _)| *i).filter(|i| !report.front.contains(i)));
    let mut lines: Vec<[String; 10]> = vec![head.map(str::to_owned)];
    lines.extend(numbers.iter().map(|&i| line(&report.modelled[i], measured(i))));
    table(&mut out, &lines);
    if !report.batches.is_empty() {
        out.push_str("\nas many blocks mixed, in batches of other sizes\n");
        let rows = report.batches.iter().map(|one| {
            [one.setting.batch_size.to_string(), format!("{:.0}", one.rows_per_second), format!("{:.2}", one.entropy)]
        });
        let mut lines = vec![["batch", "rows/s", "entropy"].map(str::to_owned)];
        lines.extend(rows);
        table(&mut out, &lines);
    }
    if let Some(command) = command {
        let _ = writeln!(out, "\nrecommended:\n  {command}");
    }
    out
}

/// Formats right-aligned columns.
fn table<const N: usize>(out: &mut String, lines: &[[String; N]]) {
    let widths: Vec<usize> =
        (0..N).map(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0)).collect();
    for line in lines {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(out, "  {cell:>width$}");
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recommendation_keeps_what_was_asked_for() {
        let setting = Setting {
            batch_size: 64,
            block_size: 16,
            fetch_factor: 256,
            k: 1024.0,
            format: "npz",
            threads: 2,
            memory: (1 << 30) + 1,
        };
        let words =
            ["--label", "plate", "--block-size=4", "--json", "--where", "a == \"b\"", "--memory", "3GiB", "x y.h5ad"];
        let line: Vec<OsString> = words.iter().map(OsString::from).collect();
        assert_eq!(
            recommended(&setting, &line),
            "shufflefs mount --batch-size 64 --block-size 16 --fetch-factor 256 --format npz --threads 2 --memory 1025MiB \
             --where 'a == \"b\"' 'x y.h5ad' MOUNTPOINT"
        );
        assert!(rate("0").is_err() && rate("-3").is_err() && rate("inf").is_err() && rate("2e4") == Ok(2e4));
    }
}

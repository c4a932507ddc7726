//! Measures stores, mount and reader on this machine, models the settings that were not measured, and chooses one (`tune`).
//!
//! Measurements use the real thing: the engine loads fetches of several block sizes, and a private mount is read by the reader that
//! trainers have. The model ([`model`]) extrapolates: the bytes that a setting decodes and the requests that it makes are counted in
//! its own plan, and multiplied by the measured seconds a byte. Finally, the chosen settings are read for real.
//!
//! Nothing here changes what is served: a recommendation consists of ordinary options.

mod costs;
pub mod measure;
pub mod model;
pub mod plot;
pub mod reader;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::format::Extension;
use crate::mount::namespace::Namespace;
use crate::mount::{Mounted, Settings};
use crate::plan::strategy::STRATEGIES;
use crate::plan::{Plan, Sampling};
use crate::session::spec::ViewSpec;
use crate::session::{Session, SessionError, Spec, memory};
use crate::tree::Tree;

use costs::Costs;
use measure::{FileTime, FormatCost, Loading, Place, Served};
use model::{Modelled, Setting, choose, front, needed};
use reader::Reader;

/// Time limits for measuring loads, and for reading chosen settings.
const LOADING: Duration = Duration::from_secs(10);
const CHECKING: Duration = Duration::from_millis(1500);
/// Settings that are read for real at the end.
const CHECKED: usize = 3;
/// No further setting is read for real after this time, so that `tune` ends within half a minute.
const ENOUGH: Duration = Duration::from_secs(20);
/// Fetches that must be read before a rate counts as that of an epoch.
const FETCHES: u64 = 3;
/// Block sizes to try, fastest first, and values of k.
const BLOCKS: [u64; 5] = [1024, 256, 64, 16, 4];
const MIXED: [u64; 5] = [4, 16, 64, 256, 1024];
/// Rows and bytes of a fetch in a measurement.
const FETCH_ROWS: u64 = 4096;
const FETCH_BYTES: f64 = (128u64 << 20) as f64;
/// Used if mounting is impossible: what a reader took on another machine (Linux 6.18, Xeon 2.5 GHz; fresh buffers).
const ASSUMED: FileTime = FileTime { file: 60e-6, byte: 1.0 / 1.2e9 };

/// The options of `tune` besides those of a mount.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The view that is tuned.
    pub view: usize,
    /// At least one; costs are relative to the first.
    pub formats: Vec<Extension>,
    /// Further formats, used if they can hold the stores.
    pub others: Vec<Extension>,
    /// The obs column whose entropy is shown; `None`: the sixteenth of the stored order that a row is in.
    pub label: Option<String>,
    /// A sufficient rate, in rows a second.
    pub target_rate: Option<f64>,
    /// Upper limit of `--memory`, bytes.
    pub max_memory: Option<u64>,
    /// The Python interpreter of the reader.
    pub python: PathBuf,
    /// Where to make a directory to mount on, if the namespace offers none.
    pub temporary: PathBuf,
}

/// The result.
pub struct Report {
    pub cores: usize,
    pub threads: usize,
    pub rows: u64,
    /// By block size, the largest first.
    pub loading: Vec<Loading>,
    pub formats: Vec<FormatCost>,
    /// Why nothing was read through a mount, if so.
    pub unmounted: Option<String>,
    /// Median latency of a storage request in microseconds, and requests in flight.
    pub latency_microseconds: f64,
    pub depth: f64,
    pub label: String,
    /// Entropy of perfect shuffling, in bits.
    pub perfect: f64,
    pub modelled: Vec<Modelled>,
    /// Indices of the Pareto front in `modelled`, slowest first.
    pub front: Vec<usize>,
    pub chosen: Option<usize>,
    /// The chosen setting with other batch sizes and the same k.
    pub batches: Vec<Modelled>,
    /// Settings that were read for real, by their index.
    pub checked: Vec<(usize, Served)>,
    pub seconds: f64,
}

/// Measures, models and chooses. `namespace`: the private mount namespace, or why there is none.
///
/// # Errors
/// A store cannot be read or served; the order is not `block`; all rows have one label.
pub fn tune(spec: &Spec, asked: &Asked, namespace: Result<Namespace, String>) -> Result<Report, SessionError> {
    let began = Instant::now();
    let view = &spec.views[asked.view];
    if view.draw.strategy != STRATEGIES[0].name {
        let order = STRATEGIES[0].name;
        return Err(SessionError::Refused(format!("tune models --order {order}, not other ways of drawing rows")));
    }
    let session = Session::builder(spec.clone()).also(asked.label.as_deref()).derive()?;
    let mut asked = asked.clone();
    for format in std::mem::take(&mut asked.others) {
        if session.writers.get(format).is_ok() && !asked.formats.contains(&format) {
            asked.formats.push(format);
        }
    }
    let asked = &asked;
    let costs = Costs::new(&session, asked)?;
    let limit = asked.max_memory.or(spec.memory).or_else(|| memory::default_budget(1)).unwrap_or(1 << 30);
    let (sizes, fetch_rows) = costs.probes(&session);
    // The engine has memory for what it loads but none for decoded chunks, as with data larger than memory.
    let mut views: Vec<ViewSpec> = sizes.iter().map(|&block| probe(view, view.batch_size, block, fetch_rows)).collect();
    let other = costs.other_batch(view.batch_size);
    let block = sizes.first().copied().unwrap_or(1);
    views.push(probe(view, view.batch_size, block, fetch_rows.max(2 * u64::from(view.batch_size))));
    views.push(probe(view, other, block, fetch_rows.max(2 * u64::from(other))));
    let room = needed((views.iter().map(fetch_of).max().unwrap_or(1) as f64 * costs.largest_row()) as u64);
    let probing = Probing::start(spec, views, room.max(64 << 20), namespace.as_ref(), asked)?;
    let loading = costs.loading(&probing.engine, &sizes, asked.formats[0], LOADING)?;
    let mut formats = costs.formats(&probing.engine, &loading, &asked.formats)?;
    let unmounted = read(&mut formats, probing.mounted(), &asked.python, sizes.len() as u16);
    let stats = probing.engine.stats();
    let number = |name: &str| stats["storage"][name].as_f64().unwrap_or(0.0);
    let (depth, latency) = (number("depth").max(1.0), number("latency_microseconds"));
    let latency_microseconds = if latency > 0.0 { latency } else { number("p50_microseconds") };
    drop(probing);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let wait = latency / 1e6 / depth;
    let machine = Machine { cores, threads: spec.threads, wait, limit };
    let admitted = |one: &Modelled| one.setting.memory <= limit;
    let mut modelled = costs.model(&loading, &formats, &machine);
    let mut served = Vec::new();
    if unmounted.is_none() {
        for cost in &mut formats {
            let of = |one: &&Modelled| {
                one.setting.format == cost.format.as_str() && one.setting.threads == spec.threads && admitted(one)
            };
            // Compares formats where the reader is the bottleneck and no decoded chunks are retained.
            let fastest = modelled.iter().filter(of).min_by(|one, other| {
                let key = |one: &Modelled| (-one.rows_per_second, one.later);
                key(one).partial_cmp(&key(other)).unwrap_or(std::cmp::Ordering::Equal)
            });
            let Some(fastest) = fastest.filter(|_| began.elapsed() < ENOUGH) else { continue };
            let Some(found) = serve(spec, asked, namespace.as_ref(), &fastest.setting, cost, limit)? else { continue };
            served.push((fastest.setting, found));
            if found.fetches >= FETCHES {
                let reader = fastest.cost.reader_where(1.0 / found.rows_per_second.max(1e-6), cores);
                cost.beside = (reader / fastest.cost.reader.max(1e-12)).clamp(0.5, 4.0);
            }
        }
        modelled = costs.model(&loading, &formats, &machine);
    }
    let perfect = costs.perfect;
    let mut report = Report {
        cores,
        threads: spec.threads,
        rows: costs.rows(),
        chosen: choose(&modelled, perfect, asked.target_rate, admitted),
        front: front(&modelled, admitted),
        loading,
        unmounted,
        latency_microseconds,
        depth,
        label: asked.label.clone().unwrap_or_else(|| "sixteenth of the stored order".to_owned()),
        perfect,
        batches: Vec::new(),
        checked: Vec::new(),
        modelled,
        formats,
        seconds: 0.0,
    };
    if let Some(chosen) = report.chosen {
        let chosen = report.modelled[chosen].setting;
        report.batches = costs.batches(&chosen, &report.loading, &report.formats, &machine);
    }
    drop(session);
    if report.unmounted.is_none() {
        report.checked = check(spec, asked, namespace.as_ref(), &report, &served, limit, began)?;
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// The resources that settings are modelled for.
struct Machine {
    cores: usize,
    threads: usize,
    /// Latency of slow storage in seconds, divided by requests in flight; 0 if storage is fast.
    wait: f64,
    /// Bytes that a mount may use.
    limit: u64,
}

/// A view to measure: blocks of one size, in fetches of about `rows` rows.
fn probe(view: &ViewSpec, batch: u32, block: u64, rows: u64) -> ViewSpec {
    let size = |number: u64| u32::try_from(number.max(1)).unwrap_or(u32::MAX);
    ViewSpec {
        name: format!("probe-{batch}-{block}-{rows}"),
        batch_size: batch,
        block_size: Some(size(block)),
        fetch_factor: Some(size(rows / u64::from(batch.max(1)))),
        drop_last: false,
        ..view.clone()
    }
}

/// Rows of a fetch of a view with explicit sizes.
fn fetch_of(view: &ViewSpec) -> u64 {
    u64::from(view.batch_size) * u64::from(view.fetch_factor.unwrap_or(1))
}

/// An engine, and its mount if mounting is possible.
struct Probing {
    mount: Result<Mounted, String>,
    tree: Arc<Tree>,
    engine: Arc<Engine>,
}

impl Probing {
    fn start(
        spec: &Spec,
        mut views: Vec<ViewSpec>,
        room: u64,
        namespace: Result<&Namespace, &String>,
        asked: &Asked,
    ) -> Result<Probing, SessionError> {
        // Names must differ, even if two probes have equal sizes.
        for (number, view) in views.iter_mut().enumerate() {
            view.name.push_str(&format!("-{number}"));
        }
        let threads = spec.threads;
        let spec = Spec { views, memory: Some(room), rank: None, format: asked.formats[0], ..spec.clone() };
        let filesystem = Session::builder(spec).serve(None, Arc::new(Vec::new))?;
        let (engine, tree) = (filesystem.engine.clone(), filesystem.tree.clone());
        let started = filesystem.page_cache.starter();
        let settings = Settings { source: "shufflefs-tune".to_owned(), allow_other: false, threads, helper: false };
        let mount = namespace.map_err(String::clone).and_then(|namespace| {
            let mount =
                namespace.place(&asked.temporary).and_then(|at| Mounted::start(filesystem, at, &settings, started));
            mount.map_err(|error| error.to_string())
        });
        Ok(Probing { mount, tree, engine })
    }

    /// # Errors
    /// The reason why there is no mount.
    fn mounted(&self) -> Result<Place<'_>, String> {
        let mount = self.mount.as_ref().map_err(String::clone)?;
        Ok(Place { path: mount.path(), tree: &self.tree, engine: &self.engine })
    }
}

/// Measures how readers read loaded files of each format, of two sizes: those of `view` and of the next view. Returns why nothing could
/// be read, if so.
fn read(
    formats: &mut [FormatCost],
    place: Result<Place<'_>, String>,
    python: &std::path::Path,
    view: u16,
) -> Option<String> {
    let place = match place {
        Ok(place) => place,
        Err(why) => return Some(why),
    };
    let time = |reader: &mut Reader, format: Extension| {
        let mut both = [place.loaded(reader, view, format)?, place.loaded(reader, view + 1, format)?];
        both.sort_by(|one, other| one.0.total_cmp(&other.0));
        Ok::<_, String>(FileTime::of(both[0], both[1]))
    };
    let mut plain = match Reader::plain() {
        Ok(plain) => plain,
        Err(why) => return Some(why),
    };
    let mut python = Reader::python(python);
    for cost in formats {
        match time(&mut plain, cost.format) {
            Ok(copy) => cost.copy = Some(copy),
            Err(why) => return Some(why),
        }
        let parsed = match &mut python {
            Ok(python) => time(python, cost.format),
            Err(why) => Err(why.clone()),
        };
        match parsed {
            Ok(parse) => cost.parse = Some(parse),
            Err(why) => cost.missing = Some(why),
        }
    }
    None
}

/// Reads the chosen setting and some of the front, each in a mount of its own, except those in `served`.
fn check(
    spec: &Spec,
    asked: &Asked,
    namespace: Result<&Namespace, &String>,
    report: &Report,
    served: &[(Setting, Served)],
    limit: u64,
    began: Instant,
) -> Result<Vec<(usize, Served)>, SessionError> {
    let front = &report.front;
    let ends = [front.last(), front.first()].into_iter().flatten().copied();
    let mut wanted: Vec<usize> = Vec::new();
    for number in report.chosen.into_iter().chain(ends).chain(front.iter().copied()) {
        if !wanted.contains(&number) && wanted.len() < CHECKED {
            wanted.push(number);
        }
    }
    let mut checked = Vec::new();
    for number in wanted {
        let setting = &report.modelled[number].setting;
        let known = served.iter().find(|(other, _)| other == setting).map(|(_, served)| *served);
        let Some(cost) = report.formats.iter().find(|cost| cost.format.as_str() == setting.format) else { continue };
        let found = match known {
            Some(known) => Some(known),
            None if began.elapsed() < ENOUGH => serve(spec, asked, namespace, setting, cost, limit)?,
            None => None,
        };
        checked.extend(found.map(|found| (number, found)));
    }
    Ok(checked)
}

/// Reads one setting in a mount of its own; `None` if that is impossible.
fn serve(
    spec: &Spec,
    asked: &Asked,
    namespace: Result<&Namespace, &String>,
    setting: &Setting,
    cost: &FormatCost,
    limit: u64,
) -> Result<Option<Served>, SessionError> {
    let Setting { batch_size, block_size, fetch_factor, threads, memory, .. } = *setting;
    let format = cost.format;
    let size = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let view = ViewSpec {
        fetch_factor: Some(size(fetch_factor)),
        ..probe(&spec.views[asked.view], size(batch_size), block_size, 1)
    };
    let asked = Asked { formats: vec![format], ..asked.clone() };
    let probing = Probing::start(&Spec { threads, ..spec.clone() }, vec![view], memory.min(limit), namespace, &asked)?;
    let Ok(place) = probing.mounted() else { return Ok(None) };
    let reader = if cost.parse.is_some() { Reader::python(&asked.python) } else { Reader::plain() };
    let Ok(mut reader) = reader else { return Ok(None) };
    // The first file makes Python import its libraries.
    let warm = place.files(0, 0..1, format);
    let served = reader.read(format, &warm, CHECKING).and_then(|_| place.served(&mut reader, 0, format, CHECKING));
    Ok(served.ok())
}

/// A plan over the rows of another one.
fn plan(base: &Plan, sampling: Sampling) -> Plan {
    Plan::of(Arc::new(crate::plan::strategy::Permuted::new(base.view().clone(), sampling)))
}

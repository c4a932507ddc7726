//! The file system that a mount serves, built from the options.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::anndata::index::IndexDir;
use crate::array::Counters;
use crate::collection::genes::Columns;
use crate::collection::{Collection, Selection};
use crate::engine::{Engine, Limits};
use crate::format::Writers;
use crate::fuse::{Handles, Ownership, ShuffleFs};
use crate::plan::{Plan, Sampling, auto};
use crate::tree::documents::{Documents, Told, categorical};
use crate::tree::{Tree, View, category_files};

use super::log::Recent;
use super::memory;
use super::options::Options;
use super::probe;

/// Opens the stores and builds what is served.
pub fn filesystem(options: &Options, log: &Recent) -> anyhow::Result<ShuffleFs> {
    let counters = Counters { room: memory::metadata(), ..Counters::default() };
    let selection = Selection {
        x: options.x.clone(),
        obs: options.obs.clone(),
        join: options.join,
        index: IndexDir(options.index_dir.clone()),
    };
    let probed = probe::stores(options)?;
    let collection = Collection::open(&options.stores, &selection, &counters)?;
    probed.confirm()?;
    for (column, reason) in &collection.left_out {
        tracing::info!("obs column {column} is not served: {reason}");
    }
    for store in collection.stores.iter().filter(|store| store.columns.map.is_some()) {
        let Columns { shared, missing, extra, .. } = &store.columns;
        let (path, join) = (store.path.display(), options.join.as_str());
        tracing::info!("{path}: {shared} genes aligned by name, {missing} missing, {extra} left out (--join {join})");
    }
    let listed = options.format;
    let writers = Writers::new(&collection.table);
    if let Err(reason) = writers.get(listed) {
        anyhow::bail!("--format {}: {reason}", listed.as_str());
    }
    let plan = Plan::new(&collection.store_rows(), sampling(options, &collection));
    let shown = show(options, plan.sampling());
    let told = Told { name: "all", plan: &plan, more: Map::new() };
    let documents = Documents::new(&collection, &[told], &shown);
    let tree = Tree {
        views: vec![View { name: "all".to_owned(), batches: plan.batches(), padded: false }],
        rank: None,
        listed_epochs: u64::from(options.epochs),
        listed,
        extensions: writers.extensions(),
        categories: category_files(categorical(&collection.table).map(|(column, _)| column.name.as_str())),
    };
    // SAFETY: these calls always succeed and touch no memory.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let ownership =
        Ownership { uid: options.uid.unwrap_or(uid), gid: options.gid.unwrap_or(gid), mtime: newest(&collection) };
    let memory = options.memory.or_else(memory::default_budget).unwrap_or(1 << 30);
    let limits = Limits { memory, threads: options.threads, timeout: options.timeout };
    let mut shown = shown;
    shown["pid"] = json!(std::process::id());
    shown["memory"] = json!(memory);
    shown["threads"] = json!(options.threads);
    shown["timeout_seconds"] = json!(options.timeout.as_secs_f64());
    let log = log.clone();
    Ok(ShuffleFs {
        engine: Engine::new(collection, vec![plan], writers, counters, limits)?,
        tree,
        documents,
        ownership,
        keep_cache: options.cache,
        options: format!("{shown:#}\n"),
        log: Arc::new(move || log.text()),
        handles: Handles::default(),
    })
}

/// The sampling asked for, `auto` filled in from the collection.
pub fn sampling(options: &Options, collection: &Collection) -> Sampling {
    let grain = collection.grain();
    let batch_size = u64::from(options.batch_size);
    let block_size = options.block_size.map_or_else(|| auto::block_size(&grain), u64::from);
    let fetch_factor =
        options.fetch_factor.map_or_else(|| auto::fetch_factor(&grain, batch_size, block_size), u64::from);
    Sampling { batch_size, block_size, fetch_factor, seed: options.seed, drop_last: options.drop_last }
}

/// The options that decide the bytes served, as `dataset.json` shows them: nothing of the machine.
fn show(options: &Options, sampling: &Sampling) -> Value {
    json!({
        "x": options.x,
        "obs": options.obs,
        "join": options.join.as_str(),
        "format": options.format.as_str(),
        "epochs": options.epochs,
        "batch_size": sampling.batch_size,
        "block_size": sampling.block_size,
        "fetch_factor": sampling.fetch_factor,
        "seed": sampling.seed,
        "drop_last": sampling.drop_last,
    })
}

/// When the newest store was written.
fn newest(collection: &Collection) -> SystemTime {
    let times = collection.stores.iter().filter_map(|store| std::fs::metadata(store.container.path()).ok());
    let newest = times.map(|metadata| (metadata.mtime(), metadata.mtime_nsec())).max().unwrap_or_default();
    UNIX_EPOCH + Duration::new(newest.0.try_into().unwrap_or(0), newest.1.try_into().unwrap_or(0))
}

//! The file system that a mount serves, built from the options.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::anndata::index::IndexDir;
use crate::array::{Counters, Dtype};
use crate::collection::genes::{ColumnMap, Genes};
use crate::collection::{Collection, CollectionError, Selection};
use crate::engine::{Engine, Limits};
use crate::format::Writers;
use crate::fuse::page_cache::PageCache;
use crate::fuse::passthrough::Passthrough;
use crate::fuse::{Handles, Ownership, ShuffleFs};
use crate::tree::documents::{Documents, ViewDoc, categorical};
use crate::tree::{Tree, category_files};
use crate::view::suggest::suggest;

use super::log::Recent;
use super::memory;
use super::options::Options;
use super::probe;
use super::select;
use super::values::uneven_name;

/// Opens the stores and builds what is served.
pub fn filesystem(options: &Options, log: &Recent) -> anyhow::Result<ShuffleFs> {
    let counters = Counters { room: memory::metadata(), ..Counters::default() };
    let collection = open(options, &[], &counters)?;
    let listed = options.format;
    let writers = Writers::new(&collection.table);
    if let Err(reason) = writers.get(listed) {
        anyhow::bail!("--format {}: {reason}", listed.as_str());
    }
    for (format, reason) in writers.refused() {
        tracing::warn!("there are no .{} files: {reason}", format.as_str());
    }
    let views = select::views(options, &collection, &counters)?;
    let shown = show(options, &views);
    let docs: Vec<ViewDoc<'_>> =
        views.iter().map(|view| ViewDoc { name: &view.name, plan: &view.plan, more: view.doc.clone() }).collect();
    let documents = Documents::new(&collection, &writers, &docs, options.rank, &shown);
    let tree = Tree {
        views: views.iter().map(select::ViewPlan::in_tree).collect(),
        rank: options.rank,
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
    room_for_chunks(&collection, memory)?;
    let limits = Limits { memory, threads: options.threads, timeout: options.timeout };
    let mut shown = shown;
    if let Some(config) = &options.config {
        shown["config"] = json!(config.to_string_lossy());
    }
    shown["pid"] = json!(std::process::id());
    shown["memory"] = json!(memory);
    shown["threads"] = json!(options.threads);
    shown["timeout_seconds"] = json!(options.timeout.as_secs_f64());
    let log = log.clone();
    let plans = views.into_iter().map(|view| view.plan).collect();
    let engine = Arc::new(Engine::new(collection, plans, writers, counters, limits)?);
    let tree = Arc::new(tree);
    Ok(ShuffleFs {
        page_cache: PageCache::new(engine.clone(), tree.clone(), options.cache),
        passthrough: Arc::new(Passthrough::default()),
        epoch_bytes: engine.epoch_bytes(listed),
        engine,
        tree,
        documents,
        ownership,
        keep_cache: options.cache,
        options: format!("{shown:#}\n"),
        log: Arc::new(move || log.text()),
        handles: Handles::default(),
        start: Instant::now(),
    })
}

/// Opens the stores, after a child has tried what libhdf5 must parse: all that views need, and columns named in `also`.
pub fn open(options: &Options, also: &[String], counters: &Counters) -> anyhow::Result<Collection> {
    let selection = Selection {
        x: options.x.clone(),
        with: options.with.clone(),
        obs: options.obs.clone(),
        also: select::columns(options).into_iter().chain(also.iter().cloned()).collect(),
        join: options.join,
        genes: options.genes.clone(),
        arithmetic: options.arithmetic,
        dtype: options.dtype,
        index_dtype: options.index_dtype,
        index: IndexDir(options.index_dir.clone()),
    };
    let probed = probe::stores(options, also)?;
    let collection = Collection::open(&options.stores, &selection, counters).map_err(|error| match error {
        CollectionError::Unknown { cause, wanted, known } => {
            anyhow::anyhow!("{cause}; {}", suggest(&wanted, known.iter().map(String::as_str)))
        }
        error => error.into(),
    })?;
    probed.confirm()?;
    for (column, reason) in &collection.left_out {
        tracing::info!("obs column {column} is not served: {reason}");
    }
    for store in collection.stores.iter().filter(|store| store.x().columns.map.is_some()) {
        let ColumnMap { shared, missing, extra, .. } = &store.x().columns;
        let (path, join) = (store.path.display(), options.join.as_str());
        tracing::info!("{path}: {shared} genes aligned by name, {missing} missing, {extra} left out (--join {join})");
    }
    Ok(collection)
}

/// Every chunk must be decoded as a whole: one that is larger than the budget, or says so, is refused here.
fn room_for_chunks(collection: &Collection, memory: u64) -> anyhow::Result<()> {
    for array in collection.stores.iter().flat_map(|store| store.elements.iter().flat_map(|part| part.matrix.arrays()))
    {
        let bytes = array.chunk_elements().saturating_mul(array.dtype.size() as u64);
        if array.source.is_encoded() && bytes > memory {
            anyhow::bail!(
                "{}: {}: one chunk is {} decoded, more than the memory budget of {}; raise --memory, or write it in smaller \
                 chunks",
                array.store,
                array.element,
                bytesize::ByteSize(bytes),
                bytesize::ByteSize(memory)
            );
        }
    }
    Ok(())
}

/// The options that decide the bytes served, as `dataset.json` shows them: nothing of the machine.
pub fn show(options: &Options, views: &[select::ViewPlan]) -> Value {
    let mut shown = json!({
        "x": options.x,
        "obs": options.obs,
        "with": options.with,
        "join": options.join.as_str(),
        "genes": options.genes.as_ref().map(|genes| match genes {
            // The names are in var.tsv.
            Genes::Names(names) => json!({"names": names.len()}),
            Genes::Var(column) => json!({"var": column}),
        }),
        "normalize": options.arithmetic.normalize,
        "log1p": options.arithmetic.log1p,
        "dtype": options.dtype.map(Dtype::name),
        "index_dtype": options.index_dtype.map(Dtype::name),
        "format": options.format.as_str(),
        "epochs": options.epochs,
        "uneven": uneven_name(options.uneven),
    });
    let Some(fields) = shown.as_object_mut() else { return shown };
    if let Some(rank) = options.rank {
        fields.insert("rank".to_owned(), json!(format!("{}/{}", rank.index, rank.of)));
    }
    if let Some(split) = &options.split {
        let sides = split.fractions.iter().map(|side| (side.name.clone(), json!(side.share())));
        fields.insert("split".to_owned(), Value::Object(sides.collect()));
        fields.insert("split_by".to_owned(), json!(split.by));
        fields.insert("stratify".to_owned(), json!(split.stratify));
        fields.insert("split_seed".to_owned(), json!(split.seed));
    }
    fields.extend(select::shown_rows(options.filter.as_ref(), options.rows.as_deref()));
    let each = options.views.iter().zip(views).map(|(asked, view)| {
        let shown = select::shown(asked, view.plan.sampling());
        (view.name.clone(), shown)
    });
    match each.collect::<Vec<_>>().as_mut_slice() {
        // One alone has its options at the top; a restriction of its own stands beside that of all.
        [(_, only)] => {
            for (name, own) in ["where", "rows"].into_iter().filter_map(|name| Some((name, only.remove(name)?))) {
                let key = if fields.contains_key(name) { format!("view_{name}") } else { name.to_owned() };
                fields.insert(key, own);
            }
            fields.extend(std::mem::take(only));
        }
        several => {
            let several = several.iter_mut().map(|(name, shown)| (std::mem::take(name), std::mem::take(shown).into()));
            fields.insert("views".to_owned(), Value::Object(several.collect()));
        }
    }
    shown
}

/// When the newest store was written.
fn newest(collection: &Collection) -> SystemTime {
    let times = collection.stores.iter().filter_map(|store| std::fs::metadata(store.container.path()).ok());
    let newest = times.map(|metadata| (metadata.mtime(), metadata.mtime_nsec())).max().unwrap_or_default();
    UNIX_EPOCH + Duration::new(newest.0.try_into().unwrap_or(0), newest.1.try_into().unwrap_or(0))
}

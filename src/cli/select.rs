//! Views made of a collection: which rows each has, how it draws them, and what is told of it.
//!
//! Columns that only a view needs are read here, used and let go; they are not served.

mod obs;

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::options::Options;
use super::sampling::DrawOptions;
use super::values::order_name;
use super::views::ViewOptions;
use crate::array::Counters;
use crate::collection::Collection;
use crate::plan::{Order, Plan, Rows, Sampling, auto};
use crate::tree;
use crate::view::bits::Bits;
use crate::view::filter::Filter;
pub use obs::Obs;

/// A view of a collection.
pub struct ViewPlan {
    pub name: String,
    pub plan: Plan,
    /// What `dataset.json` tells of it besides how it is sampled.
    pub doc: Map<String, Value>,
}

impl ViewPlan {
    /// What names it has.
    pub fn in_tree(&self) -> tree::View {
        tree::View { name: self.name.clone(), batches: self.plan.batches(), uneven: self.plan.uneven() }
    }
}

/// Makes the views.
///
/// # Errors
/// A column or label that is not there, a file that lists no rows, a view without rows: one line.
pub fn views(options: &Options, collection: &Collection, counters: &Counters) -> anyhow::Result<Vec<ViewPlan>> {
    let mut obs = Obs::new(collection, counters)?;
    let base = obs.restricted(None, options.filter.as_ref(), options.rows.as_deref())?;
    if base.as_ref().is_some_and(Bits::is_empty) {
        bail!("no row is left: {}", restrictions(options.filter.as_ref(), options.rows.as_deref()));
    }
    let (sides, mut groups) = match &options.split {
        Some(split) => obs.split(split, base.as_ref())?,
        None => Default::default(),
    };
    let mut views = Vec::with_capacity(options.views.len());
    for view in &options.views {
        let rows = view.side.and_then(|side| sides.get(side)).or(base.as_ref());
        let made = one(view, options, &mut obs, rows);
        let named = options.views.len() > 1;
        let mut made = if named { made.with_context(|| format!("view {}", view.name))? } else { made? };
        if let Some(groups) = view.side.and_then(|side| groups.get_mut(side)).and_then(Option::take) {
            made.doc.insert("groups".to_owned(), json!(groups));
        }
        views.push(made);
    }
    Ok(views)
}

fn one(view: &ViewOptions, options: &Options, obs: &mut Obs<'_>, rows: Option<&Bits>) -> anyhow::Result<ViewPlan> {
    let collection = obs.collection;
    let rows = obs.restricted(rows, view.filter.as_ref(), view.rows.as_deref())?;
    let store_rows = collection.store_rows();
    let selected = match &rows {
        None => Rows::all(&store_rows),
        Some(bits) => Rows::from_words(&store_rows, bits.words().iter().copied())?,
    };
    if selected.is_empty() {
        let own = restrictions(view.filter.as_ref(), view.rows.as_deref());
        let cause = if view.filter.is_some() || view.rows.is_some() { own } else { "the split leaves it none".into() };
        bail!("has no rows: {cause}");
    }
    let mut doc = Map::new();
    doc.insert("view_rows".to_owned(), json!(selected.len()));
    let counted = [options.split.as_ref().and_then(|split| split.by.as_ref())]
        .into_iter()
        .chain([options.split.as_ref().and_then(|split| split.stratify.as_ref())])
        .flatten()
        .chain(match &view.draw {
            DrawOptions::Balance(column) | DrawOptions::Classes { column, .. } => Some(column),
            _ => None,
        });
    let mut counts = Map::new();
    for column in counted {
        counts.insert(column.clone(), obs.label_counts(column, &selected)?);
    }
    if !counts.is_empty() {
        doc.insert("rows_by_label".to_owned(), Value::Object(counts));
    }
    let draw = obs.draw(view, &selected)?;
    let plan = Plan::of(selected, sampling(view, collection), draw)?.with_uneven(options.uneven);
    Ok(ViewPlan { name: view.name.clone(), plan, doc })
}

/// The sampling asked for, `auto` filled in from the collection.
pub fn sampling(view: &ViewOptions, collection: &Collection) -> Sampling {
    let profile = collection.storage_profile();
    let batch_size = u64::from(view.batch_size);
    let block_size = match view.draw {
        DrawOptions::Once(Order::Random) => 1,
        _ => view.block_size.map_or_else(|| auto::block_size(&profile), u64::from),
    };
    let fetch_factor =
        view.fetch_factor.map_or_else(|| auto::fetch_factor(&profile, batch_size, block_size), u64::from);
    Sampling { batch_size, block_size, fetch_factor, seed: view.seed, drop_last: view.drop_last }
}

/// The options of a view as `options.json` shows them.
pub fn shown(view: &ViewOptions, sampling: &Sampling) -> Map<String, Value> {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    put("batch_size", json!(sampling.batch_size));
    put("block_size", json!(sampling.block_size));
    put("fetch_factor", json!(sampling.fetch_factor));
    put("seed", json!(sampling.seed));
    put("drop_last", json!(sampling.drop_last));
    match &view.draw {
        DrawOptions::Once(order) => put("order", json!(order_name(*order))),
        DrawOptions::Weights(source) => put("weights", json!(source.name)),
        DrawOptions::Balance(column) => put("balance", json!(column)),
        DrawOptions::Classes { column, weights } => {
            put("class_batches", json!(column));
            if let Some(source) = weights {
                put("weights", json!(source.name));
            }
        }
    }
    if let Some(samples) = view.samples {
        put("samples", json!(samples));
    }
    shown.extend(shown_rows(view.filter.as_ref(), view.rows.as_deref()));
    shown
}

/// Restrictions as `options.json` shows them.
pub fn shown_rows(filter: Option<&Filter>, rows: Option<&Path>) -> Map<String, Value> {
    let filter = filter.map(|filter| ("where".to_owned(), json!(filter.text())));
    let rows = rows.map(|path| ("rows".to_owned(), json!(path.to_string_lossy())));
    filter.into_iter().chain(rows).collect()
}

/// All obs columns that views ask for: what a child must be able to read before we do (`probe`).
pub fn columns(options: &Options) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let filters = options.views.iter().map(|view| &view.filter).chain([&options.filter]).flatten();
    names.extend(filters.flat_map(|filter| filter.columns()).map(str::to_owned));
    if let Some(split) = &options.split {
        names.extend(split.by.iter().chain(&split.stratify).cloned());
    }
    for view in &options.views {
        match &view.draw {
            DrawOptions::Once(_) => {}
            DrawOptions::Weights(source) => names.push(source.name.clone()),
            DrawOptions::Balance(column) => names.push(column.clone()),
            DrawOptions::Classes { column, weights } => {
                names.push(column.clone());
                names.extend(weights.iter().map(|source| source.name.clone()));
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

fn restrictions(filter: Option<&Filter>, rows: Option<&Path>) -> String {
    match (filter, rows) {
        (Some(filter), None) => format!("none for which {} is true", filter.text()),
        (None, Some(rows)) => format!("none that {} lists", rows.display()),
        (Some(filter), Some(rows)) => format!("none that {} lists and {} is true for", rows.display(), filter.text()),
        (None, None) => "there are none".to_owned(),
    }
}

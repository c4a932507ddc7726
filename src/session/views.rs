//! Makes the views of a collection: which rows each has, how it draws them, and its description in `dataset.json`.
//!
//! Columns that only a view needs are read here and then dropped; they are not served.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::array::Counters;
use crate::collection::Collection;
use crate::plan::companion::Companion;
use crate::plan::neighbours::Neighbours;
use crate::plan::strategy::{self, Registration};
use crate::plan::{Plan, Rows, Sampling, auto};
use crate::tree;
use crate::tree::documents::ViewDoc;
use crate::view::bits::Bits;
use crate::view::filter::Filter;

use super::assigned;
use super::error::{About, SessionError};
use super::modalities::{self, JoinedModality};
use super::neighbours;
use super::obs::Obs;
use super::pairs::Pairs;
use super::spec::{GroupSpec, Spec, ViewSpec};

/// A view of a collection.
pub struct ViewPlan {
    pub name: String,
    pub plan: Plan,
    /// Its description in `dataset.json`, without the sampling.
    pub doc: Map<String, Value>,
}

impl ViewPlan {
    pub fn for_documents(&self) -> ViewDoc<'_> {
        ViewDoc { name: &self.name, plan: &self.plan, more: self.doc.clone() }
    }

    /// Its part of the tree.
    pub fn in_tree(&self) -> tree::View {
        tree::View { name: self.name.clone(), batches: self.plan.batches(), uneven: self.plan.uneven() }
    }
}

/// Companions of the rows, shared by all views.
pub struct InStep {
    pub modalities: Vec<JoinedModality>,
    pub graph: Option<Arc<Neighbours>>,
}

/// Makes the views.
///
/// # Errors
/// A missing column or label, a file that lists no rows, a view without rows: one line.
pub fn views(
    spec: &Spec,
    collection: &Collection,
    beside: &InStep,
    counters: &Counters,
) -> Result<Vec<ViewPlan>, SessionError> {
    let mut obs = Obs::new(collection, counters)?;
    let base = obs.restricted(None, spec.filter.as_ref(), spec.rows.as_deref())?;
    if base.as_ref().is_some_and(Bits::is_empty) {
        let cause = restrictions(spec.filter.as_ref(), spec.rows.as_deref());
        return Err(SessionError::Refused(format!("no row is left: {cause}")));
    }
    let (sides, mut groups) = match (&spec.split, &spec.assigned) {
        (Some(split), _) => obs.split(split, base.as_ref())?,
        (None, Some(assigned)) => (assigned::sides(assigned, &mut obs, base.as_ref())?, Vec::new()),
        (None, None) => Default::default(),
    };
    let pairs = spec.pairs.as_ref().map(|pairs| Pairs::new(pairs, &mut obs)).transpose()?;
    let mut views = Vec::with_capacity(spec.views.len());
    for view in &spec.views {
        let rows = view.side.and_then(|side| sides.get(side)).or(base.as_ref());
        let made = one(view, spec, &mut obs, rows, (pairs.as_ref(), beside));
        let named = spec.views.len() > 1;
        let mut made = if named { made.about(format_args!("view {}", view.name))? } else { made? };
        if let Some(groups) = view.side.and_then(|side| groups.get_mut(side)).and_then(Option::take) {
            made.doc.insert("groups".to_owned(), json!(groups));
        }
        views.push(made);
    }
    Ok(views)
}

fn one(
    view: &ViewSpec,
    spec: &Spec,
    obs: &mut Obs<'_>,
    rows: Option<&Bits>,
    (pairs, InStep { modalities, graph }): (Option<&Pairs<'_>>, &InStep),
) -> Result<ViewPlan, SessionError> {
    let collection = obs.collection;
    let rows = obs.restricted(rows, view.filter.as_ref(), view.rows.as_deref())?;
    let store_rows = collection.store_rows();
    let select = |rows: &Option<Bits>| match rows {
        None => Ok(Rows::all(&store_rows)),
        Some(bits) => Rows::from_words(&store_rows, bits.words().iter().copied()),
    };
    let mut selected = select(&rows)?;
    if selected.is_empty() {
        let own = restrictions(view.filter.as_ref(), view.rows.as_deref());
        let cause = if view.filter.is_some() || view.rows.is_some() { own } else { "the split leaves it none".into() };
        return Err(SessionError::Refused(format!("has no rows: {cause}")));
    }
    let mut doc = Map::new();
    // In the order of the table's companions.
    let of_modality = |modality: &JoinedModality| modality.rows.clone() as Arc<dyn Companion>;
    let mut companions: Vec<Arc<dyn Companion>> = modalities.iter().map(of_modality).collect();
    if let Some(pairs) = pairs {
        let (matched, unmatched) = pairs.matched(&selected, obs)?;
        if let Some(matched) = matched {
            selected = select(&Some(rows.map_or_else(|| matched.clone(), |rows| rows.and(&matched))))?;
        }
        doc.insert("pairs".to_owned(), pairs.told(unmatched));
        companions.push(pairs.controls.clone());
    }
    if let (Some(graph), Some(asked)) = (graph, &spec.neighbours) {
        companions.push(graph.clone());
        doc.insert("neighbours".to_owned(), neighbours::told(asked, graph));
    }
    if !modalities.is_empty() {
        doc.insert("modalities".to_owned(), modalities::told(modalities, &selected));
    }
    if let Some(why) = why(view, collection) {
        doc.insert("block_size_chosen_because".to_owned(), json!(why));
    }
    doc.insert("view_rows".to_owned(), json!(selected.len()));
    // Not sets: they come from many groups, which have a table of their own.
    let counted = [spec.split.as_ref().and_then(|split| split.by.as_ref())]
        .into_iter()
        .chain([spec.split.as_ref().and_then(|split| split.stratify.as_ref())])
        .flatten()
        .chain(view.draw.labels.iter().filter(|column| *column != GroupSpec::SET));
    let mut counts = Map::new();
    for column in counted {
        counts.insert(column.clone(), obs.label_counts(column, &selected)?);
    }
    if !counts.is_empty() {
        doc.insert("rows_by_label".to_owned(), Value::Object(counts));
    }
    let registered = strategy::by_name(view.draw.strategy)
        .ok_or_else(|| SessionError::Refused(format!("no strategy is called {}", view.draw.strategy)))?;
    let inputs = obs.inputs(view, &selected)?;
    let sampling = sampling(view, registered, collection);
    let plan = Plan::of(registered.strategy(selected, sampling, inputs)?).with_uneven(spec.uneven);
    let plan = plan.with_companions(companions);
    let told = plan.strategy().told();
    if !told.is_empty() {
        let told: Map<String, Value> = told.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
        doc.insert(view.draw.strategy.to_owned(), told.into());
    }
    Ok(ViewPlan { name: view.name.clone(), plan, doc })
}

/// The requested sampling, with `auto` sizes from the collection.
fn sampling(view: &ViewSpec, registered: &Registration, collection: &Collection) -> Sampling {
    let profile = collection.storage_profile();
    let batch_size = u64::from(view.batch_size);
    let asked = registered.block_size.or(view.block_size.map(u64::from));
    let block_size = asked.unwrap_or_else(|| auto::block_size(&profile));
    let asked = view.fetch_factor.map(u64::from).or(registered.fetch_factor);
    let fetch_factor = asked.unwrap_or_else(|| auto::fetch_factor(&profile, batch_size, block_size));
    Sampling { batch_size, block_size, fetch_factor, seed: view.seed, drop_last: view.drop_last }
}

/// Explains the automatic block size, if a remote store determines it.
fn why(view: &ViewSpec, collection: &Collection) -> Option<&'static str> {
    let implied = strategy::by_name(view.draw.strategy).and_then(|registered| registered.block_size);
    let asked = view.block_size.is_some() || implied.is_some();
    (!asked && collection.is_remote()).then_some("a store is remote: at least 1 MiB a request, and 256 blocks mixed")
}

fn restrictions(filter: Option<&Filter>, rows: Option<&Path>) -> String {
    match (filter, rows) {
        (Some(filter), None) => format!("none for which {} is true", filter.text()),
        (None, Some(rows)) => format!("none that {} lists", rows.display()),
        (Some(filter), Some(rows)) => format!("none that {} lists and {} is true for", rows.display(), filter.text()),
        (None, None) => "there are none".to_owned(),
    }
}

//! Renders the options of a session for its documents.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::array::Dtype;
use crate::collection::genes::Genes;
use crate::collection::tokens::{Longer, Ties, TokenOrder, TokenSpec};
use crate::plan::Sampling;
use crate::plan::groups::GroupShape;
use crate::view::filter::Filter;

use super::spec::{AssignedSpec, DrawSpec, GroupSpec, NeighbourSpec, Spec, ViewSpec};
use super::views::ViewPlan;

/// The options that decide the bytes served, as in `dataset.json`; independent of the machine.
pub fn show(spec: &Spec, views: &[ViewPlan]) -> Value {
    let mut shown = matrices(spec);
    let Some(fields) = shown.as_object_mut() else { return shown };
    for (name, value) in [
        ("tokens", json!(spec.tokens.as_deref().map(tokens))),
        ("index_dtype", json!(spec.index_dtype.map(Dtype::name))),
        ("format", json!(spec.format.as_str())),
        ("epochs", json!(spec.epochs)),
        ("uneven", json!(spec.uneven.as_str())),
    ] {
        fields.insert(name.to_owned(), value);
    }
    if let Some(rank) = spec.rank {
        fields.insert("rank".to_owned(), json!(format!("{}/{}", rank.index, rank.of)));
    }
    if let Some(split) = &spec.split {
        let sides = split.fractions.iter().map(|side| (side.name.clone(), json!(side.share())));
        fields.insert("split".to_owned(), Value::Object(sides.collect()));
        fields.insert("split_by".to_owned(), json!(split.by));
        fields.insert("stratify".to_owned(), json!(split.stratify));
        fields.insert("split_seed".to_owned(), json!(split.seed));
    }
    if let Some(name) = &spec.modality {
        fields.insert("modality".to_owned(), json!(name));
        let others = spec.modalities.iter().map(|of| (of.modality.clone().unwrap_or_default(), matrices(of)));
        fields.insert("modalities".to_owned(), Value::Object(others.collect()));
    }
    if let Some(pairs) = &spec.pairs {
        fields.insert("pair_with".to_owned(), json!(pairs.controls.text()));
        fields.insert("match".to_owned(), json!(pairs.columns));
        fields.insert("controls".to_owned(), json!(pairs.each));
        fields.insert("unmatched".to_owned(), json!(pairs.unmatched.as_str()));
    }
    if let Some(NeighbourSpec { graph, hops, fanout }) = &spec.neighbours {
        fields.insert("neighbours".to_owned(), json!(graph));
        fields.insert("hops".to_owned(), json!(hops));
        fields.insert("fanout".to_owned(), fanout.map_or(json!("all"), |fanout| json!(fanout)));
    }
    if let Some(AssignedSpec { file, pert_col, cell_type_key, control_pert, seed, .. }) = &spec.assigned {
        fields.insert("split_toml".to_owned(), json!(file));
        fields.insert("pert_col".to_owned(), json!(pert_col));
        fields.insert("cell_type_key".to_owned(), json!(cell_type_key));
        fields.insert("control_pert".to_owned(), json!(control_pert));
        fields.insert("split_seed".to_owned(), json!(seed));
    }
    fields.extend(restrictions(spec.filter.as_ref(), spec.rows.as_deref()));
    let each = spec.views.iter().zip(views).map(|(asked, view)| {
        let shown = view_options(asked, view.plan.sampling());
        (view.name.clone(), shown)
    });
    match each.collect::<Vec<_>>().as_mut_slice() {
        // A single view has its options at the top level, where its restriction would collide with that of all views.
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

/// The options about matrices and obs of some stores.
fn matrices(spec: &Spec) -> Value {
    json!({
        "x": spec.x,
        "obs": spec.obs,
        "with": spec.with,
        "join": spec.join.as_str(),
        "genes": spec.genes.as_ref().map(|genes| match genes {
            // The names themselves are in var.tsv.
            Genes::Names(names) => json!({"names": names.len()}),
            Genes::Var(column) => json!({"var": column}),
        }),
        "genes_match": spec.matching.as_str(),
        "genes_column": spec.genes_column,
        "absent": if spec.absent_zero.is_some() { "zero" } else { "refuse" },
        "min_matched": spec.absent_zero,
        "dense": spec.dense,
        "normalize": spec.arithmetic.normalize,
        "log1p": spec.arithmetic.log1p,
        "dtype": spec.dtype.map(Dtype::name),
    })
}

/// Tokens, with a checksum of their table.
fn tokens(spec: &TokenSpec) -> Value {
    let order = match spec.order {
        TokenOrder::Rank { target_sum } => json!({"kind": "rank", "target_sum": target_sum}),
        TokenOrder::Bins { bins, ties, longer } => json!({
            "kind": "bins",
            "bins": bins,
            "ties": if ties == Ties::Spread { "spread" } else { "last" },
            "longer": if longer == Longer::Sample { "sample" } else { "cut" },
        }),
    };
    let lines = spec.genes.iter().map(|gene| format!("{}\t{}\t{}\n", gene.name, gene.token, gene.median));
    let table = crc32fast::hash(lines.collect::<String>().as_bytes());
    json!({
        "name": spec.name, "order": order, "genes": spec.genes.len(), "table_crc32": format!("{table:08x}"),
        "length": spec.length, "first": spec.first, "last": spec.last, "pad": spec.pad, "pad_value": spec.pad_value,
    })
}

/// The options of a view, as in `options.json`.
fn view_options(view: &ViewSpec, sampling: &Sampling) -> Map<String, Value> {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    put("batch_size", json!(sampling.batch_size));
    put("block_size", json!(sampling.block_size));
    put("fetch_factor", json!(sampling.fetch_factor));
    put("seed", json!(sampling.seed));
    put("drop_last", json!(sampling.drop_last));
    let DrawSpec { strategy, labels, weights, groups } = &view.draw;
    if !view.draw.has_inputs() {
        put("order", json!(strategy));
    }
    if let Some(GroupSpec { column, by, shape: GroupShape { set_size, short, bag_max }, table }) = groups {
        put(&format!("{column}_by"), json!(by));
        if *column == GroupSpec::SET {
            put("set_size", json!(set_size.unwrap_or(sampling.batch_size)));
            put("set_short", json!(short.as_str()));
        } else {
            put("bag_max", json!(bag_max));
            put("bag_table", json!(table));
        }
    } else if let Some(column) = labels {
        put(&strategy.replace('-', "_"), json!(column));
    }
    if let Some(source) = weights {
        put("weights", json!(source.name));
    }
    if let Some(samples) = view.samples {
        put("samples", json!(samples));
    }
    shown.extend(restrictions(view.filter.as_ref(), view.rows.as_deref()));
    shown
}

/// Restrictions, as in `options.json`.
fn restrictions(filter: Option<&Filter>, rows: Option<&Path>) -> Map<String, Value> {
    let filter = filter.map(|filter| ("where".to_owned(), json!(filter.text())));
    let rows = rows.map(|path| ("rows".to_owned(), json!(path.to_string_lossy())));
    filter.into_iter().chain(rows).collect()
}

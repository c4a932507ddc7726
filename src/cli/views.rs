//! Views as checked options, combined from the command line, the views' tables and the top level of a file.

use std::path::{Path, PathBuf};

use super::exit::Failure;
use super::launcher;
use super::sampling::SamplingArgs;
use super::values::{Auto, Fanout, Fractions, RankOf};
use crate::plan::rank::Rank;
use crate::session::spec::{NeighbourSpec, PairSpec, SplitSpec, Unmatched, ViewSpec};
use crate::tree::is_reserved;
use crate::view::filter::Filter;
use crate::view::suggest::suggest;

const DEFAULT_BATCH_SIZE: u32 = 256;
/// Maximum number of views; more are a mistake.
const MOST_VIEWS: usize = 1000;

/// The options of views in a file.
#[derive(Debug, Clone, Default)]
pub struct ViewsFile {
    /// For all views.
    pub all: SamplingArgs,
    /// For each named view, in the order of the file.
    pub views: Vec<(String, SamplingArgs)>,
}

/// The split, if requested.
pub fn split(
    fractions: Option<Fractions>,
    by: Option<String>,
    stratify: Option<String>,
    said: &SamplingArgs,
    file: &ViewsFile,
) -> Result<Option<SplitSpec>, Failure> {
    match fractions {
        Some(Fractions(fractions)) => {
            let seed = said.seed.or(file.all.seed).unwrap_or(0);
            Ok(Some(SplitSpec { fractions, by, stratify, seed }))
        }
        None if by.is_some() || stratify.is_some() => Err(Failure::usage(
            "--split-by and --stratify say how to split: add --split, as in --split train=0.8,val=0.1,test=0.1",
        )),
        None => Ok(None),
    }
}

/// The controls beside each row, if requested.
pub fn pairs(
    controls: Option<Filter>,
    columns: Vec<String>,
    each: Option<u32>,
    unmatched: Option<Unmatched>,
) -> Result<Option<PairSpec>, Failure> {
    let Some(controls) = controls else {
        if !columns.is_empty() || each.is_some() || unmatched.is_some() {
            return Err(Failure::usage(
                "--match, --controls and --unmatched say how rows are paired: add --pair-with, as in --pair-with \
                 'perturbation == \"control\"'",
            ));
        }
        return Ok(None);
    };
    if let Some(twice) = columns.iter().enumerate().find_map(|(i, name)| columns[..i].contains(name).then_some(name)) {
        return Err(Failure::usage(format_args!("--match: {twice} is named twice")));
    }
    let unmatched = unmatched.unwrap_or(Unmatched::Refuse);
    Ok(Some(PairSpec { controls, columns, each: each.unwrap_or(1), unmatched }))
}

/// The neighbourhoods beside batches, if requested.
pub fn neighbours(
    graph: Option<String>,
    hops: Option<u32>,
    fanout: Option<Fanout>,
) -> Result<Option<NeighbourSpec>, Failure> {
    const DEFAULT_FANOUT: u32 = 10;
    let Some(graph) = graph else {
        return match hops.is_some() || fanout.is_some() {
            true => Err(Failure::usage("--hops and --fanout are about neighbours: add --neighbours obsp/NAME")),
            false => Ok(None),
        };
    };
    if graph.strip_prefix("obsp/").is_none_or(str::is_empty) {
        return Err(Failure::usage(format_args!("--neighbours {graph}: name a graph, as in obsp/connectivities")));
    }
    let fanout = fanout.map_or(Some(DEFAULT_FANOUT), |Fanout(fanout)| fanout);
    Ok(Some(NeighbourSpec { graph, hops: hops.unwrap_or(1), fanout }))
}

/// All views: the sides of a split, then further ones that a file names; or a single one.
pub fn views(said: &SamplingArgs, file: &ViewsFile, sides: &[String], here: &Path) -> Result<Vec<ViewSpec>, String> {
    let sides: Vec<&str> = sides.iter().map(String::as_str).collect();
    let others = file.views.iter().map(|(name, _)| name.as_str()).filter(|name| !sides.contains(name));
    let mut names: Vec<&str> = sides.iter().copied().chain(others).collect();
    if names.is_empty() {
        names.push(ViewSpec::UNNAMED);
    }
    if names.len() > MOST_VIEWS {
        return Err(format!("{} views; at most {MOST_VIEWS} are served", names.len()));
    }
    let view = |name: &&str| {
        check_name(name)?;
        let own = file.views.iter().find(|(other, _)| other == name).map(|(_, own)| own.clone()).unwrap_or_default();
        let (filter, rows) = (own.filter.clone(), own.rows.clone());
        let all = said.clone().or(own).or(file.all.clone());
        let side = sides.iter().position(|side| side == name);
        let options = one(name, side, filter, rows, all, here);
        options.map_err(|cause| if names.len() > 1 { format!("view {name}: {cause}") } else { cause })
    };
    names.iter().map(view).collect()
}

fn one(
    name: &str,
    side: Option<usize>,
    filter: Option<Filter>,
    rows: Option<PathBuf>,
    said: SamplingArgs,
    here: &Path,
) -> Result<ViewSpec, String> {
    let draw = said.draw(here)?;
    let batch_size = said.whole_sets(DEFAULT_BATCH_SIZE)?;
    let number = |auto: Option<Auto>| auto.and_then(|Auto(number)| number);
    let (block_size, fetch_factor) = (number(said.block_size), number(said.fetch_factor));
    if let (Some(block_size), Some(fetch_factor)) = (block_size, fetch_factor)
        && u64::from(batch_size) * u64::from(fetch_factor) < u64::from(block_size)
    {
        return Err(format!(
            "k = batch-size * fetch-factor / block-size = {batch_size} * {fetch_factor} / {block_size} is below 1: \
             a fetch must hold at least one block"
        ));
    }
    Ok(ViewSpec {
        name: name.to_owned(),
        side,
        filter,
        rows: rows.map(|path| here.join(path)),
        draw,
        samples: said.samples,
        batch_size,
        block_size,
        fetch_factor,
        seed: said.seed.unwrap_or(0),
        drop_last: said.drop_last.unwrap_or(false),
    })
}

/// Checks the name of a view, which is a directory at the root.
fn check_name(name: &str) -> Result<(), String> {
    let cause = if name.is_empty() || name.len() > 64 {
        "has 1 to 64 characters"
    } else if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) || name.starts_with(['.', '-']) {
        "holds letters, digits, _ - and . alone, and begins with none of - and ."
    } else if is_reserved(name) {
        "is a directory of the mount, and must not be one that is there already"
    } else {
        return Ok(());
    };
    Err(format!("{name:?} is no name for a view: it {cause}"))
}

/// The rank whose part is shown, as given or from the environment.
pub fn rank(asked: Option<RankOf>) -> Result<Option<Rank>, Failure> {
    match asked {
        None => Ok(None),
        Some(RankOf::Given(rank)) => Ok(Some(rank)),
        Some(RankOf::Auto) => launcher::rank(&|name| std::env::var(name).ok()).map(Some).map_err(Failure::usage),
    }
}

/// The end of a message about an unknown view.
pub fn nearest(name: &str, views: &[ViewSpec]) -> String {
    suggest(name, views.iter().map(|view| view.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::spec::DrawSpec;
    use crate::view::split::fractions;

    fn file() -> ViewsFile {
        let train = SamplingArgs { balance: Some("cell_type".into()), samples: Some(10), ..Default::default() };
        let val = SamplingArgs { order: Some("sequential"), batch_size: Some(64), ..Default::default() };
        let all = SamplingArgs { batch_size: Some(32), seed: Some(1), ..Default::default() };
        ViewsFile { all, views: vec![("train".into(), train), ("val".into(), val)] }
    }

    #[test]
    fn the_command_line_wins_then_the_view_then_the_file() {
        let said = SamplingArgs { seed: Some(7), ..Default::default() };
        let views = views(&said, &file(), &[], Path::new("/")).unwrap_or_else(|error| panic!("{error}"));
        let [train, val] = views.as_slice() else { panic!("{views:?}") };
        assert_eq!((train.batch_size, train.seed, train.samples), (32, 7, Some(10)));
        assert_eq!((val.batch_size, val.seed), (64, 7));
        assert_eq!(val.draw, DrawSpec::once("sequential"));
        let said = SamplingArgs { batch_size: Some(8), order: Some("random"), ..Default::default() };
        let error = super::views(&said, &file(), &[], Path::new("/"));
        assert!(error.is_err_and(|error| error.contains("view train: samples")));
    }

    #[test]
    fn sides_come_first_and_names_are_directories() {
        let split = |text: &str| {
            let sides = fractions(text).unwrap_or_default().into_iter();
            sides.map(|side| side.name).collect::<Vec<String>>()
        };
        let none = SamplingArgs::default();
        let named = super::views(&none, &file(), &split("test=0.5,val=0.5"), Path::new("/")).unwrap_or_default();
        let names: Vec<(&str, Option<usize>)> = named.iter().map(|view| (view.name.as_str(), view.side)).collect();
        assert_eq!(names, [("test", Some(0)), ("val", Some(1)), ("train", None)]);
        assert_eq!(super::views(&none, &ViewsFile::default(), &[], Path::new("/")).map(|views| views.len()), Ok(1));
        for name in ["epoch-0000", "rank-x", "README.txt", "a/b", ".shufflefs", "a b", "", "-x", "é"] {
            let split = split(&format!("{name}=1"));
            let error = super::views(&none, &ViewsFile::default(), &split, Path::new("/"));
            assert!(error.is_err_and(|error| error.contains("no name for a view")), "{name}");
        }
    }
}

//! Rows assigned to `train`, `val` and `test` by cell line and perturbation: the TOML files of cell-load, as cell-load 0.10.4
//! (`ExperimentConfig`, `PerturbationDataModule._setup_datasets`) reads them.
//!
//! Within one store and cell line, separately for controls and perturbed rows:
//!
//! - *zero-shot* (`[zeroshot]`, `"dataset.line" = "test"`): all rows are in that split; if it is not `train`, the controls are in
//!   `train` too.
//! - *few-shot* (`[fewshot."dataset.line"]`, `val = [...]`, `test = [...]`): rows with these perturbations are in `val` and `test`,
//!   all other perturbed rows in `train`; the controls are in each of `val` and `test` that has a row, and in `train`. A line
//!   without perturbed rows is in no split. `train_fraction = 0.1`, or `{ AARS = 0.1 }`, which cell-load ignores, moves this
//!   share of the held out rows of each perturbation to `train`.
//! - otherwise, in a dataset that `[training]` has as `train`: all rows are in `train`.
//! - otherwise in none.
//!
//! So splits share controls: a row may be in several of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use serde::Deserialize;

use super::ViewError;
use super::bits::Bits;
use super::split::{Fraction, Labelled, Split, UNIT};

/// The splits, in order.
pub const SIDES: [&str; 3] = ["train", "val", "test"];
const TRAIN: usize = 0;

/// A parsed file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Assigned {
    /// Path of each dataset: a file, a directory or a pattern.
    pub datasets: BTreeMap<String, String>,
    training: BTreeMap<String, String>,
    zeroshot: BTreeMap<String, String>,
    fewshot: BTreeMap<String, FewShot>,
}

/// The perturbations of a cell line that are held out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct FewShot {
    val: Vec<String>,
    test: Vec<String>,
    train_fraction: Option<TrainFraction>,
}

/// The share of held out rows that are used for training nevertheless.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a number, or a table of numbers by perturbation")]
enum TrainFraction {
    Of(f64),
    Each(BTreeMap<String, f64>),
}

impl FewShot {
    /// The perturbations in `val` or `test`.
    fn list(&self, side: &str) -> &[String] {
        match side {
            "val" => &self.val,
            "test" => &self.test,
            _ => &[],
        }
    }

    fn holds_out(&self, perturbation: &str) -> bool {
        self.val.iter().chain(&self.test).any(|held| held == perturbation)
    }

    /// The share of a perturbation's rows for training, in parts of [`UNIT`].
    fn trained(&self, perturbation: &str) -> Option<u64> {
        let share = match self.train_fraction.as_ref()? {
            TrainFraction::Of(share) => *share,
            TrainFraction::Each(shares) => *shares.get(perturbation)?,
        };
        self.holds_out(perturbation).then_some((share * UNIT as f64).round() as u64)
    }

    /// Why the shares are invalid, if they are.
    fn misfit(&self) -> Option<String> {
        let (one, each) = match self.train_fraction.as_ref()? {
            TrainFraction::Of(share) => (Some(share), None),
            TrainFraction::Each(shares) => (None, Some(shares)),
        };
        if let Some(share) = one
            .into_iter()
            .chain(each.into_iter().flat_map(BTreeMap::values))
            .find(|&share| !(*share > 0.0 && *share < 1.0))
        {
            return Some(format!("train_fraction is {share}: a share above 0 and below 1 is meant"));
        }
        let name = each?.keys().find(|name| !self.holds_out(name))?;
        Some(format!("train_fraction has {name}, which neither val nor test has"))
    }
}

/// The rows of one store and its dataset; `None` if no used dataset has it.
pub struct StoreRows {
    pub name: String,
    pub dataset: Option<String>,
    pub rows: Range<u64>,
}

/// The columns that rows are assigned by.
pub struct Columns<'a> {
    pub cell_lines: Labelled<'a>,
    pub perturbations: Labelled<'a>,
    /// The label of controls, in the perturbation column.
    pub control: &'a str,
    /// Seed of the choice of rows by `train_fraction`.
    pub seed: u64,
}

/// How the rows of a cell line in one dataset are assigned.
enum Role {
    Nowhere,
    Train,
    Zero(usize),
    /// Codes of the perturbations in `val` and in `test`, and the training shares among these.
    Few([HashSet<u32>; 2], HashMap<u32, u64>),
}

/// Held out rows of which a share is used for training, chosen within each perturbation of a cell line of a dataset.
#[derive(Default)]
struct Shared {
    classes: HashMap<(String, u32, u32), u32>,
    /// The class of each row: a perturbation of a cell line of a dataset.
    codes: Vec<u32>,
    rows: BTreeMap<u64, Bits>,
}

impl Shared {
    fn insert(&mut self, row: u64, (dataset, line, perturbation): (&str, u32, u32), parts: u64, all: u64) {
        let next = self.classes.len() as u32;
        let class = *self.classes.entry((dataset.to_owned(), line, perturbation)).or_insert(next);
        self.codes.resize(all as usize, u32::MAX);
        self.codes[row as usize] = class;
        self.rows.entry(parts).or_insert_with(|| Bits::none(all)).insert(row);
    }

    /// The rows used for training: of each class exactly its share, rounded.
    fn trained(&self, seed: u64) -> Result<Vec<u64>, ViewError> {
        let labels: Vec<String> = (0..self.classes.len()).map(|class| class.to_string()).collect();
        let classes = Labelled { name: "train_fraction", codes: &self.codes, labels: &labels };
        let mut all = Vec::new();
        for (&parts, rows) in &self.rows {
            let fractions = [Fraction { name: SIDES[TRAIN].to_owned(), parts }];
            let split = Split { fractions: &fractions, groups: None, classes: Some(classes), seed };
            all.extend(split.divide(rows)?.iter().flat_map(|side| side.rows.iter()));
        }
        Ok(all)
    }
}

impl Assigned {
    /// Parses a file.
    ///
    /// # Errors
    /// The text is not such a file; an unknown split; a dataset without a path.
    pub fn parse(text: &str) -> Result<Assigned, ViewError> {
        let wrong = |cause: String| Err(ViewError::Split(cause));
        let file: Assigned = match toml::from_str(text) {
            Ok(file) => file,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start.min(text.len()));
                let line = 1 + text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
                let cause = error.message().replace('\n', ", ");
                return wrong(format!(
                    "line {line}: {cause}; cell lines are quoted with their dataset, as in \"replogle.jurkat\" = \"test\""
                ));
            }
        };
        if let Some((name, side)) = file.zeroshot.iter().find(|(_, side)| !SIDES.contains(&side.as_str())) {
            return wrong(format!("[zeroshot] \"{name}\" is {side:?}: one of train, val and test is meant"));
        }
        let lines = file.zeroshot.keys().chain(file.fewshot.keys());
        if let Some(name) = lines.clone().find(|name| !name.contains('.')) {
            return wrong(format!("\"{name}\" is no cell line: write \"DATASET.CELL_LINE\""));
        }
        if let Some((name, cause)) = file.fewshot.iter().find_map(|(name, few)| Some((name, few.misfit()?))) {
            return wrong(format!("[fewshot.\"{name}\"] {cause}"));
        }
        if let Some(dataset) = file.used().into_iter().find(|&name| !file.datasets.contains_key(name)) {
            return wrong(format!("[datasets] has no path of {dataset}"));
        }
        if file.used().is_empty() {
            return wrong("it names no dataset in [training], [zeroshot] or [fewshot]".to_owned());
        }
        Ok(file)
    }

    /// The datasets that have a rule.
    pub fn used(&self) -> Vec<&str> {
        let lines = self.zeroshot.keys().chain(self.fewshot.keys());
        let of_lines = lines.map(|name| name.split('.').next().unwrap_or_default());
        let mut used: Vec<&str> = self.training.keys().map(String::as_str).chain(of_lines).collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// The splits ([`SIDES`], by index) that the file assigns rows to.
    pub fn sides(&self) -> Vec<usize> {
        let few = |side: &str| self.fewshot.values().any(|few| !few.list(side).is_empty());
        let has =
            |side: &usize| *side == TRAIN || self.zeroshot.values().any(|of| of == SIDES[*side]) || few(SIDES[*side]);
        (0..SIDES.len()).filter(has).collect()
    }

    /// The rules for cell lines of a dataset: the line's label, and its perturbations if it is few-shot.
    fn lines<'s>(&'s self, dataset: &str) -> impl Iterator<Item = (&'s str, Option<&'s FewShot>)> {
        let prefix = format!("{dataset}.");
        let zero = self.zeroshot.keys().map(|name| (name, None));
        let few = self.fewshot.iter().map(|(name, few)| (name, Some(few)));
        zero.chain(few).filter_map(move |(name, lists)| Some((name.strip_prefix(prefix.as_str())?, lists)))
    }

    /// The rows of each of [`SIDES`], among all rows.
    ///
    /// # Errors
    /// No row of their dataset has a cell line or perturbation of the file; a store has no controls.
    pub fn divide(&self, stores: &[StoreRows], columns: &Columns<'_>) -> Result<[Bits; 3], ViewError> {
        self.check_names(stores, columns)?;
        let all = stores.last().map_or(0, |store| store.rows.end);
        let mut sides = [Bits::none(all), Bits::none(all), Bits::none(all)];
        let mut shared = Shared::default();
        let control = code_of(columns.perturbations.labels, columns.control);
        for store in stores {
            let Some(dataset) = &store.dataset else { continue };
            let is_control = |row: u64| Some(columns.perturbations.codes[row as usize]) == control;
            if !store.rows.clone().any(is_control) {
                return Err(ViewError::Split(format!(
                    "{}: no row has {:?} in {}, which controls are known by; name theirs with --control-pert",
                    store.name, columns.control, columns.perturbations.name
                )));
            }
            let roles: Vec<Role> =
                columns.cell_lines.labels.iter().map(|line| self.role(dataset, line, columns)).collect();
            // For each cell line: whether it has a perturbed row, and one in `val` and in `test`.
            let mut has = vec![[false; 3]; roles.len()];
            let line_of = |row: u64| columns.cell_lines.codes[row as usize] as usize;
            let pert_of = |row: u64| columns.perturbations.codes[row as usize];
            for row in store.rows.clone().filter(|&row| !is_control(row)) {
                if let Some(Role::Few(lists, _)) = roles.get(line_of(row)) {
                    let has = &mut has[line_of(row)];
                    has[0] = true;
                    (0..2).for_each(|list| has[1 + list] |= lists[list].contains(&pert_of(row)));
                }
            }
            for row in store.rows.clone() {
                match roles.get(line_of(row)) {
                    None | Some(Role::Nowhere) => {}
                    Some(Role::Train) => sides[TRAIN].insert(row),
                    Some(Role::Zero(side)) => {
                        sides[*side].insert(row);
                        if is_control(row) {
                            sides[TRAIN].insert(row);
                        }
                    }
                    Some(Role::Few(..)) if is_control(row) => {
                        let has = has[line_of(row)];
                        (0..3).filter(|&side| has[side]).for_each(|side| sides[side].insert(row));
                    }
                    Some(Role::Few(lists, trained)) => {
                        if let Some(&parts) = trained.get(&pert_of(row)) {
                            shared.insert(row, (dataset, line_of(row) as u32, pert_of(row)), parts, all);
                        }
                        let within = |list: &usize| lists[*list].contains(&pert_of(row));
                        (0..2).filter(within).for_each(|list| sides[1 + list].insert(row));
                        if !(0..2).any(|list| within(&list)) {
                            sides[TRAIN].insert(row);
                        }
                    }
                }
            }
        }
        for row in shared.trained(columns.seed)? {
            sides[TRAIN].insert(row);
            sides[1..].iter_mut().for_each(|side| side.remove(row));
        }
        Ok(sides)
    }

    fn role(&self, dataset: &str, line: &str, columns: &Columns<'_>) -> Role {
        let key = format!("{dataset}.{line}");
        if let Some(side) = self.zeroshot.get(&key).and_then(|side| SIDES.iter().position(|other| other == side)) {
            return Role::Zero(side);
        }
        if let Some(few) = self.fewshot.get(&key) {
            let labels = || columns.perturbations.labels.iter().zip(0..);
            let codes = |side: &str| {
                let names: HashSet<&str> = few.list(side).iter().map(String::as_str).collect();
                labels().filter(|(label, _)| names.contains(label.as_str())).map(|(_, code)| code).collect()
            };
            let trained = labels().filter_map(|(label, code)| Some((code, few.trained(label)?))).collect();
            return Role::Few([codes("val"), codes("test")], trained);
        }
        if self.training.get(dataset).is_some_and(|side| side == "train") { Role::Train } else { Role::Nowhere }
    }

    /// Fails on unknown cell lines and perturbations: the rows meant by a misspelt one would be used for training.
    fn check_names(&self, stores: &[StoreRows], columns: &Columns<'_>) -> Result<(), ViewError> {
        let datasets: HashSet<&str> = stores.iter().filter_map(|store| store.dataset.as_deref()).collect();
        let mut datasets: Vec<&str> = datasets.into_iter().collect();
        datasets.sort_unstable();
        let (mut named, mut lacking) = ((0, 0), (Vec::new(), Vec::new()));
        for dataset in datasets {
            // Pairs of codes in the rows of the dataset.
            let mut pairs: HashSet<(u32, u32)> = HashSet::new();
            for store in stores.iter().filter(|store| store.dataset.as_deref() == Some(dataset)) {
                let code = |row: u64, labels: &Labelled<'_>| labels.codes[row as usize];
                pairs.extend(
                    store.rows.clone().map(|row| (code(row, &columns.cell_lines), code(row, &columns.perturbations))),
                );
            }
            let lines: HashSet<u32> = pairs.iter().map(|(line, _)| *line).collect();
            for (line, lists) in self.lines(dataset) {
                named.0 += 1;
                let Some(code) = code_of(columns.cell_lines.labels, line).filter(|code| lines.contains(code)) else {
                    lacking.0.push(format!("{dataset}.{line}"));
                    continue;
                };
                for perturbation in lists.into_iter().flat_map(|few| few.val.iter().chain(&few.test)) {
                    named.1 += 1;
                    let found = code_of(columns.perturbations.labels, perturbation);
                    if found.is_none_or(|found| !pairs.contains(&(code, found))) {
                        lacking.1.push(format!("{perturbation} in {dataset}.{line}"));
                    }
                }
            }
        }
        let (what, column, named, lacking) = if lacking.0.is_empty() {
            ("perturbations", &columns.perturbations, named.1, lacking.1)
        } else {
            ("cell lines", &columns.cell_lines, named.0, lacking.0)
        };
        if lacking.is_empty() {
            return Ok(());
        }
        let some = lacking.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let count = lacking.len();
        Err(ViewError::Split(format!("{count} of {named} {what} are in no row by {}, such as {some}", column.name)))
    }
}

fn code_of(labels: &[String], label: &str) -> Option<u32> {
    labels.iter().position(|other| other == label).and_then(|code| u32::try_from(code).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Assigned::parse(text).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn files_that_are_none() {
        assert!(refused("[datasets]\na = '/a'\n").contains("names no dataset"));
        assert!(refused("[training]\na = 'train'\n").contains("no path of a"));
        assert!(refused("[datasets]\na = '/a'\n[zeroshot]\n'a.x' = 'tset'\n").contains("\"tset\""));
        assert!(refused("[datasets]\na = '/a'\n[zeroshot]\nx = 'test'\n").contains("no cell line"));
        assert!(refused("[datasets]\na = '/a'\n[zeroshot]\na.x = 'test'\n").starts_with("line 4"));
    }

    /// Each perturbation of a cell line gets its share, rounded; rows that are not held out stay in `train`.
    #[test]
    fn a_share_of_what_is_held_out_is_trained_on() {
        let of = |more: &str| {
            let lists = "val = ['p1', 'p3']\ntest = ['p2', 'p1']\n";
            let text = format!("[datasets]\na = '/a'\n[fewshot.'a.x']\n{lists}{more}");
            let file = Assigned::parse(&text).unwrap_or_else(|error| panic!("{error}"));
            let labels = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
            let (lines, perturbations) = (labels(&["x"]), labels(&["c", "p1", "p2", "p3", "p4"]));
            let codes: Vec<u32> = (0..500).map(|row| row % 5).collect();
            let columns = Columns {
                cell_lines: Labelled { name: "line", codes: &vec![0; 500], labels: &lines },
                perturbations: Labelled { name: "pert", codes: &codes, labels: &perturbations },
                control: "c",
                seed: 3,
            };
            let store = StoreRows { name: "/a".into(), dataset: Some("a".into()), rows: 0..500 };
            let sides = file.divide(&[store], &columns).unwrap_or_else(|error| panic!("{error}"));
            let counts = |side: &Bits| -> Vec<usize> {
                (0..5).map(|code| side.iter().filter(|row| row % 5 == code).count()).collect()
            };
            sides.each_ref().map(counts)
        };
        assert_eq!(of(""), [vec![100, 0, 0, 0, 100], vec![100, 100, 0, 100, 0], vec![100, 100, 100, 0, 0]]);
        let tenth = [vec![100, 10, 10, 10, 100], vec![100, 90, 0, 90, 0], vec![100, 90, 90, 0, 0]];
        assert_eq!(of("train_fraction = 0.1\n"), tenth);
        let each = [vec![100, 0, 25, 3, 100], vec![100, 100, 0, 97, 0], vec![100, 100, 75, 0, 0]];
        assert_eq!(of("train_fraction = { p2 = 0.25, p3 = 0.03 }\n"), each);
        let few = |more: &str| refused(&format!("[datasets]\na = '/a'\n[fewshot.'a.x']\ntest = ['p']\n{more}"));
        assert!(few("train_fraction = 1.5").contains("[fewshot.\"a.x\"] train_fraction is 1.5"));
        assert!(few("train_fraction = { q = 0.5 }").contains("has q, which neither val nor test has"));
        assert!(few("train_fraction = 'x'").contains("a number, or a table"));
    }

    #[test]
    fn sides_that_have_rows() {
        let sides = |more: &str| Assigned::parse(&format!("[datasets]\na = '/a'\n{more}")).map(|file| file.sides());
        assert!(sides("[training]\na = 'train'\n").is_ok_and(|sides| sides == [0]));
        assert!(sides("[zeroshot]\n'a.x.y' = 'test'\n").is_ok_and(|sides| sides == [0, 2]));
        assert!(sides("[fewshot.'a.x']\nval = ['p']\ntest = []\n").is_ok_and(|sides| sides == [0, 1]));
    }
}

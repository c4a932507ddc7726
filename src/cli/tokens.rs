//! `--tokens` and `--token-table`: how to turn X into tokens.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::exit::Failure;
use crate::collection::tokens::{Longer, Ties, TokenGene, TokenOrder, TokenSpec};

/// Other options, which tokens exclude.
pub struct Combined {
    pub dense: bool,
    pub computes: bool,
    pub dtype: bool,
}

/// Maximum tokens of a row.
const MOST_LENGTH: u64 = 1 << 20;
const MOST_BINS: u32 = 1 << 16;

/// The file of a recipe.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kind: Kind,
    table: Option<PathBuf>,
    length: u64,
    first: Option<Special>,
    last: Option<Special>,
    pad: Option<Special>,
    pad_value: Option<f32>,
    target_sum: Option<f64>,
    bins: Option<u32>,
    ties: Option<TiesWord>,
    longer: Option<LongerWord>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Rank,
    Bins,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TiesWord {
    Spread,
    Last,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LongerWord {
    Sample,
    Cut,
}

/// A special token, or its name in the table.
#[derive(Deserialize)]
#[serde(untagged)]
enum Special {
    Token(u32),
    Name(String),
}

/// A token table.
#[derive(Default)]
struct Table {
    genes: Vec<TokenGene>,
    /// Special tokens: those whose names start with `<`.
    special: HashMap<String, u32>,
}

/// The recipe that the options request.
///
/// # Errors
/// A file that cannot be read, options that exclude each other, a table that lacks a token or median.
pub fn recipe(tokens: Option<&str>, table: Option<&Path>, combined: &Combined) -> Result<Option<TokenSpec>, Failure> {
    let Some(name) = tokens else {
        return match table {
            Some(_) => Err(Failure::usage("--token-table: it is for --tokens")),
            None => Ok(None),
        };
    };
    for (is_asked, what) in [
        (combined.dense, "--dense: tokens are no matrix"),
        (
            combined.computes,
            "--normalize and --log1p: the recipe computes what it needs from values as they are stored",
        ),
        (combined.dtype, "--dtype: values of tokens are float32"),
    ] {
        if is_asked {
            return Err(Failure::usage(format_args!("--tokens excludes {what}")));
        }
    }
    let told = |cause: String| Failure::usage(format_args!("--tokens {name}: {cause}"));
    let read = |path: Option<&Path>| {
        let path = path.ok_or_else(|| "--token-table is missing, a file with a token for each gene".to_owned())?;
        Table::read(path).map_err(|cause| format!("{}: {cause}", path.display()))
    };
    let spec = match name {
        "geneformer" => read(table).map(geneformer),
        "scgpt" => read(table).map(scgpt),
        file if file.ends_with(".toml") => from_file(Path::new(file), table, read),
        _ => Err("allowed are geneformer, scgpt, and files whose names end in .toml".to_owned()),
    };
    let spec = spec.map_err(told)?;
    check(&spec).map_err(told)?;
    Ok(Some(spec))
}

/// Geneformer's tokeniser: its newer models (V2) have 4,096 tokens with `<cls>` and `<eos>`, the first one 2,048 without.
fn geneformer(table: Table) -> TokenSpec {
    let (first, last) = (table.named("<cls>"), table.named("<eos>"));
    let surrounded = first.is_some() && last.is_some();
    TokenSpec {
        name: "geneformer".to_owned(),
        order: TokenOrder::Rank { target_sum: 10_000.0 },
        length: if surrounded { 4096 } else { 2048 },
        first: first.filter(|_| surrounded),
        last: last.filter(|_| surrounded),
        pad: table.named("<pad>").unwrap_or(0),
        pad_value: 0.0,
        genes: table.genes,
    }
}

/// scGPT's pretraining: 51 bins, 1,200 tokens with `<cls>`.
fn scgpt(table: Table) -> TokenSpec {
    TokenSpec {
        name: "scgpt".to_owned(),
        order: TokenOrder::Bins { bins: 51, ties: Ties::Spread, longer: Longer::Sample },
        length: 1200,
        first: table.named("<cls>"),
        last: None,
        pad: table.named("<pad>").unwrap_or(0),
        pad_value: -2.0,
        genes: table.genes,
    }
}

fn from_file(
    path: &Path,
    table: Option<&Path>,
    read: impl Fn(Option<&Path>) -> Result<Table, String>,
) -> Result<TokenSpec, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let file: File = toml::from_str(&text).map_err(|error| error.message().replace('\n', ", "))?;
    let beside = file.table.map(|table| path.parent().unwrap_or(Path::new("")).join(table));
    let table = read(table.or(beside.as_deref()))?;
    let special = |special: Option<Special>| match special {
        None => Ok(None),
        Some(Special::Token(token)) => Ok(Some(token)),
        Some(Special::Name(name)) => {
            table.named(&name).map(Some).ok_or_else(|| format!("its table has no token {name}"))
        }
    };
    let order = match file.kind {
        Kind::Rank if file.bins.is_some() || file.ties.is_some() || file.longer.is_some() => {
            return Err("bins, ties and longer are for kind = \"bins\"".to_owned());
        }
        Kind::Bins if file.target_sum.is_some() => return Err("target_sum is for kind = \"rank\"".to_owned()),
        Kind::Rank => TokenOrder::Rank { target_sum: file.target_sum.unwrap_or(10_000.0) },
        Kind::Bins => TokenOrder::Bins {
            bins: file.bins.unwrap_or(51),
            ties: if matches!(file.ties, Some(TiesWord::Last)) { Ties::Last } else { Ties::Spread },
            longer: if matches!(file.longer, Some(LongerWord::Cut)) { Longer::Cut } else { Longer::Sample },
        },
    };
    Ok(TokenSpec {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        order,
        length: file.length,
        first: special(file.first)?,
        last: special(file.last)?,
        pad: special(file.pad)?.unwrap_or(0),
        pad_value: file.pad_value.unwrap_or(0.0),
        genes: table.genes,
    })
}

fn check(spec: &TokenSpec) -> Result<(), String> {
    if spec.room() == 0 || spec.length > MOST_LENGTH {
        return Err(format!(
            "length is {}; special tokens and at least one gene must fit, and {MOST_LENGTH} is the most",
            spec.length
        ));
    }
    let largest = spec.genes.iter().map(|gene| gene.token).chain([spec.pad]).chain(spec.first).chain(spec.last).max();
    if largest.is_none_or(|token| token > i32::MAX as u32) {
        return Err("tokens are numbers from 0 to 2147483647, at least one".to_owned());
    }
    match spec.order {
        TokenOrder::Rank { target_sum } => {
            if !(target_sum.is_finite() && target_sum > 0.0) {
                return Err("target_sum is no positive number".to_owned());
            }
            let is_positive = |median: f64| median.is_finite() && median > 0.0;
            match spec.genes.iter().find(|gene| !is_positive(gene.median)) {
                Some(gene) => Err(format!("the median of {} is missing, or no positive number", gene.name)),
                None => Ok(()),
            }
        }
        TokenOrder::Bins { bins, .. } if !(3..=MOST_BINS).contains(&bins) => {
            Err(format!("bins are {bins}; allowed are 3 to {MOST_BINS}"))
        }
        TokenOrder::Bins { .. } => Ok(()),
    }
}

impl Table {
    fn named(&self, name: &str) -> Option<u32> {
        self.special.get(name).copied()
    }

    fn add(&mut self, name: &str, token: u32, median: f64) {
        if name.starts_with('<') {
            self.special.insert(name.to_owned(), token);
        } else {
            self.genes.push(TokenGene { name: name.to_owned(), token, median });
        }
    }

    /// Reads names and tokens as JSON, or one a line, with optional medians. A first line without a token is a header.
    fn read(path: &Path) -> Result<Table, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let mut table = Table::default();
        if path.extension().is_some_and(|extension| extension == "json") {
            let mut all: Vec<(String, u32)> = serde_json::from_str::<HashMap<String, u32>>(&text)
                .map_err(|error| error.to_string())?
                .into_iter()
                .collect();
            all.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
            all.iter().for_each(|(name, token)| table.add(name, *token, f64::NAN));
            return table.checked();
        }
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let told = |cause: &dyn Display| format!("line {}: {cause}", number + 1);
            let mut fields = line.split(if line.contains('\t') { '\t' } else { ',' });
            let (name, token) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let token: u32 = match token.trim().parse::<u32>() {
                Ok(token) => token,
                Err(_) if number == 0 => continue,
                Err(error) => return Err(told(&format_args!("{token:?} is no token: {error}"))),
            };
            let median = match fields.next().map(str::trim).filter(|text| !text.is_empty()) {
                None => f64::NAN,
                Some(text) => {
                    text.parse::<f64>().map_err(|error| told(&format_args!("{text:?} is no median: {error}")))?
                }
            };
            table.add(name, token, median);
        }
        table.checked()
    }

    fn checked(self) -> Result<Table, String> {
        let mut seen = std::collections::HashSet::new();
        match self.genes.iter().find(|gene| !seen.insert(&gene.name)) {
            Some(gene) => Err(format!("{} stands twice", gene.name)),
            None if self.genes.is_empty() => Err("it has no gene".to_owned()),
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, table: Option<&Path>) -> Result<TokenSpec, String> {
        let none = Combined { dense: false, computes: false, dtype: false };
        recipe(Some(name), table, &none)
            .map(|spec| spec.expect("one"))
            .map_err(|failure| format!("{:#}", failure.error))
    }

    #[test]
    fn presets_follow_from_the_table() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table.tsv");
        std::fs::write(&path, "gene\ttoken\tmedian\n<pad>\t0\n<cls>\t2\n<eos>\t3\nA\t4\t1.5\nB\t9\t2\n").unwrap();
        let spec = asked("geneformer", Some(&path)).unwrap();
        assert_eq!((spec.length, spec.first, spec.last, spec.genes.len()), (4096, Some(2), Some(3), 2));
        std::fs::write(&path, "A,4,1.5\nB,9,2\n").unwrap();
        let spec = asked("geneformer", Some(&path)).unwrap();
        assert_eq!((spec.length, spec.first, spec.last, spec.genes[1].median), (2048, None, None, 2.0));
        assert_eq!((spec.count(0), spec.count(5000)), (0, 2048));
        let json = directory.path().join("vocab.json");
        std::fs::write(&json, r#"{"B": 1, "<cls>": 5, "A": 0, "<pad>": 7}"#).unwrap();
        let spec = asked("scgpt", Some(&json)).unwrap();
        assert_eq!((spec.length, spec.first, spec.pad, spec.pad_value), (1200, Some(5), 7, -2.0));
        let file = directory.path().join("own.toml");
        std::fs::write(&file, "kind = \"bins\"\ntable = \"vocab.json\"\nlength = 8\nfirst = \"<cls>\"\nlast = 3\n")
            .unwrap();
        let spec = asked(file.to_str().unwrap(), None).unwrap();
        assert_eq!((spec.name.as_str(), spec.first, spec.last, spec.room()), ("own.toml", Some(5), Some(3), 6));
    }

    #[test]
    fn what_is_missing_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table.tsv");
        let with = |text: &str, name: &str| {
            std::fs::write(&path, text).unwrap();
            asked(name, Some(&path)).unwrap_err()
        };
        for (text, name, words) in [
            ("A\t1\n", "geneformer", "the median of A is missing"),
            ("A\t1\t-1\n", "geneformer", "the median of A is missing"),
            ("A\t1\nA\t2\n", "scgpt", "A stands twice"),
            ("A\t1\nB\tx\n", "scgpt", "line 2: \"x\" is no token"),
            ("gene\ttoken\n", "scgpt", "it has no gene"),
            ("A\t4000000000\n", "scgpt", "tokens are numbers"),
            ("A\t1\n", "bert", "allowed are geneformer"),
            ("A\t1\n", "nothing.toml", "No such file"),
        ] {
            let said = with(text, name);
            assert!(said.contains(words), "{said}");
        }
        let file = directory.path().join("own.toml");
        for (text, words) in [
            ("kind = \"bins\"\nlength = 1\nfirst = 1\n", "length is 1"),
            ("kind = \"rank\"\nlength = 9\nbins = 3\n", "bins, ties and longer"),
            ("kind = \"bins\"\nlength = 9\nbins = 2\n", "bins are 2"),
            ("kind = \"bins\"\nlength = 9\nfirst = \"<cls>\"\n", "no token <cls>"),
            ("kind = \"words\"\nlength = 9\n", "unknown variant"),
        ] {
            std::fs::write(&file, text).unwrap();
            std::fs::write(&path, "A\t1\t1\n").unwrap();
            let said = asked(file.to_str().unwrap(), Some(&path)).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        assert!(asked("scgpt", None).unwrap_err().contains("--token-table is missing"));
    }
}

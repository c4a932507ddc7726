//! Parsers of option values; their errors say what is allowed.

use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::value_parser;

use crate::anndata::names::MatrixName;
use crate::array::Dtype;
use crate::collection::genes::matching::Matching;
use crate::collection::genes::{Genes, Join};
use crate::format::Extension;
use crate::plan::RemainderPolicy;
use crate::plan::groups::Short;
use crate::plan::rank::Rank;
use crate::plan::strategy::{STRATEGIES, by_name};
use crate::session::memory::LEAST as LEAST_MEMORY;
use crate::session::spec::Unmatched;
use crate::view::split::{self, Fraction};

/// A number, or `auto`. Not an `Option`, which has another meaning for clap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auto(pub Option<u32>);

/// A number of neighbours, or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fanout(pub Option<u32>);

pub const MAX_BLOCK_SIZE: u32 = 1 << 20;
pub const MAX_BATCH_SIZE: u32 = 1 << 24;
pub const MAX_FETCH_FACTOR: u32 = 1 << 20;

pub fn batch_size() -> impl TypedValueParser<Value = u32> {
    value_parser!(u32).range(1..=i64::from(MAX_BATCH_SIZE))
}

pub fn epochs() -> impl TypedValueParser<Value = u32> {
    value_parser!(u32).range(1..=10_000_000)
}

pub fn samples() -> impl TypedValueParser<Value = u64> {
    value_parser!(u64).range(1..)
}

pub fn controls() -> impl TypedValueParser<Value = u32> {
    value_parser!(u32).range(1..=1024)
}

pub fn hops() -> impl TypedValueParser<Value = u32> {
    value_parser!(u32).range(1..=8)
}

pub fn fanout(text: &str) -> Result<Fanout, String> {
    const MOST: u32 = 1024;
    match text.parse() {
        _ if text == "all" => Ok(Fanout(None)),
        Ok(number) if (1..=MOST).contains(&number) => Ok(Fanout(Some(number))),
        _ => Err(format!("allowed are `all` and whole numbers from 1 to {MOST}")),
    }
}

pub fn unmatched() -> impl TypedValueParser<Value = Unmatched> {
    PossibleValuesParser::new(Unmatched::ALL.map(Unmatched::as_str))
        .try_map(|name| named(Unmatched::ALL, Unmatched::as_str, &name))
}

pub fn threads() -> impl TypedValueParser<Value = u16> {
    value_parser!(u16).range(1..=1024)
}

pub fn io_depth() -> impl TypedValueParser<Value = u16> {
    value_parser!(u16).range(1..=512)
}

pub fn block_size(text: &str) -> Result<Auto, String> {
    auto(text, MAX_BLOCK_SIZE)
}

pub fn fetch_factor(text: &str) -> Result<Auto, String> {
    auto(text, MAX_FETCH_FACTOR)
}

fn auto(text: &str, most: u32) -> Result<Auto, String> {
    match text.parse() {
        _ if text == "auto" => Ok(Auto(None)),
        Ok(number) if (1..=most).contains(&number) => Ok(Auto(Some(number))),
        _ => Err(format!("allowed are `auto` and whole numbers from 1 to {most}")),
    }
}

/// A format by its file name extension.
pub fn format() -> impl TypedValueParser<Value = Extension> {
    PossibleValuesParser::new(Extension::ALL.iter().map(|extension| extension.as_str()))
        .try_map(|name| Extension::from_name(&name).ok_or("unknown format"))
}

/// What to do with genes that only some stores have.
pub fn join() -> impl TypedValueParser<Value = Join> {
    PossibleValuesParser::new(Join::ALL.map(Join::as_str)).try_map(|name| Join::from_name(&name).ok_or("unknown join"))
}

/// Which gene names count as equal.
pub fn matching() -> impl TypedValueParser<Value = Matching> {
    PossibleValuesParser::new(Matching::ALL.map(Matching::as_str))
        .try_map(|name| Matching::from_name(&name).ok_or("unknown matching"))
}

/// What to do with named genes that a store lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    Refuse,
    Zero,
}

impl Absent {
    const ALL: [Absent; 2] = [Absent::Refuse, Absent::Zero];

    pub fn as_str(self) -> &'static str {
        match self {
            Absent::Refuse => "refuse",
            Absent::Zero => "zero",
        }
    }
}

pub fn absent() -> impl TypedValueParser<Value = Absent> {
    PossibleValuesParser::new(Absent::ALL.map(Absent::as_str)).try_map(|name| named(Absent::ALL, Absent::as_str, &name))
}

/// A share from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("allowed are numbers from 0 to 1, such as 0.5".into()),
    }
}

/// The order of rows: a strategy without columns.
pub fn order() -> impl TypedValueParser<Value = &'static str> {
    let names =
        STRATEGIES.iter().filter(|strategy| !strategy.labels && !strategy.weights).map(|strategy| strategy.name);
    PossibleValuesParser::new(names).try_map(|name| by_name(&name).map(|strategy| strategy.name).ok_or("unknown order"))
}

/// What to do with rows that do not fill a whole set.
pub fn short() -> impl TypedValueParser<Value = Short> {
    PossibleValuesParser::new(Short::ALL.map(Short::as_str)).try_map(|name| named(Short::ALL, Short::as_str, &name))
}

/// What to do with batches that ranks cannot share evenly.
pub fn uneven() -> impl TypedValueParser<Value = RemainderPolicy> {
    PossibleValuesParser::new(RemainderPolicy::ALL.map(RemainderPolicy::as_str))
        .try_map(|name| named(RemainderPolicy::ALL, RemainderPolicy::as_str, &name))
}

fn named<T: Copy, const N: usize>(all: [T; N], name_of: fn(T) -> &'static str, name: &str) -> Result<T, &'static str> {
    all.into_iter().find(|&value| name_of(value) == name).ok_or("unknown")
}

/// The sides of a split. Not a `Vec`, which means several values to clap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fractions(pub Vec<Fraction>);

pub fn fractions(text: &str) -> Result<Fractions, String> {
    split::fractions(text).map(Fractions)
}

/// The rank whose part the mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankOf {
    /// From the launcher's environment.
    Auto,
    Given(Rank),
}

pub fn rank(text: &str) -> Result<RankOf, String> {
    if text == "auto" {
        return Ok(RankOf::Auto);
    }
    let rank =
        text.split_once('/').and_then(|(index, of)| Some(Rank { index: index.parse().ok()?, of: of.parse().ok()? }));
    match rank {
        Some(rank) if rank.index < rank.of && rank.of <= MOST_RANKS => Ok(RankOf::Given(rank)),
        _ => Err(format!("allowed are `auto` and R/W with R from 0 to W - 1 and W to {MOST_RANKS}, as in 0/4")),
    }
}

/// The maximum of ranks for which inode numbers have bits.
pub const MOST_RANKS: u64 = 4095;

/// A limit of memory: a size, or a share of the machine's or container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    Auto,
    Bytes(u64),
    Percent(u8),
}

pub fn memory(text: &str) -> Result<MemoryLimit, String> {
    let wrong = || "allowed are `auto`, a size such as 512MiB or 2GiB (at least 16MiB), and 1% to 90%".to_owned();
    if text == "auto" {
        return Ok(MemoryLimit::Auto);
    }
    if let Some(number) = text.strip_suffix('%') {
        return match number.trim().parse() {
            Ok(percent @ 1..=90) => Ok(MemoryLimit::Percent(percent)),
            _ => Err(wrong()),
        };
    }
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes)) if bytes >= LEAST_MEMORY => Ok(MemoryLimit::Bytes(bytes)),
        _ => Err(wrong()),
    }
}

/// The size of a cache, in bytes.
pub fn size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes)) if bytes >= LEAST_MEMORY => Ok(bytes),
        _ => Err("allowed are sizes such as 500GiB or 2TB (at least 16MiB)".to_owned()),
    }
}

pub fn timeout(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "s" | "sec" | "seconds" => 1.0,
        "ms" => 0.001,
        "m" | "min" | "minutes" => 60.0,
        "h" | "hours" => 3600.0,
        _ => f64::NAN,
    };
    let seconds = number.parse::<f64>().unwrap_or(f64::NAN) * unit;
    if (1.0..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("allowed are 1s to 24h, as seconds or with a unit: 60, 90s, 2min, 1h".into())
    }
}

/// The matrix to serve as X: `X`, `raw/X`, `layers/NAME`, `obsm/NAME`.
pub fn matrix(text: &str) -> Result<MatrixName, String> {
    MatrixName::at(text).ok_or_else(|| "allowed are X, raw/X, layers/NAME and obsm/NAME".into())
}

/// A further matrix: as `matrix`, but not X itself.
pub fn further(text: &str) -> Result<MatrixName, String> {
    match MatrixName::at(text) {
        Some(MatrixName::X) => Err("X is served anyway, or what --x names in its place".into()),
        Some(name) => Ok(name),
        None => Err("allowed are raw/X, layers/NAME and obsm/NAME".into()),
    }
}

const DTYPES: [(&str, Dtype); 12] = [
    ("f16", Dtype::F16),
    ("f32", Dtype::F32),
    ("f64", Dtype::F64),
    ("i8", Dtype::I8),
    ("i16", Dtype::I16),
    ("i32", Dtype::I32),
    ("i64", Dtype::I64),
    ("u8", Dtype::U8),
    ("u16", Dtype::U16),
    ("u32", Dtype::U32),
    ("u64", Dtype::U64),
    ("bool", Dtype::Bool),
];

/// A dtype, by its short name or numpy's.
pub fn dtype(text: &str) -> Result<Dtype, String> {
    let short = DTYPES.iter().find(|(name, _)| *name == text).map(|(_, dtype)| *dtype);
    let allowed = || DTYPES.map(|(name, _)| name).join(", ");
    short.or_else(|| Dtype::from_name(text)).ok_or_else(|| format!("allowed are {} (or float32 and so on)", allowed()))
}

/// A dtype of column numbers.
pub fn index_dtype(text: &str) -> Result<Dtype, String> {
    let allowed = [Dtype::U16, Dtype::I32, Dtype::I64];
    dtype(text).ok().filter(|dtype| allowed.contains(dtype)).ok_or_else(|| "allowed are u16, i32 and i64".into())
}

/// The total to scale rows to.
pub fn total(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(total) if total.is_finite() && total > 0.0 => Ok(total),
        _ => Err("allowed are positive numbers, such as 1e4".into()),
    }
}

/// Genes: a file of names, a column of var, or a list of names.
pub fn genes(text: &str) -> Result<Genes, String> {
    if let Some(column) = text.strip_prefix("var:") {
        return Ok(Genes::Var(column.to_owned()));
    }
    // An existing directory or unreadable file is an error, not a list of names. A long list exceeds the length of paths.
    if std::fs::exists(text).unwrap_or_else(|error| error.kind() != std::io::ErrorKind::InvalidFilename) {
        return genes_of_file(Path::new(text));
    }
    genes_named(text.split(',').map(str::to_owned).collect())
}

/// The genes in a file, one name a line.
pub fn genes_of_file(path: &Path) -> Result<Genes, String> {
    let lines = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    genes_named(lines.lines().map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect())
}

/// Genes by their names.
pub fn genes_named(names: Vec<String>) -> Result<Genes, String> {
    let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err("it names no genes".into());
    }
    Ok(Genes::Names(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_or_auto() {
        assert_eq!(block_size("auto"), Ok(Auto(None)));
        assert_eq!(block_size("16"), Ok(Auto(Some(16))));
        assert!(block_size("0").unwrap_err().contains("1 to 1048576"));
        assert!(block_size("1048577").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(memory("2GiB"), Ok(MemoryLimit::Bytes(2 << 30)));
        assert_eq!(memory("64 MB"), Ok(MemoryLimit::Bytes(64_000_000)));
        assert_eq!(memory("25%"), Ok(MemoryLimit::Percent(25)));
        assert_eq!(memory("auto"), Ok(MemoryLimit::Auto));
        for wrong in ["", "1", "0%", "100%", "-1", "2 apples"] {
            assert!(memory(wrong).unwrap_err().contains("512MiB"), "{wrong}");
        }
    }

    #[test]
    fn many_names_of_genes_are_no_path() {
        let names: Vec<String> = (0..1000).map(|number| format!("ENSG{number:011}")).collect();
        assert_eq!(genes(&names.join(",")), Ok(Genes::Names(names)));
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("60", 60.0), ("90s", 90.0), ("2min", 120.0), ("1.5h", 5400.0), ("1500ms", 1.5)] {
            assert_eq!(timeout(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for wrong in ["", "0", "-5", "25h", "3 days", "s", "1e9"] {
            assert!(timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_done_to_values() {
        assert_eq!((dtype("f16"), dtype("float64")), (Ok(Dtype::F16), Ok(Dtype::F64)));
        assert!(dtype("f8").unwrap_err().contains("f16, f32"));
        assert_eq!((index_dtype("u16"), index_dtype("int64")), (Ok(Dtype::U16), Ok(Dtype::I64)));
        assert!(index_dtype("f32").is_err() && index_dtype("u32").is_err());
        assert_eq!(total("1e4"), Ok(1e4));
        assert!(["0", "-1", "nan", "inf", ""].iter().all(|text| total(text).is_err()));
        assert!(further("X").is_err() && further("raw/X").is_ok() && further("obs/a").is_err());
    }

    #[test]
    fn genes_of_a_file_or_a_list() {
        let names = |names: &[&str]| Ok(Genes::Names(names.iter().map(|name| (*name).to_owned()).collect()));
        assert_eq!(genes("var:highly_variable"), Ok(Genes::Var("highly_variable".to_owned())));
        assert_eq!(genes("b,a"), names(&["b", "a"]));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "b c\r\n\na,1\n").unwrap();
        assert_eq!(genes(file.path().to_str().unwrap()), names(&["b c", "a,1"]));
        assert!(genes(",").is_err() && genes("/").is_err());
    }

    #[test]
    fn matrices() {
        assert!(["X", "raw/X", "layers/counts", "obsm/X_pca"].iter().all(|name| matrix(name).is_ok()));
        assert!(["x", "layers/", "raw", "obs/a"].iter().all(|name| matrix(name).is_err()));
    }
}

//! `--config FILE`: options by name, views as `[view.NAME]`, and stores as `stores = [...]`. Such a file may also stand in place of the
//! stores, as fstab has one source a line.
//!
//! serde fills the same structs as clap, so each option has one definition and one parser of values (`said`). The command line overrides
//! the file. Options of views (of all, or of one) are stored separately, because the command line overrides both.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::OptionArgs;
use super::sampling::SamplingArgs;
use super::values;
use super::views::ViewsFile;
use crate::view::suggest::suggest;

/// A parsed file.
#[derive(Debug, Default)]
pub struct Config {
    pub views: ViewsFile,
    /// Stores, absolute or relative to the directory of the file.
    pub stores: Vec<PathBuf>,
    /// All other options, with defaults for those that the file does not have.
    pub options: OptionArgs,
}

/// Reads and parses a file.
///
/// # Errors
/// One line with file, line, key and cause.
pub fn read(path: &Path) -> Result<Config, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("--config {}: {error}", path.display()))?;
    let directory = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let directory = directory.parent().unwrap_or(Path::new("/"));
    parse(&text, directory).map_err(|(at, cause)| {
        let line = 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
        format!("{} line {line}: {cause}", path.display())
    })
}

/// The offset of the error in the file, and its cause.
type ConfigError = (usize, String);

type Key<'i> = Spanned<Cow<'i, str>>;
type TomlEntry<'i> = (Key<'i>, Spanned<DeValue<'i>>);

fn parse(text: &str, directory: &Path) -> Result<Config, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, error.message().replace('\n', ", "))
    })?;
    let of_view = names_of(SamplingArgs::augment_args(Command::new("view")));
    let known = names_of(OptionArgs::augment_args(Command::new("file")));
    let mut config = Config::default();
    let (mut of_views, mut others, mut genes) = (Vec::new(), Vec::new(), None);
    for (key, value) in in_order(document.into_inner()) {
        let key = checked(key, &known, &["view", "stores"])?;
        match key.get_ref().as_ref() {
            "view" => config.views.views = views(value, &of_view, directory)?,
            "stores" => config.stores = stores(&value, directory)?,
            // Either a path relative to this file, or names.
            "genes" => genes = Some((key, value)),
            name if of_view.iter().any(|known| known == name) => of_views.push((key, value)),
            _ => others.push((key, value)),
        }
    }
    config.views.all = table::<SamplingArgs>(of_views)?.beside(directory);
    config.options = table::<OptionArgs>(others)?.beside(directory);
    if let Some((key, value)) = genes {
        let named = Genes::deserialize(toml::de::ValueDeserializer::from(value))
            .map_err(|error| error.message().to_owned())
            .and_then(|said| said.read(directory));
        config.options.genes = Some(named.map_err(|cause| (key.span().start, format!("genes: {cause}")))?);
    }
    Ok(config)
}

/// Whether a path given as a store is such a file.
pub fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

/// The options of a command as keys of a file, without `config` itself.
fn names_of(command: Command) -> Vec<String> {
    let names = command.get_arguments().filter_map(|argument| argument.get_long()).filter(|&name| name != "config");
    names.map(|name| name.replace('-', "_")).collect()
}

/// A key, with `-` replaced by `_`; fails if it is unknown.
fn checked<'i>(key: Key<'i>, known: &[String], also_known: &[&str]) -> Result<Key<'i>, ConfigError> {
    let name = key.get_ref().replace('-', "_");
    if known.contains(&name) || also_known.contains(&name.as_str()) {
        return Ok(Spanned::new(key.span(), name.into()));
    }
    let all = known.iter().map(String::as_str).chain(also_known.iter().copied());
    Err((key.span().start, format!("no option is called {}; {}", key.get_ref(), suggest(key.get_ref(), all))))
}

/// Deserializes a struct with these fields.
fn table<T: DeserializeOwned>(entries: Vec<TomlEntry<'_>>) -> Result<T, ConfigError> {
    let places: Vec<_> =
        entries.iter().map(|(key, value)| (key.get_ref().to_string(), key.span(), value.span())).collect();
    let table: DeTable<'_> = entries.into_iter().collect();
    T::deserialize(toml::de::Deserializer::from(Spanned::new(0..0, table))).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let of = places.iter().find(|(_, key, value)| (key.start..value.end.max(key.end)).contains(&at));
        let message = error.message().replace('\n', ", ");
        of.map_or((at, message.clone()), |(name, key, _)| (key.start, format!("{name}: {message}")))
    })
}

/// The forms of `genes`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a file, var:COLUMN, names, or a list of names is expected")]
enum Genes {
    Words(String),
    Names(Vec<String>),
}

impl Genes {
    fn read(self, directory: &Path) -> Result<crate::collection::genes::Genes, String> {
        match self {
            Genes::Words(text) => match directory.join(&text) {
                file if file.is_file() => values::genes_of_file(&file),
                _ => values::genes(&text),
            },
            Genes::Names(names) => values::genes_named(names),
        }
    }
}

fn stores(value: &Spanned<DeValue<'_>>, directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let names = value.get_ref().as_array().map(|items| {
        let named = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
        items.iter().map(named).collect::<Option<Vec<String>>>()
    });
    let wrong = || (value.span().start, "stores is a list of paths, as in [\"a.h5ad\", \"b.zarr\"]".to_owned());
    let names = names.flatten().filter(|names| !names.is_empty()).ok_or_else(wrong)?;
    let path = |name: String| if name.contains("://") { PathBuf::from(name) } else { directory.join(name) };
    Ok(names.into_iter().map(path).collect())
}

/// The entries of a table in the order of the file.
fn in_order(table: DeTable<'_>) -> Vec<TomlEntry<'_>> {
    let mut entries: Vec<TomlEntry<'_>> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The entries of a table of tables; the error is about offset `at`.
fn entries_of(value: Spanned<DeValue<'_>>, at: usize) -> Result<Vec<TomlEntry<'_>>, ConfigError> {
    match value.into_inner() {
        DeValue::Table(table) => Ok(in_order(table)),
        _ => Err((at, "view holds tables, as in [view.train]".to_owned())),
    }
}

fn views(
    value: Spanned<DeValue<'_>>,
    known: &[String],
    directory: &Path,
) -> Result<Vec<(String, SamplingArgs)>, ConfigError> {
    let at = value.span().start;
    let mut views = Vec::new();
    for (name, value) in entries_of(value, at)? {
        let entries = entries_of(value, name.span().start)?.into_iter();
        let entries = entries.map(|(key, value)| Ok((checked(key, known, &[])?, value)));
        let sampling = table::<SamplingArgs>(entries.collect::<Result<_, ConfigError>>()?)?.beside(directory);
        views.push((name.into_inner().into_owned(), sampling));
    }
    Ok(views)
}

#[cfg(test)]
mod tests;

//! `--config FILE`: every option by its name, views as `[view.NAME]`, and stores as `stores = [...]`. In place of a store such
//! a file names all of them, as fstab has one source a line.
//!
//! A key becomes the long option of the same name, so its value is parsed and refused exactly as on the command line; what
//! is refused is told with the file and the line. Options of all views at once and of single ones are kept apart from the
//! rest, because the command line wins over both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command, FromArgMatches};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::OptionArgs;
use super::sampling::SamplingArgs;
use super::without_decoration;
use crate::view::suggest::suggest;

/// What a file says of views.
#[derive(Debug, Clone, Default)]
pub struct ViewsFile {
    /// Of all views.
    pub all: SamplingArgs,
    /// Of each named one, in the order of the file.
    pub views: Vec<(String, SamplingArgs)>,
}

/// A file, understood.
#[derive(Debug, Default)]
pub struct Config {
    pub views: ViewsFile,
    /// Relative ones begin beside the file.
    pub stores: Vec<PathBuf>,
    /// All other options, as arguments.
    pub arguments: Vec<OsString>,
}

/// Options whose values are paths: relative ones begin beside the file.
const PATHS: [&str; 4] = ["rows", "index-dir", "cache-dir", "log"];

/// Reads a file.
///
/// # Errors
/// One line with the file, the line and the cause.
pub fn read(path: &Path) -> Result<Config, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("--config {}: {error}", path.display()))?;
    let directory = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let directory = directory.parent().unwrap_or(Path::new("/"));
    parse(&text, directory).map_err(|(at, cause)| {
        let line = 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
        format!("{} line {line}: {cause}", path.display())
    })
}

/// A cause, and the byte that it is about.
type ConfigError = (usize, String);

type TomlEntry<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

fn parse(text: &str, directory: &Path) -> Result<Config, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, error.message().replace('\n', ", "))
    })?;
    let all = OptionArgs::augment_args(Command::new("file"));
    let of_view = SamplingArgs::augment_args(Command::new("view"));
    let mut config = Config::default();
    let mut of_all = Vec::new();
    for (key, value) in in_order(document.get_ref()) {
        if key.get_ref() == "view" {
            config.views.views = views(value, &of_view, directory)?;
            continue;
        }
        if key.get_ref() == "stores" {
            config.stores = stores(value, directory)?;
            continue;
        }
        let (name, arguments) = arguments(&all, key, value, directory, &["view", "stores"])?;
        let is_of_views = of_view.get_arguments().any(|argument| argument.get_long() == Some(&name));
        let target = if is_of_views { &mut of_all } else { &mut config.arguments };
        target.extend(arguments);
    }
    config.views.all = sampling(&of_view, of_all, 0)?.beside(directory);
    Ok(config)
}

/// Whether this stands for stores instead of being one.
pub fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
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

/// The entries of a table as they stand in the file.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<TomlEntry<'a, 'i>> {
    let mut entries: Vec<TomlEntry<'a, 'i>> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn views(
    value: &Spanned<DeValue<'_>>,
    of_view: &Command,
    directory: &Path,
) -> Result<Vec<(String, SamplingArgs)>, ConfigError> {
    let wrong = |at| (at, "view holds tables, as in [view.train]".to_owned());
    let table = value.get_ref().as_table().ok_or_else(|| wrong(value.span().start))?;
    let mut views = Vec::new();
    for (name, value) in in_order(table) {
        let table = value.get_ref().as_table().ok_or_else(|| wrong(name.span().start))?;
        let mut said = Vec::new();
        for (key, value) in in_order(table) {
            said.extend(arguments(of_view, key, value, directory, &[])?.1);
        }
        let sampling = sampling(of_view, said, name.span().start)?.beside(directory);
        views.push((name.get_ref().to_string(), sampling));
    }
    Ok(views)
}

fn sampling(of_view: &Command, arguments: Vec<OsString>, at: usize) -> Result<SamplingArgs, ConfigError> {
    matched(of_view, &arguments)
        .and_then(|matches| SamplingArgs::from_arg_matches(&matches))
        .map_err(|error| (at, without_decoration(&error.to_string())))
}

fn matched(command: &Command, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let line = std::iter::once(OsString::from("shufflefs")).chain(arguments.iter().cloned());
    command.clone().args_override_self(true).try_get_matches_from(line)
}

/// The long option of a key, and the arguments that say the same. Checked alone, so that an error has a line.
fn arguments(
    command: &Command,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    directory: &Path,
    also_known: &[&str],
) -> Result<(String, Vec<OsString>), ConfigError> {
    let at = key.span().start;
    let long = key.get_ref().replace('_', "-");
    // What the file is called, it cannot say itself.
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(&long) && long != "config");
    let Some(argument) = argument else {
        let names = command.get_arguments().filter_map(|argument| argument.get_long()).filter(|&name| name != "config");
        let names: Vec<String> = names.map(|name| name.replace('-', "_")).collect();
        let known = names.iter().map(String::as_str).chain(also_known.iter().copied());
        return Err((at, format!("no option is called {}; {}", key.get_ref(), suggest(key.get_ref(), known))));
    };
    let name = key.get_ref();
    let takes_value = argument.get_action().takes_values();
    let mut arguments: Vec<OsString> = Vec::new();
    match (value.get_ref(), takes_value) {
        (DeValue::Boolean(true), false) => arguments.push(format!("--{long}").into()),
        (DeValue::Boolean(false), false) => {}
        (_, false) => return Err((at, format!("{name} is true or false"))),
        (DeValue::Array(items), true) if argument.get_value_delimiter().is_some() => {
            let texts: Option<Vec<String>> = items.iter().map(|item| text(item.get_ref())).collect();
            let texts = texts.ok_or_else(|| (at, format!("{name} is a list of strings")))?;
            // An empty list is an empty value: none, rather than the default.
            arguments.push(format!("--{long}={}", texts.join(",")).into());
        }
        (DeValue::Table(table), true) if long == "split" => {
            let item = |(key, value): TomlEntry<'_, '_>| Some(format!("{}={}", key.get_ref(), text(value.get_ref())?));
            let items: Option<Vec<String>> = in_order(table).into_iter().map(item).collect();
            let items = items.ok_or_else(|| (at, "split is a table of numbers, as in { train = 0.8 }".to_owned()))?;
            arguments.push(format!("--{long}={}", items.join(",")).into());
        }
        (value, true) => {
            let Some(text) = text(value) else {
                return Err((at, format!("{name} is one value: a string, a number or a boolean")));
            };
            let beside = directory.join(&text);
            // Genes may be a file, or names.
            let is_path = PATHS.contains(&long.as_str()) || (long == "genes" && beside.is_file());
            let path = is_path.then_some(beside);
            let mut word = OsString::from(format!("--{long}="));
            word.push(path.unwrap_or_else(|| PathBuf::from(text)));
            arguments.push(word);
        }
    }
    match matched(command, &arguments) {
        Ok(_) => Ok((long, arguments)),
        Err(error) => Err((at, without_decoration(&error.to_string()))),
    }
}

/// A value as the command line would spell it.
fn text(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok()?.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, ConfigError> {
        parse(text, Path::new("/etc/cells"))
    }

    #[test]
    fn keys_are_options_and_views_keep_their_order() {
        let text = "\
batch_size = 512            # a comment
obs = [\"cell_type\", \"donor\"]
split = { train = 0.8, val = 0.2 }
cache = true
allow_other = false
log = 'mount.log'
drop-last = true
[view.val]
order = \"sequential\"
drop_last = false
[view.train]
where = 'tissue == \"lung\"'
rows = \"train.txt\"
seed = 0x10
";
        let config = parsed(text).unwrap_or_else(|error| panic!("{error:?}"));
        let arguments: Vec<OsString> =
            ["--obs=cell_type,donor", "--split=train=0.8,val=0.2", "--cache", "--log=/etc/cells/mount.log"]
                .map(Into::into)
                .into();
        assert_eq!(config.arguments, arguments);
        let all = &config.views.all;
        assert_eq!((all.batch_size, all.drop_last), (Some(512), Some(true)));
        let [(val, of_val), (train, of_train)] = config.views.views.as_slice() else { panic!() };
        assert_eq!((val.as_str(), train.as_str()), ("val", "train"));
        assert_eq!(of_val.drop_last, Some(false));
        assert_eq!((of_train.seed, of_train.rows.as_deref()), (Some(16), Some(Path::new("/etc/cells/train.txt"))));
        assert_eq!(of_train.filter.as_ref().map(|filter| filter.text()), Some("tissue == \"lung\""));
    }

    #[test]
    fn stores_are_beside_the_file() {
        let stores = parsed("stores = ['a.h5ad', '/b.zarr', 's3://bucket/c.zarr']").map(|config| config.stores);
        assert_eq!(stores, Ok(["/etc/cells/a.h5ad", "/b.zarr", "s3://bucket/c.zarr"].map(PathBuf::from).into()));
        assert!(is_source(Path::new("/etc/cells.toml")) && !is_source(Path::new("cells.h5ad")));
    }

    #[test]
    fn errors_have_a_place() {
        for (text, at, word) in [
            ("stores = 'a.h5ad'", 9, "a list of paths"),
            ("seed = 1\nstores = []", 18, "a list of paths"),
            ("stores = [1]", 9, "a list of paths"),
            ("bach_size = 1", 0, "near: batch_size"),
            ("seed = 1\nbatch_size = 0", 9, "1..=16777216"),
            ("x = [1]", 0, "one value"),
            ("cache = 1", 0, "true or false"),
            ("config = 'a'", 0, "no option"),
            ("[view.train]\nformat = 'npy'", 13, "no option is called format"),
            ("[view]\ntrain = 1", 7, "[view.train]"),
            ("[view.a]\nwhere = 'x = 1'", 9, "=="),
            ("seed = ", 7, ""),
            ("split = { a = 0.9, b = 0.2 }", 0, "above 1"),
        ] {
            match parsed(text) {
                Err((found, cause)) => assert!(found == at && cause.contains(word), "{text}: {found} {cause}"),
                Ok(config) => panic!("{text}: {config:?}"),
            }
        }
    }
}

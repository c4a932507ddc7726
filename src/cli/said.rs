//! Deserializes values of options in a file, with the parsers of the command line.

use std::error::Error as _;
use std::ffi::OsStr;
use std::fmt;

use clap::Command;
use clap::builder::{BoolValueParser, PathBufValueParser, TypedValueParser};
use clap::value_parser;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::values::{self, Absent, Auto, Fanout, Fractions, MemoryLimit, RankOf};
use super::without_decoration;
use crate::anndata::names::MatrixName;
use crate::array::Dtype;
use crate::collection::genes::Join;
use crate::collection::genes::matching::Matching;
use crate::format::Extension;
use crate::plan::RemainderPolicy;
use crate::plan::groups::Short;
use crate::session::spec::Unmatched;
use crate::view::filter::Filter;

/// A value, as it would be spelt on the command line.
struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value: a string, a number or a boolean")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Word, E> {
                Ok(Word(value.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }

            fn visit_i128<E: Error>(self, number: i128) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

fn parse<P: TypedValueParser, E: Error>(parser: &P, text: &str) -> Result<P::Value, E> {
    parser.parse_ref(&Command::new("file"), None, OsStr::new(text)).map_err(|error| {
        E::custom(match error.source() {
            Some(cause) => format!("{text:?}: {cause}"),
            None => without_decoration(&error.to_string()).replace(" for '...'", ""),
        })
    })
}

fn word<'de, D: Deserializer<'de>, P: TypedValueParser>(deserializer: D, parser: P) -> Result<P::Value, D::Error> {
    let Word(text) = Word::deserialize(deserializer)?;
    parse(&parser, &text)
}

fn any(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// Makes functions for `deserialize_with`: values of a type, by a parser.
macro_rules! words {
    ($($name:ident: $type:ty = $parser:expr;)*) => {
        $(pub fn $name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
            word(deserializer, $parser)
        })*
    };
}

/// The same for options without a default.
macro_rules! optional_words {
    ($($name:ident: $type:ty = $parser:expr;)*) => {
        $(pub fn $name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
            word(deserializer, $parser).map(Some)
        })*
    };
}

words! {
    absent: Absent = values::absent();
    cache_size: u64 = values::size;
    epochs: u32 = values::epochs();
    format: Extension = values::format();
    genes_match: Matching = values::matching();
    join: Join = values::join();
    memory: MemoryLimit = values::memory;
    min_matched: f64 = values::share;
    timeout: std::time::Duration = values::timeout;
    uneven: RemainderPolicy = values::uneven();
    x: MatrixName = values::matrix;
}

optional_words! {
    batch_size: u32 = values::batch_size();
    block_size: Auto = values::block_size;
    controls: u32 = values::controls();
    drop_last: bool = BoolValueParser::new();
    dtype: Dtype = values::dtype;
    fanout: Fanout = values::fanout;
    fetch_factor: Auto = values::fetch_factor;
    filter: Filter = Filter::parse;
    hops: u32 = values::hops();
    index_dtype: Dtype = values::index_dtype;
    io_depth: u16 = values::io_depth();
    normalize: f64 = values::total;
    number: u32 = value_parser!(u32);
    order: &'static str = values::order();
    path: std::path::PathBuf = PathBufValueParser::new();
    rank: RankOf = values::rank;
    samples: u64 = values::samples();
    seed: u64 = value_parser!(u64);
    short: Short = values::short();
    text: String = any;
    threads: u16 = values::threads();
    unmatched: Unmatched = values::unmatched();
}

/// A flag.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Flag;
    impl Visitor<'_> for Flag {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
            Ok(value)
        }
    }
    deserializer.deserialize_any(Flag)
}

/// Several values: a list, or a string with commas.
fn list<'de, D: Deserializer<'de>, P: TypedValueParser>(deserializer: D, parser: P) -> Result<Vec<P::Value>, D::Error> {
    struct List<P>(P);
    impl<'de, P: TypedValueParser> Visitor<'de> for List<P> {
        type Value = Vec<P::Value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of strings")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<P::Value>, E> {
            text.split(',').map(|part| parse(&self.0, part)).collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<P::Value>, A::Error> {
            let mut all = Vec::new();
            while let Some(Word(text)) = items.next_element()? {
                all.push(parse(&self.0, &text)?);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(List(parser))
}

pub fn with<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MatrixName>, D::Error> {
    list(deserializer, values::further)
}

pub fn obs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    list(deserializer, any).map(Some)
}

pub fn columns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, any)
}

/// The sides of a split: a string as on the command line, or a table of numbers in the order of the file.
pub fn split<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Fractions>, D::Error> {
    struct Split;
    impl<'de> Visitor<'de> for Split {
        type Value = Fractions;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of numbers, as in { train = 0.8 }")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Fractions, E> {
            parse(&values::fractions, text)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Fractions, A::Error> {
            let mut sides = Vec::new();
            while let Some((name, Word(part))) = items.next_entry::<Spanned<String>, Word>()? {
                sides.push((name.span().start, format!("{}={part}", name.into_inner())));
            }
            sides.sort();
            let sides: Vec<String> = sides.into_iter().map(|(_, side)| side).collect();
            parse(&values::fractions, &sides.join(","))
        }
    }
    deserializer.deserialize_any(Split).map(Some)
}

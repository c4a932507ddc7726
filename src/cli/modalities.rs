//! Modalities: `--modality NAME=STORE`, and options of one modality, `--modality-option NAME.OPTION=VALUE`.

use std::path::PathBuf;

use clap::{Args, Command, FromArgMatches};

use super::exit::Failure;
use super::options::OptionArgs;
use super::usage;
use crate::session::modalities::first_is_said_alone;
use crate::session::spec::Spec;
use crate::view::suggest::suggest;

/// Options that a modality can have of its own.
const OWN: [&str; 13] = [
    "x",
    "with",
    "obs",
    "join",
    "genes",
    "genes-match",
    "genes-column",
    "absent",
    "min-matched",
    "dense",
    "normalize",
    "log1p",
    "dtype",
];

/// Splits a value of `--OPTION` into a name and the rest, at `sign`.
fn named<'t>(option: &str, said: &'t str, sign: char, example: &str) -> Result<(&'t str, &'t str), Failure> {
    let wrong = |cause: &str| Failure::usage(format_args!("--{option} {said}: {cause}, as in {example}"));
    let (name, rest) = said.split_once(sign).ok_or_else(|| wrong("a name is missing"))?;
    let usable = |c: char| c.is_ascii_alphanumeric() || "_-+:".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(usable) {
        return Err(wrong("a name has 1 to 64 letters, digits and _ - + :"));
    }
    Ok((name, rest))
}

/// The stores of each modality, in order of first appearance.
///
/// # Errors
/// A value that is not `NAME=STORE`.
pub fn stores(said: &[String]) -> Result<Vec<(String, Vec<PathBuf>)>, Failure> {
    let mut all: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for one in said {
        let (name, store) = named("modality", one, '=', "rna=cells.h5ad")?;
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, stores)) => stores.push(store.into()),
            None => all.push((name.to_owned(), vec![store.into()])),
        }
    }
    Ok(all)
}

/// The options of each modality, by name; `validate` checks the options of a mount without stores.
///
/// # Errors
/// A value that is not `NAME.OPTION=VALUE`; an option that modalities do not have; an invalid value of the option.
pub fn said(
    options: &[String],
    validate: impl Fn(OptionArgs) -> Result<Spec, Failure>,
) -> Result<Vec<(String, Spec)>, Failure> {
    let mut words: Vec<(&str, Vec<String>)> = Vec::new();
    for one in options {
        let (name, option) = named("modality-option", one, '.', "protein.genes=CD3,CD4")?;
        let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
        let key = key.replace('_', "-");
        if !OWN.contains(&key.as_str()) {
            let known = suggest(&key, OWN.into_iter());
            return Err(Failure::usage(format_args!(
                "--modality-option {one}: no modality has an option {key}; {known}"
            )));
        }
        let word = value.map_or_else(|| format!("--{key}"), |value| format!("--{key}={value}"));
        match words.iter_mut().find(|(known, _)| *known == name) {
            Some((_, words)) => words.push(word),
            None => words.push((name, vec![word])),
        }
    }
    let one = |(name, words): (&str, Vec<String>)| {
        let about = |failure: Failure| Failure::usage(format_args!("--modality-option {name}: {}", failure.error));
        let command = OptionArgs::augment_args(Command::new("modality")).no_binary_name(true);
        let matches = command.try_get_matches_from(words).map_err(|error| about(usage(&error)))?;
        let args = OptionArgs::from_arg_matches(&matches).map_err(|error| about(usage(&error)))?;
        Ok((name.to_owned(), validate(args).map_err(about)?))
    };
    words.into_iter().map(one).collect()
}

/// Adds modalities to the spec of a mount, whose stores become those of the first.
///
/// # Errors
/// Stores without a name besides named ones; options for an unknown modality.
pub fn put(spec: &mut Spec, named: Vec<(String, Vec<PathBuf>)>, mut said: Vec<(String, Spec)>) -> Result<(), Failure> {
    if named.is_empty() {
        // The stores (MuData) determine the modalities.
        let of = |(name, spec_said): (String, Spec)| spec.of_modality(&name, Vec::new(), Some(spec_said));
        spec.modalities = said.into_iter().map(of).collect();
        return Ok(());
    }
    if !spec.stores.is_empty() {
        return Err(Failure::usage("--modality names the stores: leave out those without a name"));
    }
    let mut others = named.into_iter();
    let (first, stores) = others.next().unwrap_or_default();
    if said.iter().any(|(name, _)| *name == first) {
        return Err(Failure::usage(first_is_said_alone(&first)));
    }
    (spec.stores, spec.modality) = (stores, Some(first));
    for (name, stores) in others {
        let own = said.iter().position(|(of, _)| *of == name).map(|at| said.swap_remove(at).1);
        let one = spec.of_modality(&name, stores, own);
        spec.modalities.push(one);
    }
    if let Some((name, _)) = said.first() {
        let known = suggest(name, spec.modalities.iter().filter_map(|of| of.modality.as_deref()));
        return Err(Failure::usage(format_args!("--modality-option {name}: there is no such modality; {known}")));
    }
    Ok(())
}

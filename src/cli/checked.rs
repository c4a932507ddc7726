//! Checked options, as the rest of the program uses them.
//!
//! `Options` is plain data. The rooms below do not read environment, command line or current directory: paths are absolute here, because a
//! daemon's directory is `/`.

use std::path::PathBuf;
use std::sync::Arc;

use super::assigned;
use super::exit::Failure;
use super::index_dir;
use super::launcher;
use super::log::Recent;
use super::modalities;
use super::options::OptionArgs;
use super::tokens;
use super::values::{Absent, MemoryLimit};
use super::views::{neighbours, pairs, rank, split, views};
use crate::anndata::expand;
use crate::anndata::names::MatrixName;
use crate::collection::element::Arithmetic;
use crate::collection::genes::Genes;
use crate::fuse::ShuffleFs;
use crate::session::spec::AssignedSpec;
use crate::session::{Session, SessionError, Spec, memory};
use crate::storage::name;
use crate::view::assigned::{Assigned, SIDES};

/// The options of a mount: what it serves, and how it is mounted.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub spec: Spec,
    pub config: Option<PathBuf>,
    pub allow_other: bool,
    pub log: Option<PathBuf>,
}

impl OptionArgs {
    /// Makes the checks that concern several options.
    pub fn validate(self, stores: Vec<PathBuf>) -> Result<Options, Failure> {
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
        };
        let sharing = if self.is_of_node { 1 } else { launcher::local_size(&|name| std::env::var(name).ok()) };
        let memory = match self.memory {
            MemoryLimit::Auto => memory::default_budget(sharing),
            MemoryLimit::Bytes(bytes) => Some(bytes),
            MemoryLimit::Percent(percent) => {
                let limit = memory::limit().ok_or_else(|| {
                    Failure::usage("--memory: this system does not tell how much memory it has; give a size")
                })?;
                Some(limit / 100 * u64::from(percent))
            }
        };
        let here = absolute(PathBuf::new().join("."))?;
        let split = split(self.split, self.split_by, self.stratify, &self.sampling, &self.file)?;
        let assigned = self.split_toml.map(|file| AssignedSpec {
            file: here.join(file),
            rules: Assigned::default(),
            pert_col: self.pert_col,
            cell_type_key: self.cell_type_key,
            control_pert: self.control_pert,
            seed: self.sampling.seed.or(self.file.all.seed).unwrap_or(0),
        });
        let assigned = assigned.map(|spec| assigned::read(spec, split.is_some(), &here)).transpose()?;
        let sides = match (&split, &assigned) {
            (Some(split), _) => split.fractions.iter().map(|side| side.name.clone()).collect(),
            (None, Some(spec)) => spec.rules.sides().into_iter().map(|side| SIDES[side].to_owned()).collect(),
            (None, None) => Vec::new(),
        };
        let views = views(&self.sampling, &self.file, &sides, &here).map_err(Failure::usage)?;
        let plain = tokens::Combined {
            dense: self.dense,
            computes: self.normalize.is_some() || self.log1p,
            dtype: self.dtype.is_some(),
        };
        let expanded = |stores: Vec<PathBuf>| -> Result<Vec<PathBuf>, Failure> {
            let stores = stores.into_iter().map(store).collect::<Result<Vec<_>, _>>()?;
            Ok(stores.iter().flat_map(|path| expand(path)).collect())
        };
        let said = modalities::said(&self.modality_option, |options| Ok(options.validate(Vec::new())?.spec))?;
        let named = modalities::stores(&self.modality)?.into_iter();
        let named = named.map(|(name, stores)| Ok((name, expanded(stores)?))).collect::<Result<Vec<_>, Failure>>()?;
        let mut spec = Spec {
            stores: expanded(stores)?,
            modality: None,
            modalities: Vec::new(),
            views,
            split,
            assigned,
            filter: self.sampling.filter.or(self.file.all.filter),
            rows: self.sampling.rows.or(self.file.all.rows).map(absolute).transpose()?,
            neighbours: neighbours(self.neighbours, self.hops, self.fanout)?,
            pairs: pairs(self.pair_with, self.match_columns, self.controls, self.unmatched)?,
            uneven: self.uneven,
            rank: rank(self.rank)?,
            epochs: self.epochs,
            format: self.format,
            with: further(&self.x, self.with)?,
            x: self.x,
            obs: self.obs.map(|names| names.into_iter().filter(|name| !name.is_empty()).collect()),
            join: self.join,
            matching: self.genes_match,
            genes_column: self.genes_column,
            absent_zero: absent_zero(self.absent, self.genes.as_ref(), self.min_matched)?,
            tokens: tokens::recipe(self.tokens.as_deref(), self.token_table.as_deref(), &plain)?.map(Arc::new),
            dense: self.dense,
            genes: self.genes,
            arithmetic: Arithmetic { normalize: self.normalize, log1p: self.log1p },
            dtype: self.dtype,
            index_dtype: self.index_dtype,
            index_dir: self.index_dir.map(absolute).transpose()?.or_else(index_dir::standard),
            memory,
            threads: self.threads.map_or_else(|| cores(sharing), usize::from),
            io_depth: self.io_depth.map(usize::from),
            timeout: self.timeout,
            anonymous: self.anonymous,
            cache_dir: self.cache_dir.map(absolute).transpose()?,
            cache_size: self.cache_size,
            cache: self.cache,
            uid: self.uid,
            gid: self.gid,
        };
        modalities::put(&mut spec, named, said)?;
        Ok(Options {
            spec,
            config: self.config.map(absolute).transpose()?,
            allow_other: self.allow_other,
            log: self.log.map(absolute).transpose()?,
        })
    }
}

/// Cores for one of `sharing` processes of a job on this node.
fn cores(sharing: u64) -> usize {
    let ours = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    // SAFETY: a system call without pointers.
    let all = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    share_of_cores(ours, usize::try_from(all).unwrap_or(ours), usize::try_from(sharing).unwrap_or(1))
}

/// `ours` are the cores that this process may use, `all` those of the machine. If all processes together fit the machine, a launcher has
/// already bound each to its own cores.
fn share_of_cores(ours: usize, all: usize, sharing: usize) -> usize {
    if ours.saturating_mul(sharing) <= all { ours.max(1) } else { (ours / sharing.max(1)).max(1) }
}

/// The name of a store: an absolute path, as a daemon has another current directory; or the name of a remote object without its query.
fn store(path: PathBuf) -> Result<PathBuf, Failure> {
    if name::is_remote(&path) {
        return name::conceal(path).map_err(Failure::usage);
    }
    if path.to_str().is_some_and(|text| name::unknown_scheme(text).is_some()) && !path.exists() {
        return Ok(path);
    }
    std::path::absolute(&path).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
}

/// The minimum share of the named genes, if those that a store lacks are zero.
pub fn absent_zero(absent: Absent, genes: Option<&Genes>, least: f64) -> Result<Option<f64>, Failure> {
    match (absent, genes) {
        (Absent::Refuse, _) => Ok(None),
        (Absent::Zero, Some(Genes::Names(_))) => Ok(Some(least)),
        (Absent::Zero, _) => Err(Failure::usage("--absent zero: name the genes with --genes, as a file or a list")),
    }
}

/// Checks that further matrices are named once, and not by --x.
fn further(x: &MatrixName, with: Vec<MatrixName>) -> Result<Vec<MatrixName>, Failure> {
    let mut known = vec![x.clone()];
    for name in with {
        if known.contains(&name) {
            return Err(Failure::usage(format_args!("--with: {name} is named twice, or is what --x names")));
        }
        known.push(name);
    }
    Ok(known.split_off(1))
}

impl Options {
    /// Opens the stores, and makes the file system to serve.
    pub fn filesystem(self, log: Recent) -> Result<ShuffleFs, SessionError> {
        let config = self.config.as_ref().map(|path| path.to_string_lossy());
        Session::builder(self.spec).serve(config.as_deref(), Arc::new(move || log.text()))
    }

    /// The source in the table of mounts: the first store, and how many more.
    pub fn source(&self) -> String {
        let first = self.spec.stores.first().map(|store| store.display().to_string()).unwrap_or_default();
        match self.spec.stores.len() {
            0 | 1 => first,
            count => format!("{first} (+{})", count - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::share_of_cores;

    #[test]
    fn processes_of_a_node_share_its_cores() {
        // Eight processes on 64 cores: each may use all, or each is bound to eight.
        assert_eq!((share_of_cores(64, 64, 8), share_of_cores(8, 64, 8)), (8, 8));
        assert_eq!((share_of_cores(2, 2, 8), share_of_cores(2, 2, 1), share_of_cores(0, 0, 0)), (1, 2, 1));
    }
}

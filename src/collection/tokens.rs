//! X as tokens of a language model: which genes have a token, how many tokens a row has, and which special tokens surround them.
//!
//! A row has as many tokens as it has stored values of genes with a token, up to a maximum length, plus special tokens. So the number
//! follows from stored column numbers; it is counted once (`retained_bounds`), and file sizes are known before values are read.
//! `batch::tokens` makes the tokens.

use std::collections::HashMap;
use std::sync::Arc;

use super::CollectionError;
use super::genes::{Aligned, ColumnMap, DROPPED, take};

/// The order of the tokens of a row, and the values that go with them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenOrder {
    /// By normalised expression, descending: value / total of the row * `target_sum` / median of the gene. The values served are those
    /// before the division by the median. As in Geneformer (Theodoris et al., Nature 618, 2023).
    Rank { target_sum: f64 },
    /// By column. The values served are numbers of bins between quantiles of the row's nonzero values, from 1; 0 stays 0. As in scGPT
    /// (Cui et al., Nature Methods 21, 2024).
    Bins { bins: u32, ties: Ties, longer: Longer },
}

/// The bin of a value that equals several edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ties {
    /// One of their bins, chosen by a hash of epoch, row and gene; scGPT draws it at random.
    Spread,
    /// The last of their bins.
    Last,
}

/// How rows with too many genes are shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Longer {
    /// To a subset of genes, chosen by a hash of epoch, row and gene; scGPT draws it at random.
    Sample,
    /// To the first ones.
    Cut,
}

/// A gene with a token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenGene {
    pub name: String,
    pub token: u32,
    /// Median of its normalised expression over the cells that the model was trained on.
    pub median: f64,
}

/// The value of `--tokens`.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSpec {
    /// `geneformer`, `scgpt`, or the path of a file.
    pub name: String,
    pub order: TokenOrder,
    pub genes: Vec<TokenGene>,
    /// Tokens of a row, at most, including special ones.
    pub length: u64,
    /// Special tokens before and after those of genes; their value is 0.
    pub first: Option<u32>,
    pub last: Option<u32>,
    /// The token that pads rows in formats where all have the same length.
    pub pad: u32,
    pub pad_value: f32,
}

impl TokenSpec {
    fn special(&self) -> u64 {
        u64::from(self.first.is_some()) + u64::from(self.last.is_some())
    }

    /// Tokens of genes in a row, at most.
    pub fn room(&self) -> u64 {
        self.length.saturating_sub(self.special())
    }

    /// Tokens of a row with `values` stored values of genes that have a token.
    pub fn count(&self, values: u64) -> u64 {
        self.special() + values.min(self.room())
    }

    /// What counts depend on besides the genes, as part of a key of the index directory.
    pub fn limits(&self) -> String {
        format!("-{}-{}", self.special(), self.room())
    }
}

/// The tokens of a collection's genes.
#[derive(Debug, PartialEq)]
pub struct Tokens {
    pub spec: Arc<TokenSpec>,
    /// The token of each gene.
    pub ids: Vec<u32>,
    /// 1 / median of each gene.
    pub factors: Vec<f64>,
}

impl Tokens {
    /// The largest token + 1.
    pub fn vocabulary(&self) -> u64 {
        let spec = &self.spec;
        let special = [spec.first, spec.last, Some(spec.pad)].into_iter().flatten();
        self.ids.iter().copied().chain(special).max().map_or(0, |token| u64::from(token) + 1)
    }
}

/// The genes of a collection that have a token, the column map of each store to them, and their tokens.
///
/// # Errors
/// No gene has a token.
pub fn of_genes(
    spec: &Arc<TokenSpec>,
    genes: &Arc<Vec<String>>,
    columns: Vec<ColumnMap>,
) -> Result<(Aligned, Tokens), CollectionError> {
    let known: HashMap<&str, &TokenGene> = spec.genes.iter().map(|gene| (gene.name.as_str(), gene)).collect();
    let found: Vec<(u32, &TokenGene)> =
        (0..DROPPED).zip(genes.iter()).filter_map(|(at, name)| Some((at, *known.get(name.as_str())?))).collect();
    let (ours, theirs) = (genes.first(), spec.genes.first().map(|gene| &gene.name));
    if found.is_empty() {
        let (ours, theirs) = (ours.map_or("", String::as_str), theirs.map_or("", String::as_str));
        return Err(CollectionError::Option(format!(
            "--tokens: no gene has a token (the stores have {ours}, the table {theirs}); match by a column of var with \
             --genes-column, or without versions with --genes-match unversioned"
        )));
    }
    if 3 * found.len() < genes.len().min(spec.genes.len()) {
        tracing::warn!("--tokens: only {} of {} genes have a token", found.len(), genes.len());
    }
    let stay: Vec<u32> = found.iter().map(|(at, _)| *at).collect();
    let ids = found.iter().map(|(_, gene)| gene.token).collect();
    let factors = found.iter().map(|(_, gene)| 1.0 / gene.median).collect();
    Ok((take(&stay, genes, columns), Tokens { spec: spec.clone(), ids, factors }))
}

//! X as tokens of a language model: which genes have a token, how many tokens a row has, and what surrounds them.
//!
//! A row has as many tokens as values are stored for its genes with a token, cut to a length, and its special tokens. So the number
//! follows from the stored column numbers, is counted once (`retained_bounds`), and files have their size before values are read.
//! What the tokens are: `batch::tokens`.

use std::collections::HashMap;
use std::sync::Arc;

use super::CollectionError;
use super::genes::{Aligned, ColumnMap, DROPPED, take};

/// In which order genes stand, and what their values are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenOrder {
    /// By normalised expression, from high to low: value / total of the row * `target_sum` / median of the gene. Values are those
    /// before the division by the median. As Geneformer has it (Theodoris et al., Nature 618, 2023).
    Rank { target_sum: f64 },
    /// By column. Values are the numbers of bins between quantiles of the row's values that are not zero, from 1; 0 stays 0. As
    /// scGPT has it (Cui et al., Nature Methods 21, 2024).
    Bins { bins: u32, ties: Ties, longer: Longer },
}

/// The bin of a value that several edges are equal to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ties {
    /// Any of theirs, by a hash of epoch, row and gene: scGPT draws it.
    Spread,
    /// The last of them.
    Last,
}

/// What becomes of rows with more genes than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Longer {
    /// Some of the genes stay, by a hash of epoch, row and gene: scGPT draws them.
    Sample,
    /// The first ones.
    Cut,
}

/// A gene with a token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenGene {
    pub name: String,
    pub token: u32,
    /// Of its normalised expression over the cells that a model was trained on.
    pub median: f64,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSpec {
    /// `geneformer`, `scgpt`, or a file.
    pub name: String,
    pub order: TokenOrder,
    pub genes: Vec<TokenGene>,
    /// Tokens of a row at most, special ones included.
    pub length: u64,
    /// Special tokens before and behind those of genes; their value is 0.
    pub first: Option<u32>,
    pub last: Option<u32>,
    /// What rows are padded with where they have one length.
    pub pad: u32,
    pub pad_value: f32,
}

impl TokenSpec {
    fn special(&self) -> u64 {
        u64::from(self.first.is_some()) + u64::from(self.last.is_some())
    }

    /// Tokens of genes that a row has at most.
    pub fn room(&self) -> u64 {
        self.length.saturating_sub(self.special())
    }

    /// Tokens of a row with so many values of genes that have a token.
    pub fn count(&self, values: u64) -> u64 {
        self.special() + values.min(self.room())
    }

    /// What counts depend on, beside which genes there are.
    pub fn limits(&self) -> String {
        format!("-{}-{}", self.special(), self.room())
    }
}

/// The tokens of the genes of a collection.
#[derive(Debug, PartialEq)]
pub struct Tokens {
    pub spec: Arc<TokenSpec>,
    /// Of each gene of the collection.
    pub ids: Vec<u32>,
    /// One over its median.
    pub factors: Vec<f64>,
}

impl Tokens {
    /// One more than the largest token.
    pub fn vocabulary(&self) -> u64 {
        let spec = &self.spec;
        let special = [spec.first, spec.last, Some(spec.pad)].into_iter().flatten();
        self.ids.iter().copied().chain(special).max().map_or(0, |token| u64::from(token) + 1)
    }
}

/// The genes of a collection that have a token, each store's columns in them, and the tokens.
///
/// # Errors
/// No gene has one.
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

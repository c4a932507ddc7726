//! Counts the values of each row that remain after an inner join or a choice of genes, or the tokens of each row. File sizes follow from
//! these counts, so they are made before any file is served.
//!
//! Column numbers are read once, in windows of bounded memory; the counts are stored in the index directory.

use rayon::prelude::*;

use crate::anndata::bytes::Bounds;
use crate::anndata::index::{IndexDir, IndexPart, IndexRequest};
use crate::anndata::matrix::Matrix;
use crate::anndata::progress::Progress;
use crate::array::cast::to_u64s;
use crate::array::{Array, ArrayError, Container, Counters, Dtype};
use crate::number::as_usize;

use super::Stored;
use crate::collection::genes::DROPPED;
use crate::collection::tokens::TokenSpec;

/// Column numbers to read at once; they take 8 to 16 bytes each.
const WINDOW: u64 = 4 << 20;

/// Bounds of the retained values of each row: `rows + 1` numbers. A column number outside of the matrix counts as dropped: its row gives
/// an error when it is read, other rows do not.
///
/// # Errors
/// A chunk of the column numbers cannot be read: then the sizes are unknown.
pub fn count(
    store: &dyn Container,
    part: &Stored,
    (element, tokens): (&str, Option<&TokenSpec>),
    directory: &IndexDir,
    counters: &Counters,
) -> Result<Bounds, ArrayError> {
    let Matrix::Sparse { indices, indptr, .. } = &part.matrix else { return Ok(Vec::new().into()) };
    let map = part.columns.map.as_deref();
    let served = |kept: u64| tokens.map_or(kept, |tokens| tokens.count(kept));
    let read = || {
        let bar = Progress::new(format!("{element}: counting the values of the genes served"), indices.shape[0]);
        count_rows(indices, indptr, (map, &served), WINDOW, counters, &|steps| bar.add(steps))
    };
    let part = IndexPart { name: "kept".into(), dtype: Dtype::U64, len: indptr.len() as u64 };
    // The counts depend on which columns are retained, not on their new numbers.
    let stay: Vec<u8> = map.unwrap_or_default().iter().map(|&to| u8::from(to != DROPPED)).collect();
    let limits = tokens.map(TokenSpec::limits).unwrap_or_default();
    let more = format!("{:08x}{:08x}{limits}", crc32fast::hash(&stay), crc32c::crc32c(&stay));
    let sources = vec![element.to_owned()];
    let entry = IndexRequest { store, element, sources, kind: "kept", more, parts: vec![part], rows: None };
    let rows = indptr.len().saturating_sub(1) as u64;
    let most =
        indptr.last().map(|&all| all.saturating_add(rows.saturating_mul(tokens.map_or(0, |tokens| tokens.count(0)))));
    let mut counted = None;
    let stored = directory.get(&entry, |building| {
        let kept = counted.insert(read()?);
        let mut part = building.part(0);
        for kept in kept.chunks(1 << 16) {
            let bytes: Vec<u8> = kept.iter().flat_map(|bound| bound.to_le_bytes()).collect();
            building.write(&mut part, &bytes)?;
        }
        building.finish(part)
    });
    match (counted, stored) {
        // Retained values are at most the stored ones and special tokens; larger totals are of another matrix.
        (_, Ok(stored)) => match stored.bounds("kept").filter(|kept| kept.last().copied() <= most) {
            Some(kept) => Ok(kept),
            None => Ok(read()?.into()),
        },
        (Some(kept), Err(error)) => {
            tracing::warn!("{error}; the counts are made anew at the next mount");
            Ok(kept.into())
        }
        // The index directory is not writable, and nothing is counted yet.
        (None, Err(ArrayError::Element { .. })) => Ok(read()?.into()),
        (None, Err(error)) => Err(error),
    }
}

fn count_rows(
    indices: &Array,
    indptr: &[u64],
    (map, served): (Option<&[u32]>, &dyn Fn(u64) -> u64),
    window: u64,
    counters: &Counters,
    progress: &dyn Fn(u64),
) -> Result<Vec<u64>, ArrayError> {
    let mut kept = vec![0; indptr.len()];
    let rows = indptr.len() - 1;
    let total = indptr[rows];
    let (mut start, mut row) = (0, 0);
    // If all genes are retained, the counts follow from the stored bounds.
    let map = match map {
        Some(map) => map,
        None => {
            kept.iter_mut().skip(1).zip(indptr.windows(2)).for_each(|(kept, bounds)| *kept = bounds[1] - bounds[0]);
            start = total;
            &[]
        }
    };
    while start < total {
        let end = total.min(start + window);
        let bytes = indices.read_window(start, end - start, counters)?;
        // The rows with values in this window; the last one may continue in the next.
        let last = indptr.partition_point(|&bound| bound < end).max(row + 1).min(rows);
        kept[row + 1..=last].par_iter_mut().zip(indptr[row..=last].par_windows(2)).for_each(|(kept, bounds)| {
            let (from, to) = (bounds[0].clamp(start, end) - start, bounds[1].clamp(start, end) - start);
            let size = indices.dtype.size();
            *kept += stay(indices.dtype, &bytes[as_usize(from) * size..as_usize(to) * size], map);
        });
        row = if indptr[last] > end { last - 1 } else { last };
        progress(end - start);
        start = end;
    }
    let mut sum = 0;
    for count in kept.iter_mut().skip(1) {
        sum += served(*count);
        *count = sum;
    }
    Ok(kept)
}

/// The number of retained column numbers.
fn stay(dtype: Dtype, columns: &[u8], map: &[u32]) -> u64 {
    let stays = |column: u64| {
        usize::try_from(column).ok().and_then(|column| map.get(column)).is_some_and(|&to| to != DROPPED) as u64
    };
    if dtype == Dtype::I32 {
        return columns.as_chunks::<4>().0.iter().map(|b| stays(u32::from_le_bytes(*b).into())).sum();
    }
    to_u64s(dtype, columns).into_iter().map(stays).sum()
}

//! A row of X as tokens of a language model: genes by normalised expression, or in order with binned values.
//!
//! Results are the same on every machine: each product and quotient is rounded once, in the order of the published tokenisers; equal
//! values keep the order of columns; random choices are hashes of epoch, row and gene.

use crate::collection::tokens::{Longer, Ties, TokenOrder, Tokens};
use crate::view::split::mixed;

/// A token and its value.
pub type Token = (u32, f32);

/// Buffers of one thread.
#[derive(Default)]
pub struct TokenScratch {
    /// Positions in the row.
    order: Vec<u32>,
    scores: Vec<f64>,
    edges: Vec<f64>,
    tokens: Vec<Token>,
}

/// The key of the random choices for a row in an epoch.
pub fn draw_key(epoch: u64, row: u64) -> u64 {
    mixed(mixed(epoch).wrapping_add(row))
}

/// The tokens of one row, which has `columns` of the collection and their `values`; `total` is the sum of the whole stored row, `key`
/// its [`draw_key`].
pub fn tokenize<'s>(
    tokens: &Tokens,
    (columns, values): (&[u32], &[f64]),
    total: f64,
    key: u64,
    scratch: &'s mut TokenScratch,
) -> &'s [Token] {
    let spec = &tokens.spec;
    let room = usize::try_from(spec.room()).unwrap_or(usize::MAX);
    let id = |column: u32| tokens.ids.get(column as usize).copied().unwrap_or(spec.pad);
    scratch.order.clear();
    scratch.order.extend(0..columns.len() as u32);
    scratch.tokens.clear();
    scratch.tokens.extend(spec.first.map(|first| (first, 0.0)));
    match spec.order {
        TokenOrder::Rank { target_sum } => {
            let share = if total == 0.0 { 0.0 } else { 1.0 / total };
            let scaled = |at: u32| values[at as usize] * share * target_sum;
            let factor = |at: u32| tokens.factors.get(columns[at as usize] as usize).copied().unwrap_or(1.0);
            scratch.scores.clear();
            scratch.scores.extend(scratch.order.iter().map(|&at| scaled(at) * factor(at)));
            let scores = &scratch.scores;
            // NaN comes last.
            let score = |at: u32| if scores[at as usize].is_nan() { f64::NEG_INFINITY } else { scores[at as usize] };
            let before = |a: &u32, b: &u32| {
                let columns = columns[*a as usize].cmp(&columns[*b as usize]);
                score(*b).partial_cmp(&score(*a)).unwrap_or(columns).then(columns).then(a.cmp(b))
            };
            if scratch.order.len() > room {
                if room > 0 {
                    scratch.order.select_nth_unstable_by(room - 1, before);
                }
                scratch.order.truncate(room);
            }
            scratch.order.sort_unstable_by(before);
            scratch.tokens.extend(scratch.order.iter().map(|&at| (id(columns[at as usize]), scaled(at) as f32)));
        }
        TokenOrder::Bins { bins, ties, longer } => {
            edges(values, bins, &mut scratch.scores, &mut scratch.edges);
            let hash = |at: u32, what: u64| mixed(key ^ mixed((u64::from(columns[at as usize]) << 1) | what));
            scratch.order.sort_by_key(|&at| columns[at as usize]);
            if scratch.order.len() > room {
                if longer == Longer::Sample && room > 0 {
                    scratch.order.select_nth_unstable_by_key(room - 1, |&at| (hash(at, 0), at));
                    scratch.order.truncate(room);
                    scratch.order.sort_by_key(|&at| (columns[at as usize], at));
                }
                scratch.order.truncate(room);
            }
            let edges = &scratch.edges;
            let bin = |at: u32| {
                let value = values[at as usize];
                if value == 0.0 || value.is_nan() {
                    return 0.0;
                }
                let last = edges.partition_point(|&edge| edge <= value);
                let equal = last - edges.partition_point(|&edge| edge < value);
                let back = match ties {
                    Ties::Last => 0,
                    // The upper 53 bits as a fraction in 0..1.
                    Ties::Spread => ((hash(at, 1) >> 11) as f64 / (1_u64 << 53) as f64 * equal as f64) as usize,
                };
                (last - back) as f32
            };
            scratch.tokens.extend(scratch.order.iter().map(|&at| (id(columns[at as usize]), bin(at))));
        }
    }
    scratch.tokens.extend(spec.last.map(|last| (last, 0.0)));
    &scratch.tokens
}

/// Quantiles of the nonzero values, at `bins - 1` equidistant levels from 0 to 1, linearly interpolated as numpy does.
fn edges(values: &[f64], bins: u32, sorted: &mut Vec<f64>, edges: &mut Vec<f64>) {
    sorted.clear();
    sorted.extend(values.iter().copied().filter(|&value| value != 0.0 && !value.is_nan()));
    sorted.sort_unstable_by(f64::total_cmp);
    edges.clear();
    let Some(top) = sorted.len().checked_sub(1) else { return };
    let places = bins.saturating_sub(1);
    let step = 1.0 / f64::from(places.saturating_sub(1).max(1));
    edges.extend((0..places).map(|place| {
        let share = if place > 0 && place + 1 == places { 1.0 } else { f64::from(place) * step };
        let at = share * top as f64;
        let (low, part) = (at.floor(), at - at.floor());
        let (a, b) = (sorted[low as usize], sorted[(low as usize + 1).min(top)]);
        if part >= 0.5 { b - (b - a) * (1.0 - part) } else { a + (b - a) * part }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::tokens::{TokenGene, TokenSpec};

    fn tokens(order: TokenOrder, length: u64, special: [Option<u32>; 2]) -> Tokens {
        let genes =
            (0..5).map(|i| TokenGene { name: i.to_string(), token: 10 + i, median: f64::from(i + 1) }).collect();
        let [first, last] = special;
        let spec = TokenSpec { name: String::new(), order, genes, length, first, last, pad: 0, pad_value: 0.0 };
        Tokens {
            ids: (10..15).collect(),
            factors: (1..6).map(|median| 1.0 / f64::from(median)).collect(),
            spec: spec.into(),
        }
    }

    #[test]
    fn genes_are_ranked_by_what_is_above_their_median() {
        let rank = TokenOrder::Rank { target_sum: 100.0 };
        let row: (&[u32], &[f64]) = (&[0, 1, 3, 4], &[2.0, 4.0, 20.0, 1.0]);
        let scratch = &mut TokenScratch::default();
        // Divided by their medians: 2, 2, 5 and 0.2; equal ones in the order of columns.
        let want = [(13, 40.0), (10, 4.0), (11, 8.0), (14, 2.0)];
        assert_eq!(tokenize(&tokens(rank, 9, [None; 2]), row, 50.0, 0, scratch), want);
        let cut = tokens(rank, 4, [Some(2), Some(3)]);
        assert_eq!(tokenize(&cut, row, 50.0, 0, scratch), [(2, 0.0), want[0], want[1], (3, 0.0)]);
        assert_eq!((cut.spec.count(0), cut.spec.count(1), cut.spec.count(7)), (2, 3, 4));
        assert_eq!(cut.vocabulary(), 15);
    }

    #[test]
    fn bins_are_between_quantiles() {
        let order = |ties, longer| TokenOrder::Bins { bins: 5, ties, longer };
        let row: (&[u32], &[f64]) = (&[4, 0, 1, 2, 3], &[0.0, 1.0, 1.0, 2.0, 9.0]);
        let scratch = &mut TokenScratch::default();
        let last = tokens(order(Ties::Last, Longer::Cut), 9, [Some(1), None]);
        // Edges: 1, 1, 2, 9.
        let want = [(1, 0.0), (10, 2.0), (11, 2.0), (12, 3.0), (13, 4.0), (14, 0.0)];
        assert_eq!(tokenize(&last, row, 13.0, 7, scratch), want);
        let (mut counts, mut kept) = ([0; 3], [0; 15]);
        for key in 0..2000 {
            let spread = tokens(order(Ties::Spread, Longer::Sample), 3, [None; 2]);
            let got = tokenize(&spread, row, 13.0, draw_key(key, 5), scratch);
            assert!(got.len() == 3 && got.windows(2).all(|pair| pair[0].0 < pair[1].0), "{got:?}");
            for &(token, bin) in got {
                kept[token as usize] += 1;
                if token == 10 {
                    counts[bin as usize] += 1;
                }
            }
        }
        assert!(counts[0] == 0 && counts[1].min(counts[2]) > 500, "{counts:?}");
        assert!(kept[10..].iter().all(|&times| (1000..1400).contains(&times)), "{kept:?}");
    }
}

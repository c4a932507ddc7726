//! Neighbours of a batch's rows in a graph: a sampled neighbourhood, as a subgraph.
//!
//! The nodes of a batch are its rows, then the other sources of sampled edges, in the order of discovery. For every row, and then hop by
//! hop
//! for every row found by the previous hop, at most `fanout` of its neighbours are drawn, uniformly and without replacement (Hamilton, Ying
//! and Leskovec, "Inductive representation learning on large graphs", 2017; Floyd's algorithm for drawing, in Bentley and Floyd, "A sample
//! of
//! brilliance", 1987).
//!
//! Memory: 8 bytes a row; 4 bytes and a weight an edge.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rand_chacha::ChaCha8Rng;

use super::companion::Companion;
use super::shuffle::{self, Domain, below};
use super::{EdgeRows, FetchRows, Sampling};

/// A directed graph over all rows, with weights as bytes.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The start of each row's edges, and the end of the last.
    bounds: Vec<u64>,
    /// The target row of each edge.
    to: Vec<u32>,
    /// The weight of each edge, in `size` bytes.
    weights: Vec<u8>,
    size: usize,
}

impl Graph {
    /// `bounds`: the start of each row's edges in `to`, and the end of the last; `weights`: `size` bytes for each edge. All targets must be
    /// rows of `bounds`.
    pub fn new(bounds: Vec<u64>, to: Vec<u32>, weights: Vec<u8>, size: usize) -> Graph {
        debug_assert!(weights.len() == to.len() * size && bounds.last().is_none_or(|&end| end == to.len() as u64));
        Graph { bounds, to, weights, size }
    }

    /// The range of a row's edges.
    fn edges_of(&self, row: u64) -> (u64, u64) {
        match self.bounds.get(row as usize..row as usize + 2) {
            Some(&[start, end]) => (start, end),
            _ => (0, 0),
        }
    }

    pub fn edges(&self) -> u64 {
        self.to.len() as u64
    }

    /// Mean number of edges of a row, rounded up.
    pub fn mean_degree(&self) -> u64 {
        self.edges().div_ceil(self.bounds.len().saturating_sub(1).max(1) as u64)
    }

    /// Maximum number of edges of a row.
    pub fn largest_degree(&self) -> u64 {
        self.bounds.windows(2).map(|row| row[1] - row[0]).max().unwrap_or(0)
    }
}

/// Samples neighbourhoods of rows.
#[derive(Clone, Debug)]
pub struct Neighbours {
    graph: Graph,
    hops: u32,
    /// Neighbours to draw for a row, at most; `None`: all.
    fanout: Option<u64>,
}

impl Neighbours {
    pub fn new(graph: Graph, hops: u32, fanout: Option<u64>) -> Neighbours {
        Neighbours { graph, hops, fanout }
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Appends the neighbourhood of one batch.
    fn of_batch(&self, batch: &[u64], rng: &mut ChaCha8Rng, beside: &mut Vec<u64>, edges: &mut EdgeRows) {
        let (graph, first) = (&self.graph, beside.len());
        let mut places: HashMap<u64, i64> = HashMap::with_capacity(batch.len() * 2);
        // A row that occurs twice in the batch is one source node.
        for (&row, place) in batch.iter().zip(0..) {
            places.entry(row).or_insert(place);
        }
        let mut frontier: Vec<(u64, i64)> = batch.iter().copied().zip(0..).collect();
        let mut drawn = Vec::new();
        for _ in 0..self.hops {
            let mut found = Vec::new();
            for (row, place) in frontier {
                let (start, end) = graph.edges_of(row);
                draw(end - start, self.fanout, rng, &mut drawn);
                for edge in drawn.iter().map(|at| (start + at) as usize) {
                    let to = u64::from(graph.to[edge]);
                    let from = match places.entry(to) {
                        Entry::Occupied(known) => *known.get(),
                        Entry::Vacant(new) => {
                            let place = (batch.len() + beside.len() - first) as i64;
                            beside.push(to);
                            found.push((to, place));
                            *new.insert(place)
                        }
                    };
                    edges.from.push(from);
                    edges.to.push(place);
                    edges.weights.extend_from_slice(&graph.weights[edge * graph.size..(edge + 1) * graph.size]);
                }
            }
            frontier = found;
        }
    }
}

/// Draws `fanout` numbers of 0..count, or all; ascending.
fn draw(count: u64, fanout: Option<u64>, rng: &mut ChaCha8Rng, drawn: &mut Vec<u64>) {
    drawn.clear();
    let Some(fanout) = fanout.filter(|&fanout| fanout < count) else { return drawn.extend(0..count) };
    for last in count - fanout..count {
        let at = below(rng, last + 1);
        drawn.push(if drawn.contains(&at) { last } else { at });
    }
    drawn.sort_unstable();
}

impl Companion for Neighbours {
    fn beside(&self, sampling: &Sampling, (epoch, fetch): (u64, u64), rows: &FetchRows) -> FetchRows {
        let mut rng = shuffle::rng(Domain::Neighbours, sampling.seed, epoch, fetch);
        let mut found = FetchRows { bounds: vec![0], ..FetchRows::default() };
        let mut edges = EdgeRows { bounds: vec![0], size: self.graph.size, ..EdgeRows::default() };
        for place in 0..rows.bounds.len().saturating_sub(1) {
            self.of_batch(rows.batch(place), &mut rng, &mut found.rows, &mut edges);
            found.bounds.push(found.rows.len());
            edges.bounds.push(edges.from.len());
        }
        found.edges = Some(edges);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row r has edges to r + 1, r + 2, ..., r + degree; the weight of an edge is its number.
    fn ring(rows: u64, degree: u64) -> Graph {
        let to: Vec<u32> = (0..rows).flat_map(|r| (1..=degree).map(move |d| ((r + d) % rows) as u32)).collect();
        let weights = (0..to.len() as u16).flat_map(u16::to_le_bytes).collect();
        Graph::new((0..=rows).map(|r| r * degree).collect(), to, weights, 2)
    }

    fn sampling() -> Sampling {
        Sampling { batch_size: 4, block_size: 1, fetch_factor: 2, seed: 5, drop_last: false }
    }

    #[test]
    fn all_neighbours_of_all_hops() {
        let rows = FetchRows { rows: vec![3, 9, 3, 0], bounds: vec![0, 3, 4], ..FetchRows::default() };
        let beside = Neighbours::new(ring(10, 2), 2, None).beside(&sampling(), (0, 0), &rows);
        // Hop 1 from 3, 9 and 3 again finds 4, 5, 0, 1; hop 2 finds 6, 7 and 2 from these.
        assert_eq!((beside.batch(0), beside.batch(1)), (&[4, 5, 0, 1, 6, 7, 2][..], &[1, 2, 3, 4][..]));
        let edges = beside.edges.unwrap_or_default();
        assert_eq!(edges.bounds, [0, 14, 20]);
        assert_eq!(edges.from[..6], [3, 4, 5, 6, 3, 4]);
        assert_eq!(edges.to[..6], [0, 0, 1, 1, 2, 2]);
        // Edges 8 and 9 are those of 4 in hop 2; the first leads to 5.
        assert_eq!((edges.from[6], edges.to[6], &edges.weights[12..14]), (4, 3, &8_u16.to_le_bytes()[..]));
    }

    #[test]
    fn draws_are_uniform_and_without_replacement() {
        let neighbours = Neighbours::new(ring(1000, 8), 1, Some(3));
        let rows = FetchRows { rows: (0..1000).collect(), bounds: (0..=1000).collect(), ..FetchRows::default() };
        let mut counts = [0_u32; 8];
        for epoch in 0..20 {
            let beside = neighbours.beside(&sampling(), (epoch, 0), &rows);
            for (place, row) in (0..).zip(&rows.rows) {
                let mut steps: Vec<u64> = beside.batch(place).iter().map(|to| (to + 1000 - row) % 1000 - 1).collect();
                steps.iter().for_each(|&step| counts[step as usize] += 1);
                steps.dedup();
                assert_eq!(steps.len(), 3);
            }
        }
        // 20,000 draws of 3 in 8: 7,500 each; the standard deviation is 68.
        assert!(counts.iter().all(|count| count.abs_diff(7500) < 350), "{counts:?}");
        assert_eq!(neighbours.beside(&sampling(), (3, 1), &rows), neighbours.beside(&sampling(), (3, 1), &rows));
    }
}

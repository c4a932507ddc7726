//! The graph of `--neighbours`: an element of each store's obsp, read whole.

use serde_json::{Value, json};

use crate::anndata::METADATA_LIMIT;
use crate::anndata::index::IndexDir;
use crate::anndata::matrix::Matrix;
use crate::anndata::row_index::RowIndex;
use crate::array::cast::{cast, to_u64s};
use crate::array::{Array, Counters, Dtype};
use crate::collection::{Collection, Store};
use crate::plan::neighbours::{Graph, Neighbours};
use crate::view::suggest::suggest;

use super::error::SessionError;
use super::spec::{NeighbourSpec, Spec};

/// The group of graphs in an AnnData.
const OBSP: &str = "obsp";

/// Reads the graphs of all stores as one, and the dtype of its weights. Edges never connect stores.
///
/// # Errors
/// A store lacks it, or its shape is wrong; edges to rows that do not exist; too many rows or edges.
pub fn read(
    asked: &NeighbourSpec,
    spec: &Spec,
    collection: &Collection,
    counters: &Counters,
) -> Result<(Neighbours, Dtype), SessionError> {
    let index = IndexDir(spec.index_dir.clone());
    let parts = collection.stores.iter().map(|store| part(store, &asked.graph, &index, counters));
    let parts = parts.collect::<Result<Vec<Part>, SessionError>>()?;
    let rows = collection.table.n_rows;
    if rows > u64::from(u32::MAX) {
        return Err(SessionError::Refused(format!("--neighbours: {rows} rows; a graph has fewer than 2^32")));
    }
    let dtype = parts.iter().map(|part| part.dtype).reduce(Dtype::promote).unwrap_or(Dtype::F32);
    let (mut bounds, mut to, mut weights) = (vec![0], Vec::new(), Vec::new());
    for (store, part) in collection.stores.iter().zip(parts) {
        let before = to.len() as u64;
        bounds.extend(part.bounds.into_iter().skip(1).map(|end| before + end));
        // No overflow: there are fewer than 2^32 rows.
        to.extend(part.to.iter().map(|&row| (store.first_row + row) as u32));
        let mut cast_weights = vec![0; part.to.len() * dtype.size()];
        cast(part.dtype, dtype, &part.weights, &mut cast_weights);
        weights.append(&mut cast_weights);
    }
    let graph = Graph::new(bounds, to, weights, dtype.size());
    Ok((Neighbours::new(graph, asked.hops, asked.fanout.map(u64::from)), dtype))
}

/// The graph of one store.
struct Part {
    bounds: Vec<u64>,
    to: Vec<u64>,
    weights: Vec<u8>,
    dtype: Dtype,
}

fn part(store: &Store, graph: &str, index: &IndexDir, counters: &Counters) -> Result<Part, SessionError> {
    let container = &*store.container;
    let refused = |cause: String| SessionError::Refused(format!("{}: {graph}: {cause}", container.name()));
    if container.kind(graph)?.is_none() {
        let known = match container.kind(OBSP)? {
            Some(_) => container.members(OBSP)?,
            None => Vec::new(),
        };
        let known: Vec<String> = known.iter().map(|name| format!("{OBSP}/{name}")).collect();
        let told = if known.is_empty() {
            "the store has no graph (scanpy's pp.neighbors makes one)".to_owned()
        } else {
            suggest(graph, known.iter().map(String::as_str))
        };
        return Err(refused(format!("there is no such graph; {told}")));
    }
    let matrix = Matrix::open_by_row(container, graph, index, &RowIndex::default(), counters)?;
    let Matrix::Sparse { data, indices, indptr, rows, columns } = matrix else {
        return Err(refused("it is dense; a graph is a sparse matrix (CSR or CSC)".to_owned()));
    };
    if (rows, columns) != (store.rows, store.rows) {
        return Err(refused(format!("its shape is {rows} x {columns}, but there are {} rows", store.rows)));
    }
    let whole = |array: &Array| array.read_all(METADATA_LIMIT, counters);
    let to = to_u64s(indices.dtype, &whole(&indices)?);
    let outside = to.iter().filter(|&&row| row >= rows).count();
    if outside > 0 {
        let at = to.iter().position(|&row| row >= rows).unwrap_or(0);
        let from = (0..).take_while(|&row| row < store.rows).find(|&row| indptr[row as usize + 1] > at as u64);
        return Err(refused(format!(
            "{outside} of {} edges lead to rows that are not there, such as {} from row {}; there are {rows} rows",
            to.len(),
            to[at].cast_signed(),
            from.unwrap_or(0)
        )));
    }
    let bounds = (0..=rows).map(|row| indptr[row as usize]).collect();
    Ok(Part { bounds, to, weights: whole(&data)?, dtype: data.dtype })
}

/// Approximate maximum of neighbours beside a row, for memory estimates.
pub fn about(asked: &NeighbourSpec, neighbours: &Neighbours) -> u64 {
    let mean = neighbours.graph().mean_degree();
    let degree = asked.fanout.map_or(mean, |fanout| mean.min(u64::from(fanout)));
    let mut of_hop = 1_u64;
    (0..asked.hops).fold(0_u64, |sum, _| {
        of_hop = of_hop.saturating_mul(degree);
        sum.saturating_add(of_hop)
    })
}

/// The description of the graph in `dataset.json` and `plan`.
pub fn told(asked: &NeighbourSpec, neighbours: &Neighbours) -> Value {
    json!({
        "graph": asked.graph,
        "edges": neighbours.graph().edges(),
        "largest_degree": neighbours.graph().largest_degree(),
        "hops": asked.hops,
        "fanout": asked.fanout,
    })
}

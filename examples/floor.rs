//! Decodes (or reads, if not encoded) every chunk of X of some stores once, on all cores, into scratch memory: the minimum time of any
//! loader of these stores. Prints rows, bytes and seconds of each of three runs as JSON.
//!
//! Usage: floor STORE...

use std::path::PathBuf;
use std::time::Instant;

use rayon::prelude::*;
use shufflefs::array::gather::{ElementRange, GatherContext, Sink, gather};
use shufflefs::session::{Session, Spec};

/// Discards elements.
struct Nowhere;

// SAFETY: it gives no memory to write to, or as below.
unsafe impl Sink for Nowhere {
    fn place(&self, _piece: usize, _at: u64, _len: u64) -> Option<&mut [u8]> {
        None
    }

    fn put(&self, _piece: usize, _at: u64, _elements: &[u8]) {}
}

/// Elements of one piece, so few that raw data stays in the processor's cache.
const PIECE: u64 = 1 << 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stores: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let spec = Spec { obs: Some(Vec::new()), ..Spec::of(stores, std::env::temp_dir().join("shufflefs-floor")) };
    let Session { collection, counters, .. } = Session::builder(spec).unprobed().derive()?;
    for _ in 0..3 {
        let work = GatherContext { counters: &counters, progress: &|| {}, cache: None, io: None };
        let start = Instant::now();
        let arrays: Vec<_> = collection.stores.iter().flat_map(|store| store.x().matrix.arrays()).collect();
        arrays.par_iter().try_for_each(|array| {
            let step = if array.shape.len() > 1 { 1 } else { PIECE };
            let len = |start: u64| step.min(array.shape[0] - start);
            let pieces: Vec<ElementRange> = (0..array.shape[0])
                .step_by(step as usize)
                .map(|start| ElementRange { start, len: len(start) })
                .collect();
            gather(array, &pieces, &Nowhere, &work)
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let bytes: u64 =
            arrays.iter().map(|array| array.shape.iter().product::<u64>() * array.dtype.size() as u64).sum();
        println!("{{\"rows\": {}, \"bytes\": {bytes}, \"seconds\": {seconds:.4}}}", collection.table.n_rows);
    }
    Ok(())
}

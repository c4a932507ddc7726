//! A strategy in one file, as a newcomer would add it (ARCHITECTURE.md): the view's rows backwards, the same in every epoch.
//! The conformance suite tests it, and an engine serves it.

use std::process::Command;
use std::sync::{Arc, mpsc};

use shufflefs::engine::ImageKey;
use shufflefs::format::Extension;
use shufflefs::plan::strategy::{EpochOrder, Registration, Strategy, Stream, StreamOrder, conforms};
use shufflefs::plan::{Plan, Rows, Sampling};
use shufflefs::session::spec::ViewSpec;
use shufflefs::session::{Session, Spec};

use crate::support::{store, succeed};

#[derive(Debug)]
struct Backwards {
    rows: Rows,
    sampling: Sampling,
}

impl Strategy for Backwards {
    fn view(&self) -> &Rows {
        &self.rows
    }

    fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    fn blocks(&self) -> u64 {
        self.rows.len().div_ceil(self.sampling.block_size)
    }

    fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_> {
        let last = self.rows.len();
        let draw = move |stretch: std::ops::Range<u64>, rows: &mut Vec<u64>| {
            self.rows.select_run(last - stretch.end..last - stretch.start, rows);
            rows.reverse();
        };
        Box::new(StreamOrder { strategy: self, epoch, shuffled: false, stream: Stream::Rows(Box::new(draw)) })
    }
}

/// The line that `plan::strategy::STRATEGIES` would have.
const BACKWARDS: Registration = Registration {
    name: "backwards",
    labels: false,
    weights: false,
    block_size: None,
    fetch_factor: None,
    make: |rows, sampling, _| Ok(Arc::new(Backwards { rows, sampling })),
};

#[test]
fn a_strategy_of_ones_own_conforms_and_is_served() {
    assert_eq!(conforms(&BACKWARDS), Ok(()));
    let sampling = Sampling { batch_size: 16, block_size: 4, fetch_factor: 2, seed: 0, drop_last: false };
    let path = store("csr-float32-gzip.h5ad");
    let place = tempfile::tempdir().unwrap();
    let spec = Spec { views: vec![ViewSpec::sampled(sampling)], ..Spec::of(vec![path], place.path().to_owned()) };
    let mut session = Session::builder(spec).unprobed().derive().unwrap();
    let rows = Rows::all(&session.collection.store_rows());
    let last = rows.len() - 1;
    session.views[0].plan = Plan::of(BACKWARDS.strategy(rows, sampling, Default::default()).unwrap());
    let engine = session.engine().unwrap();

    let key = ImageKey::file(0, 3, 1, Extension::ALL[0]);
    let size = engine.size(key).expect("a batch") as usize;
    let (sender, receiver) = mpsc::channel();
    let reply = move |bytes: Result<&[u8], &_>| {
        let _ =
            sender.send(bytes.map(<[u8]>::to_vec).map_err(|error: &shufflefs::engine::ReadError| error.to_string()));
    };
    engine.read(key, None, (0, size), None, Box::new(reply));
    let file = place.path().join("batch.npz");
    std::fs::write(&file, receiver.recv().unwrap().unwrap()).unwrap();

    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut numpy = Command::new(root.join("target/venv/bin/python"));
    numpy.args(["-c", "import numpy, sys; print(*numpy.load(sys.argv[1])['row'])"]).arg(&file);
    let wanted: Vec<String> = (0..16).map(|i| (last - 16 - i).to_string()).collect();
    assert_eq!(succeed(&mut numpy).trim(), wanted.join(" "));
}

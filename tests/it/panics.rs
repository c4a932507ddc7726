//! A panic in any layer costs only the affected requests: EIO. No thread ends, the mount continues, and nothing is lost.
//!
//! The mount is served by this process, with test layers that panic on demand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use shufflefs::anndata::matrix::Matrix;
use shufflefs::array::{ArrayError, ChunkBuf, ChunkSource, Counters, Extent, Scratch};
use shufflefs::batch::{Batch, Layout};
use shufflefs::format::{Extension, Format, FormatEntry, Writers};
use shufflefs::fuse::ShuffleFs;
use shufflefs::mount::mountpoint::{Dead, Mountpoint};
use shufflefs::mount::{Mounted, Settings};
use shufflefs::plan::strategy::{EpochOrder, Strategy};
use shufflefs::plan::{FetchRows, Plan, Rows, Sampling};
use shufflefs::session::spec::ViewSpec;
use shufflefs::session::{Session, Spec};

use crate::area::{in_time, until};
use crate::support::{list, store};

/// The layer that panics.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
enum Layer {
    Nowhere,
    /// The mount: the answer to a request, on the thread that receives requests.
    Request,
    /// The order of an epoch.
    Order,
    /// The layout of a batch, which `stat` needs too.
    Layout,
    /// The work after loading.
    Finish,
    /// The position of a chunk.
    Locate,
    /// A chunk's bytes.
    Decode,
}

const LAYERS: [Layer; 6] = [Layer::Request, Layer::Order, Layer::Layout, Layer::Finish, Layer::Locate, Layer::Decode];

static NOW: AtomicU8 = AtomicU8::new(Layer::Nowhere as u8);
const WORD: &str = "injected by the test";

fn pass(layer: Layer) {
    assert!(NOW.load(Ordering::SeqCst) != layer as u8, "{WORD}: {layer:?}");
}

struct Fragile<T>(T);

impl ChunkSource for Fragile<Arc<dyn ChunkSource>> {
    fn raw(&self, chunk: u64) -> Result<Option<Extent>, ArrayError> {
        pass(Layer::Locate);
        self.0.raw(chunk)
    }

    fn stored(&self, chunk: u64, counters: &Counters) -> Result<Option<Extent>, ArrayError> {
        pass(Layer::Locate);
        self.0.stored(chunk, counters)
    }

    fn decode(
        &self,
        chunk: u64,
        stored: Option<&[u8]>,
        out: ChunkBuf<'_>,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<(), ArrayError> {
        pass(Layer::Decode);
        self.0.decode(chunk, stored, out, scratch, counters)
    }

    fn is_encoded(&self) -> bool {
        self.0.is_encoded()
    }
}

impl Format for Fragile<Writers> {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        pass(Layer::Layout);
        self.0.get(Extension::ALL[0]).unwrap().layout(batch)
    }

    fn finish(&self, batch: &Batch<'_>, layout: &Layout, image: &mut [u8]) {
        pass(Layer::Finish);
        self.0.get(Extension::ALL[0]).unwrap().finish(batch, layout, image);
    }
}

/// `.npz` with another name.
const FORMAT: Extension = Extension::new(&FormatEntry {
    code: 14,
    name: "fragile",
    readers: "this test",
    companions: false,
    open: |table| Ok(Box::new(Fragile(Writers::of(table, &[Extension::ALL[0]])))),
});

#[derive(Debug)]
struct FragilePlan(Plan);

impl Strategy for FragilePlan {
    fn view(&self) -> &Rows {
        self.0.strategy().view()
    }

    fn sampling(&self) -> &Sampling {
        self.0.strategy().sampling()
    }

    fn blocks(&self) -> u64 {
        self.0.strategy().blocks()
    }

    fn epoch(&self, epoch: u64) -> Box<dyn EpochOrder + '_> {
        Box::new(Fragile(self.0.strategy().epoch(epoch)))
    }
}

impl EpochOrder for Fragile<Box<dyn EpochOrder + '_>> {
    fn fetch(&self, fetch: u64) -> FetchRows {
        pass(Layer::Order);
        self.0.fetch(fetch)
    }
}

/// A mount by this process of a gzip store.
fn serve(place: &Path) -> Mounted {
    let sampling = Sampling { batch_size: 16, block_size: 4, fetch_factor: 2, seed: 5, drop_last: false };
    let spec = Spec {
        views: vec![ViewSpec::sampled(sampling)],
        memory: Some(64 << 20),
        threads: 2,
        timeout: Duration::from_secs(20),
        ..Spec::of(vec![store("csr-float32-gzip.h5ad")], std::env::temp_dir())
    };
    let mut session = Session::builder(spec).unprobed().derive().unwrap();
    session.spec.format = FORMAT;
    session.writers = Writers::of(&session.collection.table, &[Extension::ALL[0], FORMAT]);
    let plan = Plan::new(&session.collection.store_rows(), sampling);
    session.views[0].plan = Plan::of(Arc::new(FragilePlan(plan)));
    for store in &mut session.collection.stores {
        let Matrix::Sparse { data, indices, .. } = &mut store.elements[0].matrix else { panic!("not sparse") };
        for array in [data, indices] {
            array.source = Arc::new(Fragile(array.source.clone()));
        }
    }
    let log = || {
        pass(Layer::Request);
        b"nothing\n".to_vec()
    };
    let filesystem: ShuffleFs = session.filesystem(None, Arc::new(log)).unwrap();
    let settings = Settings { source: "panics".to_owned(), allow_other: false, threads: 2, helper: true };
    let mountpoint = Mountpoint::prepare(place, Dead::Refuse).unwrap();
    Mounted::start(filesystem, mountpoint, &settings, |_| ()).unwrap()
}

/// The files of an epoch, read by three readers; the errno of unreadable files. Names are given, because a listing needs sizes, which
/// may be what panics.
fn epoch(place: &Path, number: usize, names: &[String]) -> BTreeMap<String, Result<Vec<u8>, i32>> {
    let place: PathBuf = place.join(format!("epoch-{number:04}"));
    let names = names.to_vec();
    in_time("an epoch", move || {
        let read = |name: &String| {
            let bytes = fs::read(place.join(name)).map_err(|error| error.raw_os_error().unwrap());
            (name.clone(), bytes)
        };
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..3)
                .map(|reader| {
                    scope.spawn({
                        let (names, read) = (&names, &read);
                        move || names.iter().skip(reader).step_by(3).map(read).collect::<Vec<_>>()
                    })
                })
                .collect();
            readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
        })
    })
}

#[test]
fn a_panic_in_any_layer_costs_the_requests_that_meet_it() {
    // Hundreds of these panics are expected and not printed; all others are.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload_as_str().is_some_and(|word| word.starts_with(WORD)) {
            tell(panic);
        }
    }));
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("d");
    let mount = serve(&place);
    let names = list(&place.join("epoch-0000"));
    let right: Vec<_> = (0..LAYERS.len()).map(|number| epoch(&place, number, &names)).collect();
    assert!(right.iter().flat_map(BTreeMap::values).all(Result::is_ok) && right[0].len() > 8);
    drop(mount);

    for (number, layer) in LAYERS.into_iter().enumerate() {
        // A new mount, which has no decoded chunks yet.
        let mount = serve(&place);
        NOW.store(layer as u8, Ordering::SeqCst);
        // More often than there are threads that could end.
        for _ in 0..8 {
            let (log, ill) = (place.join(".shufflefs/log"), layer == Layer::Request);
            let errno = in_time("a request", move || fs::read(log).err().map(|error| error.raw_os_error()));
            assert_eq!(errno, ill.then_some(Some(libc::EIO)), "{layer:?}");
        }
        let ill = epoch(&place, number, &names);
        NOW.store(Layer::Nowhere as u8, Ordering::SeqCst);
        for (name, got) in &ill {
            assert!(
                got == &right[number][name] || *got == Err(libc::EIO),
                "{layer:?}: {name}: {:?}",
                got.as_ref().err()
            );
        }
        let failed = ill.values().filter(|got| got.is_err()).count();
        assert_eq!(failed > 0, layer != Layer::Request, "{layer:?}: {failed} of {}", ill.len());
        // Failures are not remembered, and nothing is lost.
        assert!(epoch(&place, number, &names) == right[number], "{layer:?}: afterwards");
        until("the gauges are back at zero", || {
            let stats = fs::read(place.join(".shufflefs/stats.json")).unwrap();
            let stats: serde_json::Value = serde_json::from_slice(&stats).unwrap();
            stats["images"]["loading"] == 0 && stats["memory"]["loading_bytes"] == 0
        });
        assert_eq!(fs::read(place.join(".shufflefs/log")).unwrap(), b"nothing\n");
        drop(mount);
    }
    assert!(!crate::support::is_mounted(&place));
}

//! Another kind of container in one file: the recipe in ARCHITECTURE.md, and what then works without further code.
//!
//! A `.toy` file is a line `TOY`, then one line of JSON: names of cells and genes, and a dense matrix.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use shufflefs::anndata::index::IndexDir;
use shufflefs::array::container::{Candidate, Container, Kind, NodeKind};
use shufflefs::array::kinds::open_as;
use shufflefs::array::{Array, ArrayError, ChunkBuf, ChunkSource, Counters, Dtype, Scratch};
use shufflefs::collection::{Collection, Selection};
use shufflefs::engine::{Engine, ImageKey, Limits};
use shufflefs::format::{Extension, Writers};
use shufflefs::plan::{Plan, Sampling};
use shufflefs::storage::Identity;

/// The line that `KINDS` would have.
const TOY: Kind = Kind {
    recognises: |candidate| candidate.start.starts_with(b"TOY\n"),
    open: |candidate| Toy::open(candidate).map(|toy| Box::new(toy) as Box<dyn Container>),
    needs_trial: false,
};

struct Toy {
    name: Arc<str>,
    identity: Identity,
    content: Value,
}

impl Toy {
    fn open(candidate: Candidate<'_>) -> Result<Toy, ArrayError> {
        let text = String::from_utf8_lossy(&candidate.start).into_owned();
        let content = serde_json::from_str(text.trim_start_matches("TOY\n"));
        let content = content.map_err(|error| candidate.fail(&error.to_string()))?;
        let identity = candidate.object.as_ref().unwrap().identity();
        Ok(Toy { name: candidate.name.clone(), identity, content })
    }

    fn names(&self, frame: &str) -> Vec<String> {
        self.content[frame].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }
}

impl Container for Toy {
    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> &Path {
        self.identity.address.path()
    }

    fn inner(&self) -> &str {
        ""
    }

    fn kind(&self, element: &str) -> Result<Option<NodeKind>, ArrayError> {
        Ok(match element {
            "" | "obs" | "var" => Some(NodeKind::Group),
            "X" | "obs/_index" | "var/_index" => Some(NodeKind::Array),
            _ => None,
        })
    }

    fn members(&self, group: &str) -> Result<Vec<String>, ArrayError> {
        let members: &[&str] = if group.is_empty() { &["X", "obs", "var"] } else { &["_index"] };
        Ok(members.iter().map(|&member| member.to_owned()).collect())
    }

    fn attributes(&self, element: &str) -> Result<Map<String, Value>, ArrayError> {
        let attributes = match element {
            "obs" | "var" => json!({"encoding-type": "dataframe", "_index": "_index", "column-order": []}),
            _ => json!({}),
        };
        Ok(attributes.as_object().unwrap().clone())
    }

    fn array(&self, _element: &str) -> Result<Array, ArrayError> {
        let rows = self.content["X"].as_array().unwrap();
        let values = rows.iter().flat_map(|row| row.as_array().unwrap()).map(|value| value.as_f64().unwrap() as f32);
        let (shape, bytes) = (self.shape("X")?, values.flat_map(f32::to_le_bytes).collect());
        Ok(Array::new((self.name.clone(), "X".into()), Dtype::F32, (shape.clone(), shape), Arc::new(Whole(bytes))))
    }

    fn shape(&self, element: &str) -> Result<Vec<u64>, ArrayError> {
        let lengths = [self.names("obs").len() as u64, self.names("var").len() as u64];
        Ok(match element {
            "X" => lengths.to_vec(),
            "obs/_index" => vec![lengths[0]],
            _ => vec![lengths[1]],
        })
    }

    fn dtype_name(&self, element: &str) -> Result<String, ArrayError> {
        Ok(if element == "X" { "float32" } else { "string" }.to_owned())
    }

    fn is_text(&self, element: &str) -> Result<bool, ArrayError> {
        Ok(element != "X")
    }

    fn strings(&self, element: &str) -> Result<Vec<String>, ArrayError> {
        Ok(self.names(element.split('/').next().unwrap()))
    }

    fn identity(&self) -> Vec<Identity> {
        vec![self.identity.clone()]
    }
}

/// All of an array as one chunk.
struct Whole(Vec<u8>);

impl ChunkSource for Whole {
    fn decode(
        &self,
        _: u64,
        _: Option<&[u8]>,
        out: ChunkBuf<'_>,
        _: &mut Scratch,
        _: &Counters,
    ) -> Result<(), ArrayError> {
        out.bytes.copy_from_slice(&self.0);
        Ok(())
    }

    fn is_encoded(&self) -> bool {
        true
    }
}

#[test]
fn a_container_is_one_file_and_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cells.toy");
    let content = json!({"obs": ["a", "b", "c"], "var": ["x", "y"], "X": [[1, 2], [3, 4], [5, 6]]});
    std::fs::write(&path, format!("TOY\n{content}\n")).unwrap();
    let store = open_as(&[TOY], &path).unwrap();
    let counters = Counters::default();
    let selection = Selection::of(shufflefs::anndata::names::MatrixName::X, IndexDir(None));
    let collection = Collection::of(vec![(path.clone(), store)], &selection, &counters).unwrap();
    assert_eq!(
        (collection.table.n_rows, collection.table.x().genes.as_slice()),
        (3, ["x", "y"].map(String::from).as_slice())
    );

    let sampling = Sampling { batch_size: 3, block_size: 1, fetch_factor: 1, seed: 7, drop_last: false };
    let (writers, plan) = (Writers::new(&collection.table), Plan::new(&collection.store_rows(), sampling));
    let limits = Limits { memory: 64 << 20, threads: 2, io_depth: None, timeout: Duration::from_secs(20) };
    let engine = Engine::new(collection, vec![plan], writers, counters, limits).unwrap();
    let read = || {
        let npy = Extension::ALL.iter().find(|extension| extension.as_str() == "npy").unwrap();
        let key = ImageKey::file(0, 0, 0, *npy);
        let (sender, receiver) = mpsc::channel();
        let reply = move |bytes: Result<&[u8], &_>| {
            sender.send(bytes.map(<[u8]>::to_vec).map_err(ToString::to_string)).unwrap()
        };
        engine.read(key, None, (0, 1 << 20), None, Box::new(reply));
        receiver.recv_timeout(Duration::from_secs(20)).unwrap()
    };
    let bytes = read().unwrap();
    let values: Vec<f32> =
        bytes[bytes.len() - 24..].as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
    let mut rows: Vec<[f32; 2]> = values.as_chunks().0.to_vec();
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    assert_eq!(rows, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);

    // A file that is not a toy gives the common error, and a file that changes is noticed.
    let other = directory.path().join("other");
    std::fs::write(&other, "hello").unwrap();
    assert!(open_as(&[TOY], &other).err().unwrap().to_string().contains("it is text"));
    let store = open_as(&[TOY], &path).unwrap();
    std::fs::write(&path, "TOY\n{}").unwrap();
    assert!(matches!(store.check_unchanged(), Err(ArrayError::Stale { .. })));
}

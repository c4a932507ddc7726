//! Trainers, installed as their users install them, on paths of a mount: `examples/trainers` with the packages of
//! `tests/trainers.txt`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Mount, ROOT, bounded, made_by, stores, succeed};

/// The Python with the trainers; required by `scripts/test --all`, optional in other runs.
fn trainers() -> Option<PathBuf> {
    let python = Path::new(ROOT).join("target/trainers/bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(std::env::var_os("SHUFFLEFS_TEST_ALL").is_none(), "run scripts/setup --trainers");
    eprintln!("skipped: scripts/test --all runs it");
    None
}

fn run(python: &Path, script: impl AsRef<Path>, arguments: &[OsString]) -> String {
    let mut command: Command = bounded(900, python);
    command.args(["-W", "ignore"]).arg(Path::new(ROOT).join(script)).args(arguments);
    // One thread: on a busy machine, spinning threads wait for each other.
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("OMP_NUM_THREADS", "1").env("MPLBACKEND", "agg");
    succeed(&mut command)
}

/// Runs an example on a path of a mount of `screen.h5ad`.
fn trains(example: &str, path: &str, more: &[&str]) {
    let Some(python) = trainers() else { return };
    let store = made_by("trainer_stores.py").join("screen.h5ad");
    let mount = Mount::new(std::slice::from_ref(&store), &["--batch-size", "128", "--block-size", "16"]);
    let arguments: Vec<OsString> =
        [mount.join(path).into(), store.into()].into_iter().chain(more.iter().map(OsString::from)).collect();
    let said = run(&python, format!("examples/trainers/{example}"), &arguments);
    eprintln!("{example}: {}", said.trim_end().lines().last().unwrap_or_default());
    assert!(said.contains(" rows"), "{said}");
    mount.unmount();
}

#[test]
fn annbatch_loader() {
    trains("annbatch_loader.py", "epoch-0000.zarr", &[]);
}

#[test]
fn scvi_tools_on_a_file() {
    trains("scvi_h5ad.py", "epoch-0000.h5ad", &["plate"]);
}

#[test]
fn scvi_tools_through_annbatch() {
    trains("scvi_annbatch.py", "epoch-0000.zarr", &["plate"]);
}

#[test]
fn scdataset() {
    trains("scdataset_h5ad.py", "stored.h5ad", &[]);
}

#[test]
fn annloader() {
    trains("annloader_h5ad.py", "stored.h5ad", &[]);
}

#[test]
fn scanpy_in_backed_mode() {
    trains("scanpy_backed.py", "epoch-0000.h5ad", &["line"]);
}

#[test]
fn cell_load() {
    trains("cell_load_h5ad.py", "by-drug.h5ad", &["drug", "control", "line", "plate"]);
}

#[test]
fn jax() {
    trains("jax_epoch.py", "epoch-0000", &["line"]);
}

#[test]
fn mosaicml_streaming() {
    trains("mosaicml_streaming.py", "epoch-0000.mds", &["line"]);
}

#[test]
fn litdata() {
    trains("litdata_streaming.py", "epoch-0000.litdata", &["line"]);
}

#[test]
fn ray_data() {
    trains("ray_parquet.py", "epoch-0000", &["line"]);
}

#[test]
fn tensorflow() {
    trains("tensorflow_records.py", "epoch-0000", &["line"]);
}

/// Bins and tokens, compared with the functions of the scgpt package.
#[test]
fn scgpt_bins() {
    let Some(python) = trainers() else { return };
    let (store, directory) = (made_by("trainer_stores.py").join("screen.h5ad"), tempfile::tempdir().unwrap());
    let (vocabulary, recipe) = (directory.path().join("vocab.json"), directory.path().join("own.toml"));
    let genes = (0..200).filter(|i| i % 4 != 3).map(|i| (format!("g{i}"), json!(i + 3)));
    let all: serde_json::Map<String, Value> =
        genes.chain([("<cls>".to_owned(), json!(1)), ("<pad>".to_owned(), json!(2))]).collect();
    std::fs::write(&vocabulary, Value::Object(all).to_string()).unwrap();
    let lines = "kind = \"bins\"\nlength = 200\nfirst = \"<cls>\"\nbins = 51\nties = \"last\"\nlonger = \"cut\"\n";
    std::fs::write(&recipe, lines).unwrap();
    let options = ["--tokens", recipe.to_str().unwrap(), "--token-table", vocabulary.to_str().unwrap()];
    let mount = Mount::new(std::slice::from_ref(&store), &options);
    let arguments = [mount.path().into(), store.into(), vocabulary.into(), "51".into()];
    let said = run(&python, "tests/python/check_scgpt.py", &arguments);
    assert!(said.contains("3000 rows agree"), "{said}");
    mount.unmount();
}

/// The newest zarr-python and anndata, and dask with `read_lazy`, on what `zarr_epochs` reads with older versions.
#[test]
fn newest_zarr_anndata_and_dask() {
    let Some(python) = trainers() else { return };
    let mount = Mount::new(&stores(&["sparse.h5ad"]), &["--batch-size", "48", "--fetch-factor", "5"]);
    let said = run(&python, "tests/python/check_zarr.py", &[mount.path().into(), "epoch-0000".into()]);
    assert!(said.contains("\"lazily\": true") && said.contains("\"rows\": 2000"), "{said}");
    mount.unmount();
}

/// Parts written by Dask's workers, one of them twice.
#[test]
fn dask_writes_parts() {
    let Some(python) = trainers() else { return };
    let cells = made_by("trainer_stores.py").join("screen.h5ad");
    let area = crate::area::Area::new();
    let out = area.path("parts.zarr");
    let binary = env!("CARGO_BIN_EXE_shufflefs");
    let arguments: Vec<OsString> = vec![binary.into(), "4".into(), out.clone().into(), cells.clone().into()];
    let said = run(&python, "examples/trainers/dask_shuffle.py", &arguments);
    assert!(said.contains("4 parts"), "{said}");
    let said = succeed(crate::support::python("check_shuffled.py").arg(&out).arg(&cells));
    assert!(said.trim_end().ends_with(" 4"), "{said}");
}

/// Each rank is a task with a separate mount.
#[test]
fn dask_and_ray_ranks() {
    let Some(python) = trainers() else { return };
    let cells = made_by("trainer_stores.py").join("screen.h5ad");
    for cluster in ["dask", "ray"] {
        let arguments = [env!("CARGO_BIN_EXE_shufflefs").into(), cluster.into(), "4".into(), cells.clone().into()];
        let said = run(&python, "examples/trainers/rank_tasks.py", &arguments);
        assert!(said.contains("each once, in 4 ranks"), "{said}");
    }
}

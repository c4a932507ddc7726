//! Files of other formats: those that can be read are compared with h5py, the others must be named.

use std::path::{Path, PathBuf};

use crate::support::{Mount, python, succeed, text};

fn made() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("foreign");
    succeed(python("foreign.py").arg("--make").arg(&place));
    (directory, place)
}

#[test]
fn tenx_and_loom_are_read_as_h5py_reads_them() {
    let (_directory, place) = made();
    let small = ["--batch-size", "16", "--block-size", "4", "--fetch-factor", "2"];
    for (file, kind, element, more) in [
        ("v3.h5", "10x", "X", &[][..]),
        ("v3.h5::matrix", "10x", "X", &[]),
        ("v2.h5", "10x", "X", &[]),
        ("two.h5::mm10", "10x", "X", &[]),
        ("cells.loom", "loom", "X", &["--obs", "ClusterID,Age"]),
        ("cells.loom", "loom", "layers/spliced", &["--x", "layers/spliced"]),
        ("numbered.loom", "loom", "X", &[]),
    ] {
        let path = place.join(file);
        let mount = Mount::new(std::slice::from_ref(&path), &[&small[..], more].concat());
        succeed(python("foreign.py").arg(mount.path()).arg(&path).args([kind, element]));
        mount.unmount();
    }
}

#[test]
fn what_is_no_store_is_named_with_its_remedy() {
    let (_directory, place) = made();
    for (name, words) in [
        ("two.h5", &["several genomes", "two.h5::hg19 or", "two.h5::mm10"][..]),
        ("x.h5seurat", &[".h5seurat", "SeuratDisk"]),
        ("x.h5ads", &["AnnDataSet", ".h5ad files"]),
        ("x.rds", &["R object (.rds)", "anndataR"]),
        ("x.RData", &[".RData"]),
        ("x.tar", &["tar archive", "tar xf"]),
        ("x.tar.gz", &["tar archive", "unpack"]),
        ("x.parquet", &["Parquet"]),
        ("matrix.mtx", &["Matrix Market", "read_10x_mtx"]),
        ("matrix.mtx.gz", &["Matrix Market"]),
        ("x.csv", &["CSV", "read_csv"]),
        ("x.h5ad.dvc", &["DVC", "dvc pull"]),
        ("annex.h5ad", &["git-annex", "git annex get"]),
        ("unlocked.h5ad", &["git-annex", "git annex get"]),
        ("dvc.h5ad", &["DVC", "dvc pull"]),
        ("lost.h5ad", &["a link to elsewhere.h5ad, which does not exist"]),
        ("soma", &["TileDB", "to_h5ad"]),
        ("lance", &["Lance"]),
        ("mtx", &["10x directory", "read_10x_mtx"]),
        ("absent.h5ad", &["no such file"]),
    ] {
        let path = place.join(name);
        let Err(output) = Mount::try_new(std::slice::from_ref(&path), &[]) else { panic!("{name} is mounted") };
        let line = text(&output.stderr);
        assert_eq!((output.status.code(), line.trim_end().lines().count()), (Some(3), 1), "{name}: {line}");
        assert!(
            line.contains(path.to_str().unwrap()) && words.iter().all(|word| line.contains(word)),
            "{name}: {line}"
        );
        assert!(!line.contains("damaged"), "{line}");
    }
}

/// A directory of stores is a collection in the order of their names.
#[test]
fn a_folder_of_stores_is_a_collection() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("dataset");
    std::fs::create_dir(&folder).unwrap();
    let store = crate::support::store("sparse.h5ad");
    for name in ["b.h5ad", "a.h5ad", "c.h5ad"] {
        std::fs::copy(&store, folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("README.md"), "no store").unwrap();
    let mount = Mount::new(std::slice::from_ref(&folder), &[]);
    let names: Vec<String> = mount.json("dataset.json")["stores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|store| Path::new(store["path"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["a.h5ad", "b.h5ad", "c.h5ad"]);
    mount.unmount();
}

//! Stores large enough for a row index: it is made once, reused, used only while it is correct, and not required.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::support::{Checker, Mount, list, python, sha256, succeed, text};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, UInt64Type};
use serde_json::{Value, json};

const OPTIONS: [&str; 6] = ["--batch-size", "65536", "--block-size", "64", "--fetch-factor", "2"];

/// A store with these properties, made once per run.
pub fn large(name: &str, options: &[&str]) -> PathBuf {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let place = Path::new(crate::support::ROOT).join("target/test-stores/large");
        fs::create_dir_all(&place).unwrap();
        place
    });
    // Other tests of this file may need it at the same time.
    let lock = fs::File::create(place.join(".lock")).unwrap();
    lock.lock().unwrap();
    let script = Path::new(crate::support::ROOT).join("tests/python/large_store.py");
    let path = place.join(name);
    let newer = |path: &Path| {
        fs::metadata(path)
            .and_then(|m| m.modified())
            .is_ok_and(|time| time > fs::metadata(&script).unwrap().modified().unwrap())
    };
    if !newer(&path) {
        let _ = fs::remove_dir_all(&path);
        let made = place.join(format!("new-{name}"));
        let _ = fs::remove_dir_all(&made);
        succeed(python("large_store.py").arg(&made).args(options));
        fs::rename(made, &path).unwrap();
    }
    path
}

fn mount(paths: &[PathBuf], index: &Path, more: &[&str]) -> Mount {
    Mount::new(paths, &[&OPTIONS[..], &["--index-dir", index.to_str().unwrap()], more].concat())
}

fn check(mount: &Mount, more: Value) {
    let result = Checker::start().check(mount, "safetensors", more.clone());
    assert!(result.is_ok(), "{more}: {}", result.unwrap_err());
}

fn bytes_read(mount: &Mount) -> u64 {
    mount.json(".shufflefs/stats.json")["store"]["bytes_read"].as_u64().unwrap()
}

fn only(index: &Path) -> PathBuf {
    let names = list(index);
    assert_eq!(names.len(), 1, "{names:?}");
    index.join(&names[0])
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

fn sample(mount: &Mount) -> Vec<String> {
    ["epoch-0003/batch-000004.npz", "epoch-0000/batch-000018.tsv"]
        .iter()
        .map(|path| sha256(&mount.join(path)))
        .collect()
}

#[test]
fn values_are_anndatas_and_the_index_is_used_again() {
    let index = tempfile::tempdir().unwrap();
    let paths = [large("a.h5ad", &[])];
    let first = mount(&paths, index.path(), &[]);
    assert!(bytes_read(&first) > 1 << 20);
    let wanted = sample(&first);
    check(&first, json!({}));
    first.unmount();
    let file = only(index.path());
    let built = inode(&file);
    let second = mount(&paths, index.path(), &[]);
    // Labels and names of genes, but nothing that grows with the rows.
    assert!(bytes_read(&second) < 100_000, "{} bytes were read again", bytes_read(&second));
    check(&second, json!({}));
    assert_eq!((sample(&second), inode(&file)), (wanted.clone(), built));
    second.unmount();
    // Without an index directory: the same bytes, and one line that says what to do.
    let without = mount(&paths, Path::new("/proc/index"), &[]);
    assert_eq!(sample(&without), wanted);
    let log = fs::read_to_string(without.join(".shufflefs/log")).unwrap();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(
        matches!(warnings.as_slice(), [one] if one.contains("--index-dir") && one.contains("/proc/index")),
        "{log}"
    );
}

#[test]
fn the_file_is_arrow() {
    let index = tempfile::tempdir().unwrap();
    let path = large("a.h5ad", &[]);
    mount(std::slice::from_ref(&path), index.path(), &[]).unmount();
    let file = fs::File::open(only(index.path())).unwrap();
    let mut reader = arrow_ipc::reader::FileReader::try_new(file, None).unwrap();
    let batch = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());
    let store = hdf5::File::open(&path).unwrap();
    let bounds: Vec<u64> = store.dataset("X/indptr").unwrap().read_raw().unwrap();
    let codes: Vec<i8> = store.dataset("obs/few/codes").unwrap().read_raw().unwrap();
    let column = |name: &str| batch.column_by_name(name).unwrap();
    assert_eq!(column("X/indptr").as_primitive::<UInt64Type>().values(), &bounds[..bounds.len() - 1]);
    assert_eq!(column("obs/few/codes").as_primitive::<Int8Type>().values(), &codes[..]);
    assert_eq!(batch.num_columns(), 1 + 3 + 3 + 2, "{:?}", batch.schema());
}

#[test]
fn zarr_dense_and_stores_that_differ() {
    let index = tempfile::tempdir().unwrap();
    let zarr = large("b.zarr", &["--other", "--seed", "1"]);
    let paths = [large("a.h5ad", &[]), zarr.clone(), crate::support::store("join-a.h5ad")];
    for _ in 0..2 {
        let mount = mount(&paths[..2], index.path(), &[]);
        check(&mount, json!({}));
    }
    assert_eq!(list(index.path()).len(), 2);
    // With a small store that has other genes and lacks these columns.
    let third = mount(&paths, index.path(), &["--join", "outer"]);
    check(&third, json!({"join": "outer"}));
    assert_eq!(list(index.path()).len(), 2);
    let dense = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        check(&mount(&[large("c.h5ad", &["--dense"])], dense.path(), &[]), json!({}));
    }
    only(dense.path());
    // An inner join counts the values that remain in each store; the counts are mapped too.
    let joined = tempfile::tempdir().unwrap();
    let paths = [large("a.h5ad", &[]), large("f.h5ad", &["--shift", "3", "--seed", "2"])];
    for _ in 0..2 {
        check(&mount(&paths, joined.path(), &["--join", "inner"]), json!({"join": "inner"}));
        assert_eq!(list(joined.path()).len(), 2 + 2, "an index and counts of each store");
    }
}

/// Row bounds of further elements, and counts of remaining genes, are made once for each element, then mapped.
#[test]
fn further_elements_and_chosen_genes() {
    let index = tempfile::tempdir().unwrap();
    let path = large("e.h5ad", &["--layer", "--seed", "3"]);
    let with = ["--obs=", "--with", "layers/other"];
    let genes = ["--obs=", "--with", "layers/other", "--genes", "gene 5,gene 1"];
    for files in [[2, 4], [4, 4]] {
        for (options, genes, files) in [(&with[..], None, files[0]), (&genes, Some(["gene 5", "gene 1"]), files[1])] {
            let mount = mount(std::slice::from_ref(&path), index.path(), options);
            let job = json!({
                "mount": mount.path(), "stores": mount.stores, "formats": ["safetensors"],
                "with": ["layers/other"], "genes": genes, "every": 97,
            });
            let output = python("check_fields.py").arg("check").arg(job.to_string()).output().unwrap();
            assert!(output.status.success(), "{options:?}:\n{}", text(&output.stderr));
            assert_eq!(list(index.path()).len(), files, "an index and counts of each element");
        }
    }
}

#[test]
fn it_is_made_anew_when_it_must_be() {
    let place = tempfile::tempdir().unwrap();
    let (index, path) = (place.path().join("deep/index"), place.path().join("store.h5ad"));
    fs::copy(large("a.h5ad", &[]), &path).unwrap();
    let paths = [path.clone()];
    let wanted = sample(&mount(&paths, &index, &[]));
    let file = only(&index);
    let whole = fs::read(&file).unwrap();
    let mut damages: Vec<Vec<u8>> =
        vec![whole[..whole.len() - 40].to_vec(), whole[..1000].to_vec(), Vec::new(), b"nonsense".to_vec()];
    // In the head, in a column, in the description, in Arrow's footer.
    for at in [20, whole.len() / 2, whole.len() - 2000, whole.len() - 30, whole.len() - 8, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        damages.push(flipped);
    }
    for damaged in damages {
        fs::write(&file, &damaged).unwrap();
        assert_eq!(sample(&mount(&paths, &index, &[])), wanted);
        assert_eq!(fs::read(only(&index)).unwrap().len(), whole.len());
    }
    // Touched but intact: reused.
    let built = inode(&file);
    fs::File::options().write(true).open(&file).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    assert_eq!(sample(&mount(&paths, &index, &[])), wanted);
    assert_eq!(inode(&file), built);
    // Another store under the same name.
    fs::copy(large("d.h5ad", &["--seed", "5", "--rows", "1100000"]), &path).unwrap();
    check(&mount(&paths, &index, &[]), json!({}));
    assert_ne!(inode(&only(&index)), built);
}

#[test]
fn columns_are_added_when_they_are_needed() {
    let index = tempfile::tempdir().unwrap();
    let paths = [large("a.h5ad", &[])];
    let mut size = 0;
    for columns in ["few", "many,maybe", "few,flag"] {
        check(
            &mount(&paths, index.path(), &["--obs", columns]),
            json!({"obs": columns.split(',').collect::<Vec<_>>()}),
        );
        let now = fs::metadata(only(index.path())).unwrap().len();
        assert!(now > size, "{columns} was not added");
        size = now;
    }
    let built = inode(&only(index.path()));
    for columns in ["few", "maybe,flag", ""] {
        mount(&paths, index.path(), &["--obs", columns]).unmount();
    }
    assert_eq!(inode(&only(index.path())), built);
}

#[test]
fn mounts_at_once_make_it_once() {
    let index = tempfile::tempdir().unwrap();
    let paths = [large("a.h5ad", &[])];
    let all: Vec<(u64, Vec<String>)> = std::thread::scope(|scope| {
        let one = || {
            let mount = mount(&paths, index.path(), &[]);
            (bytes_read(&mount), sample(&mount))
        };
        let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    only(index.path());
    assert!(all.iter().all(|(_, bytes)| *bytes == all[0].1));
    assert_eq!(all.iter().filter(|(read, _)| *read > 100_000).count(), 1, "{all:?}");
}

#[test]
fn damage_of_the_store_is_told_as_ever() {
    let index = tempfile::tempdir().unwrap();
    for (name, bad, words) in [
        ("bad-codes.h5ad", "codes", ["obs/many/codes", "code 300 is outside its 300 categories"]),
        ("bad-bounds.h5ad", "bounds", ["X", "indptr falls after row 600001"]),
    ] {
        let path = large(name, &["--bad", bad]);
        let Err(output) = Mount::try_new(&[path], &["--index-dir", index.path().to_str().unwrap()]) else {
            panic!("{name} was mounted");
        };
        let message = text(&output.stderr);
        assert_eq!((output.status.code(), message.trim_end().lines().count()), (Some(3), 1), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}

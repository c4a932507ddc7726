//! Bytes are a pure function of (content, options, seed, path): not of the mount, threads, memory or order of reading.

use std::collections::BTreeMap;

use crate::support::{Mount, list, sha256, shuffled, store, stores};

const EXTENSIONS: [&str; 12] =
    ["npz", "safetensors", "npy", "h5ad", "tsv", "arrow", "parquet", "tar", "tfrecord", "mds", "litdata", "record.npy"];
/// 32 batches in fetches of 4, so that readers need many fetches.
const SMALL: [&str; 6] = ["--batch-size", "64", "--block-size", "16", "--fetch-factor", "4"];

enum Order {
    Forward,
    Backward,
    Random(u64),
}

/// name -> sha256 of all files of an epoch, in every format, read in the given order.
fn hashes(mount: &Mount, epoch: &str, order: Order) -> BTreeMap<String, String> {
    let mut names: Vec<String> = Vec::new();
    for extension in EXTENSIONS {
        names.extend(list(&mount.join(epoch)).iter().map(|name| name.replace(".npz", &format!(".{extension}"))));
    }
    match order {
        Order::Forward => {}
        Order::Backward => names.reverse(),
        Order::Random(seed) => names = shuffled(names.len(), seed).into_iter().map(|i| names[i].clone()).collect(),
    }
    names.into_iter().map(|name| (name.clone(), sha256(&mount.join(epoch).join(&name)))).collect()
}

/// The same, by four concurrent readers, each of every fourth file.
fn hashes_at_once(mount: &Mount, epoch: &str) -> BTreeMap<String, String> {
    let directory = mount.join(epoch);
    let names = list(&directory);
    let read = |part: usize| -> Vec<(String, String)> {
        EXTENSIONS
            .iter()
            .flat_map(|extension| names.iter().map(move |name| name.replace(".npz", &format!(".{extension}"))))
            .skip(part)
            .step_by(4)
            .map(|name| (name.clone(), sha256(&directory.join(&name))))
            .collect()
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4).map(|part| scope.spawn(move || read(part))).collect();
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    })
}

fn same(what: &str, got: &BTreeMap<String, String>, want: &BTreeMap<String, String>) {
    let different: Vec<&String> = want.keys().filter(|name| got.get(*name) != want.get(*name)).collect();
    assert!(
        different.is_empty() && got.len() == want.len(),
        "{what}: {} of {} differ: {different:?}",
        different.len(),
        want.len()
    );
}

fn bytes_do_not_depend_on(names: &[&str]) {
    let paths = stores(names);
    let with = |options: &[&'static str]| Mount::new(&paths, &[&SMALL[..], options].concat());
    let one = with(&["--threads", "1"]);
    let want = hashes(&one, "epoch-0000", Order::Forward);
    same("a second reading", &hashes(&one, "epoch-0000", Order::Forward), &want);
    one.unmount();
    let four = with(&["--threads", "4"]);
    same("backward, four threads", &hashes(&four, "epoch-0000", Order::Backward), &want);
    four.unmount();
    let four = with(&["--threads", "4"]);
    same("readers at once", &hashes_at_once(&four, "epoch-0000"), &want);
    let small = with(&["--memory", "64MiB", "--threads", "2"]);
    same("random order, little memory", &hashes(&small, "epoch-0000", Order::Random(1)), &want);
    // Whether listed or not, the format of the listing changes no byte.
    let listed = with(&["--format", "h5ad", "--epochs", "1"]);
    let first = "epoch-0000/batch-000003.npz";
    assert_eq!(sha256(&listed.join(first)), want["batch-000003.npz"], "--format changes {first}");
}

#[test]
fn bytes_of_a_sparse_store_are_a_function_of_the_path() {
    bytes_do_not_depend_on(&["sparse.h5ad"]);
}

#[test]
fn bytes_of_a_dense_store_are_a_function_of_the_path() {
    bytes_do_not_depend_on(&["dense.h5ad"]);
}

#[test]
fn bytes_of_three_stores_are_a_function_of_the_path() {
    bytes_do_not_depend_on(&["part-a.h5ad", "part-b.zarr", "part-c.h5ad"]);
}

#[test]
fn epochs_and_seeds_differ() {
    let paths = [store("sparse.h5ad")];
    let zero = Mount::new(&paths, &SMALL);
    let seeded = Mount::new(&paths, &[&SMALL[..], &["--seed", "1"]].concat());
    let mut seen = BTreeMap::new();
    for (mount, epoch) in [(&zero, 0), (&zero, 1), (&zero, 2), (&zero, 100), (&seeded, 0), (&seeded, 1)] {
        let epoch = format!("epoch-{epoch:04}");
        for (name, hash) in hashes(mount, &epoch, Order::Forward) {
            if let Some(other) = seen.insert(hash, format!("{}/{epoch}/{name}", mount.path().display())) {
                panic!("{epoch}/{name} is the same as {other}");
            }
        }
    }
}

/// The path of the store and the time of the copy change no batch.
#[test]
fn a_copy_of_the_store_gives_the_same_bytes() {
    let original = store("sparse.h5ad");
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("renamed.h5ad");
    std::fs::copy(&original, &copy).unwrap();
    let (one, two) = (Mount::new(&[original], &SMALL), Mount::new(&[copy], &SMALL));
    same("the copy", &hashes(&two, "epoch-0000", Order::Forward), &hashes(&one, "epoch-0000", Order::Forward));
}

/// `rank-R-of-W`: equal, disjoint parts with the batches of the epoch, byte for byte; fewer than W of them in no part.
#[test]
fn ranks_are_parts_of_the_epoch() {
    let mount = Mount::new(&[store("sparse.h5ad")], &SMALL);
    let read = |directory: &str| -> Vec<String> {
        list(&mount.join(directory)).iter().map(|name| sha256(&mount.join(directory).join(name))).collect()
    };
    let whole = read("epoch-0001");
    for of in [1, 3, 5] {
        let parts: Vec<Vec<String>> = (0..of).map(|rank| read(&format!("rank-{rank}-of-{of}/epoch-0001"))).collect();
        assert!(parts.iter().all(|part| part.len() == whole.len() / of), "{of}: {parts:?}");
        let mut all: Vec<String> = parts.concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), whole.len() / of * of, "a batch is in two parts of {of}");
        assert!(all.iter().all(|hash| whole.contains(hash)), "a part of {of} holds what the epoch does not");
    }
    // One rank of one is the epoch itself, in its order.
    assert_eq!(read("rank-0-of-1/epoch-0001"), whole);
    mount.unmount();
}

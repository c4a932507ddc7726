//! One numbered test for each fault that was found, with a sentence each. `h`: found by reading the code; `s`: reported by users; `t`:
//! found by injected faults.
//! A fault with a test in another file has a line in [`ELSEWHERE`], and that test must exist.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Mount, ROOT, list, shufflefs, store, succeed};

/// Fault, what happened, file, and the test in it.
const ELSEWHERE: [(&str, &str, &str, &str); 39] = [
    ("h1", "A safe trait handed out overlapping `&mut [u8]` from `&self`.", "src/array/dest.rs", "fn parts_lie_within"),
    ("h1", "So the trait is unsafe to implement.", "src/array/gather.rs", "compile_fail,E0200"),
    (
        "h2",
        "A panic in fetch or layout ended a loader.",
        "src/engine/models.rs",
        "fn a_panic_before_the_load_ends_no_loader",
    ),
    (
        "h3",
        "Cached chunks were found by address.",
        "src/array/cache/models.rs",
        "fn another_array_has_chunks_of_its_own",
    ),
    ("h4", "Statistics were cut at 4 KiB.", "src/fuse/attributes.rs", "fn statistics_are_padded_and_never_cut"),
    ("h5", "The errno of a read was lost.", "src/fuse.rs", "fn errors_keep_their_errno_where_the_contract_allows_it"),
    ("h6", "A number of a store was cut to fewer bits.", "tests/it/damage.rs", "fn stores_that_lie"),
    (
        "t1",
        "After a short read column numbers were checked in part, or out of step: EIO of a whole store.",
        "tests/it/faults.rs",
        "(Ail::Short, READ)",
    ),
    (
        "t2",
        "EMFILE of a zarr chunk was EIO: its remedy took the place of its number.",
        "tests/it/faults.rs",
        "(Ail::Errno(libc::EMFILE), READ | OPEN)",
    ),
    (
        "t3",
        "Who came to a load that had hung was failed at once, though it went on at that moment.",
        "tests/it/faults.rs",
        "(Ail::Stuck, READ)",
    ),
    (
        "t4",
        "A read of io_uring that met the end of a file got the file's beginning once more behind it.",
        "tests/it/sequences.rs",
        "Op::Ring(_, at, len) =>",
    ),
    (
        "t5",
        "With few threads (`pids.max`) a mount panicked, or ended after it had said that it is usable.",
        "tests/it/load.rs",
        "fn a_container_with_few_threads",
    ),
    (
        "t6",
        "A daemon that was killed while it looked at its own mount left one that nobody answered and that was not dead: all hung.",
        "src/fuse/look.rs",
        "fn the_thread_holds_no_descriptor",
    ),
    ("t7", "A pattern with many stars took time without end.", "fuzz/targets/urls.rs", "pattern::fits_path"),
    (
        "t8",
        "A read that came to a load ahead got the error of a storage that was well again by then.",
        "src/engine/load_task.rs",
        "fn demand_again",
    ),
    (
        "t9",
        "A panic while a request was answered ended the thread that takes requests, and with it the mount.",
        "tests/it/panics.rs",
        "Layer::Request",
    ),
    ("s1", "Codecs of zarr-python were not read.", "tests/it/codecs.rs", "fn every_codec_on_every_array"),
    ("s2", "Metadata that leaves out defaults.", "tests/it/codecs.rs", "fn reported_stores"),
    ("s3", "Booleans and enums of R, Julia, PyTables.", "tests/it/kinds.rs", "fn booleans_of_other_writers"),
    ("s4", "Matrices of more than two axes.", "tests/it/kinds.rs", "fn matrices_of_more_axes_and_tables"),
    ("s5", "Columns called `a/b` and `a_b` traded names.", "tests/it/kinds.rs", "fn names_are_one_rule_in_all_formats"),
    (
        "s6",
        "Files of other formats were called damaged.",
        "tests/it/foreign.rs",
        "fn what_is_no_store_is_named_with_its_remedy",
    ),
    ("s7", "Variables of HDF5 made stores look damaged.", "tests/it/situations.rs", "fn s07_"),
    ("s8", "Paths that are not UTF-8 did not open.", "tests/it/situations.rs", "fn s08_"),
    ("s9", "600 stores ran out of descriptors.", "tests/it/situations.rs", "fn s09_"),
    ("s10", "`ulimit -v` ended the daemon.", "tests/it/situations.rs", "fn s10_"),
    ("s11", "Two columns shared the name of a file.", "src/format/names.rs", "fn no_two_share_a_name"),
    ("s12", "Columns of times were left out.", "tests/it/kinds.rs", "fn times_are_served_and_others_say_what_they_are"),
    ("s13", "`info` exited 0 where nothing mounts.", "tests/it/situations.rs", "fn s13_"),
    (
        "s14",
        "`umount` gave up on a daemon that worked.",
        "src/mount/unmount.rs",
        "fn a_process_that_works_is_told_from_one_that_waits",
    ),
    ("s15", "Labels called NA became missing.", "tests/it/kinds.rs", "fn labels_that_look_missing"),
    ("s16", "The index directory could be another user's.", "tests/it/situations.rs", "fn s16_"),
    ("s17", "Elements that only some stores have.", "tests/it/kinds.rs", "fn elements_of_some_stores"),
    ("s17", "Dense and sparse X together.", "tests/it/kinds.rs", "fn dense_and_sparse_stores_together"),
    (
        "s18",
        "Advice on expressions changed their meaning.",
        "src/view/filter/tests.rs",
        "fn errors_name_the_character_the_cause_and_what_is_near",
    ),
    ("s19", "Genes that differ by version or case.", "tests/it/kinds.rs", "fn genes_that_differ_in_spelling"),
    ("s20", "`df` showed no bytes and no free inodes.", "tests/it/situations.rs", "fn s20_"),
    ("s20", "A folder of stores was none.", "tests/it/foreign.rs", "fn a_folder_of_stores_is_a_collection"),
    ("s21", "All reported stores, by their expected values.", "tests/it/kinds.rs", "fn stores_of_reports"),
];

#[test]
fn tests_that_stand_elsewhere_are_there() {
    for (fault, what, file, test) in ELSEWHERE {
        let source = fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(source.contains(test), "{fault} ({what}): {file} has no `{test}`");
    }
}

/// A directory called `a::b` was read as a group in a store `a`, and then every file of the store counted as part of its index, so
/// that adding a note rebuilt the index.
#[test]
fn h7_two_colons_in_a_name_are_no_group() {
    let place = tempfile::tempdir().unwrap();
    let index = place.path().join("index");
    let path = place.path().join("a::b").join("cells::x.zarr");
    fs::create_dir(path.parent().unwrap()).unwrap();
    succeed(Command::new("cp").arg("-r").arg(store("csc-int64.zarr")).arg(&path));
    let built = |path: &PathBuf| {
        let options = ["--index-dir", index.to_str().unwrap()];
        Mount::new(std::slice::from_ref(path), &options).unmount();
        let files = list(&index);
        assert_eq!(files.len(), 1, "{files:?}");
        fs::metadata(index.join(&files[0])).unwrap().ino()
    };
    let first = built(&path);
    fs::create_dir_all(path.join("uns/notes")).unwrap();
    fs::write(path.join("uns/notes/of-mine.txt"), "not of X").unwrap();
    assert_eq!(built(&path), first, "a file beside X counts for the index of X");
    // A file in X counts.
    fs::write(path.join("X/of-mine.txt"), "of X").unwrap();
    assert_ne!(built(&path), first, "a file of X does not count for its index");
}

/// k was the requested number, also if a collection has fewer blocks.
#[test]
fn h8_no_more_blocks_are_mixed_than_there_are() {
    let path = store("sparse.h5ad");
    let options = ["--batch-size", "256", "--block-size", "16", "--fetch-factor", "64"];
    let mount = Mount::new(std::slice::from_ref(&path), &options);
    let dataset = mount.json("dataset.json");
    let blocks = dataset["blocks"].as_f64().unwrap();
    assert!(blocks < 1024.0, "{blocks} blocks: the test shows nothing");
    assert_eq!(dataset["k"].as_f64(), Some(blocks));
    let readme = fs::read_to_string(mount.join("README.txt")).unwrap();
    assert!(readme.contains(&format!("k = {blocks} of them")), "{readme}");
    let told = succeed(shufflefs().arg("plan").arg("--json").args(options).arg(&path));
    let plan: Value = serde_json::from_str(&told).unwrap();
    assert!(plan.to_string().contains(&format!("\"k\":{}", dataset["k"])), "{plan}");
}

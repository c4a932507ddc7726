//! Splits by cell line and perturbation, from TOML files of cell-load: their rows equal cell-load's.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Mount, made_by, python, shufflefs, text};

const SCRIPT: &str = "cell_load_splits.py";

fn stores() -> Vec<PathBuf> {
    ["lines/x.h5ad", "lines/y.h5ad", "other/z.h5ad"].map(|name| made_by(SCRIPT).join(name)).into()
}

/// A TOML file of cell-load with `DIR` replaced by the directory, and `from` by `to`.
fn rules(place: &Path, name: &str, from: &str, to: &str) -> String {
    let directory = made_by(SCRIPT);
    let text = fs::read_to_string(directory.join(format!("{name}.toml"))).unwrap();
    let taken = fs::read_dir(place).unwrap().count();
    let path = place.join(format!("{name}-{taken}.toml"));
    fs::write(&path, text.replace("DIR", directory.to_str().unwrap()).replace(from, to)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn zero_and_few_shot_splits_have_the_rows_of_cell_load() {
    let place = tempfile::tempdir().unwrap();
    for name in ["zero", "few"] {
        let mount = Mount::new(&stores(), &["--split-toml", &rules(place.path(), name, "", ""), "--batch-size", "64"]);
        let output = python(SCRIPT).arg("check").arg(made_by(SCRIPT)).arg(mount.path()).arg(name).output().unwrap();
        assert!(output.status.success(), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
        mount.unmount();
    }
}

/// A share of the rows held out of a cell line is trained on; all other rows are where cell-load has them.
#[test]
fn a_share_of_held_out_rows_is_trained_on() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = ("val = [\"g1\", \"g2\"]", "train_fraction = 0.3\nval = [\"g1\", \"g2\"]");
    let file = rules(place.path(), "few", from, to);
    let mount = Mount::new(&stores(), &["--split-toml", &file, "--batch-size", "64", "--seed", "5"]);
    let output = python(SCRIPT).arg("share").arg(made_by(SCRIPT)).arg(mount.path()).arg("0.3").output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    mount.unmount();
}

/// As STATE trains: cell-load's splits, sets of one cell line and perturbation, a control of the cell line for each cell.
#[test]
fn splits_sets_and_pairs_go_together() {
    let place = tempfile::tempdir().unwrap();
    let sets = ["--set-by", "cell_type,gene", "--set-size", "8", "--batch-size", "64", "--unmatched", "drop"];
    let pairs = ["--pair-with", "gene == 'non-targeting'", "--match", "cell_type"];
    for name in ["zero", "few"] {
        let split = ["--split-toml", &rules(place.path(), name, "", "")];
        let mount = Mount::new(&stores(), &[&split[..], &sets, &pairs].concat());
        let output = python(SCRIPT).arg("state").arg(made_by(SCRIPT)).arg(mount.path()).arg(name).output().unwrap();
        assert!(output.status.success(), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
        mount.unmount();
    }
}

#[test]
fn names_that_do_not_join_are_counted_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let toml = |name, from, to| rules(place.path(), name, from, to);
    let good = ["--split-toml".to_owned(), toml("few", "", "")];
    for (code, more, word) in [
        (2, vec!["--split", "a=0.5,b=0.5"], "not with --split"),
        (3, vec!["--pert-col", "gen"], "near: gene"),
        (3, vec!["--control-pert", "DMSO"], "no row has \"DMSO\" in gene"),
    ] {
        refused(code, good.iter().map(String::as_str).chain(more).collect(), word);
    }
    for (code, path, word) in [
        (2, "/no/such.toml".to_owned(), "/no/such.toml"),
        (2, toml("zero", "\"val\"", "\"valid\""), "one of train, val and test"),
        (
            3,
            toml("zero", "lines.jurkat", "lines.jurkatt"),
            "1 of 3 cell lines are in no row by cell_type, such as lines.jurkatt",
        ),
        (3, toml("few", "\"g5\"", "\"g55\""), "2 of 7 perturbations are in no row by gene, such as g55 in lines.rpe1"),
        (3, toml("zero", "other/z.h5ad", "elsewhere"), "at the path of none of its datasets"),
    ] {
        refused(code, vec!["--split-toml", &path], word);
    }
}

fn refused(code: i32, options: Vec<&str>, word: &str) {
    let output = shufflefs().arg("plan").args(&options).args(stores()).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{options:?}: {message}");
    assert!(message.lines().count() == 1 && message.contains(word), "{options:?}: {message}");
}

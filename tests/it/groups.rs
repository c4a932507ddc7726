//! Sets and bags through real mounts, compared with naive Python; errors; the output of `plan`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Mount, made_by, python, shufflefs, succeed, text};

fn directory() -> PathBuf {
    made_by("check_groups.py")
}

fn stores() -> Vec<PathBuf> {
    ["a.h5ad", "b.h5ad", "c.zarr"].map(|name| directory().join(name)).into()
}

/// Runs a command of the check script with the directory of the stores and arguments.
fn judged(command: &str, arguments: &[&Path]) -> String {
    let output = python("check_groups.py").arg(command).arg(directory()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A mount with views of a configuration file.
fn configured(config: &str) -> Mount {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("shufflefs.toml");
    fs::write(&path, config).unwrap();
    Mount::new(&stores(), &["--config", path.to_str().unwrap()])
}

/// The same, compared with Python.
fn checked(command: &str, config: &str) {
    let mount = configured(config);
    judged(command, &[mount.path()]);
    mount.unmount();
}

#[test]
fn sets_are_cells_of_one_group_each() {
    checked(
        "sets",
        "\
set_by = ['cell_type', 'donor']
seed = 3
batch_size = 64
obs = ['donor', 'cell_type']
[view.small]
set_size = 4
set_short = 'repeat'
[view.padded]
set_size = 16
set_short = 'pad'
[view.dropped]
set_size = 32
set_short = 'drop'
block_size = 16
fetch_factor = 4
[view.where]
where = 'n_genes > 500'
set_size = 8
block_size = 1
drop_last = false
",
    );
}

#[test]
fn sets_of_large_groups_mix_blocks() {
    checked("sets", "set_by = 'condition'\nset_size = 64\n[view.a]\n[view.b]\nblock_size = 32\nfetch_factor = 2\n");
}

#[test]
fn bags_are_all_cells_of_a_donor_or_a_draw_of_them() {
    let table = directory().join("donors.tsv");
    checked(
        "bags",
        &format!(
            "bag_by = 'donor'\nbag_table = {table:?}\n[view.all]\n[view.some]\nwhere = 'n_genes > 500'\n\
             [view.cut]\nbag_max = 40\nblock_size = 4\n[view.many]\nfetch_factor = 5\nbag_max = 100\n"
        ),
    );
}

#[test]
fn random_views_of_sets_and_bags() {
    for (seed, kind) in [("1", "sets"), ("3", "sets"), ("4", "bags")] {
        checked(kind, &judged("random", &[Path::new(seed), Path::new(kind)]));
    }
}

/// A split by donor, and sets by cell type within each side: its rows are those of the same split without sets.
#[test]
fn sets_hold_under_splits() {
    let split = "split = { train = 0.6, val = 0.4 }\nsplit_by = 'donor'\nseed = 5\nobs = ['cell_type', 'donor']\n";
    let plain = configured(split);
    let sets = "set_by = ['cell_type', 'donor']\nset_size = 8\nbatch_size = 64\n[view.val]\nset_short = 'pad'\n";
    let mount = configured(&format!("{split}{sets}"));
    judged("sets", &[mount.path(), plain.path()]);
    plain.unmount();
    mount.unmount();
}

#[test]
fn padding_is_told_in_every_format() {
    let mount = Mount::new(&stores(), &["--set-by", "donor", "--set-size", "48", "--set-short", "pad"]);
    judged("padded", &[mount.path()]);
    mount.unmount();
}

#[test]
fn sets_have_controls_beside_them() {
    let sets = ["--set-by", "cell_type", "--set-size", "24", "--set-short", "pad", "--batch-size", "96"];
    let pairs =
        ["--pair-with", "condition == 'well'", "--match", "cell_type", "--controls", "2", "--unmatched", "drop"];
    let plain = Mount::new(&stores(), &sets);
    let mount = Mount::new(&stores(), &[&sets[..], &pairs].concat());
    judged("paired", &[mount.path(), plain.path()]);
    plain.unmount();
    mount.unmount();
}

/// `check_views.py` checks ranks and resuming against the `dataset.json` of any mount.
#[test]
fn ranks_and_resuming_keep_sets_and_bags_whole() {
    let place = tempfile::tempdir().unwrap();
    let sets =
        ["--set-by", "donor", "--set-size", "8", "--batch-size", "200", "--fetch-factor", "4", "--block-size", "4"];
    let bags = ["--bag-by", "donor", "--bag-max", "60", "--fetch-factor", "2"];
    for options in [&sets[..], &bags] {
        let mount = Mount::new(&stores()[..1], options);
        let mut plans = Vec::new();
        for (step, world, new) in [("3", "2", "3"), ("1", "5", "1"), ("7", "3", "4")] {
            let mut command = shufflefs();
            command.args(["plan", "--json", "--resume", &format!("epoch=2,step={step},world={world}"), "--world", new]);
            let path = place.path().join(format!("{}.json", plans.len()));
            fs::write(&path, succeed(command.args(options).arg(&stores()[0]))).unwrap();
            plans.push(path);
        }
        let check = |command: &str, plans: &[PathBuf]| {
            let output = python("check_views.py").arg(command).arg(mount.path()).args(plans).output().unwrap();
            assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
        };
        check("ranks", &[]);
        check("resume", &plans);
        mount.unmount();
    }
}

/// Exit code and message of a `plan` that is refused.
fn refused(options: &[&str]) -> (Option<i32>, String) {
    let output = shufflefs().arg("plan").args(options).arg(&stores()[0]).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(message.lines().count(), 1, "{options:?}: {message}");
    (output.status.code(), message)
}

#[test]
fn what_cannot_be_grouped_is_told_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let table = |name: &str, content: &str| {
        let path = place.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let few = table("few.tsv", "donor\tage\nD1\t5\nD2\t6\n");
    let twice = table("twice.tsv", "donor\tage\nD1\t5\nD1\t6\n");
    let ragged = table("ragged.tsv", "donor\tage\nD1\n");
    let other = table("other.tsv", "patient\tage\nD1\t5\n");
    let taken = table("taken.tsv", "donor\tcondition\nD1\twell\n");
    let bags =
        |table: &str| ["--bag-by", "donor", "--bag-table"].map(str::to_owned).into_iter().chain([table.to_owned()]);
    let bags = |table: &str| bags(table).collect::<Vec<String>>();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<String>>();
    for (code, options, word) in [
        (2, words(&["--set-size", "4"]), "add set-by"),
        (2, words(&["--bag-max", "4"]), "add bag-by"),
        (2, words(&["--set-by", "donor,cell_type,donor"]), "set-by: donor is named twice"),
        (2, words(&["--set-by", "donor", "--bag-by", "donor"]), "not set-by with bag-by"),
        (2, words(&["--set-by", "donor", "--weights", "weight"]), "not with order, weights"),
        (2, words(&["--set-by", "donor", "--set-size", "48", "--batch-size", "100"]), "whole number of sets of 48"),
        (2, words(&["--bag-by", "donor", "--batch-size", "100"]), "bag-max limits it"),
        (2, words(&["--set-by", "donor", "--set-short", "keep"]), "pad"),
        (3, words(&["--set-by", "donr"]), "near: donor"),
        (3, words(&["--set-by", "score"]), "whole numbers"),
        (3, words(&["--set-by", "donor", "--set-size", "4096", "--set-short", "drop"]), "the largest has"),
        (3, words(&["--bag-by", "cell_type", "--where", "cell_type is null"]), "no row of the view"),
        (3, bags("/no/such.tsv"), "/no/such.tsv"),
        (3, bags(&few), "21 of 23 bags have no line, such as D0, D3, D4"),
        (3, bags(&twice), "line 3 tells of D1 again"),
        (3, bags(&ragged), "line 2 has 1 fields, and the first 2"),
        (3, bags(&other), "no column donor"),
        (3, bags(&taken), "a column condition is there already"),
    ] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let (found, message) = refused(&options);
        assert_eq!(found, Some(code), "{options:?}: {message}");
        assert!(message.contains(word), "{options:?}: {message}");
    }
}

#[test]
fn plan_counts_sets_and_what_is_lost() {
    let told = succeed(
        shufflefs().args(["plan", "--set-by", "donor", "--set-size", "32", "--set-short", "drop"]).arg(&stores()[0]),
    );
    let line = told.lines().find(|line| line.contains("sets: ")).unwrap_or_default();
    assert!(line.contains("groups 23") && line.contains("rows in short sets dropped"), "{told}");
    let told = succeed(shufflefs().args(["plan", "--bag-by", "donor", "--bag-max", "100"]).arg(&stores()[0]));
    assert!(told.lines().any(|line| line.contains("bags: bags 23") && line.contains("largest bag 100")), "{told}");
    let readme = |options: &[&str]| {
        let mount = Mount::new(&stores()[..1], options);
        let text = fs::read_to_string(mount.join(Path::new("README.txt"))).unwrap();
        mount.unmount();
        text
    };
    assert!(readme(&["--set-by", "donor", "--set-size", "32"]).contains("every 32 rows that follow one another"));
}

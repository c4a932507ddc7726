//! Views through real mounts, compared with pandas: filters, splits, draws, ranks, resume, configuration.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Mount, list, python, sha256, shufflefs, succeed, text};

/// The directory of the stores that `check_views.py` makes, once for each version of it.
fn directory() -> PathBuf {
    let script = Path::new(crate::support::ROOT).join("tests/python/check_views.py");
    let hash = Sha256::digest(fs::read(script).unwrap());
    let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let directory = Path::new(crate::support::ROOT).join("target/test-stores").join(format!("views-{name}"));
    fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join(".lock")).unwrap();
    lock.lock().unwrap();
    if !directory.join("filters.toml").exists() {
        succeed(python("check_views.py").arg("stores").arg(&directory));
    }
    directory
}

fn stores(count: usize) -> Vec<PathBuf> {
    ["a.h5ad", "b.h5ad", "c.zarr"][..count].iter().map(|name| directory().join(name)).collect()
}

fn check(command: &str, arguments: &[&str]) {
    let output = python("check_views.py").arg(command).args(arguments).output().unwrap();
    assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file in a new directory.
fn file(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    (directory, path)
}

/// The error line of a plan that must be refused.
fn refused(code: i32, options: &[&str]) -> String {
    let output = shufflefs().arg("plan").args(options).arg(&stores(1)[0]).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{options:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{options:?}: {message}");
    message
}

#[test]
fn where_has_the_rows_of_a_pandas_query() {
    let config = directory().join("filters.toml");
    let mount = Mount::new(&stores(3), &["--config", path(&config)]);
    check("filters", &[path(&directory()), path(mount.path())]);
    mount.unmount();
}

#[test]
fn a_filter_of_all_views_narrows_each() {
    let options = ["--where", "n_genes > 500", "--split", "a=0.5,b=0.5", "--batch-size", "512"];
    let mount = Mount::new(&stores(1), &options);
    let told = mount.json("dataset.json");
    let rows = |name: &str| told["views"][name]["view_rows"].as_u64().unwrap();
    let whole = Mount::new(&stores(1), &options[..2]);
    assert_eq!(rows("a") + rows("b"), whole.json("dataset.json")["view_rows"].as_u64().unwrap());
    assert_eq!(told["options"]["where"], "n_genes > 500");
}

#[test]
fn splits_hold_their_fractions_and_leak_no_group() {
    let fractions = json!({"train": 0.8, "val": 0.1, "test": 0.1});
    let halves = json!({"a": 0.5, "b": 0.25});
    for (split, options, job) in [
        ("train=0.8,val=0.1,test=0.1", vec![], json!({"fractions": fractions})),
        ("train=0.8,val=0.1,test=0.1", vec!["--split-by", "donor"], json!({"fractions": fractions, "by": "donor"})),
        (
            "train=0.8,val=0.1,test=0.1",
            vec!["--stratify", "cell_type", "--seed", "3"],
            json!({"fractions": fractions, "stratify": "cell_type"}),
        ),
        (
            "a=0.5,b=0.25",
            vec!["--split-by", "donor", "--stratify", "condition"],
            json!({"fractions": halves, "by": "donor", "stratify": "condition"}),
        ),
        ("a=0.5,b=0.25", vec!["--stratify", "year"], json!({"fractions": halves, "stratify": "year"})),
    ] {
        let mount = Mount::new(&stores(3), &[&["--split", split, "--batch-size", "512"], &options[..]].concat());
        check("split", &[path(&directory()), path(mount.path()), &job.to_string()]);
        mount.unmount();
    }
}

#[test]
fn a_split_is_the_same_on_every_mount_and_hardly_changes_when_a_store_is_appended() {
    let split = ["--split", "train=0.9,val=0.1", "--batch-size", "512", "--order", "sequential"];
    let rows = |count| {
        let mount = Mount::new(&stores(count), &split);
        let names = list(&mount.join("val/epoch-0000"));
        let tsv = names
            .iter()
            .map(|name| fs::read_to_string(mount.join("val/epoch-0000").join(name.replace(".npz", ".tsv"))));
        let rows: Vec<String> = tsv
            .flat_map(|text| {
                text.unwrap()
                    .lines()
                    .skip(1)
                    .map(|line| line.split('\t').next().unwrap().to_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        mount.unmount();
        rows
    };
    let (two, again, three) = (rows(2), rows(2), rows(3));
    assert_eq!(two, again);
    let stayed = two.iter().filter(|row| three.contains(row)).count();
    // 423 rows; a cut among 4,234 hashes moves by about sqrt(0.9 * 0.1 * 777) = 8 rows.
    assert!(two.len() == 423 && stayed > 395, "{stayed} of {}", two.len());
}

const DRAWS: &str = "\
batch_size = 64
block_size = 16
fetch_factor = 4
split = { train = 0.8 }
[view.balanced]
balance = 'cell_type'
samples = 20000
block_size = 1
[view.weighted]
weights = 'weight'
block_size = 1
[view.weightfile]
weights = 'weights.txt'
block_size = 1
[view.classes]
class_batches = 'cell_type'
[view.classes_drawn]
class_batches = 'cell_type'
weights = 'weight'
samples = 6400
[view.stored]
order = 'sequential'
[view.buffered]
order = 'buffered'
[view.random]
order = 'random'
[view.listed]
rows = 'rows.txt'
[view.array]
rows = 'rows.npy'
";

#[test]
fn draws_are_what_they_say_and_the_same_on_every_mount() {
    let (beside, config) = file("shufflefs.toml", DRAWS);
    succeed(python("check_views.py").args(["lists", path(beside.path())]));
    let mount = || Mount::new(&stores(3), &["--config", path(&config)]);
    let one = mount();
    check("draws", &[path(&directory()), path(one.path())]);
    let options = one.json(".shufflefs/options.json");
    assert_eq!(options["views"]["classes_drawn"]["samples"], 6400);
    assert_eq!(options["views"]["balanced"]["block_size"], 1);
    assert_eq!(options["views"]["train"]["order"], "block");
    let two = mount();
    for view in ["balanced", "weighted", "classes", "classes_drawn", "buffered", "train"] {
        for place in
            ["epoch-0000/batch-000001.npz", "epoch-0012/batch-000003.h5ad", "rank-1-of-3/epoch-0001/batch-000002.npy"]
        {
            let name = format!("{view}/{place}");
            assert_eq!(sha256(&one.join(&name)), sha256(&two.join(&name)), "{name}");
        }
    }
    // Sides are not weighted, and views that were not named do not exist.
    assert!(!one.join("test").exists() && !one.join("epoch-0000").exists());
    one.unmount();
    two.unmount();
}

#[test]
fn ranks_of_any_world_are_equal_disjoint_and_together_the_epoch() {
    let options = ["--batch-size", "64", "--block-size", "8", "--fetch-factor", "3", "--epochs", "1"];
    let mount = Mount::new(&stores(1), &options);
    check("ranks", &[path(mount.path())]);
    mount.unmount();
    let padded = Mount::new(&stores(1), &[&options[..], &["--uneven", "pad"]].concat());
    // 47 batches.
    for (world, each) in [(2, 24), (5, 10), (64, 1)] {
        for rank in [0, world - 1] {
            assert_eq!(list(&padded.join(format!("rank-{rank}-of-{world}/epoch-0000"))).len(), each);
        }
    }
}

#[test]
fn a_mount_of_one_rank_is_that_ranks_tree() {
    let options = ["--batch-size", "64", "--fetch-factor", "4", "--block-size", "16"];
    let whole = Mount::new(&stores(1), &options);
    let own = Mount::new(&stores(1), &[&options[..], &["--rank", "1/3"]].concat());
    let names = list(&own.join("epoch-0000"));
    assert_eq!(names, list(&whole.join("rank-1-of-3/epoch-0000")));
    for name in &names {
        assert_eq!(
            sha256(&own.join("epoch-0000").join(name)),
            sha256(&whole.join("rank-1-of-3/epoch-0000").join(name))
        );
    }
    assert!(!own.join("rank-0-of-2").exists());
    assert_eq!(own.json("dataset.json")["options"]["rank"], "1/3");
    let listed = |variables: &[(&str, &str)]| {
        let mut command = shufflefs();
        for name in [
            "RANK",
            "WORLD_SIZE",
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "SLURM_PROCID",
            "SLURM_STEP_NUM_TASKS",
            "SLURM_STEP_ID",
        ] {
            command.env_remove(name);
        }
        command.args(["run", "--rank", "auto"]).args(options).arg(&stores(1)[0]);
        command.args(["--", "sh", "-c", "sha256sum {}/epoch-0000/batch-000002.npz | cut -c 1-64"]);
        command.envs(variables.iter().copied()).output().unwrap()
    };
    let step = [("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "3")];
    for variables in [&step[..], &[("RANK", "1"), ("WORLD_SIZE", "3")]] {
        let output = listed(variables);
        let wanted = sha256(&own.join("epoch-0000/batch-000002.npz"));
        assert_eq!(text(&output.stdout).trim(), wanted, "{}", text(&output.stderr));
    }
    let output = listed(&[]);
    assert!(output.status.code() == Some(125) && text(&output.stderr).contains("SLURM_PROCID"));
}

#[test]
fn what_remains_is_what_was_not_consumed() {
    let options = ["--batch-size", "32", "--block-size", "8", "--fetch-factor", "5", "--epochs", "10"];
    let mount = Mount::new(&stores(1), &options);
    let directory = tempfile::tempdir().unwrap();
    let mut plans = Vec::new();
    for (i, (step, world, new)) in
        [(0, 1, 1), (7, 3, 2), (5, 4, 4), (11, 8, 3), (60, 1, 7), (22, 4, 5), (23, 4, 1)].into_iter().enumerate()
    {
        let mut command = shufflefs();
        command.args(["plan", "--json", "--resume", &format!("epoch=7,step={step},world={world}")]);
        command.args(["--world", &new.to_string()]).args(options).arg(&stores(1)[0]);
        let plan = directory.path().join(format!("{i}.json"));
        fs::write(&plan, succeed(&mut command)).unwrap();
        plans.push(plan);
    }
    let arguments: Vec<&str> = std::iter::once(path(mount.path())).chain(plans.iter().map(|plan| path(plan))).collect();
    check("resume", &arguments);
    let mut command = shufflefs();
    command.args(["plan", "--resume", "epoch=7,step=93,world=1"]).args(options).arg(&stores(1)[0]);
    assert_eq!(succeed(&mut command), "epoch-0007/batch-000093.npz\n");
    refused(2, &["--resume", "epoch=7,step=1,world=1", "--split", "a=0.5,b=0.5"]);
}

#[test]
fn plan_says_what_a_mount_does() {
    let options = ["--split", "train=0.8,val=0.2", "--batch-size", "64", "--block-size", "16", "--fetch-factor", "8"];
    let mut command = shufflefs();
    command.args(["plan", "--json", "--label", "cell_type"]).args(options).args(stores(2));
    let plan: Value = serde_json::from_str(&succeed(&mut command)).unwrap();
    let mount = Mount::new(&stores(2), &options);
    let told = mount.json("dataset.json");
    for view in ["train", "val"] {
        let planned = &plan["views"][view];
        for field in ["batches", "fetches", "blocks", "batch_size", "block_size", "fetch_factor", "k", "rows_per_epoch"]
        {
            assert_eq!(planned[field], told["views"][view][field], "{view} {field}");
        }
        let sizes: Vec<u64> = list(&mount.join(view).join("epoch-0000"))
            .iter()
            .map(|name| fs::metadata(mount.join(view).join("epoch-0000").join(name)).unwrap().len())
            .collect();
        let mean = sizes.iter().sum::<u64>() as f64 / sizes.len() as f64;
        let bytes = planned["bytes_per_batch"].as_u64().unwrap() as f64;
        assert!((bytes / mean - 1.0).abs() < 0.05, "{view}: {bytes} planned, {mean} served");
        let bits = |field: &str| planned[field].as_f64().unwrap();
        let (mixed, perfect) = (bits("label_entropy_bits"), bits("label_entropy_shuffled_bits"));
        assert!((mixed - perfect).abs() < 0.1 && mixed > 1.0, "{view}: {mixed} {perfect}");
    }
    assert_eq!(plan["options"], told["options"]);
    let mut command = shufflefs();
    command
        .args(["plan", "--json", "--label", "cell_type", "--balance", "cell_type", "--block-size", "1"])
        .args(stores(1));
    let balanced: Value = serde_json::from_str(&succeed(&mut command)).unwrap();
    let bits = |field: &str| balanced["views"]["all"][field].as_f64().unwrap();
    // Five equally frequent labels: log2(5) = 2.32, a little less in a batch.
    assert!((bits("label_entropy_bits") - bits("label_entropy_shuffled_bits")).abs() < 0.05);
    assert!((2.28..2.33).contains(&bits("label_entropy_shuffled_bits")));
    let output = succeed(shufflefs().args(["plan", "--label", "cell_type"]).args(options).args(stores(2)));
    for word in ["train", "batches", "k (blocks mixed)", "bytes a batch", "memory a fetch", "entropy of cell_type"] {
        assert!(output.contains(word), "{word}\n{output}");
    }
}

#[test]
fn wrong_views_are_one_line_with_cause_and_remedy() {
    for (options, word) in [
        (&["--where", "cell_type = 'T'"][..], "at character 11"),
        (&["--split", "a=0.9,b=0.2"], "above 1"),
        (&["--split", "epoch-1=0.9"], "no name for a view"),
        (&["--split", "README.txt=0.9"], "README.txt"),
        (&["--split-by", "donor"], "add --split"),
        (&["--samples", "10"], "add weights, balance or class-batches"),
        (&["--order", "random", "--balance", "cell_type"], "drawn once"),
        (&["--order", "shuffled"], "sequential"),
        (&["--rank", "4/4"], "R/W"),
        (&["--config", "/no/such/file"], "/no/such/file"),
        (&["--batch-size", "16", "--block-size", "64", "--fetch-factor", "2"], "below 1"),
    ] {
        let message = refused(2, options);
        assert!(message.contains(word), "{options:?}: {message}");
    }
    for (options, word) in [
        (&["--where", "cel_type == 'T'"][..], "near: cell_type"),
        (&["--where", "cell_type == 'TT'"], "near: T"),
        (&["--where", "cell_type > 5"], "at character 13"),
        (&["--where", "n_genes < 0"], "no row is left"),
        (&["--split", "a=0.5,b=0.5", "--split-by", "dono"], "near: donor"),
        (&["--split", "a=0.5,b=0.5", "--split-by", "score"], "whole numbers"),
        (&["--balance", "celltype"], "near: cell_type"),
        (&["--weights", "no_such"], "neither an obs column"),
        (&["--weights", "cell_type"], "numbers"),
        (&["--weights", "score"], "must be finite"),
        (&["--rows", "/no/such/rows"], "/no/such/rows"),
        (&["--split", "a=0.0001,b=0.5"], "view a: has no rows"),
    ] {
        let message = refused(3, options);
        assert!(message.contains(word), "{options:?}: {message}");
    }
    for (list, word) in [("0\n1\n3000\n", "line 3"), ("0\na.h5ad:nobody\n", "line 2"), ("x.h5ad:cell-0", "line 1")] {
        let (_guard, rows) = file("rows.txt", list);
        let message = refused(3, &["--rows", path(&rows)]);
        assert!(message.contains("rows.txt") && message.contains(word), "{message}");
    }
}

#[test]
fn a_configuration_is_overridden_and_its_errors_have_a_line() {
    for (content, word) in [
        ("seed = 1\nbach_size = 64\n", "line 2: no option is called bach_size; near: batch_size"),
        ("batch_size = 0\n", "line 1"),
        ("[view.train]\nformat = 'npz'\n", "line 2"),
        ("[view.epoch-0000]\nseed = 1\n", "no name for a view"),
        ("[view.a]\nwhere = 'x = 1'\n", "line 2"),
        ("[view.a]\nbalance = 'x'\nweights = 'y'\n", "weights of its own"),
        ("seed = \n", "line 1"),
        ("[views.a]\nseed = 1\n", "near: view"),
    ] {
        let (_guard, config) = file("shufflefs.toml", content);
        let message = refused(2, &["--config", path(&config)]);
        assert!(message.contains("shufflefs.toml") || message.contains(word), "{message}");
        assert!(message.contains(word), "{content}: {message}");
    }
    let content = "batch_size = 64\nseed = 1\nformat = 'h5ad'\nepochs = 3\n[view.only]\nseed = 2\ndrop_last = true\n";
    let (_guard, config) = file("shufflefs.toml", content);
    let mount = Mount::new(&stores(1), &["--config", path(&config), "--epochs", "2", "--batch-size", "128"]);
    let options = mount.json(".shufflefs/options.json");
    for (name, value) in
        [("batch_size", json!(128)), ("seed", json!(2)), ("format", json!("h5ad")), ("epochs", json!(2))]
    {
        assert_eq!(options[name], value, "{name}");
    }
    assert_eq!(options["drop_last"], true);
    assert_eq!(options["config"], path(&config));
    // A single view: its epochs are at the root.
    assert_eq!(list(&mount.join("epoch-0001")).len(), 3000 / 128);
    mount.unmount();
}

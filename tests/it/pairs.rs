//! Rows with controls, through real mounts, compared with anndata, numpy and pandas.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Mount, example, list, made_by, python, shufflefs, succeed, text};

const PAIRED: [&str; 4] = ["--pair-with", "perturbation == \"control\"", "--match", "cell_line,batch"];

fn stores() -> Vec<PathBuf> {
    ["screen.h5ad", "screen.zarr"].map(|name| made_by("check_pairs.py").join(name)).to_vec()
}

fn check(mount: &Mount, job: serde_json::Value) {
    let directory = made_by("check_pairs.py");
    let mut command = python("check_pairs.py");
    succeed(command.arg("check").arg(directory).arg(mount.path()).arg(job.to_string()));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The error line of a plan that must be refused.
fn refused(code: i32, options: &[&str]) -> String {
    let output = shufflefs().arg("plan").args(options).args(stores()).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{options:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{options:?}: {message}");
    message
}

#[test]
fn controls_stand_beside_their_rows_in_every_format() {
    let options = ["--batch-size", "64", "--block-size", "8", "--fetch-factor", "5", "--with", "layers/raw,obsm/pca"];
    for (more, job) in [
        (&["--where", "perturbation != \"control\"", "--unmatched", "drop"][..], json!({"each": 1, "controls": false})),
        (&["--controls", "3", "--unmatched", "self", "--seed", "4"], json!({"each": 3, "unmatched": "self"})),
    ] {
        let mount = Mount::new(&stores(), &[&options, &PAIRED[..], more].concat());
        check(&mount, job);
        mount.unmount();
    }
}

/// Weighted draws, ranks, splits, dense rows and chosen genes with arithmetic: controls follow the same rules.
#[test]
fn controls_follow_what_is_asked_of_rows() {
    for (more, job) in [
        (&["--balance", "perturbation", "--unmatched", "drop", "--samples", "700"][..], json!({"each": 1})),
        (&["--dense", "--normalize", "1000", "--log1p", "--controls", "2", "--unmatched", "drop"], json!({"each": 2})),
        (&["--genes", "g3,g1,g17", "--unmatched", "drop", "--order", "random"], json!({"each": 1})),
    ] {
        let options = ["--batch-size", "50", "--fetch-factor", "4", "--block-size", "4"];
        let mount = Mount::new(&stores(), &[&options, &PAIRED[..], more].concat());
        check(&mount, job);
        mount.unmount();
    }
}

/// The batches of a rank, and those of a resumed epoch, are batches of the whole, including controls.
#[test]
fn ranks_and_resuming_have_the_same_pairs() {
    let options = ["--batch-size", "32", "--fetch-factor", "3", "--split", "a=0.7,b=0.3", "--unmatched", "drop"];
    let mount = Mount::new(&stores(), &[&options, &PAIRED[..]].concat());
    let plan = |more: &[&str]| {
        let mut command = shufflefs();
        command.arg("plan").args(options).args(PAIRED).args(more).args(stores());
        succeed(&mut command)
    };
    let told: serde_json::Value = serde_json::from_str(&plan(&["--json"])).unwrap();
    assert_eq!(told["views"]["a"]["pairs"], mount.json("dataset.json")["views"]["a"]["pairs"]);
    assert!(told["views"]["a"]["pairs"]["rows_unmatched"].as_u64() > Some(0));
    let whole = mount.join("a/epoch-0003");
    let bytes = |directory: &Path| -> Vec<Vec<u8>> {
        list(directory).iter().map(|name| std::fs::read(directory.join(name)).unwrap()).collect()
    };
    let whole = bytes(&whole);
    let mut of_ranks: Vec<Vec<u8>> =
        (0..3).flat_map(|r| bytes(&mount.join(format!("a/rank-{r}-of-3/epoch-0003")))).collect();
    assert!(of_ranks.len() + 2 >= whole.len() && of_ranks.iter().all(|batch| whole.contains(batch)));
    of_ranks.sort();
    of_ranks.dedup();
    assert!(of_ranks.len() + 2 >= whole.len());
    let left = plan(&["--resume", "epoch=3,step=2,world=1,view=a"]);
    let first = left.lines().next().unwrap();
    assert_eq!(std::fs::read(mount.join(first)).unwrap(), whole[2], "{first}");
    mount.unmount();
}

/// Each control is equally likely, over epochs: from the mount's files.
#[test]
fn controls_are_uniform_over_epochs() {
    let options = ["--batch-size", "16", "--fetch-factor", "1", "--block-size", "4", "--obs", "", "--genes", "g1"];
    let more = ["--pair-with", "perturbation == \"control\" and cell_line == \"A\" and batch == 1"];
    let mount = Mount::new(&stores()[..1], &[&options[..], &more].concat());
    check(&mount, json!({"uniform": 300}));
    mount.unmount();
}

#[test]
fn what_cannot_be_paired_is_one_line() {
    let with = ["--pair-with", "perturbation == \"control\""];
    let and = |more: &[&'static str]| [&with[..], more].concat();
    let message = refused(3, &PAIRED);
    assert!(
        message.contains("rows have no control (perturbation == \"control\") with the same cell_line, batch"),
        "{message}"
    );
    assert!(message.contains("such as row ") && message.contains("--unmatched drop"), "{message}");
    assert!(refused(3, &and(&["--match", "cell_lin"])).contains("no obs column is called cell_lin"));
    assert!(refused(3, &and(&["--match", "depth"])).contains("--match: obs column depth is of float"));
    let none = refused(3, &["--pair-with", "perturbation == \"ctrl\""]);
    assert!(none.contains("is true of none of the") || none.contains("ctrl"), "{none}");
    let unlabelled = refused(3, &["--pair-with", "cell_line is null", "--match", "cell_line"]);
    assert!(unlabelled.contains("has a label in each of cell_line"), "{unlabelled}");
    assert!(refused(3, &["--pair-with", "pert == 1"]).contains("pert"));
    let dropped = refused(3, &and(&["--match", "cell_line", "--where", "cell_line == \"D\"", "--unmatched", "drop"]));
    assert!(dropped.contains("leaves none"), "{dropped}");
    assert!(refused(2, &["--match", "cell_line"]).contains("add --pair-with"));
    assert!(refused(2, &and(&["--match", "batch,batch"])).contains("named twice"));
    refused(2, &and(&["--controls", "2000"]));
}

/// A control's tokens are those of its row in a mount without pairs, which `tokens` compares with the published recipes.
#[test]
fn controls_have_the_tokens_of_their_rows() {
    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("table.tsv");
    let lines = (0..40).map(|i| format!("g{i}\t{}\t{}\n", 10 + i * 7 % 41, 1.0 + f64::from(i % 3)));
    let special = "gene\ttoken\tmedian\n<pad>\t0\t\n<cls>\t2\t\n<eos>\t3\t\n".to_owned();
    std::fs::write(&table, special + &lines.collect::<String>()).unwrap();
    let options = ["--batch-size", "64", "--block-size", "8", "--tokens", "geneformer", "--token-table", path(&table)];
    let plain = Mount::new(&stores(), &options);
    let paired = Mount::new(&stores(), &[&options, &PAIRED[..], &["--unmatched", "drop", "--controls", "2"]].concat());
    succeed(python("check_pairs.py").arg("tokens").arg(plain.path()).arg(paired.path()));
    assert!(std::fs::metadata(paired.join("epoch-0000/batch-000000.npy")).is_err());
    plain.unmount();
    paired.unmount();
}

/// Batches with the keys of cell-load, read by path.
#[test]
fn an_example_reads_pairs_as_cell_load_has_them() {
    let options = ["--batch-size", "64", "--unmatched", "drop"];
    let mount = Mount::new(&stores()[..1], &[&options, &PAIRED[..]].concat());
    let mut command = example("state_pairs.py");
    command.arg(mount.join("epoch-0000")).arg(&stores()[0]);
    let said = succeed(command.args(["perturbation", "cell_line", "batch", "control"]));
    assert_eq!(said.trim(), format!("{} pairs", mount.json("dataset.json")["rows_per_epoch"]));
    mount.unmount();
}

/// The mount documents which formats cannot have controls, and how they are stored in the others.
#[test]
fn documents_tell_of_pairs() {
    let config = tempfile::tempdir().unwrap();
    let file = config.path().join("pairs.toml");
    std::fs::write(
        &file,
        "pair_with = 'perturbation == \"control\"'\nmatch = ['cell_line', 'batch']\nunmatched = 'drop'\ncontrols = 2\n",
    )
    .unwrap();
    let mount = Mount::new(&stores(), &["--config", path(&file), "--batch-size", "32"]);
    let told = mount.json("dataset.json");
    assert_eq!(told["companions"], json!([{"name": "control", "rows_each": 2}]));
    assert_eq!(told["options"]["match"], json!(["cell_line", "batch"]));
    assert_eq!(told["pairs"]["controls_a_row"], 2);
    let readme = std::fs::read_to_string(mount.join("README.txt")).unwrap();
    assert!(readme.contains("control/") && readme.contains("no .tar: it holds no rows beside"), "{readme}");
    for name in ["batch-000000.tar", "batch-000000.tsv"] {
        assert!(std::fs::metadata(mount.join("epoch-0000").join(name)).is_err(), "{name}");
    }
    for name in ["epoch-0000.h5ad", "stored.h5ad", "epoch-0000.zarr", "by-batch.h5ad"] {
        assert!(std::fs::metadata(mount.join(name)).is_err(), "{name}");
    }
    mount.unmount();
}

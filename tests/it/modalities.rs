//! The same cells in several modalities, through real mounts, compared with mudata.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Mount, ROOT, made_by, python, shufflefs, succeed, text};

const SCRIPT: &str = "check_modalities.py";
const SMALL: [&str; 6] = ["--batch-size", "64", "--block-size", "8", "--fetch-factor", "3"];

fn store(name: &str) -> PathBuf {
    made_by(SCRIPT).join(name)
}

fn named(name: &str, file: &str) -> String {
    format!("{name}={}", store(file).display())
}

/// Compares every batch with mudata's values of the same cells; returns the rows seen.
fn check(mount: &Mount, job: Value, stores: &[String]) -> u64 {
    let mut command = python(SCRIPT);
    let said = succeed(command.arg("check").arg(mount.path()).arg(job.to_string()).args(stores));
    said.trim().parse().unwrap()
}

fn refused(code: i32, arguments: &[&str], words: &[&str]) {
    let output = shufflefs().arg("plan").args(arguments).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    assert!(words.iter().all(|word| message.contains(word)), "{arguments:?}: {message}");
}

/// A whole MuData in HDF5 and zarr, and both as one table of rows: cells are joined within a file.
#[test]
fn a_whole_mudata_is_served_as_mudata_has_it() {
    let both = [store("cite.h5mu"), store("cite.zarr")];
    for (stores, rows) in [(&both[..1], 350), (&both[1..], 350), (&both[..], 700)] {
        let mount = Mount::new(stores, &[&SMALL[..], &["--with", "layers/raw"]].concat());
        let named: Vec<String> = stores.iter().map(|path| path.display().to_string()).collect();
        assert_eq!(check(&mount, json!({"with": {"rna": ["layers/raw"]}}), &named), rows);
        let told = mount.json("dataset.json");
        assert_eq!(told["modalities"]["protein"]["rows"], 290 * rows / 350, "{told}");
        assert_eq!(told["modalities"]["protein"]["rows_without"], 60 * rows / 350);
        assert_eq!(told["options"]["modality"], "rna");
        mount.unmount();
    }
}

/// Random subsets of random cells in random order, as a MuData and as separate stores, in batches of many sizes.
#[test]
fn random_modalities_are_served_as_mudata_has_them() {
    for number in 0..6_u64 {
        let directory = store("random").join(number.to_string());
        let path = |name: &str| directory.join(name).display().to_string();
        let lines = std::fs::read_to_string(directory.join("stores")).unwrap();
        let stores: Vec<String> = lines
            .lines()
            .map(|line| {
                line.split_once('=').map_or_else(|| path(line), |(name, file)| format!("{name}={}", path(file)))
            })
            .collect();
        let sizes = [9 + number * 7 % 30, 1 + number % 5, 1 + number % 3].map(|size| size.to_string());
        let mut options = vec!["--batch-size", &sizes[0], "--block-size", &sizes[1], "--fetch-factor", &sizes[2]];
        let paths: Vec<PathBuf> = stores.iter().filter(|store| !store.contains('=')).map(PathBuf::from).collect();
        let named = stores.iter().filter(|store| store.contains('='));
        options.extend(named.flat_map(|store| ["--modality", store]));
        let mount = Mount::new(&paths, &options);
        let rows = mount.json("dataset.json")["rows_per_epoch"].as_u64().unwrap();
        assert_eq!(check(&mount, json!({}), &stores), rows, "{number}");
        mount.unmount();
    }
}

/// MuData as mudata, scirpy and HuBMAP have written them.
#[test]
fn real_mudata_are_served_as_mudata_has_them() {
    for (name, rows) in [
        ("scirpy_wu2020_200.h5mu", 150),
        ("mudata_v0.4.1_axis0.h5mu", 100),
        ("mudata_v0.4.1_axis0.zarr.zip", 100),
        ("mudata_v0.2.4_axis0.zarr.zip", 100),
        ("hubmap_mudata.zarr", 3),
    ] {
        let path = Path::new(ROOT).join("../shared/data").join(name);
        if !path.exists() {
            continue;
        }
        let mount = Mount::new(std::slice::from_ref(&path), &SMALL);
        assert_eq!(check(&mount, json!({}), &[path.display().to_string()]), rows, "{name}");
        mount.unmount();
    }
}

/// Stores named one by one, each with its own genes, arithmetic, further matrices and obs.
#[test]
fn every_modality_has_its_own_options() {
    let (rna, protein) = (named("rna", "rna.h5ad"), named("protein", "protein.h5ad"));
    let own = [
        "--genes",
        "g3,g1,g17",
        "--modality-option",
        "protein.genes=CD5,CD2",
        "--modality-option",
        "protein.normalize=100",
        "--modality-option",
        "protein.log1p",
        "--modality-option",
        "protein.with=obsm/pca,layers/raw",
    ];
    let job = json!({
        "genes": {"rna": ["g3", "g1", "g17"], "protein": ["CD5", "CD2"]},
        "total": {"protein": 100},
        "with": {"protein": ["obsm/pca"]},
    });
    let mount = Mount::new(&[], &[&SMALL[..], &own, &["--modality", &rna, "--modality", &protein]].concat());
    assert_eq!(check(&mount, job, &[rna.clone(), protein.clone()]), 350);
    let readme = std::fs::read_to_string(mount.join("README.txt")).unwrap();
    assert!(readme.contains("Modalities of the same cells: rna, protein"), "{readme}");
    assert!(readme.contains("no .h5ad: it holds the rows of one modality"), "{readme}");
    for name in ["batch-000000.h5ad", "batch-000000.npy", "batch-000000.parquet"] {
        assert!(std::fs::metadata(mount.join("epoch-0000").join(name)).is_err(), "{name}");
    }
    mount.unmount();
    // In the other order: rows are those of the first.
    let mount = Mount::new(&[], &[&SMALL[..], &["--modality", &protein, "--modality", &rna]].concat());
    assert_eq!(check(&mount, json!({}), &[protein, rna]), 340);
    mount.unmount();
}

/// Options that choose and draw rows apply to the first modality; the others follow, with ranks and padding too.
#[test]
fn modalities_follow_their_rows() {
    let stores = [store("cite.h5mu")];
    for more in [
        &["--where", "kind == \"a\"", "--order", "random"][..],
        &["--balance", "kind", "--samples", "300"],
        &["--set-by", "kind", "--set-size", "32"],
        &["--pair-with", "kind == \"b\"", "--controls", "2"],
    ] {
        let mount = Mount::new(&stores, &[&SMALL[..], more].concat());
        let job = json!({"some": true, "h5mu": true});
        assert!(check(&mount, job, &[stores[0].display().to_string()]) > 0, "{more:?}");
        mount.unmount();
    }
    // Cells without protein: batches without a row of it.
    let place = tempfile::tempdir().unwrap();
    let rows = place.path().join("rows.txt");
    std::fs::write(&rows, (0..50).map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let mount = Mount::new(&stores, &[&SMALL[..], &["--rows", rows.to_str().unwrap(), "--dense"]].concat());
    assert_eq!(check(&mount, json!({"some": true}), &[stores[0].display().to_string()]), 50);
    mount.unmount();
    let sets = ["--set-by", "kind", "--set-size", "64", "--set-short", "pad", "--batch-size", "64"];
    let mount = Mount::new(&stores, &sets);
    succeed(python(SCRIPT).arg("padding").arg(mount.path()));
    mount.unmount();
    let mount = Mount::new(&stores, &SMALL);
    let whole = std::fs::read(mount.join("epoch-0002/batch-000001.h5mu")).unwrap();
    let rank = std::fs::read_dir(mount.join("rank-0-of-2/epoch-0002")).unwrap().count();
    assert_eq!(rank, 3);
    let of_ranks =
        (0..2).flat_map(|rank| (0..3).map(move |at| format!("rank-{rank}-of-2/epoch-0002/batch-{at:06}.h5mu")));
    assert!(of_ranks.map(|name| std::fs::read(mount.join(name)).unwrap()).any(|bytes| bytes == whole));
    mount.unmount();
}

#[test]
fn what_does_not_join_is_one_line() {
    let (rna, protein) = (named("rna", "rna.h5ad"), named("protein", "protein.h5ad"));
    let other = named("protein", "other.h5ad");
    let with = |second: &str, more: &[&str], code, words: &[&str]| {
        refused(code, &[&["--modality", &rna, "--modality", second][..], more].concat(), words);
    };
    let none = ["none of the 9 rows of protein has the name of one of the 350 rows of rna", "\"cell-0\"", "\"x0\""];
    with(&other, &[], 3, &none);
    with(&named("protein", "twice.h5ad"), &[], 3, &["10 of 20 rows of protein have the name of another", "\"cell-0\""]);
    with(&protein, &["--modality-option", "protein.genes=CD99"], 3, &["modality protein", "CD99"]);
    with(&protein, &["--modality-option", "protein.gene=CD9"], 2, &["near: genes"]);
    with(&protein, &["--modality-option", "protein.dtype=x"], 2, &["--modality-option protein: "]);
    with(&protein, &["--modality-option", "atac.log1p"], 2, &["there is no such modality"]);
    with(&protein, &["--modality-option", "rna.log1p"], 2, &["it is the first modality"]);
    with("protein", &[], 2, &["a name is missing"]);
    with(&protein, &[store("rna.h5ad").to_str().unwrap()], 2, &["leave out those without a name"]);
    let mudata = store("cite.h5mu").display().to_string();
    refused(3, &[&mudata, "--modality-option", "prot.log1p"], &["there is no such modality", "near: protein"]);
    refused(3, &[&mudata, "--modality-option", "rna.log1p"], &["it is the first modality"]);
    let lacks = ["modality protein: ", "layers/x", "to leave it out, name the others"];
    refused(3, &[&mudata, "--modality-option", "protein.x=layers/x"], &lacks);
    refused(3, &[store("genes.h5mu").to_str().unwrap()], &["share their genes and not their cells"]);
    refused(3, &[store("rna.h5ad").to_str().unwrap(), "--modality-option", "a.log1p"], &["there are no modalities"]);
    refused(3, &[&mudata, "--format", "h5ad"], &["--format h5ad: it holds the rows of one modality"]);
    refused(3, &[store("rna.h5ad").to_str().unwrap(), "--format", "h5mu"], &["--format h5mu: there is one AnnData"]);
}

/// `info` prints each modality; a copy has only one.
#[test]
fn other_commands_name_modalities() {
    let told = succeed(shufflefs().args(["info", "--json"]).arg(store("cite.h5mu")));
    let told: Value = serde_json::from_str(&told).unwrap();
    let named: Vec<&str> = told.as_array().unwrap().iter().map(|one| one["store"].as_str().unwrap()).collect();
    assert!(named.len() == 3 && named[0].ends_with("cite.h5mu::mod/rna") && told[1]["mounts"] == true, "{named:?}");
    let out = tempfile::tempdir().unwrap();
    let output = shufflefs().arg("shuffle").arg(store("cite.h5mu")).arg(out.path().join("x.zarr")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("name one modality alone"));
}

/// A plan counts joined rows, and a configuration file names modalities relative to itself.
#[test]
fn a_file_names_modalities() {
    let directory = made_by(SCRIPT);
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("cite.toml");
    let list = format!(
        "modality = ['rna={0}/rna.h5ad', 'protein={0}/protein.h5ad']\nmodality_option = ['protein.genes=CD1,CD2']\n",
        directory.display()
    );
    std::fs::write(&file, list).unwrap();
    let told = succeed(shufflefs().arg("plan").arg(&file));
    assert!(told.contains("protein: 290 rows have it, 60 do not"), "{told}");
}

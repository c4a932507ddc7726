//! X as tokens, compared with the published tokenisers as implemented in `tests/python/check_tokens.py`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Mount, made_by, python, store, succeed, text};

/// 150 of the 200 genes of `screen.h5ad`, with tokens and medians that cause ties, and one gene that it lacks.
fn genes() -> Vec<(String, u32, f64)> {
    let gene = |i: u32| (format!("g{i}"), 10 + (i * 37) % 1009, [1.0, 1.5, 2.0, 3.0, 0.7][(i % 5) as usize]);
    (0..200).filter(|i| i % 4 != 3).map(gene).chain([("absent".to_owned(), 4, 1.0)]).collect()
}

fn screen() -> PathBuf {
    made_by("trainer_stores.py").join("screen.h5ad")
}

/// Writes a table with these special tokens, and for the check a recipe with these additional fields.
fn write(directory: &Path, special: &[(&str, u32)], recipe: Value) -> (PathBuf, PathBuf) {
    let (table, told) = (directory.join("table.tsv"), directory.join("recipe.json"));
    let line = |name: &str, token: u32, median: &str| format!("{name}\t{token}\t{median}\n");
    let mut lines = "gene\ttoken\tmedian\n".to_owned();
    special.iter().for_each(|(name, token)| lines.push_str(&line(name, *token, "")));
    genes().iter().for_each(|(name, token, median)| lines.push_str(&line(name, *token, &median.to_string())));
    fs::write(&table, lines).unwrap();
    let mut recipe = recipe;
    recipe["tokens"] = genes().iter().map(|(name, token, _)| (name.clone(), json!(token))).collect();
    recipe["medians"] = genes().iter().map(|(name, _, median)| (name.clone(), json!(median))).collect();
    fs::write(&told, recipe.to_string()).unwrap();
    (table, told)
}

/// Mounts with options and compares all formats of two epochs.
fn agrees(options: &[&str], recipe: &Path) -> Mount {
    agree(&[screen()], options, recipe)
}

fn agree(stores: &[PathBuf], options: &[&str], recipe: &Path) -> Mount {
    let own = ["--batch-size", "256", "--block-size", "16", "--fetch-factor", "4", "--obs", "line"];
    let mount = Mount::new(stores, &[&own[..], options].concat());
    let mut command = python("check_tokens.py");
    succeed(command.arg(mount.path()).arg(screen()).arg(recipe).env("HF_HUB_OFFLINE", "1"));
    mount
}

#[test]
fn tokens_of_geneformer() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = json!({"kind": "rank", "length": 4096, "first": 2, "last": 3, "pad": 0, "pad_value": 0});
    let (table, recipe) = write(directory.path(), &[("<pad>", 0), ("<cls>", 2), ("<eos>", 3)], recipe);
    let mount = agrees(&["--tokens", "geneformer", "--token-table", table.to_str().unwrap()], &recipe);
    let dataset = mount.json("dataset.json");
    assert_eq!((&dataset["x"]["kind"], &dataset["genes"]), (&json!("tokens"), &json!(150)), "{dataset}");
    assert_eq!(dataset["options"]["tokens"]["length"], json!(4096));
    // An AnnData cannot have tokens: its files do not exist, and three documents say so.
    for name in
        ["epoch-0000/batch-000000.h5ad", "epoch-0000.h5ad", "epoch-0000.zarr", "epoch-0000/batch-000000.tahoe.parquet"]
    {
        assert_eq!(fs::metadata(mount.join(name)).unwrap_err().raw_os_error(), Some(libc::ENOENT), "{name}");
    }
    for place in ["README.txt", ".shufflefs/log"] {
        let said = fs::read_to_string(mount.join(place)).unwrap();
        assert!(said.contains(".h5ad") && said.contains("an AnnData holds no tokens"), "{place}: {said}");
    }
    mount.unmount();
}

/// Longer rows lose their last genes; row bounds are 64-bit or of a rank, and blocks of one store are cut anywhere.
#[test]
fn tokens_are_cut_to_the_length() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = json!({"kind": "rank", "length": 16, "first": 7, "last": null, "pad": 1, "pad_value": -1});
    write(directory.path(), &[], recipe);
    let file = directory.path().join("own.toml");
    fs::write(&file, "kind = \"rank\"\ntable = \"table.tsv\"\nlength = 16\nfirst = 7\npad = 1\npad_value = -1\n")
        .unwrap();
    let recipe = directory.path().join("recipe.json");
    agrees(&["--tokens", file.to_str().unwrap(), "--index-dtype", "i64"], &recipe).unmount();
}

/// Equal ranks are in the order of the first store's genes, also in stores with another order; counts of rows are stored for later
/// mounts, separately for each length.
#[test]
fn tokens_of_several_stores() {
    let directory = tempfile::tempdir().unwrap();
    let index = directory.path().join("index");
    let stores = ["first.h5ad", "second.zarr"].map(|name| made_by("trainer_stores.py").join(name));
    for length in [2048, 12, 12] {
        let recipe = json!({"kind": "rank", "length": length, "first": null, "last": 9, "pad": 0, "pad_value": 0});
        let (_, recipe) = write(directory.path(), &[], recipe);
        let file = directory.path().join("own.toml");
        fs::write(&file, format!("kind = \"rank\"\ntable = \"table.tsv\"\nlength = {length}\nlast = 9\n")).unwrap();
        let options = ["--tokens", file.to_str().unwrap(), "--index-dir", index.to_str().unwrap()];
        agree(&stores, &options, &recipe).unmount();
    }
}

#[test]
fn tokens_of_scgpt() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = json!({"kind": "bins", "length": 1200, "first": 5, "last": null, "pad": 6, "pad_value": -2,
        "bins": 51, "ties": "spread", "longer": "sample"});
    let (_, recipe) = write(directory.path(), &[], recipe);
    let vocabulary = directory.path().join("vocab.json");
    let mut all: serde_json::Map<String, Value> =
        genes().into_iter().map(|(name, token, _)| (name, json!(token))).collect();
    all.extend([("<cls>".to_owned(), json!(5)), ("<pad>".to_owned(), json!(6))]);
    fs::write(&vocabulary, Value::Object(all).to_string()).unwrap();
    agrees(&["--tokens", "scgpt", "--token-table", vocabulary.to_str().unwrap()], &recipe).unmount();
}

/// Bins without a draw equal numpy's exactly; sampled genes are a subset of the row's, different in each epoch.
#[test]
fn bins_are_exact_and_genes_are_sampled() {
    for (longer, ties) in [("cut", "last"), ("sample", "last"), ("sample", "spread")] {
        let directory = tempfile::tempdir().unwrap();
        let recipe = json!({"kind": "bins", "length": 20, "first": 2, "last": 3, "pad": 0, "pad_value": 0,
            "bins": 11, "ties": ties, "longer": longer});
        let (_, recipe) = write(directory.path(), &[("<cls>", 2)], recipe);
        let file = directory.path().join("own.toml");
        let lines = format!(
            "kind = \"bins\"\ntable = \"table.tsv\"\nlength = 20\nfirst = \"<cls>\"\nlast = 3\nbins = 11\nties = \"{ties}\"\nlonger = \"{longer}\"\n"
        );
        fs::write(&file, lines).unwrap();
        agrees(&["--tokens", file.to_str().unwrap()], &recipe).unmount();
    }
}

#[test]
fn what_cannot_become_tokens_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (table, _) = write(directory.path(), &[], json!({}));
    let table = table.to_str().unwrap();
    let told = |store: PathBuf, options: &[&str], code: i32| {
        let options = [&["--tokens", "geneformer", "--token-table", table], options].concat();
        let output = Mount::try_new(&[store], &options).err().expect("a refusal");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    assert!(told(store("dense.h5ad"), &[], 3).contains("no gene has a token"));
    assert!(told(store("sparse.h5ad"), &[], 3).contains("--genes-column"));
    assert!(told(screen(), &["--log1p"], 2).contains("--tokens excludes --normalize and --log1p"));
    assert!(told(screen(), &["--dense"], 2).contains("--tokens excludes --dense"));
    assert!(told(screen(), &["--format", "h5ad"], 3).contains("an AnnData holds no tokens"));
    let alone = Mount::try_new(&[screen()], &["--token-table", table]).err().expect("a refusal");
    assert!(alone.status.code() == Some(2) && text(&alone.stderr).contains("it is for --tokens"));
}

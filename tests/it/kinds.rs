//! Kinds of columns, names and matrices from users: enums of R, Julia and PyTables, names that files cannot have, times, tables,
//! elements and genes that only some stores have. Each test is a fault that was found, or a similar case.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Checker, Mount, ROOT, made_by, python, shufflefs, succeed, text};
use serde_json::{Value, json};

const SMALL: [&str; 6] = ["--batch-size", "16", "--block-size", "4", "--fetch-factor", "2"];

fn store(name: &str) -> PathBuf {
    made_by("check_columns.py").join(name)
}

fn mounted(names: &[&str], options: &[&str]) -> Mount {
    let stores: Vec<PathBuf> = names.iter().map(|name| store(name)).collect();
    Mount::new(&stores, &[&SMALL[..], options].concat())
}

/// Compares with what was written to the store, by independent readers.
fn compare(command: &str, mount: &Mount, arguments: &[&str]) {
    succeed(python("check_columns.py").arg(command).arg(mount.path()).args(arguments));
}

/// Columns of a store in every format.
fn columns(name: &str, command: &str, options: &[&str]) {
    let mount = mounted(&[name], options);
    compare(command, &mount, &[store(&format!("{name}.pkl")).to_str().unwrap()]);
    mount.unmount();
}

/// A matrix of several stores against an array.
fn array(names: &[&str], options: &[&str], file: &str, tensor: &str) {
    let mount = mounted(names, options);
    compare("array", &mount, &[store(&format!("{file}.npy")).to_str().unwrap(), tensor]);
    mount.unmount();
}

/// The error line of the refused mount.
fn refused(names: &[&str], options: &[&str], code: i32) -> String {
    let stores: Vec<PathBuf> = names.iter().map(|name| store(name)).collect();
    let Err(output) = Mount::try_new(&stores, options) else { panic!("{names:?} {options:?} was mounted") };
    let line = text(&output.stderr);
    assert_eq!((output.status.code(), line.trim_end().lines().count()), (Some(code), 1), "{line}");
    line
}

/// 1. Booleans that are enums of any width, in any case, with R's NA, and bit fields were left out.
#[test]
fn booleans_of_other_writers() {
    columns("enums.h5ad", "check", &[]);
    columns("records.h5ad", "check", &[]);
    let mount = mounted(&["enums.h5ad"], &["--x", "layers/flags", "--with", "layers/plain"]);
    let pickle = store("enums.h5ad.pkl");
    compare("matrix", &mount, &[pickle.to_str().unwrap(), "layers/flags", "X"]);
    compare("matrix", &mount, &[pickle.to_str().unwrap(), "layers/plain", "layers/plain"]);
}

/// 2. Any other enum is a categorical of its names if `--obs` names it, and numbers as in anndata otherwise.
#[test]
fn enums_are_labels_when_they_are_named() {
    columns("enums.h5ad", "labels", &["--obs", "phase,r"]);
    columns("records.h5ad", "labels", &["--obs", "phase,r"]);
}

/// 3. `categories/a_b.txt` had the labels of `a/b` if both exist, and `.h5ad` named them the other way round.
#[test]
fn names_are_one_rule_in_all_formats() {
    columns("names.h5ad", "check", &[]);
    let mount = mounted(&["names.h5ad"], &["--with", "layers/l/1,layers/l_1"]);
    let pickle = store("names.h5ad.pkl");
    compare("matrix", &mount, &[pickle.to_str().unwrap(), "layers/l/1", "layers/l%2F1"]);
    compare("matrix", &mount, &[pickle.to_str().unwrap(), "layers/l_1", "layers/l_1"]);
    let told = mount.json("dataset.json")["columns"].clone();
    let of = |name: &str| told.as_array().unwrap().iter().find(|column| column["name"] == name).unwrap().clone();
    assert_eq!(of("a_b")["categories_file"], "categories/a_b.txt");
    // Another column has the escaped name.
    assert_eq!((&of("a/b")["names"]["h5ad"], &of("a%2Fb")["names"]["h5ad"]), (&json!("a%2Fb%"), &json!("a%2Fb")));
    assert_eq!(of("a/b")["names"]["npz"], "obs/a%2Fb%");
    assert!(fs::read_to_string(mount.join("categories/a_b.txt")).unwrap().starts_with("'a_b'"));
}

/// 4. Times were left out without saying what they are.
#[test]
fn times_are_served_and_others_say_what_they_are() {
    for name in ["times.h5ad", "times.v2.zarr", "times.v3.zarr"] {
        columns(name, "check", &[]);
    }
    let mount = mounted(&["times.h5ad"], &[]);
    let told = mount.json("dataset.json");
    let info: Value =
        serde_json::from_str(&succeed(shufflefs().args(["info", "--json"]).arg(store("times.h5ad")))).unwrap();
    for (name, words) in [
        ("complex", "complex numbers"),
        ("table", "a table of shape [50, 2]"),
        ("records", "a table (records)"),
        ("odd unit", "datetime64"),
        ("nothing", "a group that is no column"),
    ] {
        let of = |list: &Value| list.as_array().unwrap().iter().find(|column| column["name"] == name).cloned();
        let reason = of(&told["columns_left_out"]).unwrap()["reason"].to_string();
        assert!(reason.contains(words), "{name}: {reason}");
        let stops = of(&info[0]["columns"]).unwrap()["stops"].to_string();
        assert!(stops.contains(words), "{name}: {stops}");
    }
    let shown = succeed(shufflefs().arg("info").arg(store("times.h5ad")));
    assert!(shown.contains("ns: datetime64[ns]") && shown.contains("us: timedelta64[us]"), "{shown}");
    // NaT is missing.
    let mount = mounted(&["times.h5ad"], &["--where", "ns.isnull()"]);
    assert_eq!(mount.json("dataset.json")["rows_per_epoch"], 1);
}

/// 5. X of more than two axes was refused, and so were dataframes in obsm.
#[test]
fn matrices_of_more_axes_and_tables() {
    for name in ["matrices.h5ad", "matrices.zarr"] {
        let mount = mounted(&[name], &["--with", "layers/cube,obsm/frame,obsm/alone"]);
        let pickle = store(&format!("{name}.pkl"));
        for (element, tensor) in
            [("X", "X"), ("layers/cube", "layers/cube"), ("obsm/frame", "obsm/frame"), ("obsm/alone", "obsm/alone")]
        {
            compare("matrix", &mount, &[pickle.to_str().unwrap(), element, tensor]);
        }
        let line = refused(&[name], &["--with", "obsm/labels"], 3);
        assert!(line.contains("a dataframe without columns of numbers"), "{line}");
    }
    // Genes of a matrix of three axes are chosen like those of two axes.
    let mount = mounted(&["matrices.h5ad"], &["--genes", "g4,g1"]);
    assert_eq!(mount.json("dataset.json")["x"]["row_shape"], json!([2, 3]));
    succeed(python("check_columns.py").arg("genes").arg(mount.path()).arg(store("matrices.h5ad.pkl")).args(["4", "1"]));
}

/// 6. The labels `NA` and `nan` are lost if `.tsv` is read with defaults; the mount's README.txt shows the right call.
#[test]
fn labels_that_look_missing() {
    columns("labels.h5ad", "check", &[]);
    let mount = mounted(&["labels.h5ad"], &[]);
    let readme = fs::read_to_string(mount.join("README.txt")).unwrap();
    let call = "pd.read_csv(path, sep='\\t', quoting=3, keep_default_na=False, na_values=[''])";
    assert!(readme.contains(call) && readme.contains("na.strings=''"), "{readme}");
    succeed(python("check_columns.py").arg("readme").arg(mount.path()).arg(call).arg(store("labels.h5ad.pkl")));
}

/// The same by R, whose call README.txt shows too.
#[test]
fn labels_that_look_missing_to_r() {
    if Command::new("Rscript").arg("--version").output().is_err() {
        println!("Rscript is not installed: not tested");
        return;
    }
    let mount = mounted(&["labels.h5ad"], &[]);
    let call = "read.delim(path, quote='', na.strings='', check.names=FALSE)";
    assert!(fs::read_to_string(mount.join("README.txt")).unwrap().contains(call));
    let path = mount.join("epoch-0000/batch-000000.tsv");
    let told = fs::read_to_string(&path).unwrap();
    let rows: Vec<Vec<&str>> = told.lines().map(|line| line.split('\t').collect()).collect();
    let place = |name: &str| rows[0].iter().position(|column| *column == name).unwrap();
    let column = |name: &str| rows[1..].iter().map(|row| row[place(name)].to_owned()).collect::<Vec<_>>();
    let script = format!(
        "path <- commandArgs(TRUE)[1]; t <- {call}; stopifnot(is.numeric(t$f), is.numeric(t$n)); \
         writeLines(t$label); writeLines(ifelse(is.na(t$f), '', 'f')); writeLines(ifelse(is.na(t$n), '', t$n))"
    );
    let shown = succeed(Command::new("Rscript").args(["-e", &script]).arg(&path));
    let numbers = column("f").into_iter().map(|f| if f.is_empty() { f } else { "f".to_owned() });
    // R reads an empty label as missing, and writes NA.
    let labels = column("label").into_iter().map(|label| if label.is_empty() { "NA".to_owned() } else { label });
    let expected: Vec<String> = labels.chain(numbers).chain(column("n")).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

/// Stores as other programs write them, and similar cases, compared with anndata.
#[test]
fn neighbours_of_every_kind() {
    /// Refused stores, and words of the error.
    const REFUSED: [(&str, &str); 0] = [];
    let mut stores: Vec<PathBuf> =
        fs::read_dir(made_by("neighbour_stores.py")).unwrap().map(|entry| entry.unwrap().path()).collect();
    stores.sort();
    assert!(stores.len() >= 70, "{}", stores.len());
    let mut checker = Checker::start();
    let mut wrong = Vec::new();
    for store in &stores {
        let name = store.file_name().unwrap().to_str().unwrap();
        let refused = REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, words)| *words);
        let result = match (Mount::try_new(std::slice::from_ref(store), &SMALL), refused) {
            (Ok(mount), None) => checker.check(&mount, "npz", json!({})).map(drop),
            (Ok(_), Some(_)) => Err("is mounted, and should be refused".to_owned()),
            (Err(output), Some(words)) if text(&output.stderr).contains(words) => Ok(()),
            (Err(output), _) => Err(text(&output.stderr)),
        };
        wrong.extend(result.err().map(|error| format!("{name}: {error}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// 7. An element that only some stores have was refused with any join.
#[test]
fn elements_of_some_stores() {
    let with = "layers/counts,layers/smooth,layers/whole,obsm/X_pca,raw/X";
    let both = ["with.h5ad", "without.h5ad"];
    let options = ["--join", "outer", "--with", with];
    for (file, tensor) in [
        ("outer", "X"),
        ("counts", "layers/counts"),
        ("smooth", "layers/smooth"),
        ("whole", "layers/whole"),
        ("pca", "obsm/X_pca"),
        ("raw", "raw/X"),
    ] {
        array(&both, &options, file, tensor);
    }
    let turned = ["without.h5ad", "with.h5ad"];
    array(&turned, &["--join", "outer", "--with", "layers/smooth"], "smooth-turned", "layers/smooth");
    for join in ["exact", "inner"] {
        let line = refused(&both, &["--join", join, "--with", "layers/counts"], 3);
        // `exact` finds the different genes of X first.
        let words = if join == "inner" { "layers/counts is not in " } else { "its genes are not those" };
        assert!(line.contains(words) && line.contains("without.h5ad"), "{line}");
    }
}

/// 8. A sparse and a dense store could not be one collection.
#[test]
fn dense_and_sparse_stores_together() {
    array(&["with.h5ad", "dense.h5ad"], &["--dense"], "mixed", "X");
    array(&["without.h5ad", "dense.h5ad"], &["--dense", "--join", "outer"], "mixed-outer", "X");
    let line = refused(&["with.h5ad", "dense.h5ad"], &[], 3);
    assert!(line.contains("its X is dense") && line.contains("--dense"), "{line}");
}

/// 9. `--join inner` was advised for genes that differ by version suffix or case, though none are shared.
#[test]
fn genes_that_differ_in_spelling() {
    array(&["v1.h5ad", "v2.h5ad"], &["--genes-match", "unversioned"], "versions", "X");
    array(&["upper.h5ad", "lower.h5ad"], &["--genes-match", "case"], "case", "X");
    let line = refused(&["v1.h5ad", "v2.h5ad"], &[], 3);
    let words = ["0 are shared", "5 are the same without version suffixes", "--genes-match unversioned"];
    assert!(words.iter().all(|word| line.contains(word)) && !line.contains("--join inner"), "{line}");
    let line = refused(&["upper.h5ad", "lower.h5ad"], &["--join", "inner"], 3);
    assert!(line.contains("3 are the same but for case") && line.contains("--genes-match case"), "{line}");
    let line = refused(&["v1.h5ad", "ambiguous.h5ad"], &["--genes-match", "unversioned"], 3);
    assert!(line.contains("ENSG00000000000.1 and ENSG00000000000.2"), "{line}");
}

/// 10. A fixed vocabulary could not be served: genes that a store lacks were an error.
#[test]
fn genes_that_a_store_lacks_are_zeros() {
    let file = store("vocabulary.txt");
    let options = ["--genes", file.to_str().unwrap(), "--absent", "zero"];
    array(&["with.h5ad", "without.h5ad"], &options, "vocabulary", "X");
    array(&["dense.h5ad"], &options, "vocabulary-dense", "X");
    let mount = mounted(&["with.h5ad", "without.h5ad"], &options);
    let told = mount.json("dataset.json");
    assert_eq!(told["x"]["genes_in_no_store"], json!({"count": 2, "such_as": ["z1", "z2"]}));
    assert_eq!(told["stores"][0]["genes"]["shared"], 2);
    let plan = succeed(shufflefs().arg("plan").args(options).args([store("with.h5ad"), store("without.h5ad")]));
    assert!(plan.contains("2 of the 5 genes named are in no store"), "{plan}");
    let symbols = ["--genes", "Myc,none,Tp53", "--absent", "zero", "--genes-column", "symbol"];
    array(&["v1.h5ad"], &symbols, "symbols", "X");
    let few = ["--genes", "Myc,none,a,b,c", "--absent", "zero"];
    let line = refused(&["v1.h5ad"], &few, 3);
    assert!(
        line.contains("it has 0 of the 5 genes of --genes, less than 33 %") && line.contains("--genes-column"),
        "{line}"
    );
    mounted(&["v1.h5ad"], &[&few[..], &["--min-matched", "0"]].concat());
    let line = refused(&["v1.h5ad"], &["--genes-column", "symbl", "--genes", "Myc"], 3);
    assert!(line.contains("no column symbl") && line.contains("symbol"), "{line}");
}

/// 11. The small stores that users reported (`../shared/reports`) are what anndata reads.
#[test]
fn stores_of_reports() {
    let reports = Path::new(ROOT).join("../shared/reports");
    let expected = reports.join("expected.json");
    if !expected.exists() {
        println!("{} is not there: nothing is tested", reports.display());
        return;
    }
    for name in [
        "collide_slash.h5ad",
        "slash321.h5ad",
        "l_1834.h5ad",
        "x3d.h5ad",
        "en_b8_bitfield__Julia_PyTables_.h5ad",
        "en_i4_FALSE_TRUE.h5ad",
        "enum_other_names.h5ad",
        "r_logical_enum3.h5ad",
    ] {
        let mount = Mount::new(&[reports.join(name)], &SMALL);
        compare("reports", &mount, &[expected.to_str().unwrap(), name]);
    }
}

//! `shufflefs tune`: a reader of the recommended mount finds the printed mixing, no setting beats the front, and bad input is an error
//! in one line. Speed is not tested here: `scripts/bench tune` compares modelled with measured rates.

use std::fs;

use serde_json::Value;

use crate::area::Area;
use crate::support::{python, store, succeed};

/// The words of a printed command, which has no quotes here.
fn words(command: &str) -> Vec<&str> {
    command.split(' ').skip(1).filter(|word| *word != "MOUNTPOINT").collect()
}

#[test]
fn the_recommendation_mixes_as_it_says() {
    let area = Area::new();
    let python_program = python("check_entropy.py").get_args().nth(2).unwrap().to_owned();
    let cells = store("sparse.h5ad");
    let mut command =
        area.command(["tune", "--json", "--batch-size", "64", "--label", "cell_type", "--plot", "tune.svg"]);
    let ran = command.arg("--python").arg(python_program).arg(&cells).output().unwrap();
    let ran = crate::area::Ran::from(ran);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(told["loading"].as_array().unwrap().len() > 1, "{told:#}");
    let settings = told["modelled"].as_array().unwrap();
    let of = |one: &Value, name: &str| one[name].as_f64().unwrap_or_else(|| panic!("{name}: {one:#}"));
    let rate = |one: &Value| of(one, "rows_per_second").max(of(one, "later_rows_per_second"));
    assert!(settings.len() > 20 && settings.iter().all(|one| of(one, "rows_per_second") > 0.0));
    for on_front in told["front"].as_array().unwrap() {
        let beats = |one: &&Value| rate(one) > rate(on_front) && of(one, "entropy_bits") > of(on_front, "entropy_bits");
        assert_eq!(settings.iter().find(beats), None, "beats {on_front:#}");
    }
    if told["not_mounted"].is_null() {
        let checked = told["checked"].as_array().unwrap();
        assert!(!checked.is_empty() && checked.iter().all(|one| of(one, "measured_rows_per_second") > 0.0), "{told:#}");
        let formats = told["formats"].as_array().unwrap();
        assert!(formats.iter().all(|one| one["copy"].is_object() && one["reader"].is_object()), "{formats:#?}");
    }
    let picture = fs::read_to_string(area.path("tune.svg")).unwrap();
    assert!(
        picture.starts_with("<svg") && picture.contains("prefers-color-scheme: dark") && picture.contains("perfect")
    );
    // The command mounts, and numpy computes the printed entropy.
    let command = told["command"].as_str().unwrap();
    let line: Vec<&str> = words(command);
    assert_eq!((line[0], line.last().copied()), ("mount", cells.to_str()), "{command}");
    let mounted = area.run(line.iter().copied().chain(["d"]));
    assert_eq!(mounted.code, Some(0), "{command}: {mounted:?}");
    let said = succeed(python("check_entropy.py").arg(area.path("d")).args(["cell_type", "64"]));
    let found: Vec<f64> = said.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let want = [of(&told["recommended"], "entropy_bits"), of(&told, "entropy_perfect_bits")];
    assert!((found[0] - want[0]).abs() < 0.08, "entropy of a batch: {found:?}, {want:?}");
    assert!((found[1] - want[1]).abs() < 0.02, "of perfect shuffling: {found:?}, {want:?}");
    assert_eq!(area.run(["umount", "d"]).code, Some(0));
}

#[test]
fn what_cannot_be_tuned_is_said() {
    let area = Area::new();
    for (line, code, word) in [
        (&["--label", "no_such", "store.h5ad"][..], 3, "no_such"),
        (&["--order", "sequential", "store.h5ad"], 3, "--order block"),
        (&["no.h5ad"], 3, "no.h5ad"),
        (&["--target-rate", "fast", "store.h5ad"], 2, "rows a second"),
        (&["--target-rate", "0", "store.h5ad"], 2, "rows a second"),
        (&["--max-memory", "much", "store.h5ad"], 2, "--max-memory"),
        (&["--formats", "docx", "store.h5ad"], 2, "docx"),
        (&["--view", "val", "store.h5ad"], 2, "there is no view val"),
        (&["--plot", "no/such/dir.svg", "store.h5ad"], 2, "no/such/dir.svg"),
        (&["--where", "cell_type == \"T cell\" and cell_type == \"B cell\"", "store.h5ad"], 3, "no row"),
        (&[], 2, "STORE"),
    ] {
        area.run([&["tune"], line].concat()).refused(code, word);
    }
    // A target that no setting reaches, with a Python that does not exist.
    let ran = area.run([
        "tune",
        "--block-size",
        "16",
        "--formats",
        "npz",
        "--target-rate",
        "1e15",
        "--python",
        "no-such-python",
        "store.h5ad",
    ]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("no setting reaches 1000000000000000 rows/s") && ran.stderr.lines().count() == 1,
        "{ran:?}"
    );
    assert!(ran.stdout.contains("no-such-python") && ran.stdout.contains("loading blocks of   16"), "{ran:?}");
}

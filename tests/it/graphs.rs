//! Neighbourhoods of batches in the graphs of stores, through real mounts, compared with scipy.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Mount, ROOT, made_by, python, shufflefs, succeed, text};

const SCRIPT: &str = "check_graphs.py";
const SMALL: [&str; 6] = ["--batch-size", "32", "--block-size", "8", "--fetch-factor", "3"];
const GRAPH: [&str; 2] = ["--neighbours", "obsp/connectivities"];

fn stores() -> Vec<PathBuf> {
    ["near.h5ad", "near.zarr"].map(|name| made_by(SCRIPT).join(name)).to_vec()
}

/// Compares every batch of two epochs with scipy; returns the number of edges.
fn check(mount: &Mount, job: &Value) -> u64 {
    let mut command = python(SCRIPT);
    let said = succeed(command.arg("check").arg(mount.path()).arg(job.to_string()).args(&mount.stores));
    said.trim().parse().unwrap()
}

#[test]
fn neighbourhoods_are_scipys_of_the_same_draw() {
    for (more, hops, fanout) in [
        (&["--fanout", "4"][..], 1, json!(4)),
        (&["--hops", "2", "--fanout", "3", "--where", "kind == \"a\""], 2, json!(3)),
        (&["--fanout", "all", "--order", "random"], 1, json!(null)),
        (&["--hops", "3", "--fanout", "2", "--balance", "kind"], 3, json!(2)),
    ] {
        let mount = Mount::new(&stores(), &[&SMALL[..], &GRAPH, more].concat());
        let job = json!({"graph": "obsp/connectivities", "hops": hops, "fanout": fanout});
        assert!(check(&mount, &job) > 1000);
        let told = mount.json("dataset.json");
        assert_eq!((&told["neighbours"]["hops"], &told["options"]["fanout"]), (&json!(hops), &fanout_told(&fanout)));
        mount.unmount();
    }
}

fn fanout_told(fanout: &Value) -> Value {
    if fanout.is_null() { json!("all") } else { fanout.clone() }
}

/// Graphs of a Visium slide and of single cells, as squidpy and scanpy wrote them.
#[test]
fn real_graphs_are_served() {
    for (name, graph) in
        [("squidpy_visium_test.h5ad", "obsp/connectivities"), ("scvelo_dentategyrus_100_pre.h5ad", "obsp/distances")]
    {
        if !data(name).exists() {
            continue;
        }
        let mount = Mount::new(&[data(name)], &[&SMALL[..], &["--neighbours", graph, "--fanout", "5"]].concat());
        assert!(check(&mount, &json!({"graph": graph, "hops": 1, "fanout": 5, "x": false})) > 0, "{name}");
        mount.unmount();
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(ROOT).join("../shared/data").join(name)
}

/// Ranks and mounts have the same draw, also with controls.
#[test]
fn the_draw_follows_from_the_seed() {
    let pairs = ["--pair-with", "kind == \"b\""];
    let options = [&SMALL[..], &GRAPH, &pairs, &["--seed", "9"]].concat();
    let read = |mount: &Mount, name: &str| std::fs::read(mount.join(name)).unwrap();
    let mount = Mount::new(&stores(), &options);
    let first = read(&mount, "epoch-0003/batch-000004.npz");
    assert!((0..8).any(|at| {
        let name = format!("rank-1-of-2/epoch-0003/batch-{at:06}.npz");
        std::fs::read(mount.join(name)).is_ok_and(|bytes| bytes == first)
    }));
    let readme = std::fs::read_to_string(mount.join("README.txt")).unwrap();
    assert!(readme.contains("batch['edge_index']") && readme.contains("no .h5ad: it holds no graph"), "{readme}");
    mount.unmount();
    let again = Mount::new(&stores(), &options);
    assert!(read(&again, "epoch-0003/batch-000004.npz") == first);
    again.unmount();
    let plan = succeed(shufflefs().arg("plan").args(&options).args(stores()));
    assert!(plan.contains("all: neighbours in obsp/connectivities: 1 hops of 10; "), "{plan}");
}

#[test]
fn a_graph_that_is_none_is_one_line() {
    let odd = made_by(SCRIPT).join("odd.h5ad");
    for (code, more, words) in [
        (
            3,
            &["--neighbours", "obsp/connectivities"][..],
            &["3 of ", "edges lead to rows that are not there, such as 300"][..],
        ),
        (3, &["--neighbours", "obsp/other"], &["its shape is 300 x 299, but there are 300 rows"]),
        (3, &["--neighbours", "obsp/dense"], &["obsp/dense: it is dense"]),
        (3, &["--neighbours", "obsp/connectivity"], &["there is no such graph; near: obsp/connectivities"]),
        (2, &["--neighbours", "connectivities"], &["name a graph, as in obsp/connectivities"]),
        (2, &["--hops", "2"], &["add --neighbours"]),
        (2, &["--neighbours", "obsp/a", "--fanout", "0"], &["`all` and whole numbers from 1 to 1024"]),
        (3, &["--neighbours", "obsp/dense", "--format", "h5ad"], &["obsp/dense"]),
    ] {
        let output = shufflefs().arg("plan").args(more).arg(&odd).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{more:?}: {message}");
        assert!(words.iter().all(|word| message.contains(word)), "{more:?}: {message}");
    }
}

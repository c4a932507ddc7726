#!/usr/bin/env python3
"""Stores of a perturbation screen, and the expected batches with controls, by the simplest code.

    check_pairs.py make DIR                 writes screen.h5ad, screen.zarr
    check_pairs.py check DIR MOUNT JSON     every batch of two epochs, in every format
    check_pairs.py tokens PLAIN PAIRED      tokens of rows and controls are those of the rows in a mount without pairs

JSON: each (controls a row), controls (whether rows of batches may be controls), unmatched, uniform (epochs to count).
Exits 1 at the first difference.
"""
import glob
import json
import pathlib
import sys

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from safetensors import safe_open

SIZES = {"screen.h5ad": 700, "screen.zarr": 400}
GENES = [f"g{i}" for i in range(40)]


def frame(n, seed):
    rng = np.random.default_rng(seed)
    line = rng.choice(np.array(["A", "B", "C", "D"], dtype=object), n, p=[0.4, 0.3, 0.2, 0.1])
    perturbation = rng.choice(np.array(["control", "p1", "p2", "p3"], dtype=object), n, p=[0.25, 0.3, 0.3, 0.15])
    # Line D has no control, and some cells have no line.
    perturbation[(line == "D") & (perturbation == "control")] = "p3"
    line[rng.random(n) < 0.02] = None
    batch = rng.integers(1, 4, n)
    # Cells of one line are adjacent, as in stores made from several files.
    order = np.argsort(pd.Series(line).fillna("Z").to_numpy(), kind="stable")
    return pd.DataFrame(
        {
            "perturbation": pd.Categorical(perturbation[order], categories=["p1", "control", "p2", "p3"]),
            "cell_line": pd.Categorical(line[order]),
            "batch": batch[order],
            "depth": rng.random(n).astype(np.float32),
            "flag": rng.random(n) < 0.5,
        },
        index=[f"{seed}-{i}" for i in range(n)],
    )


def make(directory):
    for seed, (name, n) in enumerate(SIZES.items()):
        rng = np.random.default_rng(100 + seed)
        x = sp.random(n, len(GENES), 0.2, "csr", np.float32, rng, data_rvs=lambda k: rng.integers(1, 90, k).astype(np.float32))
        adata = anndata.AnnData(x, frame(n, seed), pd.DataFrame(index=GENES))
        adata.layers["raw"] = (x * 2).astype(np.int32)
        adata.obsm["pca"] = rng.random((n, 4)).astype(np.float32)
        path = pathlib.Path(directory) / name
        if name.endswith(".zarr"):
            adata.write_zarr(path)
        else:
            adata.write_h5ad(path, compression="gzip")


def fail(message):
    print(message)
    sys.exit(1)


def check(holds, message):
    if not holds:
        fail(message)


def columns(told):
    """The columns of `dataset.json` by name."""
    return {column["name"]: column for column in told["columns"]}


def dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


def table(directory, options, count):
    """All rows of the stores as they must be served: X, elements, obs."""
    parts = []
    for name in list(SIZES)[:count]:
        path = pathlib.Path(directory) / name
        parts.append(anndata.read_zarr(path) if name.endswith(".zarr") else anndata.read_h5ad(path))
    x = np.vstack([dense(part.X) for part in parts])
    if options["normalize"]:
        total = x.astype(np.float64).sum(axis=1, keepdims=True)
        x = x * np.where(total > 0, options["normalize"] / np.where(total > 0, total, 1), 1).astype(np.float32)
    if options["log1p"]:
        x = np.log1p(x)
    names = options["genes"] and [g for g in ("g3", "g1", "g17", "g1")][: options["genes"]["names"]]
    if names:
        names = ["g1"] if len(names) == 1 else names
        x = x[:, [GENES.index(g) for g in names]]
    elements = {"layers/raw": np.vstack([dense(part.layers["raw"]) for part in parts]), "obsm/pca": np.vstack([part.obsm["pca"] for part in parts])}
    obs = pd.concat([part.obs.astype({"perturbation": object, "cell_line": object}) for part in parts])
    return x, elements, obs


def matrix(read, below, name, width, rows):
    """An element of a batch as dense rows; `read` gives an array by its name, or None."""
    whole = read(below + (name or "X"))
    if whole is not None:
        return whole
    prefix = below + (name + "/" if name else "")
    data, indices, indptr = (read(prefix + part) for part in ("data", "indices", "indptr"))
    return sp.csr_matrix((data, indices, indptr), shape=(rows, width)).toarray()


def same_values(got, want, options):
    return np.allclose(got, want, rtol=1e-5) if options["normalize"] or options["log1p"] else np.array_equal(got, want)


def labels(mount, told, name, codes):
    known = (mount / told[name]["categories_file"]).read_text().splitlines()
    return np.array([known[code] if code >= 0 else None for code in codes], dtype=object)


def part(read, below, all_rows, told, mount, options):
    """Compares everything of one side of a batch with the rows that its `row` names."""
    x, elements, obs = all_rows
    rows = read(below + "row")
    check(same_values(matrix(read, below, "", x.shape[1], len(rows)), x[rows], options), f"{below}X is not that of its rows")
    for element in options["with"]:
        got = matrix(read, below, element, elements[element].shape[1], len(rows))
        check(np.array_equal(got, elements[element][rows]), f"{below}{element} is not that of its rows")
    for name in told:
        got = read(f"{below}obs/{name}")
        want = obs[name].to_numpy()[rows]
        if told[name]["kind"] == "categorical":
            got = labels(mount, told, name, got)
            want = np.array([None if pd.isna(v) else v for v in want], dtype=object)
        check(np.array_equal(got, want), f"{below}obs/{name} is not that of its rows")
    return rows


def pairs(rows, controls, obs, each, unmatched):
    check(len(controls) == each * len(rows), "the number of controls")
    is_control = (obs.perturbation == "control").to_numpy()
    line, batch = obs.cell_line.to_numpy(), obs.batch.to_numpy()
    for i, row in enumerate(rows):
        mine = controls[i * each:(i + 1) * each]
        has = not pd.isna(line[row]) and np.any(is_control & (line == line[row]) & (batch == batch[row]))
        if not has:
            check(unmatched == "self" and np.all(mine == row), f"row {row} has no control, and stands beside {mine}")
            continue
        check(np.all(is_control[mine]), f"row {row}: {mine} are no controls")
        check(np.all((line[mine] == line[row]) & (batch[mine] == batch[row])), f"row {row}: {mine} do not match")


def uniform(mount, obs, epochs):
    """Each control is equally frequent at each position, over epochs."""
    want = np.flatnonzero(((obs.perturbation == "control") & (obs.cell_line == "A") & (obs.batch == 1)).to_numpy())
    counts = dict.fromkeys(want, 0)
    for epoch in range(epochs):
        controls = np.load(mount / f"epoch-{epoch:04}" / "batch-000000.npz")["control/row"]
        # Those of different windows, which are independent of one another.
        for control in controls[:4]:
            counts[control] += 1
    seen = np.array(list(counts.values()))
    freedom = len(want) - 1
    statistic = ((seen - seen.mean()) ** 2 / seen.mean()).sum()
    check(freedom >= 5 and statistic < freedom + 4.5 * np.sqrt(2 * freedom), f"chi-square {statistic:.1f}, {freedom} degrees")


def tokens(plain, paired):
    names = ("input_ids", "expressions", "length")
    of_row = {}
    for path in sorted(glob.glob(f"{plain}/epoch-0000/*.npz")):
        batch = np.load(path)
        for i, row in enumerate(batch["row"]):
            of_row[row] = [batch[name][i] for name in names]
    check(len(of_row) == sum(SIZES.values()), "the mount without pairs has all rows")
    for path in sorted(glob.glob(f"{paired}/epoch-0001/*.npz")):
        with safe_open(path.replace(".npz", ".safetensors"), "np") as tensors:
            other = {name: tensors.get_tensor(name) for name in tensors.keys()}
        for batch in (np.load(path), other):
            check(len(batch["control/row"]) == 2 * len(batch["row"]) > 0, "two controls a row")
            for below in ("", "control/"):
                for i, row in enumerate(batch[below + "row"]):
                    same = all(np.array_equal(batch[below + name][i], want) for name, want in zip(names, of_row[row]))
                    check(same, f"{path}: {below}tokens of row {row}")


def main():
    if sys.argv[1] == "make":
        return make(sys.argv[2])
    if sys.argv[1] == "tokens":
        return tokens(sys.argv[2], sys.argv[3])
    directory, mount, job = sys.argv[2], pathlib.Path(sys.argv[3]), json.loads(sys.argv[4])
    dataset = json.loads((mount / "dataset.json").read_text())
    told, options = columns(dataset), dataset["options"]
    all_rows = table(directory, options, len(dataset["stores"]))
    obs = all_rows[2]
    if "uniform" in job:
        return uniform(mount, obs, job["uniform"])
    each, served = job["each"], []
    for epoch in ("epoch-0000", "epoch-0007"):
        seen = []
        for path in sorted(glob.glob(f"{mount}/{epoch}/*.npz")):
            path = pathlib.Path(path)
            check(path.stat().st_size == len(path.read_bytes()), f"{path}: size")
            batch = np.load(path)
            rows = part(lambda name: batch[name] if name in batch else None, "", all_rows, told, mount, options)
            controls = part(lambda name: batch[name] if name in batch else None, "control/", all_rows, told, mount, options)
            pairs(rows, controls, obs, each, job.get("unmatched"))
            if "shape" in batch:
                check(list(batch["control/shape"]) == [len(controls), all_rows[0].shape[1]], "control/shape")
            with safe_open(path.with_suffix(".safetensors"), "np") as tensors:
                names = set(tensors.keys())
                other = lambda name: tensors.get_tensor(name) if name in names else None
                check(np.array_equal(part(other, "", all_rows, told, mount, options), rows), "rows of .safetensors")
                check(np.array_equal(part(other, "control/", all_rows, told, mount, options), controls), "controls of .safetensors")
            stacked = np.load(path.with_suffix(".npy"))
            check(same_values(stacked, all_rows[0][np.concatenate([rows, controls])], options), ".npy")
            adata = anndata.read_h5ad(path.with_suffix(".h5ad"))
            control = adata.uns["control"]
            for half, numbers in ((adata, rows), (control, controls)):
                check(np.array_equal(half.obs_names.astype(int), numbers), "obs_names of .h5ad")
                check(same_values(dense(half.X), all_rows[0][numbers], options), "X of .h5ad")
                check(list(half.var_names) == list(adata.var_names) and half.X.shape[1] == all_rows[0].shape[1], "var of .h5ad")
                for element in options["with"]:
                    group, name = element.split("/")
                    check(np.array_equal(dense(getattr(half, group)[name]), all_rows[1][element][numbers]), f"{element} of .h5ad")
                got, want = half.obs.perturbation.astype(object).to_numpy(), obs.perturbation.to_numpy()[numbers]
                check(np.array_equal(got, want), "obs of .h5ad")
            check(path.with_suffix(".parquet").exists() == (each == 1), ".parquet holds one control a row, and no more")
            if each == 1:
                parquet(path.with_suffix(".parquet"), rows, controls, all_rows, options)
            seen.append(rows)
            served.append(controls)
        seen = np.concatenate(seen)
        if not options.get("balance"):
            is_control = (obs.perturbation == "control").to_numpy()
            check(len(set(seen)) == len(seen), "a row comes twice")
            if job.get("controls") is False:
                check(not is_control[seen].any(), "--where leaves controls out of the rows")
            if job.get("unmatched") == "self":
                check(len(seen) == len(obs), "all rows are served")
    served = [np.concatenate(served[:len(served) // 2]), np.concatenate(served[len(served) // 2:])]
    check(not np.array_equal(*served), "epochs draw the same controls")


def parquet(path, rows, controls, all_rows, options):
    import pyarrow.parquet

    batch = pyarrow.parquet.read_table(path)
    check(batch["row"].to_pylist() == list(rows) and batch["control/row"].to_pylist() == list(controls), "rows of .parquet")
    obs = all_rows[2].perturbation.to_numpy()
    check(batch["control/perturbation"].to_pylist() == list(obs[controls]), "obs of .parquet")
    width = all_rows[0].shape[1]
    if "control/X" in batch.column_names:
        got = np.array(batch["control/X"].to_pylist())
    else:
        got = np.zeros((len(rows), width), np.float32)
        for i, (genes, values) in enumerate(zip(batch["control/genes"].to_pylist(), batch["control/expressions"].to_pylist())):
            got[i, genes] = values
    check(same_values(got, all_rows[0][controls], options), "control/X of .parquet")


if __name__ == "__main__":
    main()

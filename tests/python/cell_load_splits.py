#!/usr/bin/env python3
"""Rows of the splits of cell-load's TOML files, by cell-load itself.

    cell_load_splits.py make DIR          writes stores and TOML files, with DIR where the directory is to stand
    cell_load_splits.py rows DIR          prints the rows of each split as cell-load 0.10.4 has them (needs it: tests/trainers.txt)
    cell_load_splits.py check DIR MOUNT NAME   the views of a mount with --split-toml NAME.toml have these rows
    cell_load_splits.py share DIR MOUNT SHARE  those of few.toml, but that this share of what lines.hepg2 holds out is in train
    cell_load_splits.py state DIR MOUNT NAME   the same, in sets of one cell line and perturbation, with controls beside them

What `rows` printed is kept beside this script, as cell-load needs PyTorch: cell_load_splits.json. Row numbers are those of the
stores in the order of STORES, as a mount of them has.
"""
import json
import pathlib
import sys
import tempfile

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

STORES = {"lines/x.h5ad": 400, "lines/y.h5ad": 300, "other/z.h5ad": 200}
LINES = ["hepg2", "jurkat", "k562.b", "rpe1"]
GENES = ["non-targeting", *(f"g{i}" for i in range(9))]
RULES = {
    "zero": """
[training]
lines = "train"
other = "train"
[zeroshot]
"lines.jurkat" = "test"
"lines.k562.b" = "val"
"other.rpe1" = "train"
""",
    "few": """
[training]
lines = "train"
[zeroshot]
"other.jurkat" = "test"
[fewshot."lines.hepg2"]
val = ["g1", "g2"]
test = ["g3", "g4"]
[fewshot."lines.rpe1"]
test = ["g5", "g1"]
val = ["g5"]
""",
}


def make(directory):
    for number, (name, rows) in enumerate(STORES.items()):
        i = np.arange(rows)
        line = (i * 7 // 3 + number) % 4
        gene = (i * i // 5 + 3 * number) % 10
        # In one store a few-shot cell line has nothing but controls.
        gene[(line == 0) & (number == 1)] = 0
        categories = {"cell_type": (LINES, line), "gene": (GENES, gene), "gem_group": (["1", "2"], i % 2)}
        obs = pd.DataFrame(index=[f"{number}-{row}" for row in i])
        for column, (labels, codes) in categories.items():
            codes = np.where((i % 37 == 36) & (column != "gem_group"), -1, codes)
            obs[column] = pd.Categorical.from_codes(codes, labels)
        x = sp.csr_matrix((np.ones(rows, np.float32), (i, i % 5)), shape=(rows, 5))
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        var = pd.DataFrame({"gene_name": [f"v{g}" for g in range(5)]}, index=[f"v{g}" for g in range(5)])
        anndata.AnnData(X=x, obs=obs, var=var, obsm={"X_hvg": x.toarray()}).write_h5ad(path)
    for name, rules in RULES.items():
        # A directory, a file, and patterns.
        lines = {"zero": "lines", "few": "lines/{x,y}*.h5ad"}[name]
        other = {"zero": "other/z.h5ad", "few": "oth*"}[name]
        datasets = f'[datasets]\nlines = "DIR/{lines}"\nother = "DIR/{other}"\n'
        (directory / f"{name}.toml").write_text(datasets + rules)


def rows(directory):
    from cell_load.data_modules import PerturbationDataModule

    first, at = {}, 0
    for name, count in STORES.items():
        first[str((directory / name).resolve())] = at
        at += count
    found = {}
    for name in RULES:
        text = (directory / f"{name}.toml").read_text().replace("DIR", str(directory))
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            module = PerturbationDataModule(file.name, embed_key="X_hvg", num_workers=0)
            module.setup()
        found[name] = {}
        for split in ["train", "val", "test"]:
            of_split = []
            for subset in getattr(module, f"{split}_datasets"):
                start = first[str(pathlib.Path(subset.dataset.h5_path).resolve())]
                of_split += [start + int(row) for row in subset.indices]
            assert len(set(of_split)) == len(of_split), "cell-load has a row twice"
            if of_split:
                found[name][split] = sorted(of_split)
    print(json.dumps(found))


def check(directory, mount, name):
    wanted = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())[name]
    views = json.load(open(f"{mount}/dataset.json"))["views"]
    assert list(views) == list(wanted), f"views {list(views)}, cell-load has {list(wanted)}"
    for split, of_split in wanted.items():
        paths = sorted(pathlib.Path(mount, split, "epoch-0000").iterdir())
        got = np.sort(np.concatenate([np.load(path)["row"] for path in paths])).tolist()
        assert got == of_split, f"{name}: {split}: {len(got)} rows, cell-load has {len(of_split)}"


def share(directory, mount, share):
    wanted = {split: set(rows) for split, rows in json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())["few"].items()}
    read = lambda split: np.concatenate([np.load(path)["row"] for path in sorted(pathlib.Path(mount, split, "epoch-0000").iterdir())])
    got = {split: set(read(split).tolist()) for split in wanted}
    obs = pd.concat([anndata.read_h5ad(directory / store).obs for store in STORES])
    line, gene = (obs[column].to_numpy(object) for column in ["cell_type", "gene"])
    in_lines = np.arange(len(obs)) < STORES["lines/x.h5ad"] + STORES["lines/y.h5ad"]
    moved = got["train"] - wanted["train"]
    for held, split in [("g1", "val"), ("g2", "val"), ("g3", "test"), ("g4", "test")]:
        of = set(np.flatnonzero(in_lines & (line == "hepg2") & (gene == held)).tolist())
        assert of and of <= wanted[split], f"{held} is not held out"
        assert abs(len(of & moved) - float(share) * len(of)) < 1, f"{held}: {len(of & moved)} of {len(of)} rows are in train"
        moved -= of
        wanted["train"] |= of & got["train"]
        wanted[split] -= of & got["train"]
    assert not moved and got == wanted, "other rows have moved"


def state(directory, mount, name):
    wanted = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())[name]
    obs = pd.concat([anndata.read_h5ad(directory / store).obs for store in STORES])
    line, gene = (obs[column].to_numpy(object) for column in ["cell_type", "gene"])
    has_label = ~(pd.isna(line) | pd.isna(gene))
    sets = pathlib.Path(mount, "categories", "set.txt").read_text().splitlines()
    for split, of_split in wanted.items():
        seen = set()
        for path in sorted(pathlib.Path(mount, split, "epoch-0001").iterdir()):
            batch = np.load(path)
            rows, controls = batch["row"].reshape(-1, 8), batch["control/row"].reshape(-1, 8)
            for of_set, beside, codes in zip(rows, controls, batch["obs/set"].reshape(-1, 8)):
                labels = {f"{line[row]}|{gene[row]}" for row in of_set}
                assert labels == {sets[code] for code in codes}, f"{path}: a set is of {labels}"
                assert set(gene[beside]) == {GENES[0]} and set(line[beside]) == set(line[of_set]), f"{path}: controls"
            seen |= set(batch["row"].tolist())
        assert seen == {row for row in of_split if has_label[row]}, f"{name}: {split}: {len(seen)} rows in sets"


if __name__ == "__main__":
    command, directory, *rest = sys.argv[1:]
    {"make": make, "rows": rows, "check": check, "share": share, "state": state}[command](pathlib.Path(directory), *rest)

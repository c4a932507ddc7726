#!/usr/bin/env python3
"""Pairs as STATE's cell-load hands them to a model, read by path: state_pairs.py EPOCH STORE.h5ad PERTURBATION CELL_TYPE BATCH CONTROL

EPOCH is a directory of .npz files of a mount with `--pair-with 'PERTURBATION == "CONTROL"' --match CELL_TYPE,BATCH`. A batch has the
keys of cell-load's `PerturbationDataset.collate_fn`. Every value is compared with the store.
"""
import glob
import json
import pathlib
import sys

import anndata
import numpy as np
import scipy.sparse

epoch, store, pert_col, cell_type_key, batch_col, control_pert = sys.argv[1:]
root = next(path for path in pathlib.Path(epoch).parents if (path / "dataset.json").exists())
columns = {column["name"]: column for column in json.loads((root / "dataset.json").read_text())["columns"]}


def labels(column):
    return np.array((root / columns[column]["categories_file"]).read_text().splitlines(), dtype=object)


def collated(path):
    npz = np.load(path)
    def emb(below):
        if below + "X" in npz:
            return npz[below + "X"]
        parts = (npz[below + part] for part in ("data", "indices", "indptr"))
        return scipy.sparse.csr_matrix(tuple(parts), shape=npz[below + "shape"]).toarray()
    pert = npz[f"obs/{pert_col}"]
    return {
        "pert_cell_emb": emb(""),
        "ctrl_cell_emb": emb("control/"),
        "pert_emb": np.eye(len(labels(pert_col)), dtype=np.float32)[pert],
        "pert_name": labels(pert_col)[pert],
        "cell_type": labels(cell_type_key)[npz[f"obs/{cell_type_key}"]],
        "batch": npz[f"obs/{batch_col}"],
        "pert_cell_barcode": npz["row"],
        "ctrl_cell_barcode": npz["control/row"],
    }


want, pairs = anndata.read_h5ad(store), 0
for path in sorted(glob.glob(f"{epoch}/*.npz")):
    batch = collated(path)
    rows, controls = batch["pert_cell_barcode"], batch["ctrl_cell_barcode"]
    assert np.array_equal(batch["pert_cell_emb"], want.X[rows].toarray()) and np.array_equal(batch["ctrl_cell_emb"], want.X[controls].toarray())
    assert list(batch["pert_name"]) == list(want.obs[pert_col].iloc[rows]) and set(want.obs[pert_col].iloc[controls]) == {control_pert}
    for column in (cell_type_key, batch_col):
        assert list(want.obs[column].iloc[rows]) == list(want.obs[column].iloc[controls]), f"a control of another {column}"
    pairs += len(rows)
print(f"{pairs} pairs")

#!/usr/bin/env python3
"""Stores of several modalities, and the expected values of their batches, by mudata.

    check_modalities.py make DIR                       writes cite.h5mu, cite.zarr, rna.h5ad, protein.h5ad, other.h5ad, twice.h5ad,
                                                       genes.h5mu, and random/N, with its stores named in random/N/stores
    check_modalities.py padding MOUNT                  rows that only fill a set are marked in every modality
    check_modalities.py check MOUNT JSON STORE...      every batch of an epoch in every format is mudata's part of the same cells

JSON: genes, of a modality: names in served order; total, of a modality: to what rows are scaled before log1p; format.
STORE: whole MuData, or NAME=STORE of each modality. Exits 1 at the first difference.
"""
import glob
import json
import pathlib
import sys
import warnings

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr
from safetensors.numpy import load_file

warnings.simplefilter("ignore")
mudata.set_options(pull_on_update=False)


def modality(names, genes, seed, sparse):
    rng = np.random.default_rng(seed)
    n = len(names)
    x = sp.random(n, len(genes), 0.3, "csr", np.float32, rng, data_rvs=lambda k: rng.integers(1, 50, k).astype(np.float32))
    obs = pd.DataFrame(
        {"kind": pd.Categorical(rng.choice(["a", "b", "c"], n)), "depth": rng.random(n).astype(np.float32)}, index=names
    )
    data = anndata.AnnData(x if sparse else x.toarray().astype(np.int32), obs, pd.DataFrame(index=genes))
    data.layers["raw"] = (data.X * 2).astype(np.int32)
    data.obsm["pca"] = rng.random((n, 3)).astype(np.float32)
    return data


def make(directory):
    directory = pathlib.Path(directory)
    rng = np.random.default_rng(1)
    names = np.array([f"cell-{i}" for i in range(400)])
    rna = modality(names[:350], [f"g{i}" for i in range(30)], 2, True)
    # Another order, cells that rna lacks, and not all that it has.
    protein = modality(rng.permutation(names[60:]), [f"CD{i}" for i in range(12)], 3, False)
    atac = modality(names[:350], [f"peak{i}" for i in range(40)], 4, True)
    whole = mudata.MuData({"rna": rna, "protein": protein, "atac": atac})
    whole.write_h5mu(directory / "cite.h5mu")
    whole.write_zarr(directory / "cite.zarr")
    rna.write_h5ad(directory / "rna.h5ad", compression="gzip")
    protein.write_h5ad(directory / "protein.h5ad")
    modality([f"x{i}" for i in range(9)], ["CD1", "CD2"], 5, False).write_h5ad(directory / "other.h5ad")
    modality([f"cell-{i // 2}" for i in range(20)], ["CD1", "CD2"], 6, False).write_h5ad(directory / "twice.h5ad")
    genes = modality(names[:50], ["g0", "g1"], 7, True)
    mudata.MuData({"a": genes, "b": modality(names[50:90], ["g0", "g1"], 8, True)}, axis=1).write_h5mu(directory / "genes.h5mu")
    for number in range(6):
        make_random(directory / "random" / str(number), number)


def make_random(directory, number):
    """Two or three modalities of random parts of some cells, most in random order, as a MuData or as stores of their own."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(100 + number)
    names = np.array([f"c{i}" for i in range(rng.integers(3, 250))])
    parts = {}
    for seed, name in enumerate(["rna", "protein", "atac"][: rng.integers(2, 4)]):
        some = rng.permutation(names)[: rng.integers(len(names) // 2 + 1, len(names) + 1)]
        genes = [f"{name}{i}" for i in range(rng.integers(1, 40))]
        parts[name] = modality(np.sort(some) if rng.random() < 0.3 else some, genes, 1000 * number + seed, rng.random() < 0.6)
    stores = []
    if number % 3 == 0:
        mudata.MuData(parts).write_h5mu(directory / "all.h5mu")
        stores.append(directory / "all.h5mu")
    elif number % 3 == 1:
        mudata.MuData(parts).write_zarr(directory / "all.zarr")
        stores.append(directory / "all.zarr")
    else:
        for name, part in parts.items():
            path = directory / (name + (".h5ad" if rng.random() < 0.5 else ".zarr"))
            part.write_h5ad(path) if path.suffix == ".h5ad" else part.write_zarr(path)
            stores.append(f"{name}={path.name}")
    (directory / "stores").write_text("\n".join(store if isinstance(store, str) else store.name for store in stores))


def check(holds, message):
    if not holds:
        print(message)
        sys.exit(1)


def dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


def opened(stores):
    """One MuData a store; of named ones, one of all."""
    if "=" in stores[0]:
        return [mudata.MuData({name: read(path) for name, path in (store.split("=") for store in stores)})]
    return [whole(store) for store in stores]


def whole(path):
    if path.endswith(".zip"):
        with zarr.storage.ZipStore(path, mode="r") as store:
            return mudata.read_zarr(store)
    if ".zarr" in path:
        return mudata.read_zarr(path)
    with h5py.File(path) as file:
        # mudata also reads elements that are not compared here, such as ragged ones, which need another package.
        parts = {name: {key: anndata.io.read_elem(file["mod"][name][key]) for key in ("X", "obs", "var", "layers")} for name in file["mod"].attrs["mod-order"]}
        return mudata.MuData({name: anndata.AnnData(**part) for name, part in parts.items()})


def read(path):
    return anndata.read_zarr(path) if path.endswith(".zarr") else anndata.read_h5ad(path)


def matrix(batch, below, element, want):
    """An element of a batch of tensors as dense rows."""
    prefix = below + (element + "/" if element else "")
    if prefix + "data" in batch:
        return sp.csr_matrix(tuple(batch[prefix + k] for k in ("data", "indices", "indptr")), shape=want.shape).toarray()
    return batch[below + (element or "X")]


class Expected:
    """The rows of MuData one below another, as they are served: of each modality, rows by the number of the first one's."""

    def __init__(self, stores, options):
        self.options, self.wholes = options, opened(stores)
        self.names = list(self.wholes[0].mod)
        first = self.names[0]
        self.cells = [(whole, name) for whole in self.wholes for name in whole[first].obs_names]
        self.starts = {name: np.cumsum([0] + [whole[name].n_obs for whole in self.wholes]) for name in self.names}

    def part(self, name, numbers):
        """mudata's own part of a modality for rows of the first one, which rows have it, and their numbers."""
        has, rows, places, tables, first = np.zeros(len(numbers), bool), {}, {}, [], 0
        for whole, start in zip(self.wholes, self.starts[name]):
            cells = {at: cell for at, cell in enumerate(self.cells[number][1] for number in numbers) if self.cells[numbers[at]][0] is whole}
            if not cells:
                continue
            sub = whole[sorted(set(cells.values()))][name]
            for at, cell in cells.items():
                has[at] = cell in sub.obs_names
                if has[at]:
                    rows[at] = start + whole[name].obs_names.get_loc(cell)
                    places[at] = first + sub.obs_names.get_loc(cell)
            tables.append(sub)
            first += sub.n_obs
        order = sorted(rows)
        return (tables, [places[at] for at in order]), has, np.array([rows[at] for at in order], np.int64)

    def column(self, data, name):
        tables, order = data
        return np.concatenate([table.obs[name].to_numpy() for table in tables])[order]

    def values(self, name, data, element=None):
        tables, order = data
        group, _, key = (element or "").partition("/")
        x = np.vstack([dense(getattr(table, group)[key] if element else table.X) for table in tables])[order]
        if element is None:
            if total := self.options.get("total", {}).get(name):
                sums = x.astype(np.float64).sum(axis=1, keepdims=True)
                x = np.log1p(x * np.where(sums > 0, total / np.where(sums > 0, sums, 1), 1))
            if genes := self.options.get("genes", {}).get(name):
                x = x[:, [list(self.wholes[0][name].var_names).index(gene) for gene in genes]]
        return x

    def genes(self, name):
        return self.options.get("genes", {}).get(name) or list(self.wholes[0][name].var_names)


def same(got, want):
    got, want = np.asarray(got), np.asarray(want)
    return got.shape == want.shape and (np.allclose(got, want, rtol=1e-5, equal_nan=True) if got.dtype.kind == "f" else np.array_equal(got, want))


def tensors(batch, expected, told, mount):
    first = expected.names[0]
    numbers = batch[f"mod/{first}/row"]
    for name in expected.names:
        below = f"mod/{name}/"
        data, has, rows = expected.part(name, numbers)
        check(np.array_equal(batch[f"obsm/{name}"], has), f"the mask of {name}")
        place = np.where(has, np.cumsum(has), 0)
        check(np.array_equal(batch[f"obsmap/{name}"], place), f"the places of {name}")
        check(np.array_equal(batch[below + "row"], rows), f"rows of {name}")
        want = expected.values(name, data)
        check(same(matrix(batch, below, None, want), want), f"X of {name}")
        for element in expected.options.get("with", {}).get(name, []):
            want = expected.values(name, data, element)
            check(same(matrix(batch, below, element, want), want), f"{element} of {name}")
        if "kind" in expected.wholes[0][name].obs:
            labels = told[name]
            codes = batch[below + "obs/kind"]
            check([labels[code] for code in codes] == list(expected.column(data, "kind")), f"obs of {name}")
            check(same(batch[below + "obs/depth"], expected.column(data, "depth")), f"depth of {name}")
    return numbers


def whole_file(path, expected, numbers):
    got = mudata.read_h5mu(path)
    check(list(got.mod) == expected.names, f"order {list(got.mod)}")
    check(list(got.obs_names) == [str(number) for number in numbers], "names of rows")
    check(list(got.var_names) == [gene for name in expected.names for gene in expected.genes(name)], "genes")
    for name in expected.names:
        data, has, _ = expected.part(name, numbers)
        check(np.array_equal(np.ravel(got.obsm[name]), has), f"obsm of {name}")
        check(np.array_equal(np.ravel(got.obsmap[name]), np.where(has, np.cumsum(has), 0)), f"obsmap of {name}")
        check(list(got[name].obs_names) == list(got.obs_names[has]), f"names of {name}")
        check(list(got[name].var_names) == expected.genes(name), f"genes of {name}")
        check(same(dense(got[name].X), expected.values(name, data)), f"X of {name} in .h5mu")
        if "kind" in expected.wholes[0][name].obs:
            check(list(got[name].obs["kind"].astype(str)) == list(expected.column(data, "kind")), f"obs of {name} in .h5mu")
    # Written and read again by mudata, it is unchanged.
    before = {name: np.ravel(got.obsmap[name]).copy() for name in got.mod}
    got.update()
    check(all(np.array_equal(np.ravel(got.obsmap[name]), before[name]) for name in got.mod), "mudata joins otherwise")


def run(mount, options, stores):
    mount = pathlib.Path(mount)
    expected = Expected(stores, options)
    dataset = json.loads((mount / "dataset.json").read_text())
    told = {of["name"].removeprefix("mod/"): {c["name"]: c["labels"] for c in of["columns"]}.get("kind") for of in dataset["companions"] if of["name"].startswith("mod/")}
    labels = mount / "categories/kind.txt"
    told[expected.names[0]] = labels.read_text().splitlines() if labels.exists() else []
    seen = []
    paths = sorted(glob.glob(str(mount / "epoch-0001/*.npz")))
    for path in paths:
        batch = dict(np.load(path))
        numbers = tensors(batch, expected, told, mount)
        other = load_file(path.replace(".npz", ".safetensors"))
        record = np.load(path.replace(".npz", ".record.npy"))
        check(all(same(record[name], array) for name, array in batch.items()), "record.npy")
        check(all(same(other[name], array) for name, array in batch.items() if array.dtype.kind not in "SU" and not name.endswith("shape")), "safetensors")
        if options.get("h5mu", True):
            whole_file(path.replace(".npz", ".h5mu"), expected, numbers)
        seen.extend(numbers)
    check(sorted(seen) == list(range(len(expected.cells))) or options.get("some"), "each row once")
    print(len(seen))


def padding(mount):
    seen = 0
    for path in sorted(glob.glob(f"{mount}/epoch-0001/*.npz")):
        batch = np.load(path)
        filling = batch["mod/rna/row"] < 0
        for name in ("protein", "atac"):
            check(np.array_equal(batch[f"mod/{name}/row"] < 0, filling[batch[f"obsm/{name}"]]), f"filling rows of {name}")
        seen += filling.sum()
    check(seen > 0, "no row fills a set up")


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "check":
        run(rest[0], json.loads(rest[1]), rest[2:])
    else:
        {"make": make, "padding": padding}[command](rest[0])

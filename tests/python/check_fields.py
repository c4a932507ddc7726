#!/usr/bin/env python3
"""Stores with every kind of element, and the expected values of their batches, by anndata, scipy and numpy.

Usage: check_fields.py make DIRECTORY
       check_fields.py check JOB      JOB is JSON: mount, stores, formats; x, with, genes, normalize, log1p, dtype, index;
                                      every: of sparse batches, compare the values of every N-th row (default: 1)

The values of each row are looked up in the stores as anndata reads them, genes by name; arithmetic is numpy's.
"""
import io
import json
import pathlib
import sys
import tarfile
import warnings

import numpy as np

warnings.filterwarnings("ignore")
import anndata as ad
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.numpy
import scipy.sparse as sp

GENES = [f"gene{i}" for i in range(80)]


# ---------------------------------------------------------------- stores

def counts(rng, rows, genes, dtype, density=0.2):
    m = sp.random(rows, genes, density, format="csr", random_state=rng, data_rvs=lambda n: rng.integers(1, 200, n))
    m = m.astype(dtype)
    m.data[m.indptr[3]:m.indptr[4]] = 0  # stored zeros alone
    return m


def store(seed, rows, order, flag=True, width=5, dense=False, layer=True, compression="gzip", dtype="float32"):
    rng = np.random.default_rng(seed)
    names = [GENES[i] for i in order]
    x = counts(rng, rows, len(names), dtype)
    var = pd.DataFrame({"highly_variable": [i % 7 == 2 for i in order], "rank": order}, index=names)
    if not flag:
        del var["highly_variable"]
    a = ad.AnnData(x, var=var, obs=pd.DataFrame({"cell_type": pd.Categorical(rng.choice(["a", "b"], rows))},
                                                 index=[f"s{seed}-{i}" for i in range(rows)]))
    a.raw = ad.AnnData(counts(rng, rows, 90, "float64"), var=pd.DataFrame(index=[f"raw{i}" for i in range(90)]), obs=a.obs)
    if layer:
        a.layers["spliced"] = counts(rng, rows, len(names), "int32", 0.1)
    a.layers["whole"] = rng.standard_normal((rows, len(names))).astype("float32")
    a.obsm["X_pca"] = rng.standard_normal((rows, width)).astype("float32")
    a.obsm["image"] = rng.integers(0, 255, (rows, 4, 3)).astype("uint8")
    a.obsm["links"] = counts(rng, rows, 11, "float32")
    if dense:
        a.X = np.where(rng.random(x.shape) < 0.7, 0, rng.integers(1, 200, x.shape)).astype(dtype)
    return a, compression


def make(directory):
    rng = np.random.default_rng(0)
    here, there = list(range(80)), rng.permutation(80).tolist()
    stores = {
        "a.h5ad": store(1, 500, here),
        "b.zarr": store(2, 300, there, flag=False, compression=None),
        "dense.h5ad": store(3, 400, here, dense=True),
        "dense-b.zarr": store(4, 200, there, dense=True, compression=None),
        "wide.h5ad": store(5, 50, here, width=6),
        "bare.h5ad": store(6, 50, here, layer=False),
        "float.h5ad": store(7, 200, here, dtype="float64", compression=None),
        "ints.h5ad": store(8, 200, here, dtype="int64"),
    }
    # One value for each type that narrower types cannot hold, in a known row.
    stores["float.h5ad"][0].X.data[stores["float.h5ad"][0].X.indptr[17]] = 1.5
    stores["ints.h5ad"][0].X.data[stores["ints.h5ad"][0].X.indptr[17]] = 100_000
    for name, (a, compression) in stores.items():
        path = pathlib.Path(directory) / name
        a.write_zarr(path) if name.endswith("zarr") else a.write_h5ad(path, compression=compression)


# ---------------------------------------------------------------- what must be served

def element(a, name):
    group, _, key = name.partition("/")
    if name == "X":
        return a.X, list(a.var_names)
    if name == "raw/X":
        return a.raw.X, list(a.raw.var_names)
    return (a.layers[key], list(a.var_names)) if group == "layers" else (a.obsm[key], None)


class Wanted:
    """Rows of one element over all stores: `row(i)` gives (columns or None, values)."""

    def __init__(self, stores, name, job):
        self.parts = [element(a, name) for a in stores]
        first = self.parts[0][1]
        asked = job.get("genes") if name in ("X", job["x"]) or name.startswith("layers/") else None
        self.genes = asked or first
        place = {gene: i for i, gene in enumerate(self.genes)} if self.genes else None
        self.maps = [np.array([place.get(gene, -1) for gene in names]) if names else None for _, names in self.parts]
        self.sizes = np.cumsum([0] + [m.shape[0] for m, _ in self.parts])
        self.sparse = sp.issparse(self.parts[0][0])
        self.is_x = name == job["x"]
        self.job = job
        stored = np.result_type(*[m.dtype for m, _ in self.parts])
        self.shape = (len(self.genes),) if self.genes else self.parts[0][0].shape[1:]
        computed = np.dtype("float64" if "float64" in (stored.name, job.get("dtype")) else "float32")
        self.computed = computed if self.is_x and (job.get("normalize") or job.get("log1p")) else None
        self.dtype = np.dtype((self.is_x and job.get("dtype")) or self.computed or stored)

    def values(self, values, whole):
        if self.computed is not None:
            values = values.astype(self.computed)
            total = whole.astype("float64").sum()
            if self.job.get("normalize") and total != 0:
                values = values * self.computed.type(self.job["normalize"] / total)
            if self.job.get("log1p"):
                values = np.log1p(values)
        return values.astype(self.dtype)

    def row(self, row):
        at = int(np.searchsorted(self.sizes, row, side="right")) - 1
        (m, _), table, row = self.parts[at], self.maps[at], row - self.sizes[at]
        if self.sparse:
            span = slice(m.indptr[row], m.indptr[row + 1])
            columns, whole = m.indices[span], m.data[span]
            columns = columns if table is None else table[columns]
            stay = columns >= 0
            return columns[stay], self.values(whole[stay], whole)
        whole = np.asarray(m[row])
        values = self.values(whole, whole)
        if table is None:
            return None, values
        out = np.empty(len(self.genes), values.dtype)
        out[table[table >= 0]] = values[table >= 0]
        return None, out

    def dense(self, row):
        columns, values = self.row(row)
        if columns is None:
            return values
        out = np.zeros(len(self.genes) if self.genes else self.parts[0][0].shape[1], values.dtype)
        out[columns] = values
        return out


def same(got, want, what, exact):
    assert got.dtype == want.dtype and got.shape == want.shape, f"{what}: {got.dtype}{got.shape}, not {want.dtype}{want.shape}"
    if exact:
        assert got.tobytes() == want.tobytes(), f"{what}: {got} not {want}"
    else:
        rtol = 1e-3 if got.dtype == np.float16 else 1e-6
        np.testing.assert_allclose(got, want, rtol=rtol, atol=0, err_msg=what)


class Check:
    def __init__(self, job):
        self.job = job
        job["x"] = job.get("x") or "X"
        stores = [ad.read_zarr(p) if p.rstrip("/").endswith("zarr") else ad.read_h5ad(p) for p in job["stores"]]
        self.want = {name: Wanted(stores, name, job) for name in [job["x"]] + job.get("with", [])}
        self.x = self.want[job["x"]]

    def exact(self, want):
        return not (want.is_x and (self.job.get("log1p") or (want.computed is not None and want.dtype != want.computed)))

    def csr(self, rows, want, data, indices, indptr, what):
        assert len(indptr) == len(rows) + 1 and indptr[-1] == len(data) == len(indices), what
        for i in range(0, len(rows), self.job.get("every", 1)):
            row = rows[i]
            columns, values = want.row(row)
            span = slice(indptr[i], indptr[i + 1])
            np.testing.assert_array_equal(indices[span], columns, err_msg=what)
            same(data[span], values, f"{what} row {row}", self.exact(want))

    def array(self, rows, want, array, what):
        assert array.shape == (len(rows), *want.shape), f"{what}: {array.shape}"
        for got, row in zip(array, rows):
            same(np.asarray(got), want.dense(row), f"{what} row {row}", self.exact(want))

    def tensors(self, get, names, shapes, what):
        rows = get("row")
        index = np.dtype(self.job.get("index") or "int32")
        known = {"row", "obs/cell_type"}
        for name, want in self.want.items():
            prefix = "" if want.is_x else f"{name}/"
            if want.sparse:
                parts = [f"{prefix}{part}" for part in ("data", "indices", "indptr")]
                assert tuple(shapes(f"{prefix}shape")) == (len(rows), *want.shape), what
                assert get(parts[1]).dtype == index, f"{what}: {get(parts[1]).dtype}"
                self.csr(rows, want, *map(get, parts), f"{what} {name}")
                known |= {*parts, f"{prefix}shape"} | ({"format"} if want.is_x else set())
            else:
                part = "X" if want.is_x else name
                self.array(rows, want, get(part), f"{what} {name}")
                known.add(part)
        assert names <= known, f"{what}: {names - known}"
        return rows

    def npz(self, path):
        with np.load(path) as f:
            rows = self.tensors(f.__getitem__, set(f.files), f.__getitem__, path.name)
        if self.x.sparse and self.x.dtype != np.float16:
            m = sp.load_npz(path)
            m.check_format(full_check=True)
            assert m.shape == (len(rows), *self.x.shape)
        return rows

    def safetensors(self, path):
        tensors = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "numpy") as f:
            meta = f.metadata()
        return self.tensors(tensors.__getitem__, set(tensors), lambda name: json.loads(meta[name]), path.name)

    def npy(self, path):
        with np.load(path.with_suffix(".npz")) as f:
            rows = f["row"]
        self.array(rows, self.x, np.load(path, mmap_mode="r"), path.name)
        return rows

    def h5ad(self, path):
        a = ad.read_h5ad(path)
        rows = a.obs_names.astype("int64").to_numpy()
        assert list(a.var_names) == self.x.genes
        assert set(a.layers) == {n[7:] for n in self.want if n.startswith("layers/") and n != self.job["x"]}
        assert set(a.obsm) == {n[5:] for n in self.want if n.startswith("obsm/") and n != self.job["x"]}
        for name, want in self.want.items():
            m, names = element(a, "X" if want.is_x else name)
            assert names is None or want.is_x or names == want.genes, name
            if sp.issparse(m):
                m.check_format(full_check=True)
                data = m.data
                if want.dtype == np.float16:  # scipy has none: wider, but the same values
                    assert data.dtype == np.float32 and (data == data.astype("float16")).all()
                    data = data.astype("float16")
                self.csr(rows, want, data, m.indices, m.indptr, f"{path.name} {name}")
            else:
                self.array(rows, want, m, f"{path.name} {name}")
        return rows

    def records(self, rows, flat, what):
        """Lists of each row, by `flat(name)`: the values of all rows, and how many each has."""
        for name, want in self.want.items():
            prefix = "" if want.is_x else f"{name}/"
            if want.sparse:
                (genes, lengths), (data, again) = flat(f"{prefix}genes"), flat(f"{prefix}expressions")
                assert lengths == again and genes.dtype == np.dtype(self.job.get("index") or "int32"), f"{what} {name}: {genes.dtype}"
                self.csr(rows, want, data, genes, np.concatenate([[0], np.cumsum(lengths)]), f"{what} {name}")
            else:
                values, _ = flat("X" if want.is_x else name)
                self.array(rows, want, values.reshape(len(rows), *want.shape), f"{what} {name}")
        return rows

    def table(self, table, what):
        def flat(name):
            lists = pa.concat_arrays(table[name].chunks)
            lengths = [len(row) for row in lists]
            while hasattr(lists.type, "value_type"):
                lists = lists.flatten()
            return lists.to_numpy(zero_copy_only=False), lengths
        return self.records(table["row"].to_numpy(), flat, what)

    def arrow(self, path):
        with pa.memory_map(str(path)) as file:
            return self.table(pa.ipc.open_file(file).read_all(), path.name)

    def parquet(self, path):
        return self.table(pq.read_table(path), path.name)

    def tar(self, path):
        members = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                members.setdefault(name, []).append(tar.extractfile(member).read())
        rows = np.array([json.loads(text)["row"] for text in members["json"]])

        def flat(name):
            arrays = [np.load(io.BytesIO(content)) for content in members[name.replace("/", ".") + ".npy"]]
            return np.concatenate([array.reshape(-1) for array in arrays]), [len(array) for array in arrays]
        return self.records(rows, flat, path.name)

    def epoch(self, format):
        seen = []
        for path in sorted((pathlib.Path(self.job["mount"]) / "epoch-0000").iterdir()):
            path = path.with_suffix("." + format)
            assert path.stat().st_size == len(path.read_bytes()), path.name
            seen.append(getattr(self, format)(path))
        rows = np.sort(np.concatenate(seen))
        assert (rows == np.arange(self.x.sizes[-1])).all(), "not every row once"


def main():
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        check = Check(json.loads(sys.argv[2]))
        for format in check.job["formats"]:
            check.epoch(format)


if __name__ == "__main__":
    main()

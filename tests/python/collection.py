"""A collection of stores as anndata reads it: what every served byte is compared with."""
import functools
import logging
import os
import pathlib
import warnings
import zipfile
from dataclasses import dataclass, field

import anndata as ad
import h5py
import hdf5plugin  # noqa: F401  registers the zstd and blosc filters with h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr

warnings.simplefilter("ignore")
for name in ("zarr", "asyncio"):
    logging.getLogger(name).setLevel(logging.CRITICAL)  # what it cannot read is tried in another way


@dataclass
class Column:
    name: str
    kind: str  # categorical, number, boolean, text
    values: np.ndarray  # codes (-1 missing), numbers, booleans, strings
    categories: list = field(default_factory=list)  # labels as text
    ordered: bool = False
    mask: np.ndarray | None = None  # True = missing, nullable columns only

    @property
    def dtype(self):
        """The dtype that numpy formats serve."""
        if self.kind == "categorical":
            n = len(self.categories)
            return np.dtype("int8" if n <= 127 else "int16" if n <= 32767 else "int32")
        return self.values.dtype


@dataclass
class Collection:
    paths: list
    sizes: list  # rows of each store
    genes: list
    x: object  # (data, indices, indptr) or a dense array
    n_vars: int
    columns: dict

    @property
    def rows(self):
        return sum(self.sizes)

    @property
    def is_sparse(self):
        return isinstance(self.x, tuple)

    @property
    def x_dtype(self):
        return self.x[0].dtype if self.is_sparse else self.x.dtype

    def sparse_rows(self, rows):
        """The CSR parts of these rows, in this order, stored order within each row."""
        data, indices, indptr = self.x
        lengths = indptr[rows + 1] - indptr[rows]
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(indptr[rows] - bounds[:-1], lengths) + np.arange(bounds[-1])
        return data[at], indices[at], bounds

    def dense_rows(self, rows):
        """These rows as a dense array; values keep every bit (scipy's toarray would turn -0.0 into 0.0)."""
        if not self.is_sparse:
            return self.x[rows]
        data, indices, bounds = self.sparse_rows(rows)
        out = np.zeros((len(rows), self.n_vars), data.dtype)
        out[np.repeat(np.arange(len(rows)), np.diff(bounds)), indices] = data
        return out


def split(path):
    """STORE::INNER taken apart, as the mount does it."""
    path = str(path)
    store, mark, inner = path.rpartition("::")
    return (path, "") if os.path.exists(path) or not mark else (store, inner.strip("/"))


def open_node(path):
    """The group of a store, or of one inside of it, by h5py or zarr."""
    store, inner = split(path)
    if not is_zarr(store):
        root = h5py.File(store, "r")
    elif os.path.isdir(store):
        root = open_zarr(os.path.join(store, inner) if inner else store)
        inner = ""
    else:
        root = open_zarr(zarr.storage.ZipStore(store, mode="r"))
        while "obs" not in root and not inner:
            root = next(iter(root.groups()))[1]  # the store lies in a folder of the archive
    return root[inner] if inner else root


def open_zarr(store):
    try:
        return zarr.open_group(store, mode="r")
    except Exception:  # consolidated metadata may hold what zarr does not know
        return zarr.open_group(store, mode="r", use_consolidated=False)


def is_zarr(path):
    return pathlib.Path(path).is_dir() or zipfile.is_zipfile(path)


@functools.lru_cache(maxsize=2)
def read_whole(path):
    """The store by anndata, or None where it cannot."""
    try:
        store, inner = split(path)
        if not inner and not is_zarr(store):
            return ad.read_h5ad(store)
        return ad.io.read_elem(open_node(path)) if inner else ad.read_zarr(open_node(path))
    except (ValueError, KeyError, TypeError, AttributeError, ImportError):
        return None


def read_adata(path, x="X"):
    """The store by anndata; the matrix as plain parts where scipy has no such dtype (float16 or big-endian CSR), or element
    by element where anndata cannot open the store."""
    node = open_node(path)
    try:
        if x in node and isinstance(node[x], (h5py.Group, zarr.Group)) and f"{x}/data" in node:
            data = node[f"{x}/data"]
            if data.dtype == "float16" or not data.dtype.isnative:
                adata = ad.AnnData(obs=ad.io.read_elem(node["obs"]), var=ad.io.read_elem(node["var"]))
                adata.uns["parts"] = tuple(node[f"{x}/{part}"][...] for part in ("data", "indices", "indptr"))
                return adata
        whole = read_whole(str(path))
        if whole is None:
            whole = ad.AnnData(obs=ad.io.read_elem(node["obs"]), var=ad.io.read_elem(node["var"]))
            whole.uns["parts"] = node[x][...] if isinstance(node[x], (h5py.Dataset, zarr.Array)) else ad.io.read_elem(node[x])
        return whole
    finally:
        if isinstance(node, h5py.Group):
            node.file.close()


def element(adata, x):
    """(matrix or CSR parts, gene names) of X, raw/X, layers/NAME or obsm/NAME."""
    head, _, name = x.partition("/")
    if "parts" in adata.uns:
        return adata.uns["parts"], list(adata.var_names)
    if x == "X":
        return adata.X, list(adata.var_names)
    if x == "raw/X":
        return adata.raw.X, list(adata.raw.var_names)
    if head == "layers":
        return adata.layers[name], list(adata.var_names)
    value = adata.obsm[name]
    return value, [str(i) for i in range(value.shape[1])]


def column_of(name, series):
    if isinstance(series.dtype, pd.CategoricalDtype):
        labels = [str(label) for label in series.cat.categories]
        return Column(name, "categorical", series.cat.codes.to_numpy().astype("int64"), labels, bool(series.cat.ordered))
    if isinstance(series.dtype, pd.BooleanDtype) or pd.api.types.is_extension_array_dtype(series.dtype):
        mask = series.isna().to_numpy()
        if isinstance(series.dtype, pd.StringDtype):
            return Column(name, "text", series.fillna("").to_numpy(dtype=object), mask=mask)
        kind = "boolean" if isinstance(series.dtype, pd.BooleanDtype) else "number"
        return Column(name, kind, series.to_numpy(dtype=series.dtype.numpy_dtype, na_value=0), mask=mask)
    if series.dtype == bool:
        return Column(name, "boolean", series.to_numpy())
    if series.dtype.kind in "iuf":
        return Column(name, "number", series.to_numpy())
    if series.dtype == object and all(isinstance(v, str) for v in series):
        return Column(name, "text", series.to_numpy())
    return None


def unite(parts):
    """One column of several stores: categories in order of first appearance, codes of the united ones."""
    first = parts[0]
    if any(p.kind != first.kind for p in parts):
        raise ValueError(f"obs column {first.name} is {' and '.join(p.kind for p in parts)}")
    mask = None
    if any(p.mask is not None for p in parts):
        mask = np.concatenate([np.zeros(len(p.values), bool) if p.mask is None else p.mask for p in parts])
    if first.kind != "categorical":
        return Column(first.name, first.kind, np.concatenate([p.values for p in parts]), mask=mask)
    labels = list(dict.fromkeys(label for p in parts for label in p.categories))
    code = {label: i for i, label in enumerate(labels)}
    values = np.concatenate([np.array([code[label] for label in p.categories] + [-1])[p.values] for p in parts])
    return Column(first.name, "categorical", values, labels, all(p.ordered for p in parts))


def load(paths, x="X"):
    adatas = [read_adata(p, x) for p in paths]
    elements = [element(a, x) for a in adatas]
    # Stored by column, served by row.
    elements = [(m.tocsr() if sp.issparse(m) and m.format != "csr" else m, genes) for m, genes in elements]
    genes = elements[0][1]
    for path, (_, other) in zip(paths, elements):
        if other != genes:
            raise ValueError(f"{path}: other genes than {paths[0]}")
    matrices = [m for m, _ in elements]
    if isinstance(matrices[0], tuple) or sp.issparse(matrices[0]):
        parts = [m if isinstance(m, tuple) else (m.data, m.indices, m.indptr) for m in matrices]
        starts = np.cumsum([0] + [len(p[0]) for p in parts])
        joined = (
            np.concatenate([p[0] for p in parts]),
            np.concatenate([p[1] for p in parts]).astype("int64"),
            np.concatenate([[0]] + [p[2][1:].astype("int64") + start for p, start in zip(parts, starts)]),
        )
    else:
        joined = np.concatenate([np.asarray(m) for m in matrices])
    if isinstance(joined, tuple):
        joined = (joined[0].astype(joined[0].dtype.newbyteorder("=")), *joined[1:])
    else:
        joined = joined.astype(joined.dtype.newbyteorder("="))
    columns = {}
    for name in adatas[0].obs.columns:
        if all(name in a.obs.columns for a in adatas):
            column = [column_of(name, a.obs[name]) for a in adatas]
            if all(c is not None for c in column):
                columns[name] = unite(column)
    return Collection([str(p) for p in paths], [a.n_obs for a in adatas], genes, joined, len(genes), columns)

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
    """Splits STORE::INNER as the mount does."""
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


def state(path):
    """A value that changes if the store is replaced after another test of the same process read it."""
    found = os.stat(split(path)[0])
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def read_whole(path):
    return read_whole_once(path, state(path))


@functools.lru_cache(maxsize=2)
def read_whole_once(path, state):
    """The store as read by anndata, or None if anndata cannot read it."""
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
    if isinstance(value, pd.DataFrame):
        numbers = [c for c in value if value[c].dtype == bool or getattr(value[c].dtype, "kind", "O") in "iuf"]
        dtype = np.result_type(*[value[c].dtype for c in numbers])
        return np.column_stack([value[c].to_numpy().astype(dtype) for c in numbers]), numbers
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


def unite(name, parts, sizes):
    """One column of several stores, by the table of docs/columns.md; None if it is left out. Parts that are None are absent."""
    there = [p for p in parts if p is not None]
    kinds = {"number" if p.kind == "boolean" else p.kind for p in there}
    if len(kinds) > 1 and kinds != {"categorical", "text"}:
        return None
    nothing = lambda n, dtype: np.full(n, np.nan, dtype) if np.dtype(dtype).kind == "f" else np.zeros(n, dtype)
    masks = [np.ones(n, bool) if p is None else np.zeros(n, bool) if p.mask is None else p.mask for p, n in zip(parts, sizes)]
    nullable = any(p.mask is not None for p in there)
    if kinds == {"text"}:
        values = np.concatenate([np.full(n, "", object) if p is None else p.values for p, n in zip(parts, sizes)])
        return Column(name, "text", values, mask=np.concatenate(masks) if nullable or len(there) < len(parts) else None)
    if "categorical" not in kinds:
        dtype = np.result_type(*[p.values.dtype for p in there])
        values = [nothing(n, dtype) if p is None else p.values.astype(dtype) for p, n in zip(parts, sizes)]
        nullable |= len(there) < len(parts) and dtype.kind != "f"
        kind = "boolean" if dtype == bool else "number"
        return Column(name, kind, np.concatenate(values), mask=np.concatenate(masks) if nullable else None)
    texts = lambda p, mask: list(dict.fromkeys(p.values[~mask]))
    lists = [[] if p is None else texts(p, m) if p.kind == "text" else p.categories for p, m in zip(parts, masks)]
    labels = list(dict.fromkeys(label for part in lists for label in part))
    code = {label: i for i, label in enumerate(labels)}
    values = []
    for part, mask, own in zip(parts, masks, lists):
        if part is None:
            values.append(np.full(len(mask), -1))
        elif part.kind == "text":
            values.append(np.array([-1 if m else code[v] for v, m in zip(part.values, mask)], dtype="int64"))
        else:
            values.append(np.array([code[label] for label in own] + [-1])[part.values])
    same = all(p.kind == "categorical" and p.categories == there[0].categories for p in there)
    return Column(name, "categorical", np.concatenate(values), labels, same and all(p.ordered for p in there))


def join_genes(lists, join):
    """Genes of the collection, as `--join` says: order of the first store, then of first appearance."""
    if all(names == lists[0] for names in lists):
        return lists[0]
    for names in lists:
        if len(set(names)) < len(names):
            raise ValueError("a gene stands twice in stores whose genes differ")
    if join == "inner":
        return [name for name in lists[0] if all(name in set(names) for names in lists)]
    if join == "exact" and any(set(names) != set(lists[0]) for names in lists):
        raise ValueError("stores have other genes")
    return list(dict.fromkeys(name for names in lists for name in names))


def align_sparse(parts, names, genes):
    """CSR parts with columns renumbered, in stored order; values of other genes left out."""
    data, indices, indptr = parts
    if names == genes:
        return data, indices.astype("int64"), indptr.astype("int64")
    place = {name: i for i, name in enumerate(genes)}
    to = np.array([place.get(name, -1) for name in names], dtype="int64")[indices]
    kept = np.concatenate([[0], np.cumsum(to >= 0)])
    return data[to >= 0], to[to >= 0], kept[indptr]


def align_dense(x, names, genes):
    if names == genes or x.ndim > 2:
        return x
    place = {name: i for i, name in enumerate(names)}
    missing = [name not in place for name in genes]
    dtype = x.dtype if x.dtype.kind == "f" or not any(missing) else np.dtype("float64")
    out = np.full((len(x), len(genes)), np.nan, dtype) if any(missing) else np.empty((len(x), len(genes)), dtype)
    for i, name in enumerate(genes):
        if name in place:
            out[:, i] = x[:, place[name]]
    return out


def same_as_anndata(matrices, lists, genes, joined, join):
    """The alignment above equals that of anndata.concat (which sorts the genes of an outer join)."""
    adatas = [ad.AnnData(m, obs=pd.DataFrame(index=[f"{i}-{r}" for r in range(m.shape[0])]), var=pd.DataFrame(index=names))
              for i, (m, names) in enumerate(zip(matrices, lists))]
    want = ad.concat(adatas, join="outer" if join == "outer" else "inner")[:, genes].X
    got = sp.csr_matrix(joined, shape=want.shape) if isinstance(joined, tuple) else joined
    assert got.dtype == want.dtype, f"{got.dtype} is not anndata's {want.dtype}"
    if sp.issparse(want):
        # anndata drops stored zeros when it reorders, by a matrix product; here they are kept.
        got, want = got.toarray(), want.toarray()
    np.testing.assert_array_equal(got, np.asarray(want))


def load(paths, x="X", join="exact"):
    adatas = [read_adata(p, x) for p in paths]
    elements = [element(a, x) for a in adatas]
    # Stored by column, served by row.
    elements = [(m.tocsr() if sp.issparse(m) and m.format != "csr" else m, genes) for m, genes in elements]
    lists = [names for _, names in elements]
    genes = join_genes(lists, join)
    matrices = [m for m, _ in elements]
    if isinstance(matrices[0], tuple) or sp.issparse(matrices[0]):
        parts = [m if isinstance(m, tuple) else (m.data, m.indices, m.indptr) for m in matrices]
        parts = [align_sparse(p, names, genes) for p, names in zip(parts, lists)]
        starts = np.cumsum([0] + [len(p[0]) for p in parts])
        joined = (
            np.concatenate([p[0] for p in parts]),
            np.concatenate([p[1] for p in parts]).astype("int64"),
            np.concatenate([[0]] + [p[2][1:].astype("int64") + start for p, start in zip(parts, starts)]),
        )
    else:
        joined = np.concatenate([align_dense(np.asarray(m), names, genes) for m, names in zip(matrices, lists)])
    if any(names != genes for names in lists) and not any(isinstance(m, tuple) for m in matrices):
        same_as_anndata(matrices, lists, genes, joined, join)
    if isinstance(joined, tuple):
        joined = (joined[0].astype(joined[0].dtype.newbyteorder("=")), *joined[1:])
    else:
        joined = joined.astype(joined.dtype.newbyteorder("="))
    columns = {}
    for name in dict.fromkeys(name for a in adatas for name in a.obs.columns):
        parts = [column_of(name, a.obs[name]) if name in a.obs.columns else None for a in adatas]
        if all(part is not None for part, a in zip(parts, adatas) if name in a.obs.columns):
            column = unite(name, parts, [a.n_obs for a in adatas])
            if column is not None:
                columns[name] = column
    return Collection([str(p) for p in paths], [a.n_obs for a in adatas], genes, joined, len(genes), columns)

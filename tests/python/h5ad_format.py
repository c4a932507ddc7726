"""Reads the images that tests/h5ad_format.rs wrote and compares them with its cases.json. Warnings are errors."""

import json
import pathlib
import sys
import tempfile
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse

warnings.simplefilter("error")
anndata.settings.allow_write_nullable_strings = True


def check_column(column, want, where):
    kind, values = want["kind"], want["values"]
    if kind in ("ordered", "unordered"):
        assert isinstance(column.dtype, pd.CategoricalDtype), (where, column.dtype)
        assert column.cat.ordered == (kind == "ordered"), where
        assert column.cat.categories.tolist() == want["categories"], (where, column.cat.categories)
    elif kind == "nullable":
        assert column.dtype.name.lower() == want["dtype"].replace("bool", "boolean"), (where, column.dtype)
        assert isinstance(column.dtype, pd.api.extensions.ExtensionDtype), where
    elif kind == "numbers":
        assert column.dtype == np.dtype(want["dtype"]), (where, column.dtype)
    elif kind == "nullable text":
        assert isinstance(column.dtype, pd.StringDtype), (where, column.dtype)
    got = [None if pd.isna(value) else value for value in column.tolist()]
    assert got == values, (where, got, values)


def check_x(x, want, where):
    assert x.dtype == np.dtype(want["dtype"]), (where, x.dtype)
    assert list(x.shape) == want["shape"], (where, x.shape)
    if "dense" in want:
        assert isinstance(x, np.ndarray), (where, type(x))
        assert x.reshape(-1).tolist() == want["dense"], where
    else:
        assert scipy.sparse.issparse(x) and x.format == "csr", (where, type(x))
        for part in ("data", "indices", "indptr"):
            assert getattr(x, part).tolist() == want[part], (where, part)


def structure(path):
    """Every object, its attributes and their types, as anndata writes them; strings may differ in width."""
    found = {}

    def visit(name, node):
        attrs = {key: (np.asarray(node.attrs[key]).tolist(), node.attrs.get_id(key).dtype) for key in node.attrs}
        # Readers that count first (R's rhdf5) must find as many as readers that iterate.
        assert len(node.attrs) == len(attrs), (name, len(node.attrs))
        kind = None
        if isinstance(node, h5py.Dataset):
            node[()]
            text = h5py.check_string_dtype(node.dtype)
            # pandas narrows codes as it reads; check_column compares theirs.
            kind = (node.shape, "text" if text else "codes" if name.endswith("/codes") else node.dtype)
        found[name] = (kind, attrs)

    with h5py.File(path) as file:
        visit("/", file)
        file.visititems(visit)
    return found


def check(want):
    path = pathlib.Path(want["file"])
    for mode in (None, "r"):
        where = (path.name, mode)
        data = anndata.read_h5ad(path, backed=mode)
        assert data.obs_names.tolist() == want["obs_names"], where
        assert data.var_names.tolist() == want["var_names"], where
        assert data.obs.columns.tolist() == want["names"], (where, data.obs.columns)
        for name, column in zip(want["names"], want["columns"]):
            check_column(data.obs[name], column, (*where, name))
        if len(want["x"]["shape"]) == 2:
            assert data.isbacked == (mode == "r"), where
            x = data.X[:] if mode else data.X
            if isinstance(x, h5py.Dataset):
                x = x[()]
            check_x(x, want["x"], where)
        else:
            # In backed mode anndata raises KeyError for the X of every file without one.
            assert mode or data.X is None, where
            check_x(data.obsm["X"], want["x"], where)
        if mode:
            data.file.close()
    with h5py.File(path) as file:
        for name, column in zip(want["names"], want["columns"]):
            if "categories" in column:
                assert file["obs"][name]["codes"].dtype == np.dtype(column["dtype"]), (path.name, name)
    if len(want["names"]) > 1_000:
        return  # slow, and 4,092 columns are more than anndata itself can write
    with tempfile.TemporaryDirectory() as directory:
        again = pathlib.Path(directory) / "again.h5ad"
        # anndata turns text into categories as it writes; a copy without conversion keeps the structure comparable.
        data = anndata.read_h5ad(path)
        data.strings_to_categoricals = lambda *args: None
        data.write_h5ad(again, convert_strings_to_categoricals=False)
        ours, theirs = structure(path), structure(again)
        assert ours.keys() == theirs.keys(), (path.name, ours.keys() ^ theirs.keys())
        for name in ours:
            assert ours[name] == theirs[name], (path.name, name, ours[name], theirs[name])


def main():
    for want in json.loads(pathlib.Path(sys.argv[1]).read_text()):
        check(want)


main()

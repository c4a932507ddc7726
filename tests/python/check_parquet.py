"""Compares a directory of parquet files with the epoch of a mount and with a store: check_parquet.py OUT MOUNT STORE

pyarrow reads the files; numpy the batches of the mount, whose order the rows must have; anndata the store.
"""
import glob
import sys

import anndata
import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp

out, mount, store = sys.argv[1:]
names = sorted(glob.glob(f"{out}/*"))
assert names and names == sorted(glob.glob(f"{out}/part-*.parquet")), names
table = pq.ParquetDataset(out).read()
rows = table["row"].to_numpy()
order = np.concatenate([np.load(path.rsplit(".", 1)[0] + ".npz")["row"] for path in sorted(glob.glob(f"{mount}/epoch-0000/*"))])
assert np.array_equal(rows, order), "the order of the epoch"
adata = anndata.read_h5ad(store)
want = adata.X.toarray() if sp.issparse(adata.X) else np.asarray(adata.X)
got = np.zeros_like(want)
if "genes" in table.column_names:
    for row, genes, values in zip(rows, table["genes"].to_pylist(), table["expressions"].to_pylist()):
        got[row, genes] = values
else:
    got[rows] = np.array(table["X"].to_pylist())
assert np.array_equal(got, want, equal_nan=True), "X"
assert np.array_equal(np.sort(rows), np.arange(len(adata))), "each row once"
print(len(rows), "rows", len(names), "files")

"""Makes the stores that the criterion benchmarks read: 4,096 rows x 1,500 values of 20,000 genes, one for each filter.

usage: stores.py DIRECTORY
"""
import pathlib, sys

import h5py, hdf5plugin
import numpy as np

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)
ROWS, NNZ, GENES = 4096, 1500, 20_000
indices = np.sort(rng.integers(0, GENES, (ROWS, NNZ)), axis=1).astype("int32").ravel()
data = rng.geometric(0.6, ROWS * NNZ).astype("float32")
FILTERS = {
    "none": {}, "gzip": dict(compression="gzip", compression_opts=4), "shuffle-gzip": dict(compression="gzip", shuffle=True),
    "lzf": dict(compression="lzf"), "zstd": hdf5plugin.Zstd(), "blosc": hdf5plugin.Blosc(cname="lz4", shuffle=1),
}
for name, filter in FILTERS.items():
    with h5py.File(out / f"{name}.h5ad", "w") as f:
        x = f.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [ROWS, GENES]})
        x.create_dataset("data", data=data, chunks=(18_000,), **filter)
        x.create_dataset("indices", data=indices, chunks=(18_000,), **filter)
        x["indptr"] = np.arange(ROWS + 1, dtype="int64") * NNZ
        for frame, n in [("obs", ROWS), ("var", GENES)]:
            g = f.create_group(frame)
            g.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index", "column-order": np.array([], "S1")})
            g.create_dataset("_index", data=[str(i) for i in range(n)], dtype=h5py.string_dtype())

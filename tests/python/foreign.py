#!/usr/bin/env python3
"""Files that are not AnnData: makes them, and compares mounts of those that can be read with h5py and scipy.

Usage: foreign.py --make DIRECTORY
       foreign.py MOUNT FILE[::GROUP] 10x|loom [ELEMENT]
"""
import gzip
import io
import json
import os
import pathlib
import sys
import tarfile

import h5py
import numpy as np
import scipy.sparse as sp

CELLS, GENES = 70, 30


def counts(rng):
    return sp.random(GENES, CELLS, density=0.3, format="csc", random_state=rng, dtype=np.float64)


def tenx(path, version, genomes=("GRCh38",)):
    rng = np.random.default_rng(10)
    with h5py.File(path, "w") as f:
        for genome in genomes:
            group = f.create_group("matrix" if version == 3 else genome)
            matrix = counts(rng)
            group["data"] = (matrix.data * 100).astype(np.int32)
            group.create_dataset("indices", data=matrix.indices.astype(np.int64), chunks=(100,), compression="gzip")
            group["indptr"] = matrix.indptr.astype(np.int64)
            group["shape"] = np.array([GENES, CELLS], np.int32)
            group["barcodes"] = np.array([f"CELL{i:04}-1" for i in range(CELLS)], "S10")
            ids = np.array([f"ENSG{i:05}" for i in range(GENES)], "S9")
            names = np.array([f"gene{i % 25}" for i in range(GENES)], "S8")
            if version == 3:
                features = group.create_group("features")
                features["id"], features["name"] = ids, names
                features["feature_type"] = np.array([b"Gene Expression"] * (GENES - 3) + [b"Antibody Capture"] * 3)
                features["genome"] = np.array([genome.encode()] * GENES)
                features["_all_tag_keys"] = np.array([b"genome"])
            else:
                group["genes"], group["gene_names"] = ids, names


def loom(path, named=True, chunks=(16, 16)):
    rng = np.random.default_rng(11)
    with h5py.File(path, "w") as f:
        f.attrs["LOOM_SPEC_VERSION"] = "3.0.0"
        compression = "gzip" if chunks else None
        matrix = counts(rng).toarray().astype(np.float32)
        f.create_dataset("matrix", data=matrix, chunks=chunks, compression=compression)
        f.create_dataset("layers/spliced", data=(matrix * 10).astype(np.uint16), chunks=chunks, compression=compression)
        columns, rows = f.create_group("col_attrs"), f.create_group("row_attrs")
        if named:
            columns["CellID"] = np.array([f"cell{i}" for i in range(CELLS)], dtype=h5py.string_dtype())
            rows["Gene"] = np.array([f"gene{i}" for i in range(GENES)], dtype=h5py.string_dtype())
        columns["ClusterID"] = rng.integers(0, 5, CELLS)
        columns["Age"] = np.array(["p5", "p7"] * (CELLS // 2), dtype=h5py.string_dtype())
        columns["tSNE"] = rng.normal(size=(CELLS, 2))
        rows["Selected"] = rng.integers(0, 2, GENES)
        f.create_group("col_graphs")
        f.create_group("row_graphs")


def make(directory):
    at = pathlib.Path(directory)
    at.mkdir(parents=True, exist_ok=True)
    tenx(at / "v3.h5", 3)
    tenx(at / "v2.h5", 2)
    tenx(at / "two.h5", 2, ("hg19", "mm10"))
    loom(at / "cells.loom")
    loom(at / "numbered.loom", named=False, chunks=None)
    with h5py.File(at / "x.h5seurat", "w") as f:
        f.create_group("assays/RNA/counts"), f.create_group("meta.data")
        f["cell.names"] = np.array([b"a"])
    with h5py.File(at / "x.h5ads", "w") as f:
        f.create_group("obs").attrs["_index"] = "index"
        f["obs/index"] = np.array([b"a"])
        f.create_group("uns/AnnDataSet")
    (at / "x.rds").write_bytes(gzip.compress(b"X\n\0\0\0\x03" + os.urandom(9000)))
    (at / "x.RData").write_bytes(gzip.compress(b"RDX3\nX\n" + os.urandom(100)))
    with tarfile.open(at / "x.tar", "w") as tar, tarfile.open(at / "x.tar.gz", "w:gz") as compressed:
        for archive in (tar, compressed):
            info = tarfile.TarInfo("cells.h5ad")
            info.size = 5000
            archive.addfile(info, io.BytesIO(os.urandom(5000)))
    (at / "x.parquet").write_bytes(b"PAR1" + os.urandom(100))
    (at / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n3 3 1\n1 1 1\n")
    (at / "matrix.mtx.gz").write_bytes(gzip.compress((at / "matrix.mtx").read_bytes()))
    (at / "x.csv").write_text("gene,a,b\nx,1,2\n")
    (at / "x.h5ad.dvc").write_text("outs:\n- md5: 0123456789abcdef\n  size: 100\n  path: x.h5ad\n")
    (at / "annex.h5ad").symlink_to(".git/annex/objects/aa/bb/SHA256E-s5--00.h5ad/SHA256E-s5--00.h5ad")
    (at / "unlocked.h5ad").write_text("/annex/objects/SHA256E-s5--00.h5ad\n")
    (at / "dvc.h5ad").symlink_to("/nowhere/.dvc/cache/files/md5/01/23")
    (at / "lost.h5ad").symlink_to("elsewhere.h5ad")
    for name in ("soma/__tiledb_group.tdb", "lance/_versions/1.manifest", "lance/data/0.lance", "mtx/matrix.mtx.gz"):
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(b"")


def text(array):
    return [value.decode() if isinstance(value, bytes) else str(value) for value in array]


def wanted(path, kind, element):
    """Rows, names of genes, obs columns of numbers, names of rows: by h5py alone."""
    path, _, group = path.partition("::")
    with h5py.File(path) as f:
        if kind == "10x":
            group = group or ("matrix" if "matrix" in f else next(iter(f)))
            g = f[group]
            matrix = sp.csc_matrix((g["data"][:], g["indices"][:], g["indptr"][:]), shape=tuple(g["shape"][:]))
            names = g["features/name"] if "features" in g else g["gene_names"]
            return matrix.T.toarray(), text(names[:]), {}
        matrix = f["matrix"] if element == "X" else f[element]
        genes = text(f["row_attrs/Gene"][:]) if "Gene" in f["row_attrs"] else [str(i) for i in range(GENES)]
        return matrix[:].T, genes, {"ClusterID": f["col_attrs/ClusterID"][:]}


def check(mount, path, kind, element="X"):
    mount = pathlib.Path(mount)
    rows, genes, columns = wanted(path, kind, element)
    shown = [line.split("\t")[1] for line in (mount / "var.tsv").read_text().splitlines()[1:]]
    assert shown == genes, (shown[:3], genes[:3])
    seen = []
    for file in sorted((mount / "epoch-0000").glob("*.npz")):
        with np.load(file) as batch:
            if "X" in batch:
                got = batch["X"]
            else:
                parts = (batch["data"], batch["indices"], batch["indptr"])
                got = sp.csr_matrix(parts, shape=(len(batch["row"]), len(genes))).toarray()
            assert got.dtype == rows.dtype, (got.dtype, rows.dtype)
            np.testing.assert_array_equal(got, rows[batch["row"]])
            for name, values in columns.items():
                np.testing.assert_array_equal(batch[f"obs/{name}"], values[batch["row"]])
            seen.extend(batch["row"].tolist())
    assert sorted(seen) == list(range(len(rows))), len(seen)
    dataset = json.loads((mount / "dataset.json").read_text())
    assert len(dataset["stores"]) == 1, dataset["stores"]


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(sys.argv[2])
    else:
        check(*sys.argv[1:])

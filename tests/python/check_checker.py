#!/usr/bin/env python3
"""Checks the checker: a correct directory, written by numpy, anndata and safetensors, passes in every format, and each of
a list of small changes to it is found.

Usage: check_checker.py STORE... (of one collection); makes its directory itself, mounts nothing
"""
import json
import pathlib
import re
import sys
import tempfile

import numpy as np

import check_epoch
import collection as stores

import anndata as ad
import pandas as pd
import safetensors.numpy
import scipy.sparse as sp

SIZE = 128


def escape(text):
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def members(want, columns, rows):
    out = {"row": rows}
    if want.is_sparse:
        data, indices, bounds = want.sparse_rows(rows)
        out |= {"data": data, "indices": indices.astype("int32"), "indptr": bounds.astype("int32")}
    else:
        out["X"] = want.dense_rows(rows)
    for c in columns:
        out[f"obs/{c.name}"] = c.values[rows].astype(c.dtype)
        if c.mask is not None:
            out[f"obs/{c.name}/mask"] = c.mask[rows]
    return out


def adata(want, columns, rows):
    obs = {}
    for c in columns:
        values = c.values[rows]
        if c.kind == "categorical":
            obs[c.name] = pd.Categorical.from_codes(values, c.categories, ordered=c.ordered)
        elif c.mask is not None:
            obs[c.name] = (pd.arrays.BooleanArray if c.kind == "boolean" else pd.arrays.IntegerArray)(values, c.mask[rows])
        else:
            obs[c.name] = values
    x = want.dense_rows(rows)
    if want.is_sparse:
        x = sp.csr_matrix(want.sparse_rows(rows), shape=x.shape)
    return ad.AnnData(x, obs=pd.DataFrame(obs, index=[str(r) for r in rows]), var=pd.DataFrame(index=want.genes))


def tsv(columns, rows):
    lines = ["\t".join(["row"] + [c.name for c in columns])]
    for r in rows:
        fields = [str(r)]
        for c in columns:
            v = c.values[r]
            missing = (c.mask is not None and c.mask[r]) or (c.kind == "categorical" and v < 0)
            text = c.categories[v] if c.kind == "categorical" else str(bool(v)) if c.kind == "boolean" else str(v)
            fields.append("" if missing else escape(text))
        lines.append("\t".join(fields))
    return "\n".join(lines) + "\n"


def write(root, want, paths):
    columns = [c for c in want.columns.values() if c.kind != "text"]
    (root / "categories").mkdir()
    (root / "epoch-0000").mkdir()
    for c in columns:
        if c.kind == "categorical":
            (root / f"categories/{c.name}.txt").write_text("".join(escape(label) + "\n" for label in c.categories))
    (root / "var.tsv").write_text("".join(f"{i}\t{g}\n" for i, g in enumerate(want.genes)))
    (root / "README.txt").write_text("read me\n")
    order = np.random.default_rng(0).permutation(want.rows)
    count = -(-want.rows // SIZE)
    (root / "dataset.json").write_text(json.dumps({
        "stores": [{"path": p, "rows": n} for p, n in zip(paths, want.sizes)],
        "rows": want.rows, "genes": want.n_vars,
        "x": {"element": "X", "kind": "csr" if want.is_sparse else "dense", "dtype": want.x_dtype.name},
        "columns": [{"name": c.name, "kind": c.kind, "dtype": c.dtype.name, "categories": len(c.categories),
                     "ordered": c.ordered, "nullable": c.mask is not None} for c in columns],
        "options": {}, "seed": 0, "batch_size": SIZE, "block_size": 16, "fetch_factor": 2, "k": 16,
        "blocks": sum(-(-n // 16) for n in want.sizes), "batches": count}))
    for i in range(count):
        rows = order[i * SIZE:(i + 1) * SIZE]
        path = root / f"epoch-0000/batch-{i:06d}"
        tensors = members(want, columns, rows)
        shape = np.array([len(rows), want.n_vars])
        extra = {"shape": shape, "format": np.array(b"csr")} if want.is_sparse else {}
        np.savez(f"{path}.npz", **tensors, **extra)
        safetensors.numpy.save_file(tensors, f"{path}.safetensors", {"epoch": "0", "batch": str(i), "shape": json.dumps(shape.tolist()), "format": "csr"})
        np.save(f"{path}.npy", want.dense_rows(rows))
        adata(want, columns, rows).write_h5ad(f"{path}.h5ad")
        pathlib.Path(f"{path}.tsv").write_text(tsv(columns, rows))
    return columns


def damages(want, columns):
    """(what, file of batch 2, change of its tensors): each must be found."""
    def member(name, change):
        def apply(tensors):
            tensors[name] = change(tensors[name].copy())
        return apply

    def at(index, value):
        def change(a):
            a[index] = value(a[index])
            return a
        return change

    bits = lambda v: (-v if v != 0 and np.isfinite(v) else v.dtype.type(7))
    swap = lambda a: a[[1, 0, *range(2, len(a))]]
    out = {
        "a value": member("data" if want.is_sparse else "X", at(5 if want.is_sparse else (5, 5), bits)),
        "the dtype of X": member("data" if want.is_sparse else "X", lambda a: a.astype("float64")),
        "two rows exchanged": member("row", swap),
        "a row twice": member("row", at(0, lambda v: (v + 1) % want.rows)),
        "a missing member": lambda t: t.pop(f"obs/{columns[0].name}"),
        "an extra member": lambda t: t.update(surplus=np.zeros(3)),
        "wider codes": member(f"obs/{columns[0].name}", lambda a: a.astype("int32")),
    }
    for c in columns:
        change = {"boolean": np.logical_not, "categorical": lambda v: v - 1 if v > 0 else v + 1}.get(c.kind, lambda v: v.dtype.type(3) if not v == 3 else v.dtype.type(4))

        def first_present(a, c=c, change=change):
            rows = np.flatnonzero(~c.mask[out_rows]) if c.mask is not None else np.arange(len(a))
            a[rows[0]] = change(a[rows[0]])
            return a
        out[f"obs {c.name}"] = member(f"obs/{c.name}", first_present)
        if c.mask is not None:
            out[f"the mask of {c.name}"] = member(f"obs/{c.name}/mask", at(3, np.logical_not))
    if want.is_sparse:
        out["a column number"] = member("indices", at(7, lambda v: (v + 1) % want.n_vars))
        out["int64 indices"] = member("indices", lambda a: a.astype("int64"))
        out["a row bound"] = member("indptr", at(9, lambda v: v + 1))
    return out


def main():
    global out_rows
    paths = sys.argv[1:]
    want = stores.load(tuple(paths))
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        columns = write(root, want, paths)
        # Only the .npz files are listed, as on a mount; the others can be opened.
        check_epoch.listing = lambda epoch: sorted(path.name for path in epoch.glob("*.npz"))
        # Only the formats that are written here.
        written = ["npz", "safetensors", "npy", "h5ad", "h5ad-backed", "tsv"]
        for kind in written:
            result = check_epoch.answer({"mount": root, "stores": paths, "format": kind})
            assert result["ok"], f"{kind}: {result['error']}"
        file = root / "epoch-0000/batch-000002.npz"
        whole = file.read_bytes()
        found = 0

        def must_fail(what, kind="npz"):
            nonlocal found
            result = check_epoch.answer({"mount": root, "stores": paths, "format": kind})
            assert not result["ok"], f"not found: {what}"
            found += 1

        with np.load(file) as f:
            members_of_file = {name: f[name] for name in f.files}
        out_rows = members_of_file["row"]
        for what, apply in damages(want, columns).items():
            tensors = dict(members_of_file)
            apply(tensors)
            np.savez(file, **tensors)
            must_fail(what)
        np.savez_compressed(file, **members_of_file)
        must_fail("deflated members")
        damaged = bytearray(whole)
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(bytes(damaged))
        must_fail("one bit")
        file.write_bytes(whole)
        moved = file.with_name("batch-000999.npz")
        file.rename(moved)
        must_fail("a missing batch")
        moved.rename(file)
        text = root / "epoch-0000/batch-000001.tsv"
        good = text.read_text()
        for what, pattern, new in [("a label", "plate1", "plate2"), ("a boolean", "True", "False"), ("a number", r"(\t-?\d{12,})\d\t", r"\g<1>\t"), ("a digit too many", r"(\t-?0\.\d{6,})\t", r"\g<1>00001\t")]:
            changed = re.sub(pattern, new, good, count=1)
            assert changed != good, what
            text.write_text(changed)
            must_fail(f"{what} in a tsv", "tsv")
        text.write_text(good)
        for name, pattern, new in [("dataset.json", '"rows": ', '"rows": 1'), ("categories/plate.txt", "plate1", "plate9"), ("var.tsv", "gene5", "gene55")]:
            file = root / name
            good = file.read_text()
            file.write_text(good.replace(pattern, new, 1))
            must_fail(name)
            file.write_text(good)
        result = check_epoch.answer({"mount": root, "stores": paths})
        assert result["ok"], result
        print(json.dumps({"ok": True, "formats": len(written), "damages_found": found}))


if __name__ == "__main__":
    main()

"""annbatch's shapes beyond transcriptomes, scaled to this disk: `scripts/paper shapes`.

images     5 x 128 x 128 float16, batches of 512 (published: 4096), uncompressed zarr v3
dense      common variants: int8, 1.2 million columns, batches of 64
sparse     rare variants: int8 CSR, 1.2 million columns, about 6,000 values a row, batches of 256
Peers on the same numbers: a memory-mapped numpy reader of blocks (what a careful person writes: no copy but the batch's own, no format), and the
naive one, which takes each row of a batch from h5py by itself. k is the same for ours and the block reader.
"""
import io
import sys

import numpy as np

from common import OUT, files, keep, made, mounted, plot, rate, warm

SECONDS = 4.0
IMAGES, IMAGE = 6_000, (5, 128, 128)
PEOPLE, VARIANTS = 640, 1_200_000
CARRIERS, RARE = 20_000, 6_000


def obs(rows):
    import pandas as pd

    site = pd.Categorical.from_codes(np.arange(rows) * 8 // rows, [f"site{i}" for i in range(8)])
    return pd.DataFrame({"site": site}, index=[str(i) for i in range(rows)])


def frame(group, name, table):
    import anndata as ad

    ad.io.write_elem(group, name, table)


def images(path):
    """A zarr whose X has four axes: anndata writes such arrays in obsm, so X is written by hand."""
    import pandas as pd
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    x = group.create_array("X", shape=(IMAGES, *IMAGE), dtype="f2", chunks=(16, *IMAGE), compressors=None)
    x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    rng = np.random.default_rng(2)
    for start in range(0, IMAGES, 500):
        x[start : start + 500] = rng.random((min(500, IMAGES - start), *IMAGE), dtype="f4").astype("f2")
    frame(group, "obs", obs(IMAGES))
    frame(group, "var", pd.DataFrame(index=[str(i) for i in range(IMAGE[0])]))


def dense(path):
    import h5py
    import pandas as pd

    rng = np.random.default_rng(3)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        x = file.create_dataset("X", (PEOPLE, VARIANTS), "i1")
        x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, PEOPLE, 64):
            x[start : start + 64] = rng.binomial(2, 0.2, (64, VARIANTS)).astype("i1")
        frame(file, "obs", obs(PEOPLE))
        frame(file, "var", pd.DataFrame(index=np.char.add("v", np.arange(VARIANTS).astype("U7"))))


def sparse(path):
    import h5py
    import pandas as pd

    rng = np.random.default_rng(4)
    lengths = rng.poisson(RARE, CARRIERS)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [CARRIERS, VARIANTS]})
        x["indptr"] = np.concatenate([[0], np.cumsum(lengths)]).astype("i8")
        total = int(lengths.sum())
        x.create_dataset("data", (total,), "i1")
        x.create_dataset("indices", (total,), "i4")
        at = 0
        for length in np.add.reduceat(lengths, np.arange(0, CARRIERS, 500)):
            # Sorted for each row: sorting 500 rows at once would not sort within rows.
            x["indices"][at : at + length] = np.sort(rng.integers(0, VARIANTS, length)).astype("i4")
            x["data"][at : at + length] = rng.integers(1, 3, length).astype("i1")
            at += int(length)
        frame(file, "obs", obs(CARRIERS))
        frame(file, "var", pd.DataFrame(index=np.char.add("v", np.arange(VARIANTS).astype("U7"))))


def shuffled_blocks(rows, block, k, batch, seed=0):
    """Rows of each batch: blocks in random order, k at a time, shuffled."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows // block)
    for start in range(0, len(order), k):
        blocks = order[start : start + k]
        taken = (blocks[:, None] * block + np.arange(block)).ravel()
        taken = rng.permutation(taken)
        yield np.sort(blocks), [taken[i : i + batch] for i in range(0, len(taken), batch)]


def block_reader(matrix, block, k, batch):
    """A memory-mapped array of rows: blocks of a fetch into one buffer, batches out of it."""
    for blocks, batches in shuffled_blocks(len(matrix), block, k, batch):
        fetch = np.concatenate([matrix[b * block : (b + 1) * block] for b in blocks])
        place = {b: i for i, b in enumerate(blocks)}
        for rows in batches:
            at = np.array([place[r // block] * block + r % block for r in rows])
            yield len(fetch[at])


def csr_reader(data, indices, indptr, block, k, batch):
    import scipy.sparse as sp

    for blocks, batches in shuffled_blocks(len(indptr) - 1, block, k, batch):
        parts = []
        for b in blocks:
            start, end = indptr[b * block], indptr[(b + 1) * block]
            parts.append(sp.csr_matrix((data[start:end], indices[start:end], indptr[b * block : (b + 1) * block + 1] - start), shape=(block, VARIANTS)))
        fetch = sp.vstack(parts, format="csr")
        place = {b: i for i, b in enumerate(blocks)}
        for rows in batches:
            yield fetch[[place[r // block] * block + r % block for r in rows]].shape[0]


def mapped(path, element):
    """A contiguous dataset of an HDF5 file as a memory map."""
    import h5py

    with h5py.File(path, "r") as file:
        data = file[element]
        return np.memmap(path, data.dtype, "r", data.id.get_offset(), data.shape)


def naive(rows, read, batch, seed=0):
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    for start in range(0, rows, batch):
        yield len([read(row) for row in np.sort(order[start : start + batch])])


def ours(stores, extension, batch, block, k, load):
    with mounted(stores, "--batch-size", batch, "--block-size", block, "--fetch-factor", max(1, k * block // batch), "--obs", "site",
                 "--memory", "6GiB") as place:
        found = []
        # Several epochs, as one may be short.
        paths = [path for epoch in range(4) for path in files(place / f"epoch-{epoch:04d}", extension)]
        found = rate((load(path) for path in paths), SECONDS)
        return found


BUFFER = bytearray(512 << 20)


def into_buffer(path):
    """A .npy batch read into memory that is kept: memory that is new for each batch costs more than reading it."""
    with open(path, "rb", buffering=0) as file:
        view, size = memoryview(BUFFER), 0
        while got := file.readinto(view[size:]):
            size += got
    header = io.BytesIO(view[:4096])
    version = np.lib.format.read_magic(header)
    shape, _, dtype = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")(header)
    return len(np.ndarray(shape, dtype, BUFFER, header.tell()))


def main():
    import h5py
    import zarr
    from safetensors.numpy import load_file

    first = lambda path: len(next(iter(load_file(path).values()))) and len(load_file(path)["row"])
    length = lambda path: len(load_file(path)["row"])
    array = lambda path: len(np.load(path))
    rows, results = [], {}

    def told(shape, batch, row_bytes, **speeds):
        results[shape] = speeds
        best = max((value for name, value in speeds.items() if not name.startswith("ours") and value), default=None)
        mine = max(value for name, value in speeds.items() if name.startswith("ours"))
        for name, value in speeds.items():
            rows.append([shape, batch, name.replace("_", " "), f"{value:,.0f}" if value else "-", f"{value * row_bytes / 1e9:.2f}" if value else "-",
                         f"{mine / value:.2f}x" if value and not name.startswith("ours") else ""])
            print(rows[-1], file=sys.stderr, flush=True)
        return best

    path = made("images.zarr", images)
    warm(path)
    batch, block, k = 512, 16, 64
    flat = made("images.npy", lambda new: np.lib.format.open_memmap(new, "w+", "f2", (IMAGES, *IMAGE)).__setitem__(slice(None), zarr.open_group(path)["X"][:]))
    warm(flat)
    x = zarr.open_group(path, mode="r")["X"]
    told("images 5x128x128 f2", batch, 2 * np.prod(IMAGE),
         ours_npy_into_one_buffer=ours([path], "npy", batch, block, k, into_buffer),
         ours_npy=ours([path], "npy", batch, block, k, array), ours_safetensors=ours([path], "safetensors", batch, block, k, length),
         numpy_block_reader=rate(block_reader(np.load(flat, mmap_mode="r"), block, k, batch), SECONDS),
         naive_zarr_rows=rate(naive(IMAGES, lambda row: x[int(row)], 64), SECONDS))

    path = made("dense.h5ad", dense)
    warm(path)
    batch, block, k = 64, 8, 32
    with h5py.File(path, "r") as file:
        x = file["X"]
        told("genotypes, dense i1", batch, VARIANTS,
             ours_npy_into_one_buffer=ours([path], "npy", batch, block, k, into_buffer),
         ours_npy=ours([path], "npy", batch, block, k, array), ours_safetensors=ours([path], "safetensors", batch, block, k, length),
             numpy_block_reader=rate(block_reader(mapped(path, "X"), block, k, batch), SECONDS),
             naive_h5py_rows=rate(naive(PEOPLE, lambda row: x[int(row)], batch), SECONDS))

    path = made("sparse.h5ad", sparse)
    warm(path)
    batch, block, k = 256, 16, 256
    with h5py.File(path, "r") as file:
        indptr, data, indices = file["X/indptr"][:], file["X/data"], file["X/indices"]
        row = lambda i: (data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]])
        told("genotypes, sparse i1", batch, 5 * RARE,
             ours_npz=ours([path], "npz", batch, block, k, lambda p: len(np.load(p)["row"]) and sum(len(v) for v in [np.load(p)["data"]]) and batch),
             ours_safetensors=ours([path], "safetensors", batch, block, k, length),
             scipy_block_reader=rate(csr_reader(mapped(path, "X/data"), mapped(path, "X/indices"), indptr, block, k, batch), SECONDS),
             naive_h5py_rows=rate(naive(CARRIERS, row, batch), SECONDS))

    keep("shapes", {"results": results}, ["shape", "batch", "reader", "rows/s", "GB/s", "ours (best) to it"], rows,
         ["Page cache warm; ours and the block reader mix as many blocks; one process each."])
    names = list(results)
    kinds = ["ours", "block reader", "naive"]
    pick = lambda speeds, kind: max((v for n, v in speeds.items() if v and kind.replace(" ", "_") in n), default=1)
    plot("shapes", "rows a second beyond transcriptomes", "", "rows a second", names,
         [(kind, [(name, pick(results[name], kind), 0) for name in names]) for kind in kinds], log_y=True)


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    main()

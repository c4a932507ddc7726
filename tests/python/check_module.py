#!/usr/bin/env python3
"""The Python module of the wheel: in an environment with only numpy, then compared by anndata in another.

    check_module.py read STORE OUT           mounts, reads, and writes what was read; errors are exceptions
    check_module.py orphan STORE             mounts, prints the mountpoint, and kills itself
    check_module.py torch STORE              the IterableDataset: workers, ranks, state
    check_module.py compare STORE OUT        what was read is what anndata reads

Prints one line and exits 1 at the first difference.
"""
import os
import pathlib
import pickle
import signal
import sys

import numpy as np


def read(store, out):
    import shufflefs

    options = {"batch_size": 64, "seed": 5, "split": {"train": 0.75, "val": 0.25}}
    arrays = {}
    with shufflefs.mount(store, **options) as mount:
        assert mount.dataset["options"]["split"] == {"train": 0.75, "val": 0.25}, mount.dataset["options"]
        place = mount.path
        for view in ("train", "val"):
            files = mount.epoch(1, view=view)
            assert all(path.is_file() for path in files) and files[0].suffix == ".npz"
            parts = list(mount.batches(1, view=view))
            assert len(parts) == len(files)
            for fast, slow in zip(parts[:3], mount.batches(1, view=view, format="npz")):
                for name in ("data", "indices", "indptr", "row", "shape"):
                    # Compared as bytes, so that NaN equals NaN.
                    assert fast[name].dtype == slow[name].dtype and fast[name].tobytes() == slow[name].tobytes(), name
            later = next(mount.batches(1, view=view, start=2))
            assert np.array_equal(later["row"], parts[2]["row"])
            for name in ("data", "indices", "row"):
                arrays[f"{view}/{name}"] = np.concatenate([part[name] for part in parts])
            arrays[f"{view}/lengths"] = np.concatenate([np.diff(part["indptr"]) for part in parts])
        labels = next(name for name in parts[0] if name.startswith("obs/"))
        column = labels.removeprefix("obs/")
        if (place / "categories" / f"{column}.txt").exists():
            assert len(mount.categories(column)) > parts[0][labels].max()
        ranks = [mount.epoch(0, view="train", rank=(i, 2)) for i in range(2)]
        assert len(ranks[0]) == len(ranks[1])
        assert pickle.loads(pickle.dumps(mount)).path == place
    assert not place.exists() and not place.parent.exists(), "nothing stays"
    np.savez(out, **arrays)
    for error, code, words, stores, more in [
        (shufflefs.StoreError, 3, "no-such.h5ad", "no-such.h5ad", {}),
        (shufflefs.UsageError, 2, "--batch-size", store, {"batch_size": 0}),
        (shufflefs.UsageError, 2, "--bach-size", store, {"bach_size": 1}),
        (shufflefs.MountFailed, 4, "not empty", store, {"mountpoint": os.path.dirname(store)}),
    ]:
        try:
            shufflefs.mount(stores, **more)
        except error as caught:
            assert caught.code == code and words in str(caught) and "\n" not in str(caught), caught
        else:
            raise AssertionError(f"{more}: no error")
    endless = shufflefs.mount(store, batch_size=1000)
    numbers = [batch["row"] for _, batch in zip(range(5), endless.batches())]
    assert not np.array_equal(numbers[0], numbers[2]), "epochs differ"
    endless.close()
    endless.close()
    print("read")


def orphan(store):
    import shufflefs

    mount = shufflefs.mount(store)
    print(mount.path, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def torch(store):
    import torch
    from torch.utils.data import DataLoader

    import shufflefs

    with shufflefs.mount(store, batch_size=50) as mount:
        rows = lambda batches: [tuple(batch["row"].tolist()) for batch in batches]
        expected = [tuple(batch["row"].tolist()) for batch in mount.batches(0)]
        for workers in (0, 1, 3):
            loader = DataLoader(mount.torch(0), batch_size=None, num_workers=workers)
            assert rows(loader) == expected, f"{workers} workers"
            assert rows(loader) == expected, "a second time"
        batch = next(iter(mount.torch(0)))
        assert batch["data"].dtype == torch.float32
        whole = sorted(row for batch in expected for row in batch)
        parts = [rows(DataLoader(mount.torch(0, rank=(i, 2)), batch_size=None, num_workers=2)) for i in range(2)]
        assert len(parts[0]) == len(parts[1])
        assert sorted(row for part in parts for batch in part for row in batch) == whole
        dataset = mount.torch(0)
        assert len(dataset) == len(expected)
        running = iter(dataset)
        for _ in range(7):
            next(running)
        resumed = mount.torch(0)
        resumed.load_state_dict(pickle.loads(pickle.dumps(dataset.state_dict())))
        assert resumed.state_dict() == dataset.state_dict()
        assert rows(resumed) == expected[7:]
        assert rows(resumed) == expected, "the next iteration is whole"
        resumed.set_epoch(1)
        assert rows(resumed) != expected
        try:
            mount.torch(0, rank=(0, 2)).load_state_dict(dataset.state_dict())
        except ValueError as error:
            assert "plan --resume" in str(error)
        else:
            raise AssertionError("a state of other ranks was taken")
    print("torch")


def compare(store, out):
    import anndata
    import scipy.sparse as sp

    x = sp.csr_matrix(anndata.read_h5ad(store).X)
    seen = []
    with np.load(out) as arrays:
        for view in ("train", "val"):
            rows, lengths = arrays[f"{view}/row"], arrays[f"{view}/lengths"]
            bounds = np.concatenate([[0], np.cumsum(lengths)])
            got = sp.csr_matrix((arrays[f"{view}/data"], arrays[f"{view}/indices"], bounds), shape=(len(rows), x.shape[1]))
            for name in ("data", "indices", "indptr"):
                assert np.array_equal(getattr(got, name), getattr(x[rows], name), equal_nan=name == "data"), (view, name)
            assert got.dtype == x.dtype, view
            seen.append(rows)
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(x.shape[0])), "each row once"
    print("compared")


try:
    {"read": read, "orphan": orphan, "torch": torch, "compare": compare}[sys.argv[1]](*sys.argv[2:])
except AssertionError as error:
    sys.exit(f"check_module: {error or error.__traceback__.tb_next.tb_lineno}")

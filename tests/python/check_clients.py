#!/usr/bin/env python3
"""Python's system calls on a mount: mutations, memory maps, HDF5 locking.

Usage: check_clients.py mutations|mmap|locking MOUNT     prints one line of JSON; fails with a message
"""
import errno
import json
import os
import pathlib
import sys

import h5py
import numpy as np


def mutations(mount):
    """Every modification is EROFS."""
    file = mount / "epoch-0000/batch-000000.npz"
    new = mount / "epoch-0000/new"
    outside = pathlib.Path("/tmp")
    calls = {
        "open w": lambda: open(file, "w"),
        "open a": lambda: open(file, "a"),
        "open r+": lambda: open(file, "r+b"),
        "open x": lambda: open(new, "x"),
        "O_TRUNC": lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
        "O_TMPFILE": lambda: os.open(mount, os.O_TMPFILE | os.O_RDWR),
        "truncate": lambda: os.truncate(file, 0),
        "mkdir": lambda: os.mkdir(new),
        "rmdir": lambda: os.rmdir(mount / "epoch-0001"),
        "remove": lambda: os.remove(file),
        "rename": lambda: os.rename(file, new),
        "replace": lambda: os.replace(file, file.with_name("batch-000001.npz")),
        "link": lambda: os.link(file, new),
        "symlink": lambda: os.symlink("x", new),
        "mkfifo": lambda: os.mkfifo(new),
        "chmod": lambda: os.chmod(file, 0o600),
        "chown": lambda: os.chown(file, 0, 0),
        "utime": lambda: os.utime(file),
        "setxattr": lambda: os.setxattr(file, "user.x", b"1"),
        "removexattr": lambda: os.removexattr(file, "user.x"),
        "write in the root": lambda: open(mount / "dataset.json", "w"),
        "create in .shufflefs": lambda: open(mount / ".shufflefs/new", "x"),
    }
    for what, call in calls.items():
        try:
            call()
        except OSError as error:
            # Without support for O_TMPFILE in the file system, the kernel returns its own errno: nothing is written either way.
            allowed = {errno.EROFS} | ({errno.EOPNOTSUPP} if what == "O_TMPFILE" else set())
            assert error.errno in allowed, f"{what}: {error}"
        else:
            raise AssertionError(f"{what}: it worked")
    assert not os.access(file, os.W_OK), "access(W_OK)"
    assert os.access(file, os.R_OK), "access(R_OK)"
    return len(calls)


def mmap(mount):
    """A memory map of .npy equals its content, whole and row by row, for every batch."""
    batches = sorted((mount / "epoch-0000").glob("batch-*.npz"))
    for path in (b.with_suffix(".npy") for b in batches):
        mapped = np.load(path, mmap_mode="r")
        whole = np.load(path)
        assert isinstance(mapped, np.memmap), type(mapped)
        for row in reversed(range(len(whole))):
            assert mapped[row].tobytes() == whole[row].tobytes(), f"{path.name}: row {row}"
        assert mapped.tobytes() == whole.tobytes(), path.name
    return len(batches)


def locking(mount):
    """h5py with its default file locking, twice at once, then with locking that must not fail."""
    os.environ.pop("HDF5_USE_FILE_LOCKING", None)
    path = mount / "epoch-0000/batch-000000.h5ad"
    with h5py.File(path, "r") as one, h5py.File(path, "r") as two:
        assert sorted(one) == sorted(two)
        assert one["obs"].attrs["encoding-type"] == "dataframe"
    with h5py.File(path, "r", locking=True) as alone:  # insists on the lock, where the default may do without
        assert "X" in alone
    return 1


def main():
    what, mount = sys.argv[1], pathlib.Path(sys.argv[2])
    print(json.dumps({"ok": True, "done": {"mutations": mutations, "mmap": mmap, "locking": locking}[what](mount)}))


if __name__ == "__main__":
    main()

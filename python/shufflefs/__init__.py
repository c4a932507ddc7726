"""Mounts AnnData stores as directories of shuffled minibatch files, and reads them.

    import shufflefs

    with shufflefs.mount("cells.h5ad", batch_size=256, seed=7) as m:
        for batch in m.batches(epoch=0):                 # a dict of numpy arrays for each minibatch
            x = scipy.sparse.csr_matrix((batch["data"], batch["indices"], batch["indptr"]), shape=batch["shape"])
            y = batch["obs/cell_type"]                   # codes; m.categories("cell_type")[code] is the label
        for path in m.epoch(0):                          # or the files, for other readers
            ...

The options are those of ``shufflefs mount --help``, with underscores. The program is installed with this module; the mount ends with
the ``with`` block, or with this process, however it ends. In a command of ``shufflefs run``, ``shufflefs.attach()`` is its mount.
"""

from ._files import read_npz, read_safetensors
from ._mount import Mount, MountFailed, ShufflefsError, StoreError, UsageError, attach, binary, mount

__all__ = [
    "Mount",
    "MountFailed",
    "ShufflefsError",
    "StoreError",
    "UsageError",
    "attach",
    "binary",
    "mount",
    "read_npz",
    "read_safetensors",
]

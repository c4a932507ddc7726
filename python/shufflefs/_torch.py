"""Batches as a PyTorch IterableDataset; imported only on use, so that the module needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from ._files import read_safetensors

if TYPE_CHECKING:
    from ._mount import Mount


def _rank() -> tuple[int, int] | None:
    """The rank of this process and the number of ranks; None without other ranks."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        pair = torch.distributed.get_rank(), torch.distributed.get_world_size()
    elif "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        pair = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    else:
        return None
    return pair if pair[1] > 1 else None


class Batches(IterableDataset):  # type: ignore[misc, type-arg]
    """The batches of one epoch: dicts of tensors, named as in ``shufflefs.read_safetensors``; text columns are left out.

    Use ``DataLoader(dataset, batch_size=None, num_workers=...)`` without shuffling: a file is a batch, shuffled already.
    """

    def __init__(
        self, mount: Mount, epoch: int = 0, *, view: str | None = None, rank: tuple[int, int] | None = None, start: int = 0
    ) -> None:
        self.mount, self.epoch, self.view, self.start = mount, epoch, view, start
        self.rank = rank if rank is not None else _rank()
        # Batches of the epoch that this process has read, and those that its next iteration skips.
        self._read = self._resume = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch that the next iteration reads, from its beginning."""
        if epoch != self.epoch:
            self.epoch, self.start, self._read, self._resume = epoch, 0, 0, 0

    def __len__(self) -> int:
        """Batches of this rank from ``start`` on."""
        return len(os.listdir(self.mount.directory(self.epoch, self.view, self.rank))) - self.start

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        paths = self.mount.epoch(self.epoch, view=self.view, rank=self.rank, format="safetensors", start=self.start)
        self._read, self._resume = self._resume, 0
        for path in paths[first::step][self._read :]:
            batch = read_safetensors(path)
            # Counted before `yield`, so that a `state_dict` taken afterwards counts it as read.
            self._read += 1
            yield {name: torch.from_numpy(array) for name, array in batch.items() if array.dtype.kind in "biuf"}

    def state_dict(self) -> dict[str, Any]:
        """The position of this process's iteration, to be saved with the model.

        In the main process without workers it is the position in the epoch. A loader with workers gets it from each of them (torchdata's
        StatefulDataLoader does); with torch's DataLoader, count the batches and give them as ``start``.
        """
        return {"epoch": self.epoch, "start": self.start, "read": self._read, "view": self.view, "rank": self.rank}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from ``state_dict``, on the same rank of the same number of ranks. Otherwise see ``shufflefs plan --resume``."""
        rank = tuple(state["rank"]) if state["rank"] is not None else None
        if rank != self.rank or state["view"] != self.view:
            raise ValueError(
                f"the state is of rank {rank} and view {state['view']}, this is rank {self.rank} and view {self.view}; "
                "`shufflefs plan --resume` deals what remains of an epoch to another number of ranks"
            )
        self.epoch, self.start = state["epoch"], state["start"]
        self._read = self._resume = state["read"]

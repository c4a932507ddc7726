"""Mounts, made by the program, in a process that ends with this one."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from . import _files

if TYPE_CHECKING:
    from ._torch import Batches

Store = Union[str, "os.PathLike[str]"]
Option = Union[None, bool, int, float, str, "os.PathLike[str]", Sequence[str], Mapping[str, float]]


class ShufflefsError(RuntimeError):
    """shufflefs failed; the message is the line that the program printed, ``code`` its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class UsageError(ShufflefsError):
    """An option is wrong (code 2)."""


class StoreError(ShufflefsError):
    """A store cannot be read (code 3)."""


class MountFailed(ShufflefsError):
    """The mountpoint is unusable, or mounting failed (code 4)."""


_ERRORS = {2: UsageError, 3: StoreError, 4: MountFailed}


def binary() -> str:
    """The program: ``$SHUFFLEFS_BINARY``, or the one installed with this module, or the first in ``PATH``."""
    chosen = os.environ.get("SHUFFLEFS_BINARY")
    beside = [sysconfig.get_path("scripts"), os.path.dirname(sys.executable)]
    found = chosen or shutil.which("shufflefs", path=os.pathsep.join(beside)) or shutil.which("shufflefs")
    if not found:
        raise FileNotFoundError("the program shufflefs is neither beside this Python nor in PATH; set SHUFFLEFS_BINARY")
    return found


def _arguments(options: Mapping[str, Option]) -> list[str]:
    """Options as the command line spells them; None and False leave an option out."""
    words = []
    for name, value in options.items():
        long = "--" + name.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            words.append(long)
        elif isinstance(value, Mapping):
            words.append(long + "=" + ",".join(f"{key}={part}" for key, part in value.items()))
        elif isinstance(value, (str, bytes, os.PathLike)) or not isinstance(value, Sequence):
            words.append(f"{long}={os.fspath(value) if isinstance(value, os.PathLike) else value}")
        else:
            words.append(long + "=" + ",".join(map(str, value)))
    return words


def mount(stores: Store | Sequence[Store], mountpoint: Store | None = None, **options: Option) -> Mount:
    """Mounts stores (paths of .h5ad or .zarr, or one .toml) and waits until the mount is usable.

    ``mountpoint`` is an empty or absent directory; a temporary one is made if none is given. ``options`` are those of
    ``shufflefs mount --help``: ``batch_size=256`` (rows), ``seed=7``, ``memory="4GiB"``, ``where="tissue == 'lung'"``,
    ``split={"train": 0.8, "val": 0.2}``, ``obs=["cell_type"]``, ``drop_last=True``.

    Raises UsageError, StoreError or MountFailed with the line that the program printed.
    """
    single = isinstance(stores, (str, os.PathLike))
    paths = [os.fspath(store) for store in ([stores] if single else stores)]  # type: ignore[list-item, arg-type]
    temporary = None
    if mountpoint is None:
        temporary = tempfile.mkdtemp(prefix="shufflefs-")
        mountpoint = os.path.join(temporary, "mount")
    command = [binary(), "mount", "--attached", *_arguments(options), "--", *paths, os.fspath(mountpoint)]
    errors = tempfile.TemporaryFile()
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    except OSError:
        _remove(temporary)
        raise
    assert process.stdout is not None
    line = os.fsdecode(process.stdout.readline()).rstrip("\n")
    if not line:
        code = process.wait()
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
        message = lines[-1].removeprefix("shufflefs: ") if lines else f"ended with code {code} without a word"
        process.stdout.close()
        if process.stdin is not None:
            process.stdin.close()
        _remove(temporary)
        raise _ERRORS.get(code, ShufflefsError)(message, code)
    return Mount(line, _process=process, _temporary=temporary)


def attach(path: Store | None = None) -> Mount:
    """An existing mount: at ``path``, or that of the ``shufflefs run`` that started this process. It is not unmounted."""
    path = path or os.environ.get("SHUFFLEFS_MOUNT")
    if not path:
        raise ValueError("this process is not below `shufflefs run` (SHUFFLEFS_MOUNT is not set); give the path of a mount")
    if not os.path.isfile(os.path.join(path, "dataset.json")):
        raise FileNotFoundError(f"{os.fspath(path)}: no mount of shufflefs")
    return Mount(path)


def _remove(temporary: str | None) -> None:
    if temporary is not None:
        try:
            os.rmdir(temporary)
        except OSError:
            pass


class Mount:
    """A mount. Use it in a ``with`` block, or call ``close``."""

    path: pathlib.Path
    """Where it is."""

    def __init__(
        self, path: Store, *, _process: subprocess.Popen[bytes] | None = None, _temporary: str | None = None
    ) -> None:
        self.path = pathlib.Path(path)
        self._process = _process
        self._temporary = _temporary
        self._owner = os.getpid()

    def __enter__(self) -> Mount:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"shufflefs.Mount({os.fspath(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        # In a worker process it is the same mount, which ends with the process that made it.
        return {"path": self.path, "_process": None, "_temporary": None, "_owner": self._owner}

    def close(self) -> None:
        """Unmounts, if ``mount`` made it in this process. Reads of files that are still open fail."""
        process, self._process = self._process, None
        if process is None or os.getpid() != self._owner:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()
        _remove(self._temporary)

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # the interpreter may be at its end
            pass

    @property
    def dataset(self) -> dict[str, Any]:
        """The content of ``dataset.json``: stores, rows, columns, options, k."""
        return json.loads((self.path / "dataset.json").read_text())  # type: ignore[no-any-return]

    def categories(self, column: str) -> list[str]:
        """The labels of a categorical obs column, by code."""
        return (self.path / "categories" / f"{column}.txt").read_text().splitlines()

    def directory(self, epoch: int, view: str | None = None, rank: tuple[int, int] | None = None) -> pathlib.Path:
        """An epoch's directory, optionally of a named view, and of one rank ``(index, world size)``."""
        parts = [view] if view else []
        if rank is not None:
            parts.append(f"rank-{rank[0]}-of-{rank[1]}")
        return self.path.joinpath(*parts, f"epoch-{epoch:04d}")

    def epoch(
        self,
        epoch: int,
        *,
        view: str | None = None,
        rank: tuple[int, int] | None = None,
        format: str | None = None,
        start: int = 0,
    ) -> list[pathlib.Path]:
        """The files of an epoch in reading order, from batch ``start`` on; ``format`` is a format other than the listed one."""
        directory = self.directory(epoch, view, rank)
        names = sorted(os.listdir(directory))[start:]
        if format is not None:
            names = [name.rpartition(".")[0] + "." + format for name in names]
        return [directory / name for name in names]

    def batches(
        self,
        epoch: int | None = None,
        *,
        format: str = "safetensors",
        view: str | None = None,
        rank: tuple[int, int] | None = None,
        start: int = 0,
    ) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """The batches of an epoch as dicts of numpy arrays (see ``read_safetensors``); without ``epoch``, epoch after epoch.

        ``format`` is safetensors, npz or npy. ``start`` is the first batch: resuming reads no earlier batches.
        """
        if format not in _files.READERS:
            raise ValueError(f"format {format!r}: allowed are {', '.join(_files.READERS)}")
        read = _files.READERS[format]
        for number in itertools.count() if epoch is None else [epoch]:
            for path in self.epoch(number, view=view, rank=rank, format=format, start=start):
                yield read(path)
            start = 0

    def torch(
        self,
        epoch: int = 0,
        *,
        view: str | None = None,
        rank: tuple[int, int] | None = None,
        start: int = 0,
    ) -> Batches:
        """The batches as an IterableDataset of dicts of tensors, for ``DataLoader(dataset, batch_size=None)``.

        Workers share an epoch: each batch is read once, in order. Under DDP (``torch.distributed``, or RANK and WORLD_SIZE) it is this
        rank's part. ``set_epoch`` chooses the next epoch; ``state_dict`` and ``load_state_dict`` get and set the position in it.
        """
        from ._torch import Batches

        return Batches(self, epoch, view=view, rank=rank, start=start)

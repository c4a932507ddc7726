"""A mount for the duration of a benchmark. SHUFFLEFS names the binary (default: target/release/shufflefs)."""
import contextlib
import os
import pathlib
import subprocess
import tempfile

root = pathlib.Path(__file__).resolve().parent.parent
shufflefs = os.environ.get("SHUFFLEFS", str(root / "target/release/shufflefs"))


@contextlib.contextmanager
def mounted(path, *options):
    """The mountpoint of a mount of a store with these options of `mount`."""
    with tempfile.TemporaryDirectory() as directory:
        at = os.path.join(directory, "mnt")
        subprocess.run([shufflefs, "mount", *options, str(path), at], check=True)
        try:
            yield pathlib.Path(at)
        finally:
            subprocess.run([shufflefs, "umount", at], check=False)

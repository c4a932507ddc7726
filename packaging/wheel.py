#!/usr/bin/env python3
"""Makes a wheel of the program and the Python module `shufflefs`. Needs nothing but Python, and readelf for the platform.

Usage: wheel.py BINARY DIR     writes DIR/shufflefs-VERSION-py3-none-PLATFORM.whl and prints its path

The same binary gives the same bytes: members are sorted and have one date.
"""
import base64
import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMPLETIONS = {
    "bash": "share/bash-completion/completions/shufflefs",
    "zsh": "share/zsh/site-functions/_shufflefs",
    "fish": "share/fish/vendor_completions.d/shufflefs.fish",
}


def version():
    return re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]


def platform(binary):
    """`manylinux_2_N_ARCH` after the newest symbol of the C library that the program asks for."""
    symbols = subprocess.run(["readelf", "--wide", "--version-info", binary], check=True, capture_output=True, text=True)
    minor = max((int(number) for number in re.findall(r"GLIBC_2\.(\d+)", symbols.stdout)), default=17)
    machine = subprocess.run(["readelf", "--file-header", binary], check=True, capture_output=True, text=True).stdout
    architecture = "aarch64" if "AArch64" in machine else "x86_64"
    return f"manylinux_2_{max(minor, 17)}_{architecture}"


def metadata():
    return f"""Metadata-Version: 2.1
Name: shufflefs
Version: {version()}
Summary: Mounts AnnData stores (.h5ad, .zarr) as directories of shuffled minibatch files
License: MIT OR Apache-2.0
Requires-Python: >=3.9
Requires-Dist: numpy
Provides-Extra: torch
Requires-Dist: torch; extra == "torch"
Keywords: anndata,fuse,minibatch,single-cell
Classifier: Operating System :: POSIX :: Linux
Classifier: Typing :: Typed
Description-Content-Type: text/markdown

{(ROOT / "README.md").read_text()}"""


def members(binary, tag):
    """Path in the wheel -> (bytes, whether it can be executed)."""
    name = f"shufflefs-{version()}"
    files = {f"{name}.data/scripts/shufflefs": (pathlib.Path(binary).read_bytes(), True)}
    for path in sorted((ROOT / "python/shufflefs").iterdir()):
        if path.suffix in (".py", ".pyi", ".typed"):
            files[f"shufflefs/{path.name}"] = (path.read_bytes(), False)
    with tempfile.TemporaryDirectory() as pages:
        subprocess.run([binary, "man", pages], check=True)
        for page in sorted(pathlib.Path(pages).iterdir()):
            files[f"{name}.data/data/share/man/man1/{page.name}"] = (page.read_bytes(), False)
    for shell, place in COMPLETIONS.items():
        script = subprocess.run([binary, "completions", shell], check=True, capture_output=True).stdout
        files[f"{name}.data/data/{place}"] = (script, False)
    info = f"{name}.dist-info"
    files[f"{info}/METADATA"] = (metadata().encode(), False)
    files[f"{info}/WHEEL"] = (f"Wheel-Version: 1.0\nGenerator: shufflefs\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(), False)
    for licence in ("LICENSE-MIT", "LICENSE-APACHE"):
        files[f"{info}/licenses/{licence}"] = ((ROOT / licence).read_bytes(), False)
    return files, info


def main():
    binary, directory = sys.argv[1:]
    tag = f"py3-none-{platform(binary)}"
    files, info = members(binary, tag)
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, (data, _) in files.items()
    ]
    files[f"{info}/RECORD"] = ("\n".join([*record, f"{info}/RECORD,,", ""]).encode(), False)
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(directory) / f"shufflefs-{version()}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, (data, executable) in files.items():
            member = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            member.external_attr = (0o100755 if executable else 0o100644) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(member, data)
    print(path)


main()

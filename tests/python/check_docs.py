#!/usr/bin/env python3
"""Runs the code blocks of the documentation, and checks the links of its site.

Usage: check_docs.py blocks BINARY DIR PAGE...     in DIR, with a store made for them; prints a line a block
       check_docs.py links SITE                    prints broken links; then the exit status is 1

Fenced blocks of `sh`, `python` and `r` are run; `sh` in a directory with stores, the others below `shufflefs run`. Blocks that need a
launcher, the network, or a package that is not installed are skipped with a message.
"""
import html.parser
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Not run here, and what tests it instead.
ELSEWHERE = {"srun ": "it::clusters", "shufflefs.toml": "the toml block itself", "shufflefs.mount(": "check_module.py", "m.torch(": "check_module.py"}


def make_stores(directory):
    import anndata
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    rows, genes = 3000, 50
    for number, name in enumerate(["cells.h5ad", "plate1.h5ad", "plate2.zarr", "plate3.h5ad"]):
        x = sp.random(rows, genes, 0.2, "csr", "float32", rng)
        obs = pd.DataFrame(
            {
                "cell_type": pd.Categorical(rng.choice(["B cell", "T cell", "monocyte"], rows)),
                "tissue": pd.Categorical(rng.choice(["lung", "blood"], rows)),
                "donor_id": pd.Categorical(rng.choice([f"donor{i}" for i in range(20)], rows)),
                "n_genes": rng.integers(200, 2000, rows),
            },
            index=[f"{number}-{i}" for i in range(rows)],
        )
        var = pd.DataFrame({"highly_variable": rng.random(genes) < 0.5}, index=[f"gene{i}" for i in rng.permutation(genes)])
        adata = anndata.AnnData(x, obs=obs, var=var)
        path = directory / name
        adata.write_zarr(path) if name.endswith(".zarr") else adata.write_h5ad(path)
    shutil.copy(ROOT / "examples/train.py", directory)


def blocks(page):
    for match in re.finditer(r"^```(\w+)\n(.*?)^```", page.read_text(), re.M | re.S):
        yield match[1], match[2]


def missing(language, code):
    """The reason why a block is not run, or None."""
    for word, where in ELSEWHERE.items():
        if word in code:
            return f"left to {where}"
    if language == "r" and not shutil.which("Rscript"):
        return "R is not installed"
    for module in re.findall(r"^import (.+)$", code, re.M) if language == "python" else []:
        for name in module.split("#")[0].split(","):
            name = name.split(" as ")[0].strip().split(".")[0]
            if importlib.util.find_spec(name) is None:
                return f"{name} is not installed"
    return None


def run_blocks(binary, directory, pages):
    make_stores(directory)
    (directory / "scratch").mkdir()
    environment = dict(os.environ, HOME=str(directory), PATH=f"{pathlib.Path(binary).parent}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    for page in pages:
        for number, (language, code) in enumerate(blocks(page), 1):
            name = f"{page.name}, block {number} ({language})"
            if language not in ("sh", "python", "r"):
                continue
            if why := missing(language, code):
                print(f"{name}: not run: {why}")
                continue
            script = directory / f"block.{language}"
            script.write_text(("set -eu\n" if language == "sh" else "") + code)
            interpreter = {"sh": "sh", "python": "python3", "r": "Rscript"}[language]
            command = [interpreter, script]
            # A block that needs a mount gets one, at the path on the page.
            if language != "sh" or ("/mnt/cells" in code and "mount" not in code):
                place = ["--at", "/mnt/cells"] if "/mnt/cells" in code else []
                command = [binary, "run", "--batch-size", "64", *place, "cells.h5ad", "--", *command]
            done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)
            for left in ("/mnt/cells", directory / "epochs"):
                while os.path.ismount(left):
                    subprocess.run([binary, "umount", left], capture_output=True)
            if done.returncode != 0:
                sys.exit(f"{name} ended with {done.returncode}:\n{code}\n{done.stdout}{done.stderr}")
            print(f"{name}: run")


class Links(html.parser.HTMLParser):
    """The links and anchors in the text of a page, without those of the theme."""

    def __init__(self, text):
        super().__init__()
        self.links, self.places, self.within = set(), set(), False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.within = self.within or tag == "main"
        if "id" in attributes:
            self.places.add(attributes["id"])
        for name in ("href", "src"):
            if self.within and attributes.get(name):
                self.links.add(attributes[name])

    def handle_endtag(self, tag):
        self.within = self.within and tag != "main"


def check_links(site):
    pages = {path.resolve(): Links(path.read_text()) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        if path.name == "print.html":  # all pages in one
            continue
        for link in sorted(page.links):
            if re.match(r"[a-z]+:|//", link):
                continue
            target, _, place = link.partition("#")
            target = (path.parent / target).resolve() if target else path
            if not target.exists():
                wrong.append(f"{path.name}: {link}: there is no such file")
            elif place and target in pages and place not in pages[target].places:
                wrong.append(f"{path.name}: {link}: there is no such place")
    print("\n".join(wrong) or f"{len(pages)} pages, no link leads nowhere")
    return 1 if wrong or not pages else 0


if __name__ == "__main__":
    if sys.argv[1] == "links":
        sys.exit(check_links(pathlib.Path(sys.argv[2])))
    binary, directory, *pages = sys.argv[2:]
    run_blocks(binary, pathlib.Path(directory), [pathlib.Path(page) for page in pages])

#!/usr/bin/env python3
"""Prints a CycloneDX list of the crates that the program is built from.

Usage: sbom.py > shufflefs.cdx.json     (runs `cargo metadata`; crates for tests and other platforms are left out)
"""
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def metadata():
    host = next(line.split()[1] for line in run(["rustc", "-vV"]).splitlines() if line.startswith("host:"))
    return json.loads(run(["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", host]))


def run(command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def reachable(nodes, root):
    """The crates that the program needs, itself included: normal and build dependencies."""
    found, todo = set(), [root]
    while todo:
        crate = todo.pop()
        if crate in found:
            continue
        found.add(crate)
        todo += [d["pkg"] for d in nodes[crate]["deps"] if any(kind["kind"] != "dev" for kind in d["dep_kinds"])]
    return found


def component(package, kind="library"):
    url = f"pkg:cargo/{package['name']}@{package['version']}"
    entry = {"type": kind, "bom-ref": url, "name": package["name"], "version": package["version"], "purl": url}
    if package.get("license"):
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return entry


def main():
    data = metadata()
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    root = data["resolve"]["root"]
    packages = {package["id"]: package for package in data["packages"]}
    needed = reachable(nodes, root)
    ref = lambda crate: component(packages[crate])["bom-ref"]
    depends = [
        {"ref": ref(crate), "dependsOn": sorted(ref(d["pkg"]) for d in nodes[crate]["deps"] if d["pkg"] in needed)}
        for crate in sorted(needed)
    ]
    print(json.dumps({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(packages[root], "application")},
        "components": [component(packages[crate]) for crate in sorted(needed - {root})],
        "dependencies": depends,
    }, indent=1))


main()

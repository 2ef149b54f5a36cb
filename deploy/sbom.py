#!/usr/bin/env python3
"""Writes the software bill of materials of a program, in the form of CycloneDX 1.5: every crate that is compiled into the program, with
version, licence and checksum, and which crate needs which. Needs cargo and Python 3.11 or newer.

Usage: deploy/sbom.py PACKAGE TARGET >FILE
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys
import tomllib
import uuid


def main():
    package, target = sys.argv[1], sys.argv[2]
    root = pathlib.Path(__file__).resolve().parent.parent
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)
    lock = tomllib.loads((root / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    packages = {p["id"]: p for p in metadata["packages"]}
    nodes = {n["id"]: n for n in metadata["resolve"]["nodes"]}

    def linked(node):
        """Dependencies that end up in the program: not those of tests, and not those of build scripts."""
        return [d["pkg"] for d in node["deps"] if any(k["kind"] is None for k in d["dep_kinds"])]

    start = next(i for i, p in packages.items() if p["name"] == package and i in metadata["workspace_members"])
    found, waiting = {}, [start]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        # A procedural macro runs in the compiler, and so do its dependencies.
        if any("proc-macro" in t["kind"] for t in packages[current]["targets"]):
            continue
        found[current] = linked(nodes[current])
        waiting.extend(found[current])

    def reference(package_id):
        return "pkg:cargo/{name}@{version}".format(**packages[package_id])

    def component(package_id):
        crate = packages[package_id]
        entry = {
            "type": "application" if package_id == start else "library",
            "bom-ref": reference(package_id),
            "name": crate["name"],
            "version": crate["version"],
            "scope": "required",
            "purl": reference(package_id),
        }
        if crate.get("description"):
            entry["description"] = " ".join(crate["description"].split())
        if crate.get("license"):
            # A slash is the old form of OR.
            entry["licenses"] = [{"expression": " OR ".join(part.strip() for part in crate["license"].split("/"))}]
        checksum = checksums.get((crate["name"], crate["version"]))
        if checksum:
            entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if crate.get("repository"):
            entry["externalReferences"] = [{"type": "vcs", "url": crate["repository"]}]
        return entry

    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    main_component = component(start)
    del main_component["scope"]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # The same crates give the same number.
        "serialNumber": "urn:uuid:" + str(uuid.uuid5(uuid.NAMESPACE_URL, " ".join(sorted(map(reference, found))))),
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": main_component,
        },
        "components": [component(i) for i in sorted(found, key=reference) if i != start],
        "dependencies": [
            {"ref": reference(i), "dependsOn": sorted({reference(d) for d in found[i] if d in found})}
            for i in sorted(found, key=reference)
        ],
    }
    json.dump(document, sys.stdout, indent=1)
    print()


main()

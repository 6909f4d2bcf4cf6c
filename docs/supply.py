"""What an installation is made of: every file with its hash, every package with its licence.

    python docs/supply.py lock       writes requirements.lock, asking the index; needs pip 23.3 or newer
    python docs/supply.py licences   writes docs/licences.md from the metadata of what is installed

Both follow requirements.txt.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PINS, LOCK, LICENCES = REPO / "requirements.txt", REPO / "requirements.lock", REPO / "docs" / "licences.md"
HEAD = """\
# The files of requirements.txt for CPython 3.11 on Linux x86-64, each with its SHA-256. Written by `make lock`.
# pip install --require-hashes --no-deps -r requirements.lock
# Of torch there are two. The index's is taken first, and wants NVIDIA's packages beside it, which are not locked:
# pip install -c requirements.txt torch. The build for CPUs, where it is at hand, is taken with -c and a file of the
# line torch==VERSION+cpu, and wants nothing more.
"""
PAGE = """\
# Licences

What `make` installs, by the metadata of the packages. Written by `make licences`. `hvae` itself has the
[MIT licence](../LICENSE).

| package | version | licence |
| --- | --- | --- |
"""
SHORT = 60
"""a licence field that is longer holds the text of the licence, not its name"""


def pins() -> dict[str, str]:
    """Package -> version, as requirements.txt has them, in the order of their names."""
    found = dict(re.findall(r"^([\w.-]+)==(\S+)$", PINS.read_text(encoding="utf-8"), flags=re.MULTILINE))
    return dict(sorted(found.items(), key=lambda pin: canonical(pin[0])))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lock() -> str:
    """Every package with the hashes of the files that pip would take: as it is set up, and from the index alone."""
    hashes: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as nothing:
        for settings in ({}, {"PIP_FIND_LINKS": nothing}):
            for name, digest in resolved(settings):
                hashes.setdefault(name, set()).add(digest)
    lines = [HEAD]
    for name, version in pins().items():
        found = " \\\n".join(f"    --hash=sha256:{digest}" for digest in sorted(hashes[canonical(name)]))
        lines.append(f"{canonical(name)}=={version} \\\n{found}\n")
    return "".join(lines)


def resolved(settings: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Package and SHA-256 of the file that pip would install."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    command += ["--only-binary", ":all:", "--report", "-", "-c", str(PINS), "-r", str(PINS)]
    said = subprocess.run(command, env={**os.environ, **settings}, check=True, stdout=subprocess.PIPE).stdout
    for package in json.loads(said)["install"]:
        yield canonical(package["metadata"]["name"]), package["download_info"]["archive_info"]["hashes"]["sha256"]


def licences() -> str:
    """The page: one row for each package of requirements.txt, all of which must be installed."""
    return PAGE + "".join(f"| {name} | {version} | {licence(name)} |\n" for name, version in pins().items())


def licence(name: str) -> str:
    """What the metadata of an installed package say: the expression, else the classifiers, else the field."""
    said = metadata.metadata(name)
    if expression := said.get("License-Expression"):
        return expression
    classifiers = (line.split(" :: ") for line in said.get_all("Classifier") or ())
    named = [parts[-1] for parts in classifiers if parts[0] == "License" and parts[-1] != "OSI Approved"]
    field = " ".join((said.get("License") or "").split())
    if not named and 0 < len(field) <= SHORT:
        named = [field]
    if not named:
        raise SystemExit(f"{name} does not name its licence; look it up, and teach docs/supply.py to find it.")
    return ", ".join(sorted(set(named)))


def main(arguments: list[str]) -> int:
    made = {"lock": (lock, LOCK), "licences": (licences, LICENCES)}
    if len(arguments) != 1 or arguments[0] not in made:
        print(f"docs/supply.py takes one word, {' or '.join(made)}.", file=sys.stderr)
        return 2
    make, file = made[arguments[0]]
    file.write_text(make(), encoding="utf-8")
    print(file.relative_to(REPO))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

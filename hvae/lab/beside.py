"""What an experiment measures beside its runs: `runs/<experiment>/measured/<preset>/<part>.npz`, each part once.

With every part stands a digest of the code that made it.
"""

import ast
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from hvae.lab.runs.lock import hold_in_turn
from hvae.outside import read_json

PACKAGE = "hvae.experiments"
NO_EXPERIMENTS = ("shared",)
"""folders of `experiments/` that are no experiments"""


def digest_of(module: ModuleType) -> str:
    """Digest of every file that says how the experiment measures (`code_of`)."""
    digest = hashlib.sha256()
    for name, file in code_of(module).items():
        digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def code_of(module: ModuleType) -> dict[str, Path]:
    """Name below `experiments/` -> file: those of the experiment, and all that they import from `experiments/`."""
    assert module.__file__ is not None
    own = Path(module.__file__)
    below = module.__name__.removeprefix(f"{PACKAGE}.").split(".")
    root = own.parents[len(below) - (own.name != "__init__.py")]
    found: dict[str, Path] = {}
    todo = _files_at(root, below)
    while todo:
        file = todo.pop()
        name = file.relative_to(root).as_posix()
        if name in found:
            continue
        found[name] = file
        if file.suffix == ".py":
            for imported in _imported(file):
                todo += _files_at(root, imported.split("."))
    return dict(sorted(found.items()))


def _files_at(root: Path, path: list[str]) -> list[Path]:
    """The file that a dotted name below `experiments/` leads to, or what its folder holds."""
    while path and path[-1] not in NO_EXPERIMENTS:
        place = root.joinpath(*path)
        if place.with_suffix(".py").is_file():
            return [place.with_suffix(".py")]
        if place.is_dir():
            return [file for file in sorted(place.rglob("*")) if file.suffix in (".py", ".csv", ".json")]
        path = path[:-1]
    return []


def _imported(file: Path) -> list[str]:
    """What a file imports from `experiments/`, by names below it."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}.")]


def measure_once(
    folder: Path,
    parts: Mapping[str, Callable[[], Any]],
    devices: Mapping[str, str],
    n_threads: int,
    digest: str,
    say: Callable[[str], None],
) -> list[str]:
    """Each part that is not there yet, <part>.npz with its provenance, by one process at a time.

    Returns the parts that another version of the experiment's code measured before.
    """
    import torch

    older = [part for part in parts if _is_older(folder / f"{part}.npz", digest)]
    torch.set_num_threads(n_threads)
    if not all((folder / f"{part}.npz").exists() for part in parts):
        folder.mkdir(parents=True, exist_ok=True)
        with hold_in_turn(folder, say):
            for part, make in parts.items():
                if not (folder / f"{part}.npz").exists():
                    _measure(folder / f"{part}.npz", make, devices[part], n_threads, digest)
    return older


def _measure(file: Path, make: Callable[[], Any], device: str, n_threads: int, digest: str) -> None:
    from hvae.lab.runs.files import save_arrays, write_atomically
    from hvae.lab.runs.provenance import session

    record, begun = session(device, n_threads) | {"experiment": digest}, time.monotonic()
    arrays = make()
    record["seconds"] = round(time.monotonic() - begun, 1)
    write_atomically(file.with_suffix(".json"), json.dumps([record], indent=2).encode())
    save_arrays(file, arrays)  # last, since it says that the part is there


def _is_older(file: Path, digest: str) -> bool:
    origin = file.with_suffix(".json")
    if not file.exists() or not origin.exists():
        return False
    records = read_json(origin, f"delete it and {file.name}")
    return any(record.get("experiment", digest) != digest for record in records)

"""Arrays of a run, `evaluation/<name>.npz`: written whole and entered in the manifest, read as they were written.

Every file says which run made it (`OWNER`), so that one that was copied here is known for what it is.
"""

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvae.errors import ConfigError, ForeignError
from hvae.lab.runs.files import load_arrays as read
from hvae.lab.runs.files import packed_arrays
from hvae.lab.runs.manifest import ARRAYS, FILE, OWNER, check, made_at, read_manifest, replace
from hvae.lab.runs.remarks import HALFWAY, START

_WORDS = {word: f"--likelihood {word}" for word in ("annealed", "exact", "gap")} | {"gradients": "--gradients 1,5,20"}
"""file -> the option that measures it; the others are of the evaluation"""


def save_arrays(
    path: Path, digest: str, name: str, arrays: Mapping[str, NDArray[Any]], step: int | None = None
) -> None:
    """Write them, made at a step of training; objects are refused."""
    content = packed_arrays(f"{name}.npz", {**arrays, OWNER: np.array(digest)})
    made = made_at(arrays)
    replace(path, digest, arrays_place(name), content, step=made["step"] if step is None else step, rule=made["rule"])


def load_arrays(path: Path, digest: str, name: str, only: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read them, or ``only`` some.

    Raises `ConfigError` where they are missing, damaged or half written, `ForeignError` where they are another run's.
    """
    file, says = path / arrays_place(name), arrays_remedy(path, name)
    try:
        check(path, arrays_place(name), says)
        found = read(file, says, only=only)
    except ConfigError:
        check_owner(file, digest)
        raise
    if str(found.pop(OWNER, digest)) != digest or not have_arrays(path, name):
        check_owner(file, digest)
        raise ConfigError(f"{file} is not listed in {FILE}, as what wrote it was stopped; {says}.")
    return found


def have_arrays(path: Path, name: str) -> bool:
    """Whether they were written to the end."""
    manifest = read_manifest(path)
    return (path / arrays_place(name)).exists() and (manifest is None or arrays_place(name) in manifest.files)


def check_owner(file: Path, digest: str) -> None:
    """Raise `ForeignError` for arrays that say they are another run's."""
    owner = owner_of(file)
    if owner not in ("", digest):
        raise ForeignError(
            f"{file} is of another run, {owner[:8]}; move it out, then {arrays_remedy(file.parents[1], file.stem)}."
        )


def owner_of(file: Path) -> str:
    """The digest of the run that made these arrays; empty where they do not say, as those of before."""
    with contextlib.suppress(ConfigError):
        return str(read(file, "measure again", only=[OWNER])[OWNER])
    return ""


def arrays_remedy(path: Path, name: str) -> str:
    """What brings arrays back."""
    if name in (START, HALFWAY):
        return "restore it, or delete it to go on without it"
    return f"run `hvae evaluate {path} {_WORDS.get(name, '--force')}`"


def arrays_place(name: str) -> str:
    """The file of arrays below a run."""
    return f"{ARRAYS}/{name}.npz"

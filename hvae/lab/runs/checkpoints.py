"""The states from which a run can go on: tensors, numbers and dictionaries at a step, never objects.

`checkpoints/step-<step>.pt` is a `torch.save` of plain values. A file next to it has its SHA-256,
since neither `torch.load` nor its zip container notices a flipped bit in a tensor. The last two are
kept, so a damaged one costs the steps since the one before. No random state is stored: draws and
data order are functions of (seed, step).
"""

import hashlib
import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from hvae.errors import ConfigError
from hvae.lab.runs.files import write_atomically
from hvae.lab.runs.run import Run
from hvae.outside import MOST_LINE, read_bytes

KEPT = 2
_NAME = re.compile(r"step-(\d+)\.pt")


def save_checkpoint(run: Run, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step` steps, then delete all but the last two.

    The metrics are forced to disk first, so that no crash loses rows from before a checkpoint.
    """
    directory = run.path / "checkpoints"
    directory.mkdir(exist_ok=True)
    for stale in directory.glob(".*.tmp"):
        stale.unlink(missing_ok=True)
    metrics = run.path / "metrics.jsonl"
    if metrics.exists():
        with open(metrics, "rb") as file:
            os.fsync(file.fileno())
    buffer = io.BytesIO()
    torch.save({"step": step, "state": state}, buffer)
    content = buffer.getvalue()
    file_name = directory / f"step-{step:09d}.pt"
    write_atomically(_digest_file(file_name), hashlib.sha256(content).hexdigest().encode())
    write_atomically(file_name, content)
    for _, old in _checkpoints(directory)[:-KEPT]:
        old.unlink(missing_ok=True)
        _digest_file(old).unlink(missing_ok=True)


def latest_checkpoint(run: Run, device: str | torch.device = "cpu") -> tuple[int, dict[str, Any]] | None:
    """The newest sound checkpoint as (step, state); None where none was ever written.

    A damaged one is passed over with a warning; `ConfigError` where none of them is sound.
    """
    directory = run.path / "checkpoints"
    found = _checkpoints(directory)[::-1]
    for _, file in found:
        damage = _damage(file)
        if damage is None:
            try:
                saved = torch.load(file, map_location=device, weights_only=True)
                return int(saved["step"]), saved["state"]
            except Exception as error:  # torch.load raises whatever its parser meets
                damage = f"{type(error).__name__} on loading"
        warnings.warn(f"The checkpoint {file} is damaged ({damage}) and is passed over.", stacklevel=2)
    if found:
        raise ConfigError(
            f"No checkpoint in {directory} is sound; delete that directory to train the run again from the start."
        )
    return None


def _damage(file: Path) -> str | None:
    try:
        expected = read_bytes(_digest_file(file), MOST_LINE).strip()
        with open(file, "rb") as content:
            actual = hashlib.file_digest(content, "sha256").hexdigest().encode()
    except FileNotFoundError:
        return "its SHA-256 file is missing"
    except (OSError, ValueError) as error:
        return str(error)
    return None if actual == expected else "its SHA-256 differs"


def _digest_file(file: Path) -> Path:
    return file.with_name(file.name + ".sha256")


def _checkpoints(directory: Path) -> list[tuple[int, Path]]:
    """All checkpoints as (step, file), oldest first."""
    if not directory.is_dir():
        return []
    named = ((_NAME.fullmatch(file.name), file) for file in directory.iterdir())
    return sorted((int(match[1]), file) for match, file in named if match)

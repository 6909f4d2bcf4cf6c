"""The states from which a run can go on: tensors, numbers and dictionaries at a step, never objects.

`checkpoints/step-<step>.pt` is a `torch.save` of plain values. A file next to it has its SHA-256, since neither
`torch.load` nor its zip container notices a flipped bit in a tensor. That file also has the digest of the run, since a
checkpoint may have been copied here (`hvae.lab.runs.stored`). The last two are kept, so a damaged one costs the steps
since the one before. No random state is stored: draws and data order are functions of (seed, step).
"""

import hashlib
import io
import os
import pickle
import warnings
from typing import Any

import torch

from hvae.errors import ConfigError, NotLoadableError
from hvae.lab.runs.files import clean, write_atomically
from hvae.lab.runs.run import Run
from hvae.lab.runs.stored import digest_file, stored, unsound
from hvae.outside import reason

KEPT = 2


def save_checkpoint(run: Run, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step` steps, then delete all but the last two.

    The metrics are forced to disk first, so that no crash loses rows from before a checkpoint.
    """
    directory = run.path / "checkpoints"
    directory.mkdir(exist_ok=True)
    clean(directory)
    metrics = run.path / "metrics.jsonl"
    if metrics.exists():
        with open(metrics, "rb") as file:
            os.fsync(file.fileno())
    buffer = io.BytesIO()
    torch.save({"step": step, "state": state}, buffer)
    content = buffer.getvalue()
    file_name = directory / f"step-{step:09d}.pt"
    said = f"{hashlib.sha256(content).hexdigest()} {run.config.digest}\n"
    write_atomically(digest_file(file_name), said.encode())
    write_atomically(file_name, content)
    run.keep_metrics()
    for _, old in stored(run.path)[:-KEPT]:
        old.unlink(missing_ok=True)
        digest_file(old).unlink(missing_ok=True)


def latest_checkpoint(run: Run, device: str | torch.device = "cpu") -> tuple[int, dict[str, Any]] | None:
    """The newest sound checkpoint of the run as (step, state); None where none was ever written.

    One that is damaged or another run's is passed over with a warning; `ConfigError` where none is left.
    `NotLoadableError` for a sound one that cannot be loaded here.
    """
    directory = run.path / "checkpoints"
    found = stored(run.path)[::-1]
    for _, file in found:
        wrong = unsound(file, run.config.digest)
        if wrong is None:
            try:
                saved = torch.load(file, map_location=device, weights_only=True)
                return int(saved["step"]), saved["state"]
            except pickle.UnpicklingError as error:  # refused, as it holds more than plain values
                wrong = ConfigError(f"The checkpoint {file} is damaged ({type(error).__name__} on loading)")
            except Exception as error:  # torch.load raises whatever it meets
                raise NotLoadableError(
                    f"The checkpoint {file} is sound, but cannot be loaded on {device} ({reason(error)}); "
                    "give another --device, or more memory."
                ) from None
        warnings.warn(f"{wrong}, and is passed over.", stacklevel=2)
    if found:
        raise ConfigError(
            f"No checkpoint in {directory} is sound and of this run; restore one, or move that directory away to train "
            "the run again from the start."
        )
    return None

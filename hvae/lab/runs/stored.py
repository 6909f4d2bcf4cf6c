"""Checkpoints as files: which there are, and whether they are sound and of this run. Without torch.

`step-<step>.pt.sha256` holds the SHA-256 of the checkpoint and the digest of its run; in runs of before the sum alone.
"""

import hashlib
import re
from pathlib import Path

from hvae.errors import ConfigError, ForeignError
from hvae.outside import read_line

_NAME = re.compile(r"step-(\d+)\.pt")


def stored(path: Path) -> list[tuple[int, Path]]:
    """All checkpoints of the run at ``path`` as (step, file), oldest first."""
    directory = path / "checkpoints"
    if not directory.is_dir():
        return []
    named = ((_NAME.fullmatch(file.name), file) for file in directory.iterdir())
    return sorted((int(match[1]), file) for match, file in named if match)


def unsound(file: Path, digest: str) -> ConfigError | None:
    """What is wrong with a checkpoint, to be said with what is done about it; None for one that is sound."""
    try:
        sha256, _, owner = read_line(digest_file(file), "restore it").partition(" ")
        with file.open("rb") as content:
            actual = hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return ConfigError(f"The checkpoint {file} is damaged (its SHA-256 file is missing)")
    except (ConfigError, OSError) as error:
        return ConfigError(f"The checkpoint {file} is damaged ({str(error).rstrip('.')})")
    if actual != sha256:
        return ConfigError(f"The checkpoint {file} is damaged (its SHA-256 differs)")
    if owner not in ("", digest):
        return ForeignError(f"The checkpoint {file} is of another run, {owner[:8]}")
    return None


def digest_file(file: Path) -> Path:
    """Where the SHA-256 of a checkpoint stands."""
    return file.with_name(file.name + ".sha256")

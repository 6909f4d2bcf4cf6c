"""Where numbers come from: the command, commit, versions and machine of this process."""

import contextlib
import importlib.metadata
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hvae.errors import ConfigError
from hvae.lab.runs.manifest import check
from hvae.outside import read_json

FILE = "provenance.json"


def session(device: str, n_threads: int) -> dict[str, Any]:
    """A record of this process, fit for JSON."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "commit": _commit(),
        "device": device,
        "n_threads": n_threads,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": _versions(),
    }


def read_sessions(path: Path) -> list[dict[str, Any]]:
    """The records of the run at ``path``, oldest first. Raises `ConfigError` where they are damaged."""
    file, remedy = path / FILE, "restore or delete it"
    check(path, FILE, remedy)
    try:
        sessions = read_json(file, remedy)
    except FileNotFoundError:
        return []
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        raise ConfigError(f"{file} is no list of sessions; {remedy}.")
    return sessions


def _command() -> list[str]:
    """As it is typed: without the folder of the program, which only says where somebody keeps it.

    A worker has the arguments of the process that started it, but not its main module.
    """
    program = Path(sys.argv[0])
    return [program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]]


def _commit() -> str | None:
    """The commit of the checkout this package is run from, with "+" where it was altered; None elsewhere."""
    home = Path(__file__).resolve().parents[3]
    if not (home / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(home), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _versions() -> dict[str, str]:
    versions = {}
    for name in ("hvae", "torch", "numpy", "scipy", "arviz-stats"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions

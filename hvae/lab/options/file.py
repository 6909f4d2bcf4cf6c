"""A file of settings for `--config`: YAML 1.2 or JSON through the gate, maybe written by a stranger."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, set_dumper, set_loader  # type: ignore[attr-defined]

from hvae.errors import ConfigError
from hvae.outside import from_yaml, read_yaml

MODE = "yaml-1.2"
"""name of our reader and writer among those of jsonargparse"""


def use_yaml() -> None:
    """Make `MODE` known to jsonargparse."""
    set_loader(MODE, from_yaml, (ValueError,))
    set_dumper(MODE, as_yaml)


def as_yaml(values: Mapping[str, Any]) -> str:
    """Settings as YAML that `from_yaml` reads back, every value as JSON has it: words of YAML 1.1 and 1.2 differ."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{key}:\n", textwrap.indent(as_yaml(value), "  ")]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines)


class SettingsFile(ActionConfigFile):
    """--config FILE, read by the gate."""

    def __call__(self, parser: Any, found: Any, file: Any, option: str | None = None) -> None:
        try:
            values = read_yaml(Path(file), "write it as `hvae train --print_config` does, in UTF-8")
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{file} is not there; give --config a file of settings.") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{file} holds no table of settings; `hvae train --print_config` writes one.")
        self.apply_config(parser, found, self.dest, json.dumps(values))


def refuse_runs_elsewhere(folder: str, arguments: Sequence[str]) -> None:
    """A file of settings may be a stranger's: it writes below the working folder, elsewhere by a typed flag only."""
    typed = {after for flag, after in pairwise([*arguments, ""]) if flag == "--runs-dir"}
    typed |= {argument.partition("=")[2] for argument in arguments if argument.startswith("--runs-dir=")}
    if not folder.strip():
        raise ConfigError("runs_dir in the configuration is empty; give a folder, such as runs.")
    path = Path(folder)
    within = ".." not in path.parts and (not path.is_absolute() or path.is_relative_to(Path.cwd()))
    if folder not in typed and not within:
        raise ConfigError(
            f"runs_dir in the configuration is {folder!r}, outside the working folder; "
            f"give it as --runs-dir {folder} if that is meant."
        )

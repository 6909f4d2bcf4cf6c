"""Settings as they are typed: what stands behind `hvae train` to get a configuration."""

import dataclasses
import json
import shlex
from typing import Any

from hvae.lab.config.run import RunConfig
from hvae.lab.strict import told


def as_typed(config: RunConfig) -> dict[str, str]:
    """Option -> its value, quoted for a shell: {"--objective.beta": "'{\"warmup_steps\": 500}'", ...}.

    >>> as_typed(RunConfig())["--model.latents"], as_typed(RunConfig())["--objective.beta"]
    ("'[16, 8, 4]'", '1.0')
    """
    sections = {section.name: getattr(config, section.name) for section in dataclasses.fields(config)}
    return {
        f"--{name}.{knob.name}": shlex.quote(_text(told(getattr(section, knob.name))))
        for name, section in sections.items()
        for knob in dataclasses.fields(section)
    }


def _text(value: Any) -> str:
    """A constant schedule is its number; text stands as it is, all else as JSON."""
    if isinstance(value, dict) and value.keys() == {"value"}:
        value = value["value"]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

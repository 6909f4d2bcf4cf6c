"""Lists as text: the experiments with their questions, and the data sets that have a name."""

import textwrap
from collections.abc import Iterable
from typing import Any

from hvae.lab import experiment

INDENT = " " * 21
"""of an experiment's question"""
HEADINGS = {False: "Experiments (hvae run NAME --preset PRESET)", True: "Papers, reproduced or repeated"}


def experiments_text(width: int) -> str:
    """Every experiment with its presets and its question, then every paper."""
    modules = {name: experiment.find(name) for name in experiment.names()}
    parts = []
    for papers, heading in HEADINGS.items():
        lines = [heading]
        for name, module in modules.items():
            if hasattr(module, "PAPER") is papers:
                question = experiment.question(module)
                lines.append(f"  {name:<18} {', '.join(module.PRESETS)}")
                lines.append(textwrap.fill(question, width, initial_indent=INDENT, subsequent_indent=INDENT))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def data_text(records: Iterable[Any], width: int) -> str:
    """Each description once, and below it the names that it holds for."""
    lines: list[str] = []
    said = ""
    for record in records:
        about, _, values = record.description.rpartition(": ")
        about, values = (about, values) if about else (values, "")
        if about != said:
            lines += [*([""] if said else []), textwrap.fill(about, width)]
            said = about
        shape = "x".join(map(str, record.shape))
        start = f"  {record.name:<18} {record.status:<8} {shape:>6} {record.n_train:>6} + {record.n_test:<6}"
        indent = " " * (len(start) + 1)
        lines.append(
            textwrap.fill(values, width, initial_indent=f"{start} ", subsequent_indent=indent) or start.rstrip()
        )
    return "\n".join(lines)

"""`docs/reliability.md` from `docs/reliability.json`, which has the rows of every figure as they were measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.reliability.figure import Figure, Row

REPO = Path(__file__).parents[2]
RECORD, PAGE = REPO / "docs/reliability.json", REPO / "docs/reliability.md"

HEAD = """# Reliability

This page is measured. `make reliability` measures every figure again and writes the page, in about {minutes} minutes on
two cores. The command under a heading measures one figure.

A measurement that cannot fail proves nothing. So the same measurement is made of *broken twins*: code without the
protection in question. Their rows say "twin", and a twin that does not fail is an error of the measurement.

{verdict}
"""


def read_record(file: Path = RECORD) -> dict[str, dict[str, Any]]:
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def entry(rows: Sequence[Row], n: int, seconds: float, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What the record keeps of one figure."""
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    where = {name: origin[name] for name in ("time", "commit", "python", "platform")} | {"versions": versions}
    return {"n": n, "seconds": round(seconds), "rows": [row.as_json() for row in rows], "origin": where}


def page(record: Mapping[str, Mapping[str, Any]], figures: Sequence[Figure]) -> str:
    """The page, in the order of ``figures``; one that is not in the record says so."""
    measured = [record[figure.name] for figure in figures if figure.name in record]
    rows = [Row(**row) for each in measured for row in each["rows"]]
    bad = [row.what for row in rows if not row.ok]
    minutes = round(sum(each["seconds"] for each in measured) / 60)
    verdict = f"{len(rows) - len(bad)} of {len(rows)} rows are as they should be"
    verdict += "." if not bad else f"; not as they should be: {'; '.join(bad)}."
    lines = [HEAD.format(minutes=minutes, verdict=verdict)]
    for number, figure in enumerate(figures, start=1):
        lines += [f"## {number}. {figure.title}", "", figure.how, ""]
        found = record.get(figure.name)
        if found is None:
            lines += ["Not measured yet.", ""]
            continue
        lines += ["| measured | found | as it should be |", "|---|---|---|"]
        for row in (Row(**row) for row in found["rows"]):
            what = f"twin: {row.what}" if row.twin else row.what
            yes = "yes, it fails" if row.twin else "yes"
            lines.append(f"| {_cell(what)} | {_cell(row.found)} | {yes if row.ok else '**no**'} |")
        origin = found["origin"]
        lines += [
            "",
            f"`python -m tests.reliability {figure.name}`: {_duration(found['seconds'])}, {origin['time'][:10]}, "
            f"commit {(origin['commit'] or 'unknown')[:7]}, {origin['versions']}.",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    """With each part of what was found on a line of its own."""
    return text.replace("|", "\\|").replace("; ", "<br>")


def _duration(seconds: float) -> str:
    return f"{seconds} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"

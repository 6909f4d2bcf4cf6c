"""The page `docs/performance.md`: its tables, and the targets that a release is to reach."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvae.experiments.shared.costs.bench.rows import LAYERS, Row

BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"
DEPTH = "<!-- begin: make bench, depth -->", "<!-- end: make bench, depth -->"
COLUMNS = (
    "hvae, R = 1", "hvae, R = 4", "hvae, R = 16", "plain", "Pyro", "JAX, R = 1", "JAX, R = 16", "pythae",
    "matrix products",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """``against`` takes at least ``times`` the time of ``ours``."""

    row: str
    ours: str
    against: str
    times: float

    def line(self, rows: Sequence[Row]) -> str:
        row = next((row for row in rows if row.name.startswith(self.row)), None)
        if row is None or self.ours not in row.times or self.against not in row.times:
            return f"| {self.row} | {self.ours} | {self.against} | {self.times:g} | not measured | |"
        found = row.times[self.against] / row.times[self.ours]
        said = "reached" if found >= self.times else "**missed**"
        return f"| {self.row} | {self.ours} | {self.against} | {self.times:g} | {found:.2f} | {said} |"


_BURDA = "step, two layers, 100 and 50 units (Burda et al. 2016), B = 20, K = 1"
TARGETS = (
    Target(_BURDA, "hvae, R = 1", "plain", 1.0),
    Target(_BURDA, "hvae, R = 16", "plain", 1.6),
    Target("step, five layers, 64 to 4 units, B = 100, K = 1", "hvae, R = 16", "plain", 1.8),
    Target("L_5000, two layers, 100 and 50 units (Burda et al. 2016), 8 images", "hvae", "Pyro", 1.6),
)


def tables(rows: Sequence[Row], sentences: Sequence[str]) -> str:
    """What stands between the marks."""
    timed = [row for row in rows if "plain" in row.times]
    shown = [name for name in COLUMNS if any(_of(row, name) for row in timed)]
    lines = [f"{sentence}\n" for sentence in sentences]
    lines += [f"| CPU time | unit | {' | '.join(shown)} |", f"|---|---|{'---|' * len(shown)}"]
    lines += [f"| {row.name} | {row.unit} | {' | '.join(_of(row, name) for name in shown)} |" for row in timed]
    lines += ["", "| target | of | against | at least x | measured x | |", "|---|---|---|---|---|---|"]
    lines += [target.line(rows) for target in TARGETS]
    lines += ["", *(line for row in rows if "plain" not in row.times for line in _growth(row)), ""]
    return "\n".join(lines)


def _of(row: Row, name: str) -> str:
    """A cell; what has no replicas stands under R = 1."""
    value = row.times.get(name, row.times.get("hvae") if name == "hvae, R = 1" else None)
    return "" if value is None else f"{value:.3g}"


def _growth(row: Row) -> list[str]:
    first, last = f"{LAYERS[-2]} layers", f"{LAYERS[-1]} layers"
    exponent = math.log(row.times[last] / row.times[first]) / math.log(LAYERS[-1] / LAYERS[-2])
    return [
        f"| {row.name}, {row.unit} | {' | '.join(row.times)} | exponent of the last two |",
        f"|---|{'---|' * len(row.times)}---|",
        f"| hvae | {' | '.join(f'{value:.3g}' for value in row.times.values())} | {exponent:.1f} |",
    ]


def depth_table(what: str, found: Mapping[str, Mapping[str, float]]) -> str:
    """A table for between the marks of `DEPTH`: what something costs by the number of layers, and how that grows."""
    numbers = {kind: list(times.values()) for kind, times in found.items()}
    names = list(next(iter(found.values())))
    layers = [int(name.split()[0]) for name in names]
    lines = [f"| {what} | {' | '.join(names)} | exponent of the last two |", f"|---|{'---|' * len(names)}---|"]
    for kind, times in numbers.items():
        exponent = math.log(times[-1] / times[-2]) / math.log(layers[-1] / layers[-2])
        lines.append(f"| {kind} | {' | '.join(f'{value:.3g}' for value in times)} | {exponent:.2f} |")
    return "\n".join(lines)


def renewed(page: str, between: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The page with other tables between the marks. Raises IndexError without them."""
    begin, end = marks
    before, after = page.split(begin)[0], page.split(end)[1]
    return f"{before}{begin}\n\n{between.rstrip()}\n\n{end}{after}"

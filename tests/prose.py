"""Numbers in prose, and the tables that they are taken from: what a sentence says stands in a committed table.

Of a page `experiments/results/<name>` the tables are its files in `tables/`, the made part of its README, t-intervals
over seeds of each column of a CSV, and paired differences of two runs in likelihood and units. Looked up are

    a [b, c]   one triple (low, middle, high) of a table, all three together, maybe with the sign turned
    a ± b      beside each other in a table, or a middle with its half interval or its standard deviation
    a          with decimals or a per cent sign: a number that a table of the page shows, that the paper printed, or
               that the experiment's settings and margins hold

A number agrees where the table's rounds to it.
"""

import csv
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hvae.analysis.samples import t_interval
from hvae.experiments.shared.published import numbers as published
from hvae.lab import experiment

RESULTS = Path(__file__).parents[1] / "experiments" / "results"

NUMBER = r"[−-]?\d[\d,]*(?:\.\d+)?(?:e[−-]\d+)?"
UNIT = r"(?: ?(?:nats?(?: a layer)?|units?|layers?|%|of it))?"
BETWEEN = r"(?: of [^\[\].;:,]{1,40}?| more| less| fewer| behind| ahead)?,? ?"
INTERVAL = re.compile(rf"({NUMBER}){UNIT}{BETWEEN}\[({NUMBER}), ({NUMBER})\]")
HALF = re.compile(rf"({NUMBER}){UNIT} ± ({NUMBER})")
SINGLE = re.compile(rf"(?<![\w.\-−/(])({NUMBER})( %)?(?![\w/]|\.\d)")
CODE = re.compile(r"```.*?```|`[^`]*`|\]\([^)]*\)", flags=re.DOTALL)
SETTINGS = ("n_samples", "beta", "couplings", "strength", "depth", "n_steps")
"""columns of numbers that tell rows apart"""

Triple = tuple[float, float, float]
"""(low, middle, high)"""
Pair = tuple[float, float]
"""a middle and what stands behind its ±"""


@dataclass(frozen=True)
class Said:
    """A number as it is written."""

    value: float
    decimals: int

    @staticmethod
    def of(text: str) -> "Said":
        plain = text.replace("−", "-").replace(",", "")
        mantissa, _, power = plain.partition("e")
        return Said(float(plain), len(mantissa.partition(".")[2]) - int(power or 0))

    def agrees(self, values: np.ndarray) -> np.ndarray:
        """Which values round to it; a half may round either way."""
        found: np.ndarray = np.abs(values - self.value) <= 10.0**-self.decimals * (0.5 + 1e-6)
        return found


@dataclass
class Tables:
    """What the tables of a page hold."""

    numbers: list[float] = field(default_factory=list)
    triples: list[Triple] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)

    def add_text(self, text: str) -> None:
        """What a made page or table says."""
        text = text.replace("\N{NO-BREAK SPACE}", " ")
        self.numbers += [Said.of(found).value for found in re.findall(NUMBER, text)]
        for middle, low, high in INTERVAL.findall(text):
            self.triples.append((Said.of(low).value, Said.of(middle).value, Said.of(high).value))
        self.pairs += [(Said.of(a).value, Said.of(b).value) for a, b in HALF.findall(text)]

    def add_seeds(self, values: Sequence[float]) -> None:
        """A number of each seed."""
        if not np.isfinite(values).all():
            return
        low, middle, high = t_interval(np.array(values))
        self.triples.append((low, middle, high))
        self.pairs.append((middle, high - middle))
        if len(values) > 1:
            self.pairs.append((middle, float(np.std(values, ddof=1))))

    def add_csv(self, file: Path) -> None:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        words = [key for key in rows[0] if not numeric({key: rows[0][key] or "x"}) and "verdict" not in key]
        words += [key for key in SETTINGS if key in rows[0] and key not in words]
        groups: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            found = numeric(row)
            self.triples += _triples(found)
            for key, value in found.items():
                groups[tuple(row[word] for word in words)][key].append(value)
        for group in groups.values():
            for each in group.values():
                self.add_seeds(each)
        if file.name == "likelihood.csv":
            self._add_differences(rows, "n_samples", "bound_nats_middle")
        if file.name == "verdict.csv":
            self._add_differences(rows, "layer", "burda_active_units")

    def _add_differences(self, rows: Sequence[Mapping[str, str]], within: str, column: str) -> None:
        """Of two runs, seed by seed: what a sentence may say though no claim asks for it."""
        found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for row in rows:
            if row["seed"].isdigit() and row[column]:
                found[row[within]][row["run"]][row["seed"]] = float(row[column])
        for runs in found.values():
            for first, second in itertools.combinations(runs.values(), 2):
                if first.keys() == second.keys():
                    gaps = [first[seed] - second[seed] for seed in first]
                    self.add_seeds(gaps)
                    self.numbers.append(float(np.mean(gaps)))

    def add_json(self, file: Path) -> None:
        """Claims, or numbers beside those of a paper."""
        records: Any = json.loads(file.read_text(encoding="utf-8"))
        for entry in records if isinstance(records, list) else records["numbers"]:
            ends = (entry["low"], entry.get("middle", entry.get("ours")), entry["high"])
            if None not in ends:
                self.triples.append(ends)
                self.pairs.append((ends[1], ends[2] - ends[1]))
                self.numbers += ends
            self.numbers += [float(entry[key]) for key in ("paper", "ours", "spread", "tolerance") if entry.get(key)]


def numeric(row: Mapping[str, str]) -> dict[str, float]:
    """The columns that hold numbers."""
    found = {}
    for key, text in row.items():
        try:
            found[key] = float(text)
        except (TypeError, ValueError):
            continue
    return found


def _triples(row: Mapping[str, float]) -> Iterator[Triple]:
    """Of columns whose names end in low, middle and high."""
    for key in row:
        stem = key.removesuffix("middle")
        if stem != key and f"{stem}low" in row and f"{stem}high" in row:
            yield row[f"{stem}low"], row[key], row[f"{stem}high"]


@cache
def tables(name: str) -> Tables:
    """Of a page of results."""
    found, page, module = Tables(), RESULTS / name, experiment.find(name)
    for file in sorted((page / "tables").iterdir()):
        {".csv": found.add_csv, ".json": found.add_json}.get(file.suffix, lambda each: None)(file)
    found.add_text((page / "README.md").read_text(encoding="utf-8").partition("## What made it")[0])
    found.add_text(" ".join(claim.criterion for claim in getattr(module, "claims", ())))
    if paper := getattr(module, "PAPER", None):
        found.numbers += [row.value for row in published()]
        found.add_text(" ".join(paper.limits.values()))
    for config in module.configs("cpu").values():
        found.add_text(config.to_json())
    return found


def strays(text: str, found: Tables) -> list[str]:
    """The numbers of a text that stand in no table."""
    text = " ".join(CODE.sub(" ", text).split()).replace("\N{NO-BREAK SPACE}", " ")
    missing = [match[0] for match in INTERVAL.finditer(text) if not holds(match.groups(), found)]
    text = INTERVAL.sub(" ", text)
    missing += [match[0] for match in HALF.finditer(text) if not stands(match.groups(), found)]
    for number, percent in SINGLE.findall(HALF.sub(" ", text)):
        if "." in number or percent:
            known, said = np.abs(found.numbers), Said.of(number.lstrip("−-"))
            if not (said.agrees(known).any() or (percent and said.agrees(100 * known).any())):
                missing.append(number + percent)
    return missing


def holds(interval: Sequence[str], found: Tables) -> bool:
    """Whether ``a [b, c]`` is a triple; in per cent, or with the sign turned, as well."""
    a, b, c = map(Said.of, interval)
    for scale in (1.0, -1.0, 100.0, -100.0):
        three = scale * np.array(found.triples)
        if (a.agrees(three[:, 1]) & b.agrees(three.min(axis=1)) & c.agrees(three.max(axis=1))).any():
            return True
    return False


def stands(pair: Sequence[str], found: Tables) -> bool:
    """Whether ``a ± b`` is a pair; with the sign of a turned as well."""
    a, b = map(Said.of, pair)
    middle, half = np.array(found.pairs).T
    return bool(((a.agrees(middle) | a.agrees(-middle)) & b.agrees(half)).any())

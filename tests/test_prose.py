"""What pages say in numbers stands in the tables: front page, findings, and the summary of every page of results.

`tests.prose` says what is looked up. Intervals and ± are compared as a whole. A number alone is compared with what the
page's tables show, and two figures are often somewhere: `test_an_altered_number_is_seen` says how much is seen.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hvae.lab import experiment
from tests.prose import CODE, HALF, INTERVAL, RESULTS, Tables, holds, stands, strays, tables

REPO = Path(__file__).parents[1]
SUMMARIES = sorted(file.parent.name for file in RESULTS.glob("*/summary.md"))
README, FINDINGS = REPO / "README.md", REPO / "docs" / "findings.md"
IN_TESTS = {"trust.md": {"4.6"}}
"""numbers that a test holds, and no table: those of `tests/likelihood/test_cheapest.py`"""
LINK = re.compile(r"experiments/results/(?:([\w-]+)/\w+|README)\.md")
COMMAND = re.compile(r"`hvae run ([\w-]+) --preset cpu`")


def blocks(page: Path) -> Iterator[tuple[str, frozenset[str]]]:
    """Paragraphs and items that speak of results, and the pages of results that they name, or else their section."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        for block in re.split(r"\n\n|\n(?=- )", section):
            names = named(block) or named(section)
            if names:
                yield block, names


def named(text: str) -> frozenset[str]:
    """By links and commands; the page of all papers, and the command of all, stand for each of them."""
    found = {name or "papers" for name in LINK.findall(text)} | set(COMMAND.findall(text))
    members = (member for name in found for member in experiment.members(name))
    return frozenset(name for name in members if (RESULTS / name).is_dir())


def together(names: frozenset[str]) -> Tables:
    each = [tables(name) for name in sorted(names)]
    return Tables(
        *([entry for one in each for entry in getattr(one, kind)] for kind in ("numbers", "triples", "pairs"))
    )


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_number_of_a_summary_stands_in_its_tables(name: str) -> None:
    assert strays((RESULTS / name / "summary.md").read_text(encoding="utf-8"), tables(name)) == []


PAGES = [page for page in (README, *sorted((REPO / "docs").glob("*.md"))) if any(blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_number_of_a_page_stands_in_the_tables_that_it_links_to(page: Path) -> None:
    found = {block: strays(block, together(names)) for block, names in blocks(page)}
    elsewhere = IN_TESTS.get(page.name, set())
    assert {block: lost for block, numbers in found.items() if (lost := set(numbers) - elsewhere)} == {}


def test_the_front_page_and_the_findings_are_read() -> None:
    """Their lines with intervals are among the blocks."""
    for page, least in ((README, 2), (FINDINGS, 5)):
        read = [match[0] for block, _ in blocks(page) for match in INTERVAL.finditer(" ".join(block.split()))]
        assert len(read) >= least, page.name


def test_a_median_and_a_range_are_of_all_cells() -> None:
    """What a released decoder loses of I(z2; z3): of every shape and coupling, never the largest alone."""
    claims = json.loads((RESULTS / "conjecture" / "tables" / "claims.json").read_text(encoding="utf-8"))
    cells = [one for one in claims if one["statement"].startswith("With a factorised encoder it loses more than a ten")]
    losses = sorted(100 * one["middle"] for one in cells)
    assert len(losses) == 8 and sum(one["outcome"] == "supported" for one in cells) == 4
    said = f"{np.median(losses):.0f} % in the median of eight cells"
    spread = f"from −{-losses[0]:.0f} % to {losses[-1]:.0f} %"
    for page in (FINDINGS, RESULTS / "conjecture" / "summary.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert said in text and spread in text, page.name


def test_an_interval_that_was_another_is_seen() -> None:
    """The claim is 0.738 [0.370, 1.128]."""
    depth = tables("depth")
    assert strays("0.738 nats [0.736, 0.741]", depth) == ["0.738 nats [0.736, 0.741]"]
    assert strays("0.7 nats [0.4, 1.1], 0.74 [0.37, 1.13], −0.74 [−1.13, −0.37]", depth) == []


def altered(number: str) -> str:
    """Its last digit is another, by 3."""
    place = max(index for index, letter in enumerate(number) if letter.isdigit())
    return f"{number[:place]}{(int(number[place]) + 3) % 10}{number[place + 1 :]}"


def test_an_altered_number_is_seen() -> None:
    """Of the summaries' intervals with one altered digit 95 % are seen, of ± 85 %, of numbers alone a fifth."""
    seen: dict[str, list[bool]] = {"interval": [], "half": []}
    for name in SUMMARIES:
        text, found = CODE.sub(" ", (RESULTS / name / "summary.md").read_text(encoding="utf-8")), tables(name)
        text = " ".join(text.split())
        for kind, pattern, right in (("interval", INTERVAL, holds), ("half", HALF, stands)):
            for match in pattern.finditer(text):
                parts = list(match.groups())
                for place, part in enumerate(parts):
                    seen[kind].append(not right([*parts[:place], altered(part), *parts[place + 1 :]], found))
    assert sum(seen["interval"]) >= 0.95 * len(seen["interval"]) > 190
    assert sum(seen["half"]) >= 0.85 * len(seen["half"]) > 50

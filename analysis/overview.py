"""One page of all papers: their numbers, ours, outcome. Made from the committed results alone, never by hand.

`python -m hvae.analysis.overview experiments/results` writes `README.md` there from every `*/tables/published.json` and
the claims in the same folder.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from hvae.analysis.claims import DECIDED, found_text
from hvae.analysis.papers import linked
from hvae.lab.runs.files import write_atomically
from hvae.outside import read_json

HEAD = """# Papers, reproduced or repeated

What was done: closed forms of three papers (Lucas, Wang, Dang) and one notebook's curve (Lucas) are reproduced. Three
papers (Burda, Sønderby, Flach) are repeated at a small scale, where their numbers do not compare. Made from the
tables in these folders by `python -m hvae.analysis.overview experiments/results`; nothing is written by hand. Ours:
mean with its 95 % interval: over replicas and images for likelihoods, over replicas only for other numbers; a count has
none. A number *agrees* where the interval of ours less the paper's lies within a tolerance fixed before the runs; at
*other scale* (a preset too small for that number) nothing is decided of a number, and what must survive the change of
scale stands under the claims: supported, not supported or undecided by such an interval against a margin fixed
beforehand (what was added later says so), and claims on counts by the share of replicas in which they hold. *By older
rules*: all intervals of the paper are t-intervals over replicas on one set of images, and equal counts decide. They are
too narrow, until its runs are measured again; a value that is the same in every replica stands with their number in
place of an interval. *Alone*: the outcome stands by itself and not for all claims of the page together, by Holm's rule
(pages of before do not have it). Published numbers are shown only where they were read in the paper or its authors'
code (primary), or in a replication or a listing (secondary), or are what the authors' formula gives (evaluated).
"""


def overview(results: Path) -> str:
    """The page, in Markdown."""
    folders = [file.parent.parent for file in sorted(results.glob("*/tables/published.json"))]
    records = {folder: _read(folder, "published") for folder in folders}
    claims = {folder: _read(folder, "claims") or [] for folder in folders}
    short = [
        "| paper | preset | numbers | claims | |",
        "| --- | --- | --- | --- | --- |",
        *(_short_row(folder, records[folder], claims[folder]) for folder in folders),
        "",
    ]
    return "\n".join(
        [HEAD, *short, *(line for folder in folders for line in _paper(folder, records[folder], claims[folder]))]
    )


def _read(folder: Path, name: str) -> Any:
    file = folder / "tables" / f"{name}.json"
    return read_json(file, "restore it with git, or make the page again") if file.exists() else None


def _short_row(folder: Path, record: dict[str, Any], claims: list[dict[str, Any]]) -> str:
    written = f"[summary]({folder.name}/summary.md)" if (folder / "summary.md").exists() else ""
    counts = (_counts(entries) for entries in (record["numbers"], claims))
    return f"| [{folder.name}](#{folder.name}) | {record['preset']} | {' | '.join(counts)} | {written} |"


def _counts(entries: list[dict[str, Any]]) -> str:
    found = Counter(entry["outcome"] for entry in entries)
    return ", ".join(f"{count} {outcome}" for outcome, count in found.most_common()) or "none"


def _paper(folder: Path, record: dict[str, Any], decided: list[dict[str, Any]]) -> list[str]:
    citation = linked(record["citation"].rstrip("."))
    old = any("over" not in entry for entry in (*record["numbers"], *decided))
    lines = [
        f"## {folder.name}",
        "",
        f"{citation}. {record['exhibits']}. Preset {record['preset']}. {record['limits']} "
        f"[All of it]({folder.name}/README.md).{' By older rules.' if old else ''}",
        "",
    ]
    if record["numbers"]:
        lines += ["| number | paper | ours | spread | outcome |", "| --- | ---: | ---: | ---: | --- |"]
        lines += [_number(entry) for entry in record["numbers"]] + [""]
    if decided:
        lines += [
            "| claim | what was measured | found | criterion | outcome |",
            "| --- | --- | ---: | --- | --- |",
            *(_claim(entry) for entry in decided),
            "",
        ]
    return [*lines, *(_made(entry) for entry in record["made"])]


def _made(entry: dict[str, Any]) -> str:
    where = f"on {entry['device']}, {entry.get('took', 'not timed')}, begun {entry['begun']}"
    return f"Made by `{entry['command']}`, commit {entry['commit'][:9]}, {where}.\n"


def _number(entry: dict[str, Any]) -> str:
    ends = "" if entry["low"] is None else f" [{_short(entry['low'])}, {_short(entry['high'])}]"
    ours = f"{_short(entry['ours'])}{ends}"
    what = f"{entry['table']}: {entry['what']}, {entry['dataset']}"
    paper = f"{_short(entry['paper'])} {entry['unit']} ({entry['provenance']})"
    within = "" if entry["tolerance"] is None else f" (±{entry['tolerance']:g})"
    return f"| {what} | {paper} | {ours} | {_short(entry['spread'])} | {entry['outcome']}{within} |"


def _claim(entry: dict[str, Any]) -> str:
    what = f"{entry['statement']} | {entry['quantity'].rstrip(',')}"
    alone = " (alone)" if entry["outcome"] in DECIDED and not entry.get("together", True) else ""
    return f"| {what} | {_found(entry)} | {entry['criterion']} | {entry['outcome']}{alone} |"


def _found(entry: dict[str, Any]) -> str:
    if entry["middle"] is None:
        return "–"
    if entry["low"] == entry["high"]:
        value = f"{_short(entry['middle'])} {entry['unit']}".rstrip()
        return f"{value} in {entry['n_replicas']} of {entry['n_replicas']}"
    return found_text(entry["middle"], entry["low"], entry["high"], entry["unit"], _short)


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}".replace("-", "\N{MINUS SIGN}")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(
            "hvae: give one folder of results, as in `python -m hvae.analysis.overview experiments/results`.",
            file=sys.stderr,
        )
        return 2
    page = Path(arguments[0]) / "README.md"
    write_atomically(page, overview(page.parent).encode())
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

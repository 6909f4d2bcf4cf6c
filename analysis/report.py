"""The report of an experiment or of a run: one self-contained page, and its tables and figures as files.

`report.html` needs neither network nor script. Beside it stand `tables/` (CSV, JSON: every replica)
and `figures/` (SVG, PNG: the ones on the page). What of them is committed: `hvae.analysis.results`.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hvae.analysis import style
from hvae.analysis.claims import Decision
from hvae.analysis.exhibits import GAP, Exhibit, exhibits
from hvae.analysis.kept import holds_kept
from hvae.analysis.load import LoadedRun
from hvae.analysis.origins import sessions
from hvae.analysis.sections import sections
from hvae.analysis.study import Study, open_study
from hvae.analysis.summary import summary
from hvae.analysis.tables.claims import claims_json, claims_table
from hvae.analysis.tables.floor import below
from hvae.analysis.tables.gap import causes_seen, layer_table, likelihood_bounds
from hvae.analysis.tables.gap_csv import gap_csv
from hvae.analysis.tables.gap_doubt import gap_reliability, gap_remarks
from hvae.analysis.tables.likelihood import likelihood_csv, likelihoods, reliability, warnings
from hvae.analysis.tables.verdict import counts, details, overview, verdict_csv
from hvae.analysis.tables.words import MEANING, QUANTITIES
from hvae.analysis.terminal import compare_text, verdict_text
from hvae.extras import need
from hvae.lab.runs.files import write_atomically

__all__ = ["compare_text", "verdict_text", "write_experiment_report"]


@dataclass(frozen=True)
class Shown:
    """A figure as it stands on the page."""

    name: str
    title: str
    caption: str
    markup: str
    """taken as it is: a `markupsafe.Markup`"""
    wide: bool
    """whether it takes the width of the page"""


def write_experiment_report(directory: Path, preset: str = "") -> Path:
    """`write_report` of the study at `directory`."""
    need("jinja2", "A report needs")
    return write_report(open_study(directory, preset), directory)


def write_report(study: Study, directory: Path) -> Path:
    """Write report.html with its tables and figures into the `directory` of a study; returns the page's path.

    A page of results with its arrays has tables and figures of its own: there it is written into `report/`.
    Raises `MissingExtraError` without jinja2, before anything is written.
    """
    need("jinja2", "A report needs")
    if holds_kept(directory):
        directory = directory / "report"
        directory.mkdir(exist_ok=True)
    decisions = study.decisions
    write_tables(study, decisions, directory / "tables")
    return write_page(study, directory / "report.html", decisions, directory / "figures")


def write_page(
    study: Study, page: Path, decisions: Sequence[Decision] = (), figures_beside: Path | None = None
) -> Path:
    """The page alone, and its figures once more as files in a folder where one is given.

    Raises `MissingExtraError` without jinja2.
    """
    need("jinja2", "A report needs")
    figures, absent = _figures(exhibits(study), study, figures_beside)
    gap_figures, _ = _figures(GAP, study, figures_beside)
    content = _content(study, decisions, figures, absent) | _gap_content(study, gap_figures)
    content |= {"sections": _sections(study, figures_beside)}
    write_atomically(page, _environment().get_template("report.html").render(**content).encode())
    return page


def _sections(study: Study, directory: Path | None) -> list[dict[str, Any]]:
    """Those with anything to show."""
    found = []
    for section in sections(study):
        figures, _ = _figures(section.figures, study, directory)
        tables = section.tables(study)
        if figures or tables:
            found.append({**vars(section), "tables": tables, "figures": figures})
    return found


def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _content(
    study: Study, decisions: Sequence[Decision], figures: Sequence[Shown], absent: Sequence[str]
) -> dict[str, Any]:
    first = study.runs[0]
    seen = {word for run in study.runs for layer in run.layers for word in counts(layer, run.epsilon_index)}
    return {
        "study": study,
        "question": [" ".join(part.split()) for part in study.question.split("\n\n")],
        "threshold": first.epsilon_nats,
        "epsilons": first.epsilons,
        "n_images": max(run.n_images for run in study.runs),
        "n_mixture": max(layer.n_mixture for run in study.runs for layer in run.layers),
        "log_images": math.log(max(1, *(run.n_images for run in study.runs))),
        "replicas": " or ".join(map(str, sorted({run.n_replicas for run in study.runs}))),
        "overview": overview(study.runs),
        "details": details(study.runs),
        "meanings": {word: text for word, text in MEANING.items() if word in seen},
        "quantities": QUANTITIES,
        "summary": summary(study),
        "cards": list(dict.fromkeys(str(card) for run in study.runs for card in run.diagnosis.cards)),
        "checks": [sentence for run in study.runs for sentence in run.diagnosis.checks],
        "doubts": [str(doubt) for run in study.runs for doubt in run.diagnosis.notes],
        "not_measured": _not_measured(study),
        "rules": " or ".join(map(str, sorted({run.diagnosis.rule for run in study.runs}))),
        "figures": figures,
        "absent": absent,
        "likelihoods": likelihoods(study.runs),
        "likelihood_images": max((run.likelihood.n_images for run in study.runs if run.likelihood), default=0),
        "reliability": reliability(study.runs),
        "below_floor": below(study.runs),
        "warnings": warnings(study.runs),
        "claims": claims_table(decisions) if decisions else None,
        "common": _common_settings(study.runs),
        "varying": _varying_settings(study.runs),
        "sessions": sessions([run.provenance for run in study.runs]),
        "measured_sessions": sessions([[record] for record in study.measured_by]),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _not_measured(study: Study) -> list[str]:
    """ "z1, z2: J, I: q cannot score a value that it did not draw": one line for each reason."""
    headings = {quantity: heading for heading, quantity, _ in QUANTITIES}
    reasons: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for run in study.runs:
        for (quantity, layer), reason in run.diagnosis.not_measured.items():
            if layer and quantity in headings:
                layers, quantities = reasons.setdefault(reason, ({}, {}))
                layers[layer] = quantities[headings[quantity]] = None
    return [
        f"{', '.join(layers)}: {', '.join(quantities)}: {reason}" for reason, (layers, quantities) in reasons.items()
    ]


def _gap_content(study: Study, figures: Sequence[Shown]) -> dict[str, Any]:
    """The section on the gap; `gap` is False where nothing of it was measured."""
    return {
        "gap": any(run.measured_further for run in study.runs),
        "gap_figures": figures,
        "gap_bounds": likelihood_bounds(study.runs),
        "gap_layers": layer_table(study.runs),
        "gap_words": causes_seen(study.runs),
        "gap_reliability": gap_reliability(study.runs),
        "gap_remarks": gap_remarks(study.runs),
    }


def _figures(wanted: Sequence[Exhibit], study: Study, directory: Path | None) -> tuple[list[Shown], list[str]]:
    """The figures of the page, written to a directory as well, and a sentence for each that has nothing to show."""
    from markupsafe import Markup  # comes with jinja2

    shown, absent = [], []
    for exhibit in wanted:
        made = exhibit.make(study)
        if made is None:
            absent.append(exhibit.absent)
            continue
        text = "" if exhibit.as_png else style.svg(made)
        content = style.png(made) if exhibit.as_png else text.encode()
        if directory is not None:
            directory.mkdir(exist_ok=True)
            write_atomically(directory / exhibit.file, content)
        if exhibit.as_png:
            data = base64.b64encode(content).decode()
            markup = Markup('<img alt="{}" src="data:image/png;base64,{}">').format(exhibit.title, data)
        else:
            markup = Markup(style.with_prefix(text, exhibit.name))  # matplotlib escapes the text in it
        shown.append(Shown(exhibit.name, exhibit.title, exhibit.caption, markup, style.is_wide(made)))
    return shown, list(dict.fromkeys(absent))


def write_tables(study: Study, decisions: Sequence[Decision], directory: Path) -> None:
    """CSV, JSON and text: every replica."""
    directory.mkdir(exist_ok=True)
    files = {"verdict.csv": verdict_csv(study.runs), "likelihood.csv": likelihood_csv(study.runs)}
    if decisions:
        files["claims.json"] = claims_json(decisions)
    if any(run.measured_further for run in study.runs):
        files["gap.csv"] = gap_csv(study.runs)
    for section in sections(study):
        files |= section.csv(study)
    files["summary.txt"] = "\n".join([*summary(study), *filter(None, (reliability(study.runs),)), *study.notes]) + "\n"
    for name, text in files.items():
        write_atomically(directory / name, text.encode())


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key -> value as text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict) and prefix == "":
            flat |= _flat(value, f"{key}.")
        else:
            flat[f"{prefix}{key}"] = _written(value)
    return flat


def _written(value: Any) -> str:
    """A setting for a reader: a schedule as its numbers, everything else as JSON."""
    if isinstance(value, dict) and set(value) == {"value"}:
        return f"constant {value['value']}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _common_settings(runs: Sequence[LoadedRun]) -> dict[str, str]:
    flats = [_flat(run.settings) for run in runs]
    return {key: value for key, value in flats[0].items() if all(flat.get(key) == value for flat in flats)}


def _varying_settings(runs: Sequence[LoadedRun]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The settings in which runs differ, and per run their values."""
    flats = [_flat(run.settings) for run in runs]
    common = _common_settings(runs)
    keys = [key for key in flats[0] if key not in common]
    return keys, [(run.label, [flat.get(key, "") for key in keys]) for run, flat in zip(runs, flats, strict=True)]

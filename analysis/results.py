"""Results to keep: the small files of a report, and a page in Markdown that says what made them.

For a repository: tables (CSV, JSON), figures (SVG, PNG) and `README.md` with the verdicts as text, the
reading, the claims, and command, commit, device and time of every session that worked on the runs.
"""

import shutil
from pathlib import Path

from hvae.analysis.exhibits import GAP, Exhibit, exhibits
from hvae.analysis.origins import sessions
from hvae.analysis.papers import linked
from hvae.analysis.report import write_experiment_report
from hvae.analysis.sections import Section, sections
from hvae.analysis.study import Study, open_study
from hvae.analysis.summary import summary
from hvae.analysis.terminal import verdict_text
from hvae.errors import ConfigError
from hvae.lab.runs.files import write_atomically


def write_results(directory: Path, to: Path, preset: str = "") -> Path:
    """Write the report of `directory` and copy its tables and figures to `to`; returns the page there."""
    write_experiment_report(directory, preset)
    study = open_study(directory, preset)
    every = [*exhibits(study), *GAP, *(exhibit for section in sections(study) for exhibit in section.figures)]
    kept = [exhibit for exhibit in every if (directory / "figures" / exhibit.file).is_file()]
    try:
        shutil.copytree(directory / "tables", to / "tables", dirs_exist_ok=True)
        (to / "figures").mkdir(exist_ok=True)
        for exhibit in kept:
            shutil.copy(directory / "figures" / exhibit.file, to / "figures")
    except OSError as error:
        raise ConfigError(f"{to} cannot be written ({error.strerror}); give another directory or free it.") from None
    tables = ["tables/verdict.csv", "tables/likelihood.csv"]
    tables += [f"tables/{name}" for section in sections(study) for name in section.csv(study)]
    tables += ["tables/gap.csv"] if any(run.measured_further for run in study.runs) else []
    lines = [
        f"# {study.title}, preset {study.preset}" if study.preset else f"# {study.title}",
        "",
        " ".join(study.question.split("\n\n")[0].split()),
        "",
        *(f"{sentence}\n" for sentence in summary(study)),
        "```text",
        verdict_text(directory, preset),
        "```",
        "",
        *(line for section in sections(study) for line in _section(section, study)),
        f"Every replica by itself: {', '.join(f'[{name}]({name})' for name in tables)}.",
        "",
        "## Figures",
        "",
        *(line for exhibit in kept for line in _figure(exhibit)),
        "## What made it",
        "",
    ]
    for session, n_parts in sessions([[record] for record in study.measured_by]):
        lines += [f"- {n_parts} of {len(study.measured_by)} measurements beside the runs:"]
        lines += [f"  - {name}: {value}" for name, value in session.items()]
    for session, n_runs in sessions([run.provenance for run in study.runs]):
        lines += [f"- {n_runs} sessions on {len(study.runs)} runs:"]
        lines += [f"  - {name}: {value}" for name, value in session.items()]
    page = to / "README.md"
    write_atomically(page, ("\n".join(lines) + "\n").encode())
    return page


def _figure(exhibit: Exhibit) -> list[str]:
    title = exhibit.title if exhibit.title.endswith("?") else f"{exhibit.title}."
    return [f"**{title}** {exhibit.caption}", "", f"![{exhibit.title}](figures/{exhibit.file})", ""]


def _section(section: Section, study: Study) -> list[str]:
    """Its tables under a heading, as Markdown."""
    tables = section.tables(study)
    lines = [f"## {section.title}", "", section.note, ""] if tables else []
    for heading, table in tables.items():
        lines += [f"{linked(heading)}:", ""] if heading else []
        lines += [table.to_markdown(), ""]
    return lines

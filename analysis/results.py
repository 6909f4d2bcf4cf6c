"""A page of results: tables, the figures that carry its message, the arrays behind all figures, and what made them.

For a repository: `tables/` (CSV, JSON), `figures/` (PNG), `arrays/` (see `hvae.analysis.kept`) and `README.md` with the
verdicts as text, the summary, the claims, and command, commit, device and time of every session that worked on the
runs. All of it is made from the arrays that are kept, so `hvae report` of the page gives the same again.
"""

from pathlib import Path

from hvae.analysis import style
from hvae.analysis.exhibits import GAP, Exhibit, exhibits
from hvae.analysis.keep import kept
from hvae.analysis.kept import FOLDER, write_kept
from hvae.analysis.origins import sessions
from hvae.analysis.papers import linked
from hvae.analysis.report import write_tables
from hvae.analysis.sections import Section, sections
from hvae.analysis.study import Study, open_study
from hvae.analysis.summary import summary
from hvae.analysis.terminal import verdicts
from hvae.errors import ConfigError
from hvae.lab.runs.files import write_atomically
from hvae.outside import read_text

MADE = "## What made it"
"""heading by which a page of results is known"""
REDRAWN = "`hvae report` of this folder redraws the report with all its figures from `arrays/`, without training."


def write_results(directory: Path, to: Path, preset: str = "", more: Path | None = None) -> Path:
    """Keep the runs of `directory`, or what a page keeps of them, as a page in `to`; returns its README.

    `more` as in `open_study`.
    """
    runs = open_study(directory, preset, more)
    try:
        _refuse_foreign(to, runs)
        write_kept(to, kept(runs))
        study = open_study(to)
        decisions = study.decisions
        write_tables(study, decisions, to / "tables")
        shown = _figures(study, to / "figures")
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
        verdicts(study),
        "```",
        "",
        *(line for section in sections(study) for line in _section(section, study)),
        f"Every replica by itself: {', '.join(f'[{name}]({name})' for name in tables)}.",
        "",
        "## Figures",
        "",
        REDRAWN,
        "",
        *(line for exhibit in shown for line in _figure(exhibit)),
        MADE,
        "",
    ]
    for session, n_parts in sessions([[record] for record in study.measured_by]):
        lines += [f"- {n_parts} of {len(study.measured_by)} measurements beside the runs:"]
        lines += [f"  - {name}: {value}" for name, value in session.items()]
    for session, n_runs in sessions([run.provenance for run in study.runs]):
        lines += [f"- {n_runs} session{'' if n_runs == 1 else 's'} on {len(study.runs)} runs:"]
        lines += [f"  - {name}: {value}" for name, value in session.items()]
    page = to / "README.md"
    write_atomically(page, ("\n".join(lines) + "\n").encode())
    return page


def _refuse_foreign(to: Path, study: Study) -> None:
    """Refuse a folder where files would be replaced or removed that no report wrote."""
    page = to / "README.md"
    if page.is_file() and MADE in read_text(page, "give another folder").splitlines():
        return
    pictures = [f"figures/{exhibit.name}.{suffix}" for exhibit in every_figure(study) for suffix in ("svg", "png")]
    ours = ("README.md", "tables/*.csv", "tables/*.json", f"{FOLDER}/*", *pictures)
    taken = [file.relative_to(to) for pattern in ours for file in sorted(to.glob(pattern))]
    if taken:
        raise ConfigError(f"{to} has {taken[0]}, which no report wrote; give another folder.")


def every_figure(study: Study) -> tuple[Exhibit, ...]:
    """All that the report may draw, in its order."""
    return (*exhibits(study), *GAP, *(exhibit for section in sections(study) for exhibit in section.figures))


def _figures(study: Study, folder: Path) -> list[Exhibit]:
    """Draw those that the experiment keeps, where there is anything to show; of the others no picture stays behind."""
    folder.mkdir(exist_ok=True)
    shown = []
    for exhibit in every_figure(study):
        made = exhibit.make(study) if study.kept is None or exhibit.name in study.kept else None
        for suffix in ("svg", "png"):
            (folder / f"{exhibit.name}.{suffix}").unlink(missing_ok=True)
        if made is not None:
            write_atomically(folder / f"{exhibit.name}.png", style.png(made))
            shown.append(exhibit)
    return shown


def _figure(exhibit: Exhibit) -> list[str]:
    title = exhibit.title if exhibit.title.endswith("?") else f"{exhibit.title}."
    return [f"**{title}** {exhibit.caption}", "", f"![{exhibit.title}](figures/{exhibit.name}.png)", ""]


def _section(section: Section, study: Study) -> list[str]:
    """Its tables under a heading, as Markdown."""
    tables = section.tables(study)
    lines = [f"## {section.title}", "", section.note, ""] if tables else []
    for heading, table in tables.items():
        lines += [f"{linked(heading)}:", ""] if heading else []
        lines += [table.to_markdown(), ""]
    return lines

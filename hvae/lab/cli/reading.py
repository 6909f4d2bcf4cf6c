"""Commands that show what is there: `hvae` alone, `report`, `list`, `compare`, `verify`, `data`. None loads torch."""

import sys
from pathlib import Path
from typing import Any

from hvae.diagnosis.saved import find_saved
from hvae.errors import ConfigError
from hvae.extras import need
from hvae.lab import experiment
from hvae.lab.cli.output import path_of, show, width
from hvae.lab.endings import DONE, FAILED
from hvae.lab.lists import data_text, experiments_text
from hvae.lab.runs.labels import find_place
from hvae.lab.runs.survey import verify

OVERVIEW = """\
hvae says which stochastic layer of a deep VAE has collapsed, why, and what it
costs. A model that you trained is measured from Python:

  hvae.diagnose(hvae.Model(infer, generate, encode=...), x)   see the README

and these commands train and measure stacks of hvae's own:

  hvae run depth --preset demo     15 stacks on digits, every layer judged
  hvae train --data.name my.npz    one stack on your own data
  hvae list                        your runs, experiments and their presets
  hvae report RUN                  the table and the page of a run, again
  hvae compare RUN RUN             two runs: what changed, and what it did
  hvae complete RUN                go on with a run that was stopped
  hvae verify RUN                  whether its files are what was written
  hvae evaluate RUN --likelihood annealed,gap
                                   log p(x) from both sides, the gap by layer
  hvae data list                   data sets that have a name
  hvae COMMAND --help              more of each, with an example

RUN is a label, as `hvae list` shows it, or a directory.
"""


OVERVIEW_RUNS = 5


def overview() -> int:
    """What can be done, and the runs that are there."""
    print(OVERVIEW)
    from hvae.analysis.listing import runs_text

    print(runs_text(Path("runs"), width(), grouped=experiment.names().__contains__, most=OVERVIEW_RUNS))
    return 0


def report(options: Any) -> int:
    need("jinja2", "A report needs")
    root = Path(options.runs_dir)
    place, more = find_place(options.directory, root), find_place(options.more, root) if options.more else None
    show(place, options.preset, more)
    if options.to:
        from hvae.analysis.results import write_results

        print(f"Results: {write_results(place, Path(options.to), options.preset, more)}")
    return 0


def list_runs(options: Any) -> int:
    from hvae.analysis.listing import runs_text

    root, columns, known = Path(options.runs_dir), width(), experiment.names()
    if options.experiment:
        if not (root / options.experiment).is_dir() or Path(options.experiment).name != options.experiment:
            folders = [place.name for place in sorted(root.iterdir()) if place.is_dir()] if root.is_dir() else []
            holds = f"it holds {', '.join(folders)}" if folders else "it holds none"
            raise ConfigError(f"{root} has no runs of {options.experiment!r}; {holds}.")
        print(runs_text(root, columns, experiment=options.experiment))
        return 0
    print(runs_text(root, columns, grouped=known.__contains__))
    print(f"\n{experiments_text(columns)}")
    return 0


def compare(options: Any) -> int:
    from hvae.analysis.compare import compare_text

    root = Path(options.runs_dir)
    print(compare_text(find_place(options.run_a, root), find_place(options.run_b, root), width()))
    return 0


def verify_runs(options: Any) -> int:
    place = find_place(options.directory, Path(options.runs_dir))
    states = verify(place)
    if not states:
        if find_saved(place):
            raise ConfigError(f"{place} is a saved diagnosis, which has no sums to verify; `hvae report` reads it.")
        raise ConfigError(f"{place} holds no run; see `hvae list`.")
    for state in states:
        print(f"{state.word:<12} {state}")
    return DONE if all(state.word == "sound" for state in states) else FAILED


def manage_data(options: Any) -> int:
    from hvae import data

    folder = path_of(options.data_dir)
    if options.verb == "get":
        if not options.name:
            raise ConfigError("`hvae data get` needs a name; see `hvae data list`.")
        for path in data.get(options.name, folder, progress=sys.stderr.isatty()):
            print(path)
        return 0
    if options.name:
        raise ConfigError(f"`hvae data {options.verb}` takes no name, but got {options.name!r}.")
    if options.verb == "list":
        print(data_text(data.catalogue(folder), width()))
        return 0
    states = data.verify(folder)
    for path, state in states:
        print(f"{'sound' if state == 'present' else state:<8} {path}")
    damaged = [path for path, state in states if state == "damaged"]
    if damaged:
        raise ConfigError(
            f"{damaged[0]} does not have the checksum of the catalogue; `hvae data get` fetches it again."
        )
    return 0

"""The command line: `hvae run | train | evaluate | report | list | compare | verify | data`.

Only this file writes to the terminal: results to stdout, everything else to stderr. Bad input of
any kind is one sentence and exit code 2. Only commands that train or measure import torch. analysis
stands below, and is imported when a command asks for it.

Exit codes: 0 done; 1 a run failed, or is not sound; 2 bad input or usage; 130 interrupted, the same command goes on.
"""

import dataclasses
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hvae.errors import ConfigError, MissingExtraError, TrainingError
from hvae.extras import need
from hvae.lab import experiment
from hvae.lab.config import RunConfig
from hvae.lab.lists import data_text, experiments_text
from hvae.lab.options import parse
from hvae.lab.runs.labels import find_place
from hvae.lab.runs.remarks import remarks
from hvae.lab.runs.run import Run
from hvae.lab.runs.survey import akin, find_runs, verify

NARROWEST, WIDEST = 80, 120
"""columns of what is printed"""
OWN_EXPERIMENT = "own"
"""the directory of runs that `hvae train` makes"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    before, warnings.formatwarning = warnings.formatwarning, _one_line
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if not arguments:
            return _overview()
        command, options = parse(arguments)
        return COMMANDS[command](options)
    except ConfigError as error:
        return _fail(str(error))
    except TrainingError as error:
        _say(f"hvae: {error}")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}; make room or give another directory, then repeat the command.")
    except KeyboardInterrupt as interrupt:
        _say(str(interrupt) or "Stopped; the same command goes on from the last checkpoint.")
        return 130
    finally:
        warnings.formatwarning = before


def _fail(sentence: str) -> int:
    _say(f"hvae: {sentence}")
    return 2


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _one_line(message: Warning | str, *details: object, **more: object) -> str:
    return f"hvae: {message}\n"


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
  hvae verify RUN                  whether its files are what was written
  hvae evaluate RUN --likelihood annealed,gap
                                   log p(x) from both sides, the gap by layer
  hvae data list                   data sets that have a name
  hvae COMMAND --help              more of each, with an example

RUN is a label, as `hvae list` shows it, or a directory.
"""


OVERVIEW_RUNS = 5


def _overview() -> int:
    """What can be done, and the runs that are there."""
    print(OVERVIEW)
    from hvae.analysis.listing import runs_text

    print(runs_text(Path("runs"), _width(), grouped=experiment.names().__contains__, most=OVERVIEW_RUNS))
    return 0


# -- what each command does ----------------------------------------------------------------------------


def _run(options: Any) -> int:
    means = experiment.Means(
        Path(options.runs_dir),
        _folder(options.data_dir),
        options.device,
        n_workers=options.workers,
        n_threads=options.threads,
    )
    names = experiment.members(options.experiment)
    experiment.check(names, options.preset, means)
    return max(_run_one(name, options.preset, means) for name in names)


def _run_one(name: str, preset: str, means: experiment.Means) -> int:
    n_runs = len(experiment.find(name).configs(preset))
    failures = experiment.complete(name, preset, means, _say)
    if len(failures) < n_runs:
        _show(means.root / name, preset)
    for failure in failures:
        _say(f"failed: {failure.run.label} (exit code {failure.exit_code}): {failure.reason}")
    if failures:
        _say(f"{len(failures)} of {n_runs} runs failed; the same command tries them again.")
    return 0 if not failures else 2 if all(failure.exit_code == 2 for failure in failures) else 1


def _train(options: Any) -> int:
    values = options.as_dict()
    config = RunConfig.from_dict({field.name: values[field.name] for field in dataclasses.fields(RunConfig)})
    chosen = "standardise" in values["model"]
    blocks = config.model.blocks
    layers = "-".join(map(str, config.model.latents)) if blocks is None else blocks.decoder
    label = options.label or f"{Path(config.data.name).stem} {config.model.order} {layers}"
    Run.directory(Path(options.runs_dir), OWN_EXPERIMENT, label, config)  # a bad label is refused at once

    import torch

    from hvae.data import card_of
    from hvae.data.user import is_user_file
    from hvae.lab import completion
    from hvae.lab.assembly.units import standardises, units_remark

    torch.set_num_threads(options.threads)
    [data] = completion.check([config], _folder(options.data_dir), options.device)
    if not chosen and standardises(config.model, data):
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, standardise=True))
    path = Run.locate(Path(options.runs_dir), OWN_EXPERIMENT, label, config)
    for sentence in [] if path.exists() else akin(path.parent, config):
        _say(sentence)
    run = Run.create_or_open(Path(options.runs_dir), OWN_EXPERIMENT, label, config)
    if not run.done:
        card = card_of(data)
        completion.keep_data(run, data, card)  # reading all numbers again would take a second
        _say(str(card))
        if config.model.standardise:
            _say("Columns are standardised inside the model; likelihoods are those of the numbers in the file.")
        elif is_user_file(config.data.name) and (remark := units_remark(config.model, data)):
            _say(remark)
        for doubt in remarks(config, [card]):
            if doubt.what == "x":  # of the others `hvae.fit` warns
                _say(f"hvae: {doubt.sentence}")
    del data  # `complete` reads them again
    _say(
        f"{path} is done already."
        if run.done
        else f"Training {len(config.training.seeds)} replicas in {path}; Ctrl-C saves, and the same command goes on."
    )
    completion.complete(run, device=options.device, data_dir=_folder(options.data_dir), progress=True)
    _show(run.path)
    return 0


def _evaluate(options: Any) -> int:
    place = find_place(options.run, Path(options.runs_dir))
    runs = _runs_at(place)

    import torch

    from hvae.lab import completion, evaluation
    from hvae.measuring.gap import OF_BLOCKS

    asked = options.likelihood or ("" if options.gradients else "importance")
    words = evaluation.read_words(asked) if asked else ()
    budget = evaluation.Budget(**{field.name: options[field.name] for field in dataclasses.fields(evaluation.Budget)})
    measurements = [word for word in words if word in evaluation.MEASUREMENTS] + ["gradients"] * bool(options.gradients)
    if not measurements and budget != evaluation.Budget():
        knobs = ", ".join(f"--{field.name}" for field in dataclasses.fields(budget))
        raise ConfigError(
            f"{knobs} go with --likelihood {', '.join(evaluation.MEASUREMENTS)}; name one of these words."
        )
    until_se = options.until_se
    if until_se is not None and not 0 < until_se < math.inf:
        raise ConfigError(f"--until-se is {until_se:g}; give a standard error above 0 nats, such as 0.1.")
    if until_se is not None and "importance" not in words:
        raise ConfigError("--until-se goes with --likelihood importance; name this word, or leave --likelihood out.")
    if "gap" in words and any(run.config.model.blocks is not None for run in runs):
        raise ConfigError(OF_BLOCKS)
    completion.check_device(options.device)
    torch.set_num_threads(options.threads)
    where: Any = {"device": options.device, "data_dir": _folder(options.data_dir)}
    todo = [
        run
        for run in runs
        if options.force or not run.done or (until_se is not None and completion.measured_to(run) != until_se)
    ]
    todo = todo if "importance" in words else []
    refusals, n_measured_further = [], 0
    for run in runs:
        if run in todo:
            _say(f"Measuring {run.path} ({_state(run)})")
            completion.measure(run, until_se=until_se, **where)
        wanted = measurements if options.force else completion.unmeasured(run, measurements, budget)
        if wanted:
            _say(f"Measuring {', '.join(wanted)} of {run.path}")
            refusals += completion.measure_further(run, wanted, budget, **where)
            n_measured_further += len(wanted)
    if not todo and not n_measured_further:
        _say(f"{options.run} is measured already; --force measures it again.")
    _show(place)
    for sentence in refusals:
        _say(f"hvae: {sentence}")
    all_refused = "importance" not in words and len(refusals) == len(measurements) * len(runs)
    return 2 if all_refused else 0


def _report(options: Any) -> int:
    need("jinja2", "A report needs")
    place = find_place(options.directory, Path(options.runs_dir))
    _show(place, options.preset)
    if options.to:
        from hvae.analysis.results import write_results

        print(f"Results: {write_results(place, Path(options.to), options.preset)}")
    return 0


def _list(options: Any) -> int:
    from hvae.analysis.listing import runs_text

    root, width, known = Path(options.runs_dir), _width(), experiment.names()
    if options.experiment:
        if not (root / options.experiment).is_dir() or Path(options.experiment).name != options.experiment:
            folders = [place.name for place in sorted(root.iterdir()) if place.is_dir()] if root.is_dir() else []
            holds = f"it holds {', '.join(folders)}" if folders else "it holds none"
            raise ConfigError(f"{root} has no runs of {options.experiment!r}; {holds}.")
        print(runs_text(root, width, experiment=options.experiment))
        return 0
    print(runs_text(root, width, grouped=known.__contains__))
    print(f"\n{experiments_text(width)}")
    return 0


def _compare(options: Any) -> int:
    from hvae.analysis.compare import compare_text

    root = Path(options.runs_dir)
    print(compare_text(find_place(options.run_a, root), find_place(options.run_b, root), _width()))
    return 0


def _verify(options: Any) -> int:
    place = find_place(options.directory, Path(options.runs_dir))
    states = verify(place)
    if not states:
        raise ConfigError(f"{place} holds no run; see `hvae list`.")
    for state in states:
        print(f"{state.word:<12} {state}")
    return 0 if all(state.word == "sound" for state in states) else 1


def _data(options: Any) -> int:
    from hvae import data

    folder = _folder(options.data_dir)
    if options.verb == "get":
        if not options.name:
            raise ConfigError("`hvae data get` needs a name; see `hvae data list`.")
        for path in data.get(options.name, folder, progress=sys.stderr.isatty()):
            print(path)
        return 0
    if options.name:
        raise ConfigError(f"`hvae data {options.verb}` takes no name, but got {options.name!r}.")
    if options.verb == "list":
        print(data_text(data.catalogue(folder), _width()))
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


# -- helpers -------------------------------------------------------------------------------------------


def _runs_at(place: Path) -> list[Run]:
    runs = find_runs(place)
    if not runs:
        raise ConfigError(f"{place} holds no run; see `hvae list`.")
    return runs


def _state(run: Run) -> str:
    return "done" if run.done else run.progress


def _width() -> int:
    """Columns of the terminal, 80 at the least; 80 too where the output goes elsewhere."""
    return min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)


def _folder(path: str | None) -> Path | None:
    return Path(path) if path else None


def _show(directory: Path, preset: str = "") -> None:
    """The verdicts on stdout, and the report in the runs' directory; on a core install a sentence instead."""
    from hvae.analysis.report import write_report
    from hvae.analysis.study import open_study
    from hvae.analysis.terminal import verdicts

    study = open_study(directory, preset)
    try:
        report = write_report(study, directory)
    except MissingExtraError as missing:
        print(verdicts(study, _width()), flush=True)
        _say(f"hvae: {missing}")
        return
    print(verdicts(study, _width()))
    print(f"\nReport: {report}", flush=True)


COMMANDS: dict[str, Callable[[Any], int]] = {
    "run": _run,
    "train": _train,
    "evaluate": _evaluate,
    "report": _report,
    "list": _list,
    "compare": _compare,
    "verify": _verify,
    "data": _data,
}

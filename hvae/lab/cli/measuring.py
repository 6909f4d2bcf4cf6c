"""The command that measures runs: `hvae evaluate`."""

import dataclasses
from pathlib import Path
from typing import Any

from hvae.diagnosis.sizes import LEAST_NATS, MOST_NATS
from hvae.errors import ConfigError
from hvae.lab.cli.output import path_of, say, show
from hvae.lab.runs.labels import find_place
from hvae.lab.runs.run import Run
from hvae.lab.runs.survey import find_runs


def evaluate_runs(options: Any) -> int:
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
    if until_se is not None and not LEAST_NATS <= until_se <= MOST_NATS:
        raise ConfigError(
            f"--until-se is {until_se:g}; give a standard error of {LEAST_NATS:g} to {MOST_NATS:g} nats, such as 0.1."
        )
    if until_se is not None and "importance" not in words:
        raise ConfigError("--until-se goes with --likelihood importance; name this word, or leave --likelihood out.")
    if "gap" in words and any(run.config.model.blocks is not None for run in runs):
        raise ConfigError(OF_BLOCKS)
    completion.check_device(options.device)
    torch.set_num_threads(options.threads)
    where: Any = {"device": options.device, "data_dir": path_of(options.data_dir)}
    todo = [
        run
        for run in runs
        if options.force or not run.done or (until_se is not None and completion.measured_to(run) != until_se)
    ]
    todo = todo if "importance" in words else []
    refusals, n_measured_further = [], 0
    for run in runs:
        if run in todo:
            say(f"Measuring {run.path} ({_state(run)})")
            completion.measure(run, until_se=until_se, **where)
        wanted = measurements if options.force else completion.unmeasured(run, measurements, budget)
        if wanted:
            say(f"Measuring {', '.join(wanted)} of {run.path}")
            refusals += completion.measure_further(run, wanted, budget, **where)
            n_measured_further += len(wanted)
    if not todo and not n_measured_further:
        say(f"{options.run} is measured already; --force measures it again.")
    show(place)
    for sentence in refusals:
        say(f"hvae: {sentence}")
    all_refused = "importance" not in words and len(refusals) == len(measurements) * len(runs)
    return 2 if all_refused else 0


def _runs_at(place: Path) -> list[Run]:
    runs = find_runs(place)
    if not runs:
        raise ConfigError(f"{place} holds no run; see `hvae list`.")
    return runs


def _state(run: Run) -> str:
    return "done" if run.done else run.progress

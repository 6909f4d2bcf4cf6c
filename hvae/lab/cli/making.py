"""Commands that make runs: `hvae run`, `train` and `complete`."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

from hvae.extras import has
from hvae.lab import experiment
from hvae.lab.cli.output import path_of, renew, say, show
from hvae.lab.config import RunConfig
from hvae.lab.endings import DONE, FAILED, REFUSED
from hvae.lab.runs.labels import find_place
from hvae.lab.runs.remarks import remarks
from hvae.lab.runs.run import Run
from hvae.lab.runs.survey import akin

OWN_EXPERIMENT = "own"
"""the directory of runs that `hvae train` makes"""


def run_experiment(options: Any) -> int:
    means = experiment.Means(
        Path(options.runs_dir),
        path_of(options.data_dir),
        options.device,
        n_workers=options.workers,
        n_threads=options.threads,
        scheduler=options.scheduler,
        only=options.only,
    )
    names = experiment.members(options.experiment)
    experiment.check(names, options.preset, means)
    return max(_run_one(name, options.preset, means) for name in names)


def _run_one(name: str, preset: str, means: experiment.Means) -> int:
    n_runs = len(experiment.share(experiment.find(name).configs(preset), means.only))
    if not n_runs:
        say(f"{name}, preset {preset}: no run falls to --only {means.only}.")
        return DONE
    failures = experiment.complete(name, preset, means, say, renew if sys.stderr.isatty() else None)
    left = experiment.unfinished(name, preset, means)
    if left and not failures:
        say(f"{len(left)} runs of {name} are left to others; `hvae run {name} --preset {preset}` makes the report.")
    elif len(failures) < n_runs:
        show(means.root / name, preset)
    for failure in failures:
        say(f"failed: {failure.run.label} (exit code {failure.exit_code}): {failure.reason}")
    if failures:
        say(f"{len(failures)} of {n_runs} runs failed; the same command tries them again.")
    return DONE if not failures else REFUSED if all(failure.exit_code == REFUSED for failure in failures) else FAILED


def train_stack(options: Any) -> int:
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
    from hvae.lab.rehearsal import rehearse

    torch.set_num_threads(options.threads)
    [data] = completion.check([config], path_of(options.data_dir), options.device)
    if not chosen and standardises(config.model, data):
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, standardise=True))
    path = Run.locate(Path(options.runs_dir), OWN_EXPERIMENT, label, config)
    if not path.exists():
        rehearse(config, data, options.device, report=has("jinja2"))
    for sentence in [] if path.exists() else akin(path.parent, config):
        say(sentence)
    run = Run.create_or_open(Path(options.runs_dir), OWN_EXPERIMENT, label, config)
    if not run.done:
        card = card_of(data)
        completion.keep_data(run, data, card)  # reading all numbers again would take a second
        say(str(card))
        if config.model.standardise:
            say("Columns are standardised inside the model; likelihoods are those of the numbers in the file.")
        elif is_user_file(config.data.name) and (remark := units_remark(config.model, data)):
            say(remark)
        for doubt in remarks(config, [card]):
            if doubt.what == "x":  # of the others `hvae.fit` warns
                say(f"hvae: {doubt.sentence}")
    del data  # `complete` reads them again
    say(
        f"{path} is done already."
        if run.done
        else f"Training {len(config.training.seeds)} replicas in {path}; Ctrl-C saves, and the same command goes on."
    )
    completion.complete(run, device=options.device, data_dir=path_of(options.data_dir), progress=True)
    show(run.path)
    return DONE


def complete_run(options: Any) -> int:
    """The unit of every sweep: done, half done or not begun, afterwards it is done."""
    run = Run.open(find_place(options.run, Path(options.runs_dir)))
    where: Any = {"device": options.device, "data_dir": path_of(options.data_dir)}

    import torch

    from hvae.lab import completion

    if run.done:
        completion.check_device(options.device)
        completion.complete(run, **where)  # a file of the user's may have changed since
        say(f"{run.path} is done already.")
        return DONE
    torch.set_num_threads(options.threads)
    completion.check([run.config], where["data_dir"], options.device)
    completion.complete(run, **where, progress=True)
    say(f"{run.path} is done; `hvae report {shlex.quote(str(run.path))}` shows it.")
    return DONE

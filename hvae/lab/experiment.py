"""An experiment: a file or a folder of `experiments/`, found by its name, checked, completed and measured.

Its module has `PRESETS` and `configs(preset)` -> label -> `RunConfig`. It may also have

    NEED_GPU      presets that ask for a GPU
    NEEDS         module of `hvae.extras` -> what its measurement does with it
    MEASUREMENTS  preset -> word -> budget: what `hvae evaluate --likelihood` measures of every run
    measure       (preset, paths, data_dir, say, device) -> part -> function that makes its arrays there
    ON_CPU        its parts that are made on the CPU all the same
    members       () -> names of the experiments that it stands for

Modules stand below hvae, so they are imported by name. Only what trains or measures imports torch.
"""

import difflib
import importlib
import importlib.util
import math
import pkgutil
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from hvae.errors import ConfigError
from hvae.extras import WITHOUT_BOARD, has, need, sentence
from hvae.lab.beside import NO_EXPERIMENTS, PACKAGE, digest_of, measure_once
from hvae.lab.config import RunConfig
from hvae.lab.runs.clock import cost, duration, n_cores, seconds_left
from hvae.lab.runs.identity import directory_name
from hvae.lab.runs.run import Failure, Run
from hvae.outside import read_json


def names() -> list[str]:
    """Every experiment, with hyphens for the underscores of its module."""
    package = importlib.util.find_spec(PACKAGE)
    folders = list(package.submodule_search_locations or []) if package else []
    found = (module.name for module in pkgutil.iter_modules(folders) if module.name not in NO_EXPERIMENTS)
    return sorted(name.replace("_", "-") for name in found)


def find(name: str) -> ModuleType:
    """The module of an experiment; `ConfigError` where there is none."""
    if name not in names():
        raise ConfigError(f"There is no experiment {name!r}; known are {', '.join(names())}.")
    return importlib.import_module(f"{PACKAGE}.{name.replace('-', '_')}")


def members(name: str) -> tuple[str, ...]:
    """The experiments that run under a name: itself, or those that it stands for."""
    module = find(name)
    return tuple(module.members()) if hasattr(module, "members") else (name,)


def question(module: ModuleType) -> str:
    """The first line of its docstring."""
    return (module.__doc__ or "").strip().split("\n")[0]


@dataclass(frozen=True)
class Means:
    """Folders of runs and data, and the machine's part: device, workers, threads."""

    root: Path
    data_dir: Path | None
    device: str
    n_workers: int
    n_threads: int
    scheduler: str = ""
    """address of a scheduler of Dask, whose workers take the place of local processes"""
    only: str = ""
    """the label of a run, or k/n for the k-th of n shares of the runs; all runs if empty"""


def share(configs: Mapping[str, RunConfig], only: str) -> list[str]:
    """The labels that ``only`` names. The n shares k/n are of about equal cost, and none has a run of another.

    >>> share({"a": RunConfig(), "b": RunConfig(), "c": RunConfig()}, "1/2")
    ['a', 'c']
    """
    if not only:
        return list(configs)
    if "/" not in only:  # which no label has
        return [label for label in configs if label == only.strip()]
    numbers = re.fullmatch(r"(\d{1,6})/(\d{1,6})", only)
    k, n = (int(number) for number in numbers.groups()) if numbers else (0, 0)
    if not 1 <= k <= n:
        raise ConfigError(f"--only is {only!r}; give the label of a run, or k/n with k from 1 to n, as 1/4.")
    costliest = sorted(configs, key=lambda label: -cost(configs[label]))
    mine = set(costliest[k - 1 :: n])
    return [label for label in configs if label in mine]


def check(chosen: Sequence[str], preset: str, means: Means) -> None:
    """Raise `ConfigError` before anything is trained.

    Refused are an unknown preset, one that asks for a GPU where none is named, a package that the measurement misses,
    and data that any of several experiments misses. For one experiment, `complete` asks only for data still needed.
    """
    for name in chosen:
        _check_preset(name, preset, means.device)
    labels = [label for name in chosen for label in find(name).configs(preset)]
    if not any(share(find(name).configs(preset), means.only) for name in chosen) and "/" not in means.only:
        close = difflib.get_close_matches(means.only, labels, n=3, cutoff=0.0)
        raise ConfigError(f"No run has the label {means.only!r} of --only; close are {', '.join(map(repr, close))}.")
    if means.scheduler:
        need("distributed", "A scheduler needs")
    if len(chosen) > 1:
        from hvae.lab import completion

        every = [find(name).configs(preset) for name in chosen]
        configs = [some[label] for some in every for label in share(some, means.only)]
        completion.check(configs, means.data_dir, means.device)


def plan(name: str, preset: str, means: Means) -> list[str]:
    """What `complete` is about to start: how many runs, where, for how long, and how to stop."""
    every = find(name).configs(preset)
    configs: Mapping[str, RunConfig] = {label: every[label] for label in share(every, means.only)}
    paths = {label: Run.locate(means.root, name, label, config) for label, config in configs.items()}
    done = [Run.open(paths[label]) for label, config in configs.items() if _finished(paths[label], config, {})]
    known = {run.label for run in done}
    left = [config for label, config in configs.items() if label not in known]
    if not left:
        return [
            f"{name}, preset {preset}: all {len(configs)} runs in {means.root / name} are trained; they are measured."
        ]
    seeds = sorted({len(config.training.seeds) for config in left})
    n_workers = min(means.n_workers or max(1, n_cores() // means.n_threads), len(left))
    with_whom = f"{n_workers} worker{'' if n_workers == 1 else 's'}"
    seconds = seconds_left(done, left, _core_minutes(name, preset)) / n_workers
    time_left = f"About {duration(seconds)} with {with_whom}; a line as each run ends."
    if means.scheduler:
        with_whom, seconds = "the workers of the scheduler", math.nan
    if math.isnan(seconds) or means.device != "cpu":
        time_left = f"How long it takes was never recorded; with {with_whom} a line as each run ends says what is left."
    return [
        f"{name}, preset {preset}: {len(configs)} runs of {' or '.join(map(str, seeds))} seeds in {means.root / name}, "
        f"{len(done)} done.",
        time_left,
        "Ctrl-C saves and stops; the same command goes on from there.",
    ]


def _core_minutes(name: str, preset: str) -> float:
    """What the preset took where it was timed, in minutes of one core; NaN where it never was."""
    package = importlib.util.find_spec(PACKAGE)
    folders = list(package.submodule_search_locations or []) if package else []
    files = [file for folder in folders if (file := Path(folder) / "times.json").is_file()]
    known = read_json(files[0], "restore it with git") if files else {}
    return float(known.get(name, {}).get(preset, math.nan))


def _check_preset(name: str, preset: str, device: str) -> None:
    module = find(name)
    if preset not in module.PRESETS:
        raise ConfigError(f"{name} has no preset {preset!r}; it has {', '.join(module.PRESETS)}.")
    for package, purpose in getattr(module, "NEEDS", {}).items():
        need(package, purpose)
    if preset in getattr(module, "NEED_GPU", ()) and device == "cpu":
        others = ", ".join(other for other in module.PRESETS if other not in module.NEED_GPU)
        raise ConfigError(
            f"Preset {preset!r} of {name} is the paper's own size, weeks on a CPU; "
            f"name a GPU with --device cuda, or take --preset {others}."
        )


def complete(
    name: str,
    preset: str,
    means: Means,
    say: Callable[[str], None],
    renew: Callable[[str], None] | None = None,
) -> list[Failure]:
    """Train and measure every run of the preset that is not done yet, then the experiment's own measurements.

    With `Means.only`, its share of the runs; the experiment's measurements then follow where all runs are done.
    """
    module = find(name)
    every: Mapping[str, RunConfig] = module.configs(preset)
    measurements: Mapping[str, Mapping[str, Any]] = getattr(module, "MEASUREMENTS", {}).get(preset, {})
    paths = {label: Run.locate(means.root, name, label, config) for label, config in every.items()}
    chosen = share(every, means.only)
    missing = [label for label in chosen if not _finished(paths[label], every[label], measurements)]
    failures: list[Failure] = []
    if missing:
        from hvae.lab import completion, sweep

        wanted = [every[label] for label in missing]
        sets = completion.check(wanted, means.data_dir, means.device)
        for line in (*plan(name, preset, means), *completion.said_before(wanted, sets)):
            say(line)
        budgets = _budgets(measurements)
        runs = [Run.create_or_open(means.root, name, label, every[label]) for label in chosen]
        if not has("tensorboard"):
            warnings.warn(sentence("tensorboard", WITHOUT_BOARD), stacklevel=2)
        failures = sweep.sweep(
            runs,
            n_workers=means.n_workers,
            n_threads=means.n_threads,
            device=means.device,
            data_dir=means.data_dir,
            scheduler=means.scheduler,
            say=say,
            renew=renew,
            task=partial(completion.complete, measurements=budgets),
            settled=partial(completion.settled, measurements=budgets),
        )
    else:
        say(f"{name}, preset {preset}: all {len(chosen)} runs are done already in {means.root / name}")
    if not failures and hasattr(module, "measure") and not unfinished(name, preset, means):
        parts = module.measure(preset, paths, means.data_dir, say, means.device)
        own_names = {paths[label].name: directory_name(label, config) for label, config in every.items()}
        parts = {own_names.get(part, part): make for part, make in parts.items()}  # a directory may be renamed
        folder = means.root / name / "measured" / preset
        devices = {part: "cpu" if part in getattr(module, "ON_CPU", ()) else means.device for part in parts}
        if older := measure_once(folder, parts, devices, means.n_threads, digest_of(module), say):
            say(
                f"{', '.join(older)}: measured before the code of {name} was changed, and kept; "
                f"delete {folder} to measure again."
            )
    return failures


def unfinished(name: str, preset: str, means: Means) -> list[str]:
    """The labels of the runs that `Means.only` left to others and that are not done; none where all were asked for."""
    if not means.only:
        return []
    module = find(name)
    measurements = getattr(module, "MEASUREMENTS", {}).get(preset, {})
    configs: Mapping[str, RunConfig] = module.configs(preset)
    paths = {label: Run.locate(means.root, name, label, config) for label, config in configs.items()}
    return [label for label, config in configs.items() if not _finished(paths[label], config, measurements)]


def _finished(path: Path, config: RunConfig, measurements: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the run is trained, evaluated as configured, and measured by every measurement."""
    if not (path / "config.json").exists():
        return False
    run = Run.open(path)
    if not run.done or run.config != config:
        return False
    if not measurements:
        return True
    from hvae.lab import completion

    return completion.settled(run, _budgets(measurements))


def _budgets(measurements: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Word of a measurement -> the budget that an experiment spends on it."""
    from hvae.lab.evaluation import Budget

    return {word: Budget(**values) for word, values in measurements.items()}

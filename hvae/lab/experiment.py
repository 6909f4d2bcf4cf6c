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

import ast
import hashlib
import importlib
import importlib.util
import json
import math
import pkgutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from hvae.errors import ConfigError
from hvae.extras import WITHOUT_BOARD, has, need, sentence
from hvae.lab.config import RunConfig
from hvae.lab.runs.clock import duration, n_cores, seconds_left
from hvae.lab.runs.identity import directory_name
from hvae.lab.runs.run import Failure, Run
from hvae.outside import read_json

PACKAGE = "hvae.experiments"
NO_EXPERIMENTS = ("shared",)
"""folders of `experiments/` that are no experiments"""


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


def check(chosen: Sequence[str], preset: str, means: Means) -> None:
    """Raise `ConfigError` before anything is trained.

    Refused are an unknown preset, one that asks for a GPU where none is named, a package that the measurement misses,
    and data that any of several experiments misses. For one experiment, `complete` asks only for data still needed.
    """
    for name in chosen:
        _check_preset(name, preset, means.device)
    if len(chosen) > 1:
        from hvae.lab import completion

        configs = [config for name in chosen for config in find(name).configs(preset).values()]
        completion.check(configs, means.data_dir, means.device)


def plan(name: str, preset: str, means: Means) -> list[str]:
    """What `complete` is about to start: how many runs, where, for how long, and how to stop."""
    module = find(name)
    configs: Mapping[str, RunConfig] = module.configs(preset)
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


def complete(name: str, preset: str, means: Means, say: Callable[[str], None]) -> list[Failure]:
    """Train and measure every run of the preset that is not done yet, then the experiment's own measurements."""
    module = find(name)
    configs: Mapping[str, RunConfig] = module.configs(preset)
    measurements: Mapping[str, Mapping[str, Any]] = getattr(module, "MEASUREMENTS", {}).get(preset, {})
    paths = {label: Run.locate(means.root, name, label, config) for label, config in configs.items()}
    missing = [label for label, config in configs.items() if not _finished(paths[label], config, measurements)]
    failures: list[Failure] = []
    if missing:
        from hvae.lab import completion, sweep

        wanted = [configs[label] for label in missing]
        sets = completion.check(wanted, means.data_dir, means.device)
        for line in (*plan(name, preset, means), *completion.said_before(wanted, sets)):
            say(line)
        budgets = _budgets(measurements)
        runs = [Run.create_or_open(means.root, name, label, config) for label, config in configs.items()]
        if not has("tensorboard"):
            warnings.warn(sentence("tensorboard", WITHOUT_BOARD), stacklevel=2)
        failures = sweep.sweep(
            runs,
            n_workers=means.n_workers,
            n_threads=means.n_threads,
            device=means.device,
            data_dir=means.data_dir,
            say=say,
            task=partial(completion.complete, measurements=budgets),
            settled=partial(completion.settled, measurements=budgets),
        )
    else:
        say(f"{name}, preset {preset}: all {len(configs)} runs are done already in {means.root / name}")
    if not failures and hasattr(module, "measure"):
        parts = module.measure(preset, paths, means.data_dir, say, means.device)
        own_names = {paths[label].name: directory_name(label, config) for label, config in configs.items()}
        parts = {own_names.get(part, part): make for part, make in parts.items()}  # a directory may be renamed
        folder = means.root / name / "measured" / preset
        devices = {part: "cpu" if part in getattr(module, "ON_CPU", ()) else means.device for part in parts}
        if older := _measure(folder, parts, devices, means.n_threads, _digest(module)):
            say(
                f"{', '.join(older)}: measured before the code of {name} was changed, and kept; "
                f"delete {folder} to measure again."
            )
    return failures


def _digest(module: ModuleType) -> str:
    """Digest of every file that says how the experiment measures (`code_of`)."""
    digest = hashlib.sha256()
    for name, file in code_of(module).items():
        digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def code_of(module: ModuleType) -> dict[str, Path]:
    """Name below `experiments/` -> file: those of the experiment, and all that they import from `experiments/`."""
    assert module.__file__ is not None
    own = Path(module.__file__)
    below = module.__name__.removeprefix(f"{PACKAGE}.").split(".")
    root = own.parents[len(below) - (own.name != "__init__.py")]
    found: dict[str, Path] = {}
    todo = _files_at(root, below)
    while todo:
        file = todo.pop()
        name = file.relative_to(root).as_posix()
        if name in found:
            continue
        found[name] = file
        if file.suffix == ".py":
            for imported in _imported(file):
                todo += _files_at(root, imported.split("."))
    return dict(sorted(found.items()))


def _files_at(root: Path, path: list[str]) -> list[Path]:
    """The file that a dotted name below `experiments/` leads to, or what its folder holds."""
    while path and path[-1] not in NO_EXPERIMENTS:
        place = root.joinpath(*path)
        if place.with_suffix(".py").is_file():
            return [place.with_suffix(".py")]
        if place.is_dir():
            return [file for file in sorted(place.rglob("*")) if file.suffix in (".py", ".csv", ".json")]
        path = path[:-1]
    return []


def _imported(file: Path) -> list[str]:
    """What a file imports from `experiments/`, by names below it."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}.")]


def _measure(
    folder: Path, parts: Mapping[str, Callable[[], Any]], devices: Mapping[str, str], n_threads: int, digest: str
) -> list[str]:
    """The experiment's own measurements, each part once: <part>.npz with its provenance.

    Returns the parts that another version of the experiment's code measured before.
    """
    import torch

    from hvae.lab.runs.files import save_arrays, write_atomically
    from hvae.lab.runs.provenance import session

    torch.set_num_threads(n_threads)
    older = []
    for part, make in parts.items():
        file = folder / f"{part}.npz"
        origin = file.with_suffix(".json")
        if file.exists():
            records = read_json(origin, f"delete it and {file.name}") if origin.exists() else []
            if any(record.get("experiment", digest) != digest for record in records):
                older.append(part)
            continue
        record, begun = session(devices[part], n_threads) | {"experiment": digest}, time.monotonic()
        save_arrays(file, make())
        record["seconds"] = round(time.monotonic() - begun, 1)
        write_atomically(origin, json.dumps([record], indent=2).encode())
    return older


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

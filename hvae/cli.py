"""The command line: `hvae run | train | evaluate | report | list | compare | data`.

The one place that writes to the terminal: results to stdout, everything else to stderr. Bad input
of any kind is one sentence and exit code 2. torch is imported only by what trains or measures, and
experiments and analysis, which stand below, only when a command asks for them.

Exit codes: 0 done; 1 a run failed; 2 bad input or usage; 130 interrupted, the same command goes on.
"""

import dataclasses
import importlib
import importlib.util
import json
import os
import pkgutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from hvae.config import ConfigError, RunConfig
from hvae.options import parse
from hvae.runs import Run, find_runs

OWN_EXPERIMENT = "own"
"""the directory of runs that `hvae train` makes"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    before, warnings.formatwarning = warnings.formatwarning, _one_line
    try:
        command, options = parse(sys.argv[1:] if arguments is None else arguments)
        return COMMANDS[command](options)
    except ConfigError as error:
        return _fail(str(error))
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


# -- what each command does ----------------------------------------------------------------------------


def _run(options: Any) -> int:
    module = experiment(options.experiment)
    names = module.members() if hasattr(module, "members") else (options.experiment,)
    for name in names:
        _check_preset(name, experiment(name), options)
    if len(names) > 1:
        from hvae import completion

        configs = [config for name in names for config in experiment(name).configs(options.preset).values()]
        completion.check(configs, _folder(options.data_dir), options.device)
    return max(_run_one(name, experiment(name), options) for name in names)


def _check_preset(name: str, module: ModuleType, options: Any) -> None:
    """Raise `ConfigError` for a preset that there is not, or that asks for a GPU where none is named."""
    if options.preset not in module.PRESETS:
        raise ConfigError(f"{name} has no preset {options.preset!r}; it has {', '.join(module.PRESETS)}.")
    if options.preset in getattr(module, "NEED_GPU", ()) and options.device == "cpu":
        others = ", ".join(preset for preset in module.PRESETS if preset not in module.NEED_GPU)
        raise ConfigError(
            f"Preset {options.preset!r} of {name} is the paper's own size, weeks on a CPU; "
            f"name a GPU with --device cuda, or take --preset {others}."
        )


def _run_one(name: str, module: ModuleType, options: Any) -> int:
    configs: Mapping[str, RunConfig] = module.configs(options.preset)
    root = Path(options.runs_dir)
    probes: Mapping[str, Mapping[str, Any]] = getattr(module, "PROBES", {}).get(options.preset, {})
    missing = {
        label: c for label, c in configs.items() if not _finished(Run.directory(root, name, label, c), c, probes)
    }
    failures = []
    if missing:
        from hvae import completion, sweep

        completion.check(missing.values(), _folder(options.data_dir), options.device)
        efforts = _efforts(probes)
        runs = [Run.create_or_open(root, name, label, config) for label, config in configs.items()]
        done = len(runs) - len(missing)
        _say(f"{name}, preset {options.preset}: {len(runs)} runs in {root / name}, {done} done; a line as each ends.")
        failures = sweep.sweep(
            runs,
            n_workers=options.workers,
            n_threads=options.threads,
            device=options.device,
            data_dir=_folder(options.data_dir),
            say=_say,
            task=partial(completion.complete, probes=efforts),
            settled=partial(completion.settled, probes=efforts),
        )
    else:
        _say(f"{name}, preset {options.preset}: all {len(configs)} runs are done already in {root / name}")
    if not failures and hasattr(module, "measure"):
        _measure(name, module, options)
    if len(failures) < len(configs):
        _show(root / name, options.preset)
    for failure in failures:
        _say(f"failed: {failure.run.label} (exit code {failure.exit_code}): {failure.reason}")
    if failures:
        _say(f"{len(failures)} of {len(configs)} runs failed; the same command tries them again.")
    return 0 if not failures else 2 if all(failure.exit_code == 2 for failure in failures) else 1


def _measure(name: str, module: ModuleType, options: Any) -> None:
    """What an experiment measures beside its runs, each part once: measured/<preset>/<part>.npz with its provenance."""
    import torch

    from hvae.files import save_arrays, write_atomically
    from hvae.provenance import session

    torch.set_num_threads(options.threads)
    root, data_dir = Path(options.runs_dir), _folder(options.data_dir)
    configs = module.configs(options.preset)
    paths = {label: Run.directory(root, name, label, config) for label, config in configs.items()}
    for part, make in module.measure(options.preset, paths, data_dir, _say).items():
        file = root / name / "measured" / options.preset / f"{part}.npz"
        if file.exists():
            continue
        record, begun = session("cpu", options.threads), time.monotonic()
        save_arrays(file, make())
        record["seconds"] = round(time.monotonic() - begun, 1)
        write_atomically(file.with_suffix(".json"), json.dumps([record], indent=2).encode())


def _finished(path: Path, config: RunConfig, probes: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the run is trained, evaluated as configured, and measured by every probe."""
    if not (path / "DONE").exists() or Run.open(path).config != config:
        return False
    if not probes:
        return True
    from hvae import completion

    return completion.settled(Run.open(path), _efforts(probes))


def _efforts(probes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Word of a probe -> the effort that an experiment spends on it."""
    from hvae.evaluation import Effort

    return {word: Effort(**values) for word, values in probes.items()}


def _train(options: Any) -> int:
    values = options.as_dict()
    config = RunConfig.from_dict({field.name: values[field.name] for field in dataclasses.fields(RunConfig)})
    units = "-".join(map(str, config.model.latents))
    label = options.label or f"{Path(config.data.name).stem} {config.model.order} {units}"
    path = Run.directory(Path(options.runs_dir), OWN_EXPERIMENT, label, config)

    import torch

    from hvae import completion

    torch.set_num_threads(options.threads)
    completion.check([config], _folder(options.data_dir), options.device)
    run = Run.create_or_open(Path(options.runs_dir), OWN_EXPERIMENT, label, config)
    _say(f"{path} is done already." if run.done else f"Training {len(config.training.seeds)} replicas in {path}")
    completion.complete(run, device=options.device, data_dir=_folder(options.data_dir), progress=True)
    _show(run.path)
    return 0


def _evaluate(options: Any) -> int:
    runs = _runs_at(options.run)

    import torch

    from hvae import completion, evaluation

    asked = options.likelihood or ("" if options.gradients else "importance")
    words = evaluation.read_words(asked) if asked else ()
    effort = evaluation.Effort(**{field.name: options[field.name] for field in dataclasses.fields(evaluation.Effort)})
    probes = [word for word in words if word in evaluation.PROBES] + ["gradients"] * bool(options.gradients)
    if not probes and effort != evaluation.Effort():
        knobs = ", ".join(f"--{field.name}" for field in dataclasses.fields(effort))
        raise ConfigError(f"{knobs} go with --likelihood {', '.join(evaluation.PROBES)}; name one of these words.")
    completion.check_device(options.device)
    torch.set_num_threads(options.threads)
    where: Any = {"device": options.device, "data_dir": _folder(options.data_dir)}
    todo = [run for run in runs if options.force or not run.done] if "importance" in words else []
    refusals, n_probed = [], 0
    for run in runs:
        if run in todo:
            _say(f"Measuring {run.path} ({_state(run)})")
            completion.measure(run, **where)
        wanted = probes if options.force else completion.unmeasured(run, probes, effort)
        if wanted:
            _say(f"Measuring {', '.join(wanted)} of {run.path}")
            refusals += completion.measure_further(run, wanted, effort, **where)
            n_probed += len(wanted)
    if not todo and not n_probed:
        _say(f"{options.run} is measured already; --force measures it again.")
    _show(Path(options.run))
    for sentence in refusals:
        _say(f"hvae: {sentence}")
    all_refused = "importance" not in words and len(refusals) == len(probes) * len(runs)
    return 2 if all_refused else 0


def _report(options: Any) -> int:
    _runs_at(options.directory)
    _show(Path(options.directory), options.preset)
    if options.to:
        from analysis.results import write_results

        print(f"Results: {write_results(Path(options.directory), Path(options.to), options.preset)}")
    return 0


def _list(options: Any) -> int:
    modules = {name: experiment(name) for name in _experiments()}
    for heading, papers in (("Experiments (hvae run NAME --preset PRESET)", False), ("Papers, reproduced", True)):
        print(heading)
        for name, module in modules.items():
            if hasattr(module, "PAPER") is papers:
                print(f"  {name:<18} {', '.join(module.PRESETS)}\n  {'':<18} {_first_line(module)}")
        print()
    root = Path(options.runs_dir)
    runs = find_runs(root) if root.is_dir() else []
    print(f"Runs in {root}" + ("" if runs else ": none"))
    for run in runs:
        print(f"  {_state(run):<18} {run.path}  {run.label}")
    return 0


def _compare(options: Any) -> int:
    from analysis.report import compare_text

    print(compare_text(Path(options.run_a), Path(options.run_b)))
    return 0


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
        for entry in data.catalogue(folder):
            shape = "x".join(map(str, entry.shape))
            counts = f"{entry.n_train:>6} + {entry.n_test:<6}"
            print(f"{entry.name:<20} {entry.status:<8} {shape:>7} {counts} {entry.description}")
        return 0
    states = data.verify(folder)
    for path, state in states:
        print(f"{'sound' if state == 'present' else state:<8} {path}")
    damaged = [path for path, state in states if state == "damaged"]
    if damaged:
        raise ConfigError(f"{damaged[0]} does not have the checksum of the catalogue; `hvae data get` fetches it anew.")
    return 0


# -- helpers -------------------------------------------------------------------------------------------


def experiment(name: str) -> ModuleType:
    """The module of an experiment, whose name has hyphens for underscores; `ConfigError` where there is none."""
    if name not in _experiments():
        raise ConfigError(f"There is no experiment {name!r}; known are {', '.join(_experiments())}.")
    return importlib.import_module(f"experiments.{name.replace('-', '_')}")


def _experiments() -> list[str]:
    package = importlib.util.find_spec("experiments")
    folders = list(package.submodule_search_locations or []) if package else []
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(folders) if not module.ispkg)


def _first_line(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().split("\n")[0]


def _runs_at(path: str) -> list[Run]:
    runs = find_runs(Path(path))
    if not runs:
        raise ConfigError(f"{path} holds no run; see `hvae list`.")
    return runs


def _state(run: Run) -> str:
    if run.done:
        return "done"
    rows = run.read_metrics()
    return f"step {rows[-1]['step']} of {run.config.training.n_steps}" if rows else "not begun"


def _folder(path: str | None) -> Path | None:
    return Path(path) if path else None


def _show(directory: Path, preset: str = "") -> None:
    """The verdicts on stdout, the report beside the runs."""
    from analysis.report import verdict_text, write_experiment_report

    report = write_experiment_report(directory, preset)
    print(verdict_text(directory, preset))
    print(f"\nReport: {report}", flush=True)


COMMANDS: dict[str, Callable[[Any], int]] = {
    "run": _run,
    "train": _train,
    "evaluate": _evaluate,
    "report": _report,
    "list": _list,
    "compare": _compare,
    "data": _data,
}

"""One contract for every experiment that `hvae list` finds: what it is asked, what it offers, and what it refuses."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import pytest

from hvae import extras
from hvae.analysis.claims import FEWEST_SEEDS, Claim, Relation
from hvae.experiments.shared.consistency import features
from hvae.lab import evaluation, experiment
from hvae.lab.cli import main
from hvae.lab.config import RunConfig
from hvae.lab.runs.run import Run

REPO = Path(__file__).parents[2]
NAMES = experiment.names()
LONGEST = 120
"""characters of a question: one line of `hvae list`"""
WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
from hvae.lab import experiment
found = {}
for name in experiment.names():
    module = experiment.find(name)
    if not hasattr(module, "members"):
        found[name] = {preset: {label: config.digest for label, config in module.configs(preset).items()}
                       for preset in module.PRESETS}
print(json.dumps(found))
"""
every = pytest.mark.parametrize("name", NAMES)
own = pytest.mark.parametrize("name", [name for name in NAMES if experiment.members(name) == (name,)])
"""those that stand for no others"""


@pytest.fixture(scope="module")
def digests() -> dict[str, dict[str, dict[str, str]]]:
    """Experiment -> preset -> label -> digest, in a process that cannot import torch."""
    outcome = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    found: dict[str, dict[str, dict[str, str]]] = json.loads(outcome.stdout)
    return found


def runs(module: ModuleType) -> Mapping[str, Mapping[str, RunConfig]]:
    return {preset: module.configs(preset) for preset in module.PRESETS}


def labels(module: ModuleType) -> set[str]:
    return {label for configs in runs(module).values() for label in configs}


@every
def test_its_question_is_one_line(name: str) -> None:
    question = experiment.question(experiment.find(name))
    assert 10 < len(question) <= LONGEST and question.endswith(("?", ".")) and question[0].isupper()
    assert all(member in NAMES for member in experiment.members(name))


@own
def test_its_runs_are_known_without_torch_and_each_is_another(
    name: str, digests: dict[str, dict[str, dict[str, str]]]
) -> None:
    module = experiment.find(name)
    assert tuple(digests[name]) == tuple(module.PRESETS) and len(module.PRESETS) >= 2
    for preset, configs in runs(module).items():
        assert configs and all(label.strip() == label != "" for label in configs)
        found = digests[name][preset]
        assert {label: config.digest for label, config in configs.items()} == found
        assert len(set(found.values())) == len(found), "two labels for one run"
        for config in configs.values():
            assert RunConfig.from_dict(json.loads(config.to_json())) == config


@own
def test_its_first_preset_is_small(name: str) -> None:
    """Nothing to download, no GPU, and minutes."""
    module = experiment.find(name)
    configs = module.configs(module.PRESETS[0])
    assert module.PRESETS[0] not in getattr(module, "NEED_GPU", ())
    assert all(config.data.name.startswith(("digits", "synthetic")) for config in configs.values())
    assert sum(config.training.n_steps for config in configs.values()) <= 20_000


@own
def test_its_claims_state_a_margin_and_a_source(name: str) -> None:
    claims: tuple[Any, ...] = getattr(experiment.find(name), "claims", ())
    for claim in claims:
        assert isinstance(claim, Claim) and claim.relation in get_args(Relation) and math.isfinite(claim.margin)
        assert claim.relation != "within" or claim.margin > 0
        assert claim.statement and claim.source and claim.quantity and claim.criterion
    said = [(claim.statement, claim.quantity) for claim in claims]
    assert len(set(said)) == len(said), "one claim stands twice"


COUNTS = ("layers", "units", "columns", "modes")
"""units of claims that are decided by the share of seeds"""


@own
def test_a_claim_on_a_count_has_seeds_enough_to_be_decided(name: str) -> None:
    """But for the first preset, which is too small to say anything."""
    module = experiment.find(name)
    counts = [claim for claim in getattr(module, "claims", ()) if claim.unit in COUNTS]
    for preset in module.PRESETS[1:]:
        configs = module.configs(preset)
        if any(claim.reads == "runs" for claim in counts):
            assert all(len(config.training.seeds) >= FEWEST_SEEDS for config in configs.values()), preset
        if any(claim.reads == "measured" for claim in counts):
            knobs = module.GRID[preset]
            assert knobs.get("n_replicas", len(knobs.get("seeds", ()))) >= FEWEST_SEEDS, preset


@own
def test_baselines_and_panels_name_its_runs(name: str) -> None:
    """A panel may also name runs that no preset has; they are left out."""
    module = experiment.find(name)
    known = labels(module)
    baselines: Mapping[str, str] = getattr(module, "baselines", {})
    assert {*baselines, *baselines.values()} <= known and all(run != other for run, other in baselines.items())
    for shown in getattr(module, "panels", {}).values():
        assert set(shown) & known and len(set(shown)) == len(shown)


@own
def test_a_run_and_its_baseline_are_trained_and_measured_alike(name: str) -> None:
    """On the same data, for as long, with latents of the same widths; from the same seeds, maybe fewer of them."""
    module = experiment.find(name)
    for configs in runs(module).values():
        for label, other in getattr(module, "baselines", {}).items():
            if label not in configs:
                continue
            mine, theirs = configs[label], configs[other]
            assert (mine.data, mine.evaluation, mine.model.latents) == (
                theirs.data, theirs.evaluation, theirs.model.latents,
            )  # fmt: skip
            assert mine.training.seeds == theirs.training.seeds[: len(mine.training.seeds)]
            for knob in ("n_steps", "batch_size", "learning_rate"):
                assert getattr(mine.training, knob) == getattr(theirs.training, knob)


@own
def test_what_is_measured_beside_the_runs_is_named_before_anything_is_done(name: str, tmp_path: Path) -> None:
    """Each part is a file: it has a name of its own, and is made when it is asked for."""
    module = experiment.find(name)
    if not hasattr(module, "measure"):
        return
    for preset, configs in runs(module).items():
        paths = {label: Run.directory(tmp_path, name, label, config) for label, config in configs.items()}
        said: list[str] = []
        parts = module.measure(preset, paths, None, said.append)
        assert parts and all(callable(make) for make in parts.values()) and not said
        assert all(part == Path(part).name and not part.startswith(".") for part in parts)
    assert not list(tmp_path.iterdir())


class Asked(Exception):
    """The device on which models of a run were asked for."""


@own
def test_what_is_measured_beside_the_runs_is_on_their_device(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every part loads the models of a run there, but for those that say that they stay on the CPU."""
    from hvae.lab import completion
    from hvae.lab.evaluation import replicas
    from hvae.lab.runs import files
    from hvae.lab.training import loop

    def asked(run: object, data: object, device: str = "cpu") -> object:
        raise Asked(device)

    module = experiment.find(name)
    if not hasattr(module, "measure"):
        return
    preset = module.PRESETS[0]
    configs = module.configs(preset)
    paths = {label: tmp_path / label for label in configs}
    found = {paths[label]: config for label, config in configs.items()}
    monkeypatch.setattr(Run, "open", lambda path: Run(path, path.name, found[path]))
    none = SimpleNamespace(test_order=lambda seed: [], test=[], train=[])
    monkeypatch.setattr(completion, "load_data", lambda config, data_dir=None: none)
    monkeypatch.setattr(files, "load_arrays", lambda *arguments: {})
    for place in (loop, replicas):
        monkeypatch.setattr(place, "load_trained", asked)
    parts = module.measure(preset, paths, None, lambda line: None, "cuda:1")
    stay = getattr(module, "ON_CPU", ())
    assert set(stay) <= set(parts)
    for part, make in parts.items():
        if part not in stay:
            with pytest.raises(Asked, match="cuda:1"):
                make()


@own
def test_what_it_needs_and_measures_is_there(name: str) -> None:
    module = experiment.find(name)
    assert set(getattr(module, "NEED_GPU", ())) < set(module.PRESETS)
    assert set(getattr(module, "NEEDS", {})) <= set(extras.EXTRAS)
    for preset, words in getattr(module, "MEASUREMENTS", {}).items():
        assert preset in module.PRESETS and set(words) <= set(evaluation.MEASUREMENTS)
        assert all(isinstance(evaluation.Budget(**budget), evaluation.Budget) for budget in words.values())
    for section in getattr(module, "sections", tuple)():
        assert type(section).__name__ == "Section"


@own
def test_an_extra_that_its_measurement_takes_is_asked_for_before_the_runs(name: str) -> None:
    module = experiment.find(name)
    file = Path(module.__file__ or "")
    files = file.parent.glob("*.py") if file.name == "__init__.py" else [file]
    measured = any("features.parts(" in each.read_text(encoding="utf-8") for each in files)
    assert getattr(module, "NEEDS", {}) == (features.NEEDS if measured else {})


@every
def test_a_preset_that_is_not_there_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", name, "--preset", "nonsense"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("hvae: ") and err.count("\n") == 1 and "no preset 'nonsense'" in err
    assert all(preset in err for preset in experiment.find(name).PRESETS) and not list(tmp_path.iterdir())


@every
def test_it_is_a_script(name: str) -> None:
    """`python -m hvae.experiments.<name>` runs it, as the file does."""
    file = Path(experiment.find(name).__file__ or "")
    script = file if file.name != "__init__.py" else file.with_name("__main__.py")
    assert "__main__" in script.read_text(encoding="utf-8") or script.name == "__main__.py"
    assert f'"{name}"' in script.read_text(encoding="utf-8")

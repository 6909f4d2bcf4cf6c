"""What the experiment `objectives` sets up, measures, claims and shows."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hvae import rng
from hvae.analysis.claims import decide
from hvae.analysis.load import by_label
from hvae.analysis.study import Study, open_study
from hvae.data import load
from hvae.evidence import HVAE
from hvae.experiments import objectives
from hvae.experiments.shared import costs
from hvae.experiments.shared.consistency import features
from hvae.experiments.shared.consistency.tables import consistency_summary
from hvae.families import Bernoulli
from hvae.lab.cli import main
from hvae.lab.config import RunConfig
from hvae.lab.runs.run import Run
from hvae.lab.runs.survey import find_runs
from hvae.objectives import SymmetricEquilibrium, WakeSleep
from tests.analysis.fabricate import fabricate
from tests.exact.enumerated import decoder, posterior

SMALL = ("Gaussian ELBO", "binary ELBO", f"binary {objectives.GAME}")


@pytest.mark.parametrize("preset", objectives.PRESETS)
def test_arms_of_a_stack_differ_in_what_is_maximised_only(preset: str) -> None:
    runs = objectives.configs(preset)
    for label, config in runs.items():
        base = runs[objectives.reference(label)]
        assert config.model == base.model and config.data == base.data and config.evaluation == base.evaluation
        assert config.model.order == ("top-down" if "ladder" in label else "bottom-up")
        assert config.training.seeds == base.training.seeds
        if not label.endswith(objectives.TIMED):
            assert config.training == base.training
    knobs, (n_test,) = objectives.CONSISTENCY[preset], {config.data.n_test for config in runs.values()}
    assert preset == "paper" or 2 * knobs["n_samples"] <= (n_test or 500)


@pytest.mark.parametrize("preset", objectives.PRESETS)
def test_equal_time_is_equal_cost(preset: str) -> None:
    runs = objectives.configs(preset)
    for label in objectives.equal_steps(preset):
        elbo, ratio = objectives.reference(label), costs.ratio(preset, label, objectives.reference(label))
        assert ratio > 0 and (label + objectives.TIMED in runs) == (abs(ratio - 1) > objectives.ALIKE)
        if label + objectives.TIMED in runs:
            steps = runs[label + objectives.TIMED].training.n_steps
            cost = steps * costs.milliseconds(preset, label)
            equal = runs[elbo].training.n_steps * costs.milliseconds(preset, elbo)
            assert cost == pytest.approx(equal, rel=0.51 / steps)


def test_the_game_is_the_symmetric_one() -> None:
    kinds = [Bernoulli(3), Bernoulli(2), Bernoulli(2)]
    for kind in ("bottom-up", "ladder"):
        model = HVAE(decoder(kinds), posterior(kind, kinds))
        noise = rng.noise(WakeSleep().noise_specs(model), 2, 5, seed=0, purpose="game", dtype=torch.float64)
        x = torch.ones(1, 5, 3, dtype=torch.float64)
        gradients = []
        for game in (WakeSleep(), SymmetricEquilibrium()):
            model.zero_grad()
            game.on(model, x, noise, 0)[0].backward()
            gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
        torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_features_are_the_last_hidden_layer_of_a_classifier_that_learned() -> None:
    data = load("digits-threshold")
    found = features.train(data, (16, 8), 40)
    again = features.train(data, (16, 8), 40)
    assert all(np.array_equal(found[key], again[key]) for key in found)
    assert found["test_accuracy"] > 0.8
    x = data.test[:50].numpy()
    w = [found[f"layer/{i}/{kind}"] for i in range(2) for kind in "wb"]
    first = np.clip(x @ w[0] + w[1], 0, None)
    seen = features.of(found, x)
    assert seen.shape == (50, 8) and seen.dtype == np.float64
    np.testing.assert_allclose(seen, np.clip(first @ w[2] + w[3], 0, None), rtol=1e-6)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("objectives")
    fabricate(root, objectives.configs("demo"), experiment="objectives")
    return root


def with_distances(root: Path, factor: float) -> Study:
    """The study with distances `factor` times as large for the game as for every other arm."""
    names, folder = ("limit-shot", "limit-test", "shot-test", "settling", "starts"), root / "objectives/measured/demo"
    folder.mkdir(parents=True, exist_ok=True)
    for run in find_runs(root):
        plain = np.linspace(0.9, 1.1, len(run.config.training.seeds))
        plain = plain * (factor if objectives.GAME in run.label else 1.0)
        beside = {f"{name}/plain": plain for name in names}
        beside |= {name: plain[:, None] * np.array([0.8, 0.9, 1.0]) for name in names} | {"cpu_seconds": np.array(3.0)}
        beside |= {f"images/{name}": np.eye(10, 64) for name in ("shot", "limit")}
        np.savez(folder / f"{run.path.name}.npz", **beside)
    classifier = {"test_accuracy": 0.975, "n_samples": 250, "n_steps": 20, "floor": [0.1, 0.2, 0.3], "floor/plain": 0.4}
    np.savez(folder / "classifier.npz", **classifier)
    return open_study(root / "objectives")


@pytest.mark.parametrize(("factor", "outcome"), [(0.5, "supported"), (0.95, "not supported"), (1.5, "not supported")])
def test_claims_on_consistency_follow_the_distances(root: Path, factor: float, outcome: str) -> None:
    study = with_distances(root, factor)
    found = [decide(claim, by_label(study.runs), {}) for claim in study.claims if "agree better" in claim.statement]
    assert len(found) == 4 and {decision.outcome for decision in found} == {outcome}
    for decision in found:
        assert decision.middle == pytest.approx(np.log(factor))


def test_a_stack_in_no_use_is_not_called_consistent(root: Path) -> None:
    runs = by_label(with_distances(root, 0.5).runs)
    for layer in runs[f"binary {objectives.GAME}"].layers:
        layer.verdict[:] = "collapsed to N(0, I)"
    claims = [claim for claim in objectives.claims[:9] if claim.statement.startswith("binary stack")]
    found = {claim.quantity.split(",")[0]: decide(claim, runs, {}) for claim in claims}
    assert [decision.outcome == "not measured" for decision in found.values()] == [True, True, False, True]
    assert "has no active layer" in next(iter(found.values())).how


def test_what_costs_alike_is_not_claimed_twice(root: Path) -> None:
    study = with_distances(root, 0.5)
    untimed = {run.label: run for run in study.runs if not run.label.endswith(objectives.TIMED)}
    late = [decide(claim, untimed, {}) for claim in study.claims if "equal CPU time" in claim.statement]
    assert len(late) == len(study.claims) // 2
    assert {decision.outcome for decision in late} == {"not measured"} and "alike" in late[0].how


def test_a_chain_that_moves_is_named(root: Path) -> None:
    study = with_distances(root, 0.5)
    first, rest = consistency_summary(study)
    assert "right on 97.5 % of the test images" in first and "apart, uncorrected 0.40" in first
    assert rest.startswith(f"0 of {len(study.runs)} chains came to rest") and "Gaussian ELBO" in rest
    for run in study.runs:
        run.beside["settling"][:], run.beside["starts"][:] = 0.01, 0.39
    assert consistency_summary(study)[1].startswith("Every chain came to rest")


@pytest.mark.slow
def test_the_page_shows_what_was_measured_beside_each_run(root: Path, tmp_path: Path) -> None:
    with_distances(root, 0.5)
    assert main(["report", str(root / "objectives"), "--to", str(tmp_path / "kept")]) == 0
    page = (tmp_path / "kept" / "README.md").read_text()
    assert "right on 97.5 % of the test images" in page and "Gaussian stack" in page
    assert (tmp_path / "kept" / "figures" / "consistency-distances.png").stat().st_size > 0
    assert (tmp_path / "kept" / "figures" / "consistency-samples.png").stat().st_size > 0
    rows = (tmp_path / "kept" / "tables" / "consistency.csv").read_text().splitlines()
    assert len(rows) == 1 + 5 * sum(len(c.training.seeds) for c in objectives.configs("demo").values())
    assert "Objectives side by side" in (root / "objectives" / "report.html").read_text()


@pytest.mark.slow
def test_the_command_trains_and_measures_every_part_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def small(config: RunConfig) -> RunConfig:
        return RunConfig.from_dict(
            {
                "data": {"name": "digits-threshold", "n_train": 200, "n_test": 60},
                "model": {
                    "latents": [3, 2], "hidden": [[4]], "families": list(config.model.families),
                    "order": config.model.order,
                },
                "objective": {"name": config.objective.name, "n_samples": config.objective.n_samples},
                "training": {"n_steps": 3, "seeds": [0, 1], "checkpoint_every_steps": 3, "log_every_steps": 1},
                "evaluation": {"n_images": 8, "max_paths": 16, "n_likelihood": 4, "n_samples": 5},
            }
        )  # fmt: skip

    configs = {label: small(config) for label, config in objectives.configs("demo").items() if label in SMALL}
    monkeypatch.setattr(objectives, "configs", lambda preset: configs)
    monkeypatch.setitem(objectives.CONSISTENCY, "demo", {"n_samples": 30, "n_steps": 2, "n_bootstrap": 5})
    monkeypatch.setitem(objectives.CLASSIFIER, "demo", {"hidden": (8, 4), "epochs": 2})
    command = ["run", "objectives", "--preset", "demo", "--runs-dir", str(tmp_path), "--workers", "1"]
    assert main(command) == 0
    folder = tmp_path / "objectives" / "measured" / "demo"
    made = {file: file.stat().st_mtime_ns for file in folder.glob("*.npz")}
    names = {Run.directory(tmp_path, "objectives", label, config).name for label, config in configs.items()}
    assert {file.stem for file in made} == {"classifier", *names}
    assert main(command) == 0
    assert {file: file.stat().st_mtime_ns for file in folder.glob("*.npz")} == made
    arrays = np.load(next(file for file in made if file.stem != "classifier"))
    assert arrays["limit-shot"].shape == (2, 3) and arrays["images/shot"].shape == (10, 64)
    assert np.isfinite(arrays["limit-shot"]).all() and (arrays["limit-shot/plain"] > 0).all()
    assert set(np.unique(arrays["images/limit"])) <= {0.0, 1.0}
    for name in ("shot", "limit"):
        mean = arrays[f"images/{name}/mean"]
        assert mean.shape == (10, 64) and 0 < mean.min() < mean.max() < 1
    (record,) = json.loads((folder / "classifier.json").read_text())
    assert record["commit"]
    assert "Fréchet distances are of 30 images against 30" in capsys.readouterr().out

"""What the experiment `flach-equilibrium` sets up, claims and shows, and the mathematics of its docstring."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hvae.analysis.claims import decide
from hvae.analysis.load import by_label
from hvae.analysis.study import Study, open_study
from hvae.evidence import HVAE
from hvae.experiments import flach_equilibrium as flach
from hvae.families import Bernoulli
from hvae.gradients import players
from hvae.lab.cli import main
from hvae.lab.runs.survey import find_runs
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.objectives.objective import total
from hvae.posterior import NetworkPosterior
from tests.analysis.fabricate import fabricate


@pytest.mark.parametrize("preset", flach.PRESETS)
def test_the_arms_of_an_order_differ_in_the_objective_only(preset: str) -> None:
    runs = flach.configs(preset)
    assert list(runs) == [label for labels in flach.panels.values() for label in labels]
    for elbo, game in flach.panels.values():
        one, other = runs[elbo], runs[game]
        assert (one.data, one.model, one.training, one.evaluation) == (
            other.data, other.model, other.training, other.evaluation,
        )  # fmt: skip
        assert (one.objective.name, other.objective.name) == ("elbo", "symmetric")
        assert set(one.model.families) == {"bernoulli"} and len(one.model.latents) == 2
    n = flach.CONSISTENCY[preset]["n_samples"]
    assert preset == "paper" or 2 * n <= (one.data.n_test or 500)
    assert preset == "smoke" or len(one.training.seeds) >= 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flach")
    fabricate(root, flach.configs("smoke"), experiment="flach-equilibrium")
    return root


def study_with(root: Path, factor: float) -> Study:
    """Distances and informations `factor` times as large for the game as for the ELBO."""
    folder = root / "flach-equilibrium/measured/smoke"
    folder.mkdir(parents=True, exist_ok=True)
    source = np.random.default_rng(0)
    for run in find_runs(root):
        n, scale = len(run.config.training.seeds), factor if "symmetric" in run.label else 1.0
        plain = np.linspace(0.999, 1.001, n)[:: -1 if scale != 1 else 1] * scale
        names = ("limit-shot", "limit-test", "shot-test", "settling", "starts")
        beside: dict[str, Any] = {f"{name}/plain": plain for name in names}
        beside |= {name: plain[:, None] * np.array([0.8, 0.9, 1.0]) for name in names}
        for player, (layer, units) in itertools.product("qp", zip(("z1", "z2"), run.config.model.latents, strict=True)):
            middle = scale * source.uniform(0.29, 0.31, (n, units))
            beside[f"unit_information_nats/{player}/{layer}"] = middle[..., None] * np.array([0.9, 1.0, 1.1])
        np.savez(folder / f"{run.path.name}.npz", **beside)
    return open_study(root / "flach-equilibrium")


@pytest.mark.parametrize(
    ("factor", "near", "told"), [(0.5, "supported", "not supported"), (2.0, "not supported", "supported")]
)
def test_claims_follow_distances_and_informations(root: Path, factor: float, near: str, told: str) -> None:
    study = study_with(root, factor)
    found = {claim.statement: decide(claim, by_label(study.runs), {}) for claim in study.claims}
    assert len(found) == 12
    nearer = [decision for statement, decision in found.items() if "nearer" in statement]
    assert len(nearer) == 6 and {decision.outcome for decision in nearer} == {near}
    for decision in nearer:
        assert decision.middle == pytest.approx(np.log(factor))
    top = [decision for statement, decision in found.items() if "units" in statement]
    assert len(top) == 2 and {decision.outcome for decision in top} == {told}
    for decision in top:
        assert decision.middle == pytest.approx(0.3 * 4 * (factor - 1), abs=0.1)


def test_a_stack_in_no_use_is_claimed_nothing_of(root: Path) -> None:
    runs = by_label(study_with(root, 0.5).runs)
    for layer in runs["reverse symmetric"].layers:
        layer.verdict[:] = "collapsed to N(0, I)"
    outcomes = [decide(claim, runs, {}).outcome for claim in flach.claims]
    assert "not measured" not in outcomes[:6] and set(outcomes[6:]) == {"not measured"}


def test_spectra_are_sorted_within_each_replica(root: Path) -> None:
    study = study_with(root, 0.5)
    (spectra,) = study.curves
    panels = spectra.panels(by_label(study.runs), {})
    assert list(panels) == [f"{order} order, {layer}" for order in flach.ORDERS for layer in ("z1", "z2")]
    for title, lines in panels.items():
        assert len(lines) == (2 if title.endswith("z2") else 4)
        for line in lines.values():
            assert (np.diff(line.values, axis=0) <= 0).all() and line.values.shape == (len(line.x), 2)


@pytest.mark.slow
def test_the_page_shows_spectra_and_distances_and_no_fid(root: Path, tmp_path: Path) -> None:
    study_with(root, 0.5)
    classifier: dict[str, Any] = {"test_accuracy": 0.97, "n_samples": 9, "n_steps": 2}
    classifier |= {"floor": [0.1, 0.2, 0.3], "floor/plain": 0.4}
    np.savez(root / "flach-equilibrium/measured/smoke/classifier.npz", **classifier)
    assert main(["report", str(root / "flach-equilibrium"), "--to", str(tmp_path / "kept")]) == 0
    page = (root / "flach-equilibrium" / "report.html").read_text()
    assert (
        "Information of every unit with its parents" in page
        and "36.644" not in page
        and "CPU" not in page.split("Objectives side by side")[1]
    )
    assert (tmp_path / "kept" / "figures" / "spectra.png").stat().st_size > 0


# -- the rest point of the game ---------------------------------------------------------------------------


def linear_game(data: torch.Tensor, weight: torch.Tensor, coding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(dL_p/dW, dL_q/dV) of a stack of one layer of fair Bernoulli units with linear nets, over all states of data
    and dreams."""
    n_pixels, n_units = weight.shape
    net, code = (torch.nn.Linear(*shape, dtype=torch.float64) for shape in ((n_units, n_pixels), (n_pixels, n_units)))
    mean = data.mean(0)
    with torch.no_grad():
        net.weight.copy_(weight)
        net.bias.copy_(torch.logit(mean) - weight.sum(1) / 2)
        code.weight.copy_(coding)
        code.bias.copy_(-coding @ mean)
    z1, x = Bernoulli(n_units), Bernoulli(n_pixels)
    fair = Root(torch.zeros(n_units, dtype=torch.float64), learned=False)
    decoder = BeliefNetwork([Conditional("z1", [], fair, z1), Conditional("x", ["z1"], net, x)])
    model = HVAE(decoder, NetworkPosterior(BeliefNetwork([Conditional("z1", ["x"], code, z1)])))
    states, images = (torch.tensor(list(itertools.product((0.0, 1.0), repeat=n))).double() for n in weight.shape[::-1])

    def every(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log p(x, z) and log q(z|x) ``[S, N]`` as the players weigh them."""
        draws = states[:, None].expand(-1, len(images), -1)
        evidence = players(model, images[None], {"z1": draws})
        return total(evidence.p), total(evidence.q)

    log_p, log_q = every(data)
    (wake,) = torch.autograd.grad((log_q.detach().exp() * log_p).sum() / len(data), net.weight)
    log_p, log_q = every(images)
    (sleep,) = torch.autograd.grad((log_p.detach().exp() * log_q).sum(), code.weight)
    return wake, sleep


DATA = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0.0]], dtype=torch.float64)


def test_near_the_point_of_rest_the_players_move_as_the_docstring_says() -> None:
    source = torch.Generator().manual_seed(0)
    w, v = (torch.randn(*shape, generator=source, dtype=torch.float64) for shape in ((3, 2), (2, 3)))
    centred = DATA - DATA.mean(0)
    covariance = centred.T @ centred / len(DATA)
    spread = torch.diag(covariance.diagonal())
    step = 1e-6
    wake, sleep = linear_game(DATA, step * w, step * v)
    torch.testing.assert_close(4 * wake / step, covariance @ v.T - spread @ w, atol=1e-5, rtol=0)
    torch.testing.assert_close(4 * sleep.T / step, spread @ w - spread @ v.T, atol=1e-5, rtol=0)
    assert linear_game(DATA, 0 * w, 0 * v)[0].abs().max() < 1e-15


@pytest.mark.parametrize("correlated", [True, False])
def test_the_point_of_rest_is_left_exactly_where_pixels_are_correlated(correlated: bool) -> None:
    data = DATA if correlated else torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64)
    centred = (data - data.mean(0)).numpy()
    covariance = centred.T @ centred / len(data)
    spread = np.diag(np.diag(covariance))
    rates = np.linalg.eigvals(np.block([[-spread, covariance], [spread, -spread]]))
    assert np.trace(covariance - spread) == pytest.approx(0)
    assert (rates.real.max() > 1e-3) == correlated == (np.linalg.eigvalsh(covariance - spread).max() > 1e-3)

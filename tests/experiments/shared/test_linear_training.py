"""Linear stacks trained exactly: their bound against the house's own ELBO, their optima against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from hvae.data import Dataset
from hvae.evidence import HVAE
from hvae.experiments.lucas_ppca import ppca as rows
from hvae.experiments.shared.ascent import lbfgs
from hvae.experiments.shared.linear.thresholds import ppca, single_layer, two_layer
from hvae.experiments.shared.linear.training import (
    largest_curvature,
    random_weights,
    stack_bound,
    train_stacks,
    whitened,
)
from hvae.experiments.wang_staircase.staircase import Setting, Task, staircase_rows
from hvae.families import DiagonalGaussian
from hvae.lab.assembly import build_hvae
from hvae.lab.config import ModelConfig
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.objectives import Elbo
from hvae.posterior import NetworkPosterior
from hvae.schedules import Constant


def silent(line: str) -> None:
    pass


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(n: int, seed: int = 0) -> Tensor:
    root = randn(n, n, seed=seed)
    return root @ root.mT / n


def sigma_points(root: Tensor) -> Tensor:
    """2n equally weighted points of covariance ``root rootᵀ`` and mean 0: exact for what is quadratic."""
    return math.sqrt(root.shape[1]) * torch.cat([root.mT, -root.mT])


# -- the bound ----------------------------------------------------------------------------------------


def test_the_bound_of_one_layer_is_the_elbo_that_the_house_trains() -> None:
    """The model as a configuration makes it, on sigma points of data and noise."""
    n, units, beta = 6, 3, 0.7
    config = ModelConfig(
        latents=(units,), hidden=((),), latent_variance="learned", observation="gaussian",
        observation_variance="shared", observation_start=0.3,
    )  # fmt: skip
    root = torch.linalg.cholesky(covariance(n))
    data = Dataset("toy", torch.rand(20, n), torch.rand(5, n), (n,), "real", dynamic=False)
    model = build_hvae(config, data, seed=0).double()
    up, down = model.posterior.network["z1"], model.decoder["x"]
    mean = randn(n, seed=1)
    with torch.no_grad():
        up.family.log_variance.copy_(randn(units, seed=2))
        up.net[-1].bias.zero_()
        down.net[-1].bias.copy_(mean)
        x = mean + sigma_points(root)
        up.net[-1].bias.copy_(-up.net[-1].weight @ mean)  # both about the mean
        evidence = model(x.unsqueeze(0), {"z1": sigma_points(torch.eye(units).double()).unsqueeze(1)})
        loss = Elbo(beta=Constant(beta))(evidence, 0)
        values = {
            "u1": down.net[-1].weight, "v1": up.net[-1].weight, "q1": up.family.log_variance,
            "p0": down.family.log_variance[0], "p1": torch.zeros(()).double(), "xx": root @ root.mT,
            "beta": torch.tensor([beta], dtype=torch.float64),
        }  # fmt: skip
        assert float(down.family.log_variance) == pytest.approx(math.log(0.3))
        torch.testing.assert_close(stack_bound(values), -loss, rtol=0, atol=1e-10)
        shift = randn(n, seed=3)  # the stack's mean is elsewhere
        down.net[-1].bias.copy_(mean - shift)
        up.net[-1].bias.copy_(-up.net[-1].weight @ (mean - shift))
        evidence = model(x.unsqueeze(0), {"z1": sigma_points(torch.eye(units).double()).unsqueeze(1)})
        moved = -Elbo(beta=Constant(beta))(evidence, 0)
        torch.testing.assert_close(stack_bound({**values, "offset": shift}), moved, rtol=0, atol=1e-10)


def linear(weight: Tensor) -> nn.Module:
    net = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    net.weight = nn.Parameter(weight)
    return net


def gaussian(log_variance: Tensor) -> DiagonalGaussian:
    family = DiagonalGaussian(len(log_variance), variance="fixed").double()
    assert family.log_variance is not None
    family.log_variance.copy_(log_variance)
    return family


@pytest.mark.parametrize("widths", [(5, 3), (5, 3, 2), (4, 3, 3, 2)])
def test_the_bound_of_any_depth_is_the_house_s_elbo(widths: tuple[int, ...]) -> None:
    """Weights per layer, widths of every prior: sigma points of all noises together."""
    depth = len(widths) - 1
    root = torch.linalg.cholesky(covariance(widths[0]))
    values = {name: value[0] for name, value in random_weights(widths, [3], scale=0.8).items()}
    values |= {f"q{layer}": randn(widths[layer], seed=layer) for layer in range(1, depth + 1)}
    values |= {f"p{layer}": randn(1, seed=9 + layer)[0] for layer in range(depth + 1)}
    values |= {"xx": root @ root.mT, "beta": randn(depth, seed=5).exp()}
    top = Conditional(
        f"z{depth}", [], Root(torch.zeros(widths[-1]).double(), learned=False), _spread(values, depth, widths)
    )
    downward, upward = [top], []
    for layer in range(depth, 0, -1):
        child = f"z{layer - 1}" if layer > 1 else "x"
        family = _spread(values, layer - 1, widths)
        downward.append(Conditional(child, [f"z{layer}"], linear(values[f"u{layer}"]), family))
        upward.append(Conditional(f"z{layer}", [child], linear(values[f"v{layer}"]), gaussian(values[f"q{layer}"])))
    model = HVAE(BeliefNetwork(downward), NetworkPosterior(BeliefNetwork(upward[::-1])))
    points = sigma_points(torch.eye(sum(widths[1:])).double()).split(list(widths[1:]), dim=1)
    noise = {f"z{layer}": value.unsqueeze(1) for layer, value in enumerate(points, start=1)}
    betas = {f"z{layer}": float(values["beta"][layer - 1]) for layer in range(1, depth + 1)}
    loss = Elbo(layer_beta=betas)(model(sigma_points(root).unsqueeze(0), noise), 0)
    torch.testing.assert_close(stack_bound(values), -loss, rtol=0, atol=1e-10)


def _spread(values: dict[str, Tensor], layer: int, widths: tuple[int, ...]) -> DiagonalGaussian:
    return gaussian(values[f"p{layer}"].expand(widths[layer]).clone())


def test_the_bound_of_y_from_x_is_its_expectation() -> None:
    """Scipy-free arithmetic: numpy's trace of what q leaves of y, on the dense covariance of (x, y)."""
    n_x, n_y, units = 4, 3, 2
    both = covariance(n_x + n_y).numpy()
    xx, yx, yy = both[:n_x, :n_x], both[n_x:, :n_x], both[n_x:, n_x:]
    u, v, q = (randn(*shape, seed=seed).numpy() for seed, shape in enumerate([(n_y, units), (units, n_x), (units,)]))
    found = stack_bound(
        {
            "u1": torch.tensor(u), "v1": torch.tensor(v), "q1": torch.tensor(q), "xx": torch.tensor(xx),
            "yx": torch.tensor(yx), "yy": torch.tensor(np.trace(yy)), "p0": torch.tensor(0.4, dtype=torch.float64),
            "p1": torch.tensor(-0.3, dtype=torch.float64), "beta": torch.tensor([1.7], dtype=torch.float64),
        }
    )  # fmt: skip
    residual = np.block([-u @ v, np.eye(n_y)]) @ both @ np.block([-u @ v, np.eye(n_y)]).T + u @ np.diag(np.exp(q)) @ u.T
    noise, prior = math.exp(0.4), math.exp(-0.3)
    expected = -(np.trace(residual) / noise + n_y * math.log(2 * math.pi * noise)) / 2
    kl = (np.trace(v @ xx @ v.T + np.diag(np.exp(q))) / prior - units + units * math.log(prior) - q.sum()) / 2
    assert float(found) == pytest.approx(expected - 1.7 * kl, abs=1e-10)


# -- training -----------------------------------------------------------------------------------------


def test_training_reaches_the_optima_in_closed_form() -> None:
    n_replicas = 3
    each = torch.ones(n_replicas, 1, dtype=torch.float64)
    c = covariance(7)
    given = {"beta": each, "xx": c.expand(n_replicas, -1, -1), "p1": 0.0}
    free = random_weights((7, 3), range(n_replicas))
    found = train_stacks({**free, "p0": torch.zeros(n_replicas).double()}, given, tolerance=1e-8)
    best = ppca(c, 3)
    assert found.gradient.max() <= 1e-8
    torch.testing.assert_close(found.height, torch.full_like(found.height, best.log_px), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        found.values["p0"].exp(), torch.full_like(found.height, best.variance), rtol=0, atol=1e-7
    )

    theta, sigma1, eta_enc, eta_dec, beta1, beta2 = 1.2, 0.5, 0.5, 0.5, 4.0, 4.0
    start = random_weights((1, 1, 1), range(n_replicas))
    del start["q1"]
    found = train_stacks(
        start,
        {
            "q1": 2 * math.log(sigma1) * each,
            "beta": torch.tensor([beta1, beta2], dtype=torch.float64).expand(n_replicas, 2),
            "xx": theta**2 * each, "p0": 2 * math.log(eta_dec), "p1": 2 * math.log(eta_dec),
            "p2": 2 * math.log(eta_enc),
        },
    )  # fmt: skip
    mode = two_layer(theta, sigma1, eta_enc, eta_dec, beta1, beta2)
    assert theta * found.values["v1"].abs().flatten() == pytest.approx(
        torch.full((3,), mode.encoder).double(), abs=1e-7
    )
    assert found.values["u2"].abs().flatten() == pytest.approx(torch.full((3,), mode.decoder).double(), abs=1e-7)


def test_a_replica_trains_as_it_would_alone() -> None:
    c = covariance(5)

    def trained(seeds: list[int]) -> Tensor:
        fixed = {"beta": torch.ones(len(seeds), 1).double(), "xx": c.expand(len(seeds), -1, -1), "p0": -1.0, "p1": 0.0}
        return train_stacks(random_weights((5, 2), seeds), fixed, n_steps=20, n_refined=15).height

    together = trained([0, 1, 2])
    for place in range(3):
        torch.testing.assert_close(trained([place])[0], together[place], rtol=0, atol=1e-9)


def test_whitened_data_have_the_same_optimum() -> None:
    eigenvalues = torch.tensor([[3.0, 2.0, 0.5, 0.0]] * 2).double()
    fixed = {"beta": torch.ones(2, 1).double(), "p0": math.log(0.7), "p1": 0.0}
    found = train_stacks(random_weights((4, 3), [0, 1]), {**whitened(eigenvalues), **fixed}, tolerance=1e-8)
    best = ppca(eigenvalues[0].diag(), 3, 0.7)
    assert best.kept.sum() == 2
    torch.testing.assert_close(found.height, torch.full_like(found.height, best.log_px), rtol=0, atol=1e-10)


def test_lbfgs_finds_what_scipy_finds() -> None:
    """Rosenbrock's valley from several places, and a ridge that has no summit to fall from."""
    starts = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [3.0, -2.0]], dtype=torch.float64)

    def negative(values: dict[str, Tensor]) -> Tensor:
        x, y = values["at"].unbind(-1)
        return -(1 - x).square() - values["steep"] * (y - x.square()).square()

    fixed = {"steep": torch.full((3,), 100.0).double()}
    found = lbfgs(negative, {"at": starts}, fixed, 1e-10, 500)
    for start, place in zip(starts, found.values["at"], strict=True):
        other = minimize(
            lambda at: float(-negative({"at": torch.tensor(at), "steep": fixed["steep"][0]})), start.numpy()
        )
        assert place.numpy() == pytest.approx(other.x, abs=1e-4) and place.numpy() == pytest.approx(1.0, abs=1e-9)
    assert found.gradient.max() <= 1e-10 and found.height.abs().max() < 1e-18
    stays = lbfgs(negative, {"at": starts}, fixed, 1e9, 500)
    assert torch.equal(stays.values["at"], starts)


def test_lbfgs_does_not_leap_over_the_well_to_a_plateau() -> None:
    """A long ramp has next to no curvature, so that a first pair points thousands away, where it is flat and lower."""

    def hill(w: dict[str, Tensor]) -> Tensor:
        well = 20 * (-(w["at"] - 3).square() / 8).exp()
        return (well - torch.nn.functional.softplus(w["at"])).sum()

    starts = torch.tensor([[15.0], [20.0], [30.0], [40.0]], dtype=torch.float64)
    found = lbfgs(hill, {"at": starts}, {}, 1e-10, 200)
    best = minimize(lambda x: -float(hill({"at": torch.tensor(x)})), x0=[3.0]).x[0]
    assert found.gradient.max() < 1e-10 and (found.values["at"] - best).abs().max() < 1e-5


# -- the rows of the two papers -------------------------------------------------------------------------


def test_a_covariance_divided_by_n_minus_1_is_no_maximum() -> None:
    x = randn(30, 6)
    best = ppca(torch.cov(x.mT, correction=0), 2).log_px
    other = ppca(torch.cov(x.mT, correction=1), 2).log_px
    assert rows.other_divisor(best, 30, 6) == pytest.approx(other, abs=1e-10) and other < best


@pytest.mark.parametrize("variance", [0.2, 0.9, 1.1, 2.5])
def test_the_hessian_at_a_zero_column(variance: float) -> None:
    eigenvalues = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.3], dtype=torch.float64)
    measured = float(rows.zero_column_hessian(eigenvalues, 2, variance))
    assert measured == pytest.approx(rows.zero_column_curvature(eigenvalues.tolist(), 2, variance), abs=1e-10)
    assert (measured < 0) == (variance > 1)


def test_rows_of_linear_vaes_against_ppca() -> None:
    samples = [
        randn(50, 6, seed=seed) * torch.tensor([3.0, 2.0, 1.5, 1.0, 0.7, 0.5], dtype=torch.float64) for seed in range(2)
    ]
    found = rows.optimum_rows(samples, (1, 3), 1e-8, 1000, silent)
    assert found["bound_nats"] == pytest.approx(found["log_px_nats"], abs=1e-9)
    assert found["variance"] == pytest.approx(found["best_variance"], abs=1e-6)
    kept = rows.column_rows(samples, 3, (0.1, 3.0, 50.0), 1e-8, silent)
    assert (kept["columns"] == kept["best_columns"]).all() and set(kept["columns"]) >= {0, 3}
    assert kept["bound_nats"] == pytest.approx(kept["log_px_nats"], abs=1e-9)
    walked = rows.trajectory(samples, 3, 41, 20, 1e-2, silent)
    assert walked["step"].tolist() == [0, 20, 40] and (np.diff(walked["bound_nats"], axis=0) > 0).all()
    assert (walked["bound_nats"] < walked["log_px_nats"]).all()


def test_the_staircase_of_modes() -> None:
    zeta = (2.0, 1.5, 0.5)
    tasks = [Task.regression(zeta, seed) for seed in range(2)]
    for task in tasks:
        root = torch.linalg.cholesky(task.xx)
        white = torch.linalg.solve_triangular(root, task.yx.mT, upper=False)
        assert torch.linalg.svdvals(white).numpy() == pytest.approx(zeta, abs=1e-10)
    settings = [Setting(1.0), Setting(1.0, 0.5, 1.6), Setting(5.0, 2.0)]
    found = staircase_rows(tasks, settings, 4, 1e-9, 2000, silent)
    assert found["modes"].tolist() == [2, 1, 0] * 2 == found["best_modes"].tolist()
    for name in ("decoder", "encoder", "sigma"):
        for mode in range(1, 5):
            assert found[f"{name}_{mode}"] == pytest.approx(found[f"best_{name}_{mode}"], abs=1e-6)
    closed = single_layer(1.5, 1.0, 1.0, 1.0)
    assert found["best_decoder_2"][0] == closed.decoder and found["best_sigma_2"][0] == closed.sigma
    assert ((found["origin_curvature"] <= 0) == (found["best_modes"] == 0)).all()
    with pytest.raises(ValueError, match="y has 2 numbers and x 3"):
        staircase_rows([Task(torch.eye(3), torch.ones(2, 3), torch.ones(()), torch.ones(2))], settings, 2, 1, 1, silent)


def test_the_largest_curvature_is_an_eigenvalue_of_the_hessian() -> None:
    hessian = covariance(4) - 2 * torch.eye(4).double()
    found = largest_curvature(lambda at: at @ hessian @ at / 2, torch.zeros(4).double())
    assert float(found) == pytest.approx(float(np.linalg.eigvalsh(hessian.numpy())[-1]), abs=1e-10)

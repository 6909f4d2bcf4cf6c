"""Closed-form optima against what the papers print and against numerical minimisation of the objectives themselves."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from hvae.experiments.shared.linear.thresholds import ppca, single_layer, two_layer

Array = np.ndarray


def optimum(loss: Callable[[torch.Tensor], torch.Tensor], n: int, n_starts: int = 6) -> tuple[Array, float]:
    """The best of several BFGS runs with exact gradients; random starts, so no symmetry holds one at a saddle."""

    def value_and_gradient(at: Array) -> tuple[float, Array]:
        point = torch.tensor(at, requires_grad=True)
        value = loss(point)
        (gradient,) = torch.autograd.grad(value, point)
        return float(value.detach()), gradient.numpy()

    source = np.random.default_rng(0)
    runs = [
        minimize(value_and_gradient, source.normal(size=n), jac=True, method="BFGS", options={"gtol": 1e-9})
        for _ in range(n_starts)
    ]
    best = min(runs, key=lambda run: float(run.fun))
    return best.x, float(best.fun)


def single_layer_loss(zeta: float, beta: float, eta_enc: float, eta_dec: float) -> Callable[..., torch.Tensor]:
    """-beta-ELBO of Wang and Ziyin 2022 for scalars, x of deviation 0.75 and y = ζ x / 0.75 + noise; U, W, log σ.

    `E[(y - U z)²] / 2η_dec² + β E KL(q(z|x) ‖ p(z))`, each variable a combination of independent unit normals
    (x / 0.75, noise of y, noise of z).
    """

    def loss(at: torch.Tensor) -> torch.Tensor:
        decoder, encoder, sigma = at[0], at[1], at[2].exp()
        eye = torch.eye(3).double()
        x = 0.75 * eye[0]
        y = zeta / 0.75 * x + 0.3 * eye[1]
        z = encoder * x + sigma * eye[2]
        distortion = (y - decoder * z).square().sum() / (2 * eta_dec**2)
        rate = z.square().sum() / (2 * eta_enc**2) - 0.5 - (sigma / eta_enc).log()
        return distortion + beta * rate

    return loss


def two_layer_loss(
    theta: float, sigma1: float, eta_enc: float, eta_dec: float, beta1: float, beta2: float
) -> Callable[..., torch.Tensor]:
    """-beta-ELBO of Dang et al. 2024 for scalars, x of standard deviation θ; parameters W1, U1, W2, U2, log σ2.

    `E[(x - U1 z1)²] / 2η_dec² + β1 E[log q(z1|x) - log p(z1|z2)] + β2 E KL(q(z2|z1) ‖ p(z2))`, each variable a
    combination of independent unit normals (x / θ, noise of z1, noise of z2).
    """

    def loss(at: torch.Tensor) -> torch.Tensor:
        w1, u1, w2, u2, sigma2 = at[0], at[1], at[2], at[3], at[4].exp()
        eye = torch.eye(3).double()
        x = theta * eye[0]
        z1 = w1 * x + sigma1 * eye[1]
        z2 = w2 * z1 + sigma2 * eye[2]
        distortion = (x - u1 * z1).square().sum() / (2 * eta_dec**2)
        rate1 = -math.log(sigma1 / eta_dec) - 0.5 + (z1 - u2 * z2).square().sum() / (2 * eta_dec**2)
        rate2 = -(sigma2 / eta_enc).log() - 0.5 + z2.square().sum() / (2 * eta_enc**2)
        return distortion + beta1 * rate1 + beta2 * rate2

    return loss


# --- two layers ---------------------------------------------------------------------------------------------------

# θ, σ1, η_enc, η_dec, β1, β2 -> λ, ω to four digits, re-derived from the paper by minimisation
PRINTED = [
    ((2, 1, 1, 1, 1, 1), (1.7321, 1.7321)),
    ((2, 0.5, 0.5, 0.5, 1, 2), (1.3229, 2.4495)),
    ((1.2, 0.5, 0.5, 0.5, 1, 4), (0.5916, 0)),
    ((0.9, 0.5, 0.5, 0.5, 1, 2), (0.4472, 0)),
    ((1.2, 0.5, 0.5, 0.5, 4, 4), (0.3317, 0.6633)),
]

SETTINGS = {
    (2.0, 1.0, 1.0, 1.0, 1.0, 1.0): "both",
    (1.7, 0.9, 0.6, 0.7, 1.3, 0.8): "both",  # A: σ1² above the ratio
    (2.0, 0.5, 0.5, 0.5, 1.0, 2.0): "both",  # C: σ1² below it, θ large
    (1.1, 0.4, 0.8, 0.5, 1.5, 1.2): "both",  # C
    (1.2, 0.5, 0.5, 0.5, 1.0, 4.0): "top collapsed",  # B
    (0.9, 0.5, 1.3, 0.5, 1.0, 2.0): "top collapsed",  # B
    (1.1, 0.4, 0.9, 0.5, 2.5, 3.0): "top collapsed",  # B just below its edge, β1 far from 1
    (1.25, 0.4, 0.9, 0.5, 2.5, 3.0): "both",  # C just above it
    (0.4, 0.5, 0.5, 0.5, 1.0, 2.0): "collapsed",  # B with θ below √β1 σ1
    (0.6, 0.9, 0.7, 0.8, 2.0, 1.5): "noise only",  # A with θ² below β2 η_dec²
    (0.5, 1.2, 1.4, 0.6, 1.0, 0.9): "noise only",
}


@pytest.mark.parametrize(("setting", "printed"), PRINTED)
def test_two_layer_unit_values(setting: Sequence[float], printed: tuple[float, float]) -> None:
    found = two_layer(*setting)
    assert (round(found.encoder, 4), round(found.decoder, 4)) == printed


@pytest.mark.parametrize(("setting", "regime"), SETTINGS.items(), ids=lambda value: str(value))
def test_two_layer_is_where_minimisation_ends(setting: tuple[float, ...], regime: str) -> None:
    found, theta = two_layer(*setting), setting[0]
    assert found.regime == regime
    (w1, _, _, u2, _), _ = optimum(two_layer_loss(*setting), 5)  # type: ignore[arg-type]
    assert abs(abs(w1) * theta - found.encoder) < 1e-5
    assert abs(abs(u2) - found.decoder) < 1e-5


# θ, σ1, η_enc, η_dec, β1, β2, σ2
FIXED = {
    (2.0, 0.5, 0.5, 0.5, 1.0, 2.0, 0.3): "both",
    (1.7, 0.9, 0.6, 0.7, 1.3, 0.8, 0.4): "both",
    (1.1, 0.4, 0.9, 0.5, 2.5, 3.0, 0.9): "top collapsed",  # σ2 = η_enc: the edge of learned variances
    (1.25, 0.4, 0.9, 0.5, 2.5, 3.0, 0.9): "both",
    (1.1, 0.4, 0.9, 0.5, 2.5, 3.0, 0.5): "both",  # where learned ones collapse
    (1.25, 0.4, 0.9, 0.5, 2.5, 3.0, 1.4): "top collapsed",  # where learned ones do not
    (0.6, 0.9, 0.7, 0.8, 2.0, 1.5, 0.5): "noise only",
    (0.4, 0.5, 0.5, 0.5, 1.0, 2.0, 0.6): "collapsed",
}


@pytest.mark.parametrize(("setting", "regime"), FIXED.items(), ids=lambda value: str(value))
def test_two_layer_of_given_variances_is_where_minimisation_ends(setting: tuple[float, ...], regime: str) -> None:
    found, loss, log_sigma2 = two_layer(*setting), two_layer_loss(*setting[:6]), math.log(setting[6])
    assert found.regime == regime

    def held(at: torch.Tensor) -> torch.Tensor:
        return loss(torch.cat([at, at.new_tensor([log_sigma2])]))  # type: ignore[operator, no-any-return]

    (w1, _, _, u2), _ = optimum(held, 4)
    assert abs(abs(w1) * setting[0] - found.encoder) < 1e-5
    assert abs(abs(u2) - found.decoder) < 1e-5


def test_learned_variances_are_the_best_given_ones() -> None:
    """The loss of σ2 is least where Σ2 would go: there both closed forms meet."""
    for setting in SETTINGS:
        eta_enc, eta_dec, beta1, beta2 = setting[2:]
        free = two_layer(*setting)
        # Σ2 of the optimum: precision β1/β2 ω²/η_dec² + 1/η_enc²
        best = (beta1 / beta2 * free.decoder**2 / eta_dec**2 + 1 / eta_enc**2) ** -0.5
        held = two_layer(*setting, sigma2=best)
        assert held.encoder == pytest.approx(free.encoder, abs=1e-7)
        assert held.decoder == pytest.approx(free.decoder, abs=1e-7)


def test_two_layer_regimes_meet_without_a_jump() -> None:
    sigma1, eta_enc, eta_dec, beta1, beta2 = 0.5, 0.7, 0.5, 1.3, 2.0
    edge = beta2 * eta_dec**2 / (math.sqrt(beta1) * sigma1)
    below, above = (two_layer(edge * (1 + shift), sigma1, eta_enc, eta_dec, beta1, beta2) for shift in (-1e-9, 1e-9))
    assert below.regime == "top collapsed" and above.regime == "both"
    assert above.encoder == pytest.approx(below.encoder, abs=1e-6) and above.decoder < 1e-3
    edge = math.sqrt(beta2 / beta1) * eta_dec  # of σ1
    below, above = (two_layer(0.1, edge * (1 + shift), eta_enc, eta_dec, beta1, beta2) for shift in (-1e-9, 1e-9))
    assert below.regime == "collapsed" and above.regime == "noise only" and above.decoder < 1e-3


def test_two_layer_without_any_signal() -> None:
    assert two_layer(0, 0.5, 1, 1, 1, 1).regime == "collapsed"
    assert two_layer(0, 2, 1, 1, 1, 1).regime == "noise only"


# --- one layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        (2.0, 1.0, 1.0, 1.0),
        (1.3, 0.5, 0.7, 1.4),
        (0.9, 2.0, 1.6, 0.4),
        (0.9, 1.0, 0.5, 1.2),
        (1.0, 4.0, 2.0, 0.8),
        (0.0, 0.5, 0.8, 0.9),
    ],
)
def test_single_layer_is_where_minimisation_ends(setting: tuple[float, float, float, float]) -> None:
    zeta, beta, _, eta_dec = setting
    found = single_layer(*setting)
    assert found.collapsed == (zeta**2 <= beta * eta_dec**2)
    (decoder, encoder, log_sigma), _ = optimum(single_layer_loss(*setting), 3)
    assert abs(abs(decoder) - found.decoder) < 1e-5
    assert abs(0.75 * abs(encoder) - found.encoder) < 1e-5
    assert abs(math.exp(log_sigma) - found.sigma) < 1e-5


def test_single_layer_collapses_at_its_threshold_and_not_before() -> None:
    assert single_layer(2, 1, 1, 2).collapsed
    assert single_layer(2, 1, 1, 2).sigma == 1
    assert not single_layer(2 + 1e-9, 1, 1, 2).collapsed
    for eta_enc in (0.1, 1.0, 10.0):  # which does not move it
        assert single_layer(1, 1, eta_enc, 1).collapsed and not single_layer(1.01, 1, eta_enc, 1).collapsed


# --- pPCA ---------------------------------------------------------------------------------------------------------


def data(n: int, width: int) -> Array:
    source = np.random.default_rng(3)
    return source.normal(size=(n, width)) @ source.normal(size=(width, width)) + source.normal(size=width)


def moments(rows: Array) -> tuple[Array, Array]:
    centred = rows - rows.mean(0)
    return rows.mean(0), centred.T @ centred / len(rows)


@pytest.mark.parametrize("n_latents", [1, 2, 3])
def test_ppca_states_the_likelihood_of_its_own_model(n_latents: int) -> None:
    rows = data(50, 4)
    mean, covariance = moments(rows)
    found = ppca(torch.tensor(covariance), n_latents)
    loadings = found.loadings.numpy()
    model = multivariate_normal(mean, loadings @ loadings.T + found.variance * np.eye(4))
    assert abs(found.log_px - model.logpdf(rows).mean()) < 1e-10
    assert loadings.shape == (4, n_latents) and found.kept.all()


@pytest.mark.parametrize("n_latents", [1, 2, 3])
def test_no_optimiser_finds_a_better_ppca(n_latents: int) -> None:
    covariance = torch.tensor(moments(data(50, 4))[1])
    found = ppca(covariance, n_latents)
    value, model = fitted(covariance, n_latents, None)
    assert abs(-value - found.log_px) < 1e-8
    expected = found.loadings @ found.loadings.mT + found.variance * torch.eye(4).double()
    torch.testing.assert_close(model, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("position", "share", "n_kept"), [(0, 1.1, 0), (0, 0.9, 1), (1, 0.9, 2)])
def test_no_optimiser_finds_a_better_ppca_of_a_fixed_variance(position: int, share: float, n_kept: int) -> None:
    """Directions of less variance than the noise are given up; the others keep what they have above it."""
    covariance = torch.tensor(moments(data(50, 4))[1])
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1]
    variance = float(share * eigenvalues[position])
    found = ppca(covariance, 2, variance)
    assert found.variance == variance and int(found.kept.sum()) == n_kept
    assert torch.equal(found.loadings.square().sum(0) > 0, found.kept)
    value, model = fitted(covariance, 2, variance)
    assert abs(-value - found.log_px) < 1e-8
    expected = found.loadings @ found.loadings.mT + variance * torch.eye(4).double()
    torch.testing.assert_close(model, expected, rtol=0, atol=1e-4 * float(eigenvalues[0]))


def fitted(covariance: torch.Tensor, n_latents: int, variance: float | None) -> tuple[float, torch.Tensor]:
    """Least mean negative log-likelihood of W Wᵀ + σ² I, and that covariance."""
    width, n_loadings = len(covariance), len(covariance) * n_latents

    def model_of(at: torch.Tensor) -> torch.Tensor:
        loadings = at[:n_loadings].reshape(width, n_latents)
        sigma2 = at[n_loadings].exp() if variance is None else variance
        return loadings @ loadings.mT + sigma2 * torch.eye(width).double()

    def loss(at: torch.Tensor) -> torch.Tensor:
        model = model_of(at)
        fit = torch.linalg.solve(model, covariance).diagonal().sum()
        return (fit + torch.logdet(model) + width * math.log(2 * math.pi)) / 2

    at, value = optimum(loss, n_loadings + (variance is None))
    return value, model_of(torch.tensor(at))


def test_with_one_over_n_minus_one_the_stated_optimum_is_beaten() -> None:
    rows = data(20, 4)
    _, covariance = moments(rows)
    right, wrong = ppca(torch.tensor(covariance), 2), ppca(torch.tensor(covariance * 20 / 19), 2)
    assert right.log_px - wrong.log_px == pytest.approx(4 / 2 * math.log(20 / 19), abs=1e-12)
    assert 784 / 2 * math.log(1000 / 999) == pytest.approx(0.39, abs=0.005)  # as the docstring says


def test_ppca_of_fixed_variance_is_the_single_layer_optimum() -> None:
    """Two papers, one model: y = x, β = 1, η_dec² = σ², and ζ² an eigenvalue."""
    covariance = torch.tensor(moments(data(50, 4))[1])
    zeta = np.sqrt(np.linalg.eigvalsh(covariance)[::-1])
    variance = float(zeta[1] ** 2 * 1.2)
    found = ppca(covariance, 3, variance)
    modes = [single_layer(float(value), 1, 1.7, math.sqrt(variance)) for value in zeta[:3]]
    assert [not mode.collapsed for mode in modes] == found.kept.tolist() == [True, False, False]
    for mode, column in zip(modes, found.loadings.T, strict=True):
        assert mode.decoder * 1.7 == pytest.approx(float(column.norm()), abs=1e-10)


def test_directions_without_more_variance_than_the_noise_are_not_kept() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    found = ppca(torch.tensor(turn @ np.diag([5.0, 2.0, 2.0, 2.0]) @ turn.T), 2)
    assert found.kept.tolist() == [True, False]
    assert not found.loadings[:, 1].any()


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("covariance", "n_latents", "says"),
    [
        (torch.eye(3), 3, "3 latents of 3 dimensions"),
        (torch.eye(3), 0, "0 latents of 3 dimensions"),
        (torch.zeros(0, 0), 1, r"shape \[0, 0\]"),
        (torch.ones(3), 1, r"shape \[3\]"),
        (torch.ones(2, 3), 1, r"shape \[2, 3\]"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), 1, "not symmetric"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), 1, "eigenvalue -1"),
        (torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), 1, "nan"),
        (torch.diag(torch.tensor([2.0, 1.0, 0.0])), 2, "variance left to noise is 0"),
        (torch.zeros(3, 3), 1, "variance left to noise is 0"),
    ],
)
def test_what_is_no_covariance_is_refused(covariance: torch.Tensor, n_latents: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ppca(covariance, n_latents)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf])
def test_a_fixed_variance_that_is_none_is_refused(variance: float) -> None:
    with pytest.raises(ValueError, match="variance left to noise"):
        ppca(torch.eye(3), 1, variance)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, 0.0])
def test_weights_and_deviations_must_be_positive(bad: float) -> None:
    for position in range(1, 4):
        with pytest.raises(ValueError, match=r"(beta|eta_enc|eta_dec) is .* positive"):
            single_layer(*(bad if i == position else 1.0 for i in range(4)))
    for position in range(1, 6):
        with pytest.raises(ValueError, match=r"(sigma1|eta_enc|eta_dec|beta1|beta2) is .* positive"):
            two_layer(*(bad if i == position else 1.0 for i in range(6)))
    with pytest.raises(ValueError, match="sigma2 is"):
        two_layer(1, 1, 1, 1, 1, 1, bad)
    if bad != 0:
        with pytest.raises(ValueError, match="zeta is"):
            single_layer(bad, 1, 1, 1)
        with pytest.raises(ValueError, match="theta is"):
            two_layer(bad, 1, 1, 1, 1, 1)

"""Signal-to-noise of gradients: a weight whose answer is known, chance, and the distributions in the number of
samples."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hvae.diagnostics.signal import Signal, signal, summarise
from hvae.evidence import HVAE
from hvae.families import DiagonalGaussian
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.objectives import DoublyReparametrised, Elbo, Iwae, Objective, StickingTheLanding
from hvae.posterior import NetworkPosterior
from tests.exact.stacks import decoder
from tests.statistics import assert_mean
from tests.test_gradients import exact_posterior


def test_one_weight_has_the_ratio_of_its_closed_form() -> None:
    """The prior's mean m, where q is N(mu, s²) whatever x: the loss has the slope mean_k (m - z_k), so SNR² is
    K (m - mu)² / s², and the variance s² / K."""
    m, mu, s, n_samples, n_draws = 0.3, 0.7, 0.8, 4, 400

    def fixed(name: str, parents: list[str], outputs: float, *, learned: bool = False) -> Conditional:
        class Constant(nn.Module):
            def forward(self, value: Tensor) -> Tensor:
                return torch.full_like(value[..., :1], outputs)

        net = Constant() if parents else Root(torch.tensor([outputs]).double(), learned=learned)
        return Conditional(name, parents, net, DiagonalGaussian(1, variance="fixed").double())

    q = fixed("z1", ["x"], mu)
    q.family.log_variance = torch.tensor([2 * math.log(s)]).double()
    p = BeliefNetwork([fixed("z1", [], m, learned=True), fixed("x", ["z1"], 0.0)])
    model = HVAE(p, NetworkPosterior(BeliefNetwork([q])))
    assert len(list(model.parameters())) == 1
    x = torch.zeros(1, 1).double()
    found = [signal(model, Elbo(), x, n_samples, n_draws=n_draws, step=0, seed=seed) for seed in range(3)]
    wanted = math.sqrt(n_samples) * abs(m - mu) / s
    assert {owner for each in found for owner in each} == {"decoder"}
    for each in found:
        low, middle, high = each["decoder"].snr
        assert low < wanted < high and high - low < 0.4
        assert each["decoder"].variance[0] < s**2 / n_samples < each["decoder"].variance[2]
        assert low < middle < high


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0, 3.0])
def test_intervals_hold_the_truth_and_no_signal_is_told_as_none(ratio: float) -> None:
    """On 4000 samples of 40 draws of 5 weights with one ratio: the mean of snr² is unbiased where it is not cut at 0,
    and the interval misses about one time in twenty."""
    source = np.random.default_rng(1)
    scale = np.array([1e-3, 1.0, 2.0, 5.0, 1e3])
    found = [summarise(iter([(ratio + source.standard_normal((40, 5))) * scale])) for _ in range(4000)]
    snr = np.array([each.snr for each in found])
    if ratio >= 1:
        assert_mean(np.square(snr[:, 1]), ratio**2, detect=0.05 * ratio**2)
    missed = ((snr[:, 0] > ratio) | (snr[:, 2] < ratio)).mean()
    assert missed < 0.1
    if ratio == 0:
        assert (snr[:, 0] == 0).mean() > 0.95
    variance = np.array([each.variance for each in found])
    assert_mean(variance[:, 1] / np.square(scale).sum(), 1.0, detect=0.05)


def test_jackknife_equals_a_loop_and_blocks_do_not_matter() -> None:
    draws = np.random.default_rng(0).standard_normal((7, 4)) + np.array([0.5, 1, 2, 0])

    def ratio(some: np.ndarray) -> float:
        return float((some.mean(0) ** 2 / some.var(0, ddof=1)).mean())

    without = np.array([ratio(np.delete(draws, k, 0)) for k in range(7)])
    middle = 7 * ratio(draws) - 6 * without.mean()
    error = math.sqrt(6 / 7 * ((without - without.mean()) ** 2).sum())
    silent = np.full((7, 2), 3.0)
    alone = np.zeros((7, 1))
    alone[3] = 2.0
    found = summarise(iter([draws[:, :1], silent, alone, draws[:, 1:]]))
    t = 2.4469118511449692  # Student's, 6 degrees, 97.5 %
    expected = np.sqrt(np.clip(middle + np.array([-t, 0, t]) * error, 0, None))
    np.testing.assert_allclose(found.snr, expected, atol=1e-10)
    nothing = summarise(iter([silent]))
    assert np.isnan(nothing.snr).all() and (nothing.variance == 0).all()


def near_the_posterior(shift: float, wider: float) -> HVAE:
    """A linear-Gaussian stack of two layers whose q is the exact posterior, off by a little and wider: so its weights
    are bounded, and the distributions in K hold from few samples on."""
    p = decoder((3, 2, 1))
    model = HVAE(p, exact_posterior(p, "bottom-up"))
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in model.posterior.named_parameters():
            if name.endswith("family.scale"):
                n_below = {3: 1, 1: 0}[len(weight)]
                weight[:n_below] *= wider
                weight[n_below:] += math.log(wider)
            else:
                weight += shift * torch.randn(weight.shape, generator=source, dtype=torch.float64)
    return model


X = torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "model", "counts", "n_draws", "expected"),
    [
        (Iwae(), (0.1, 1.5, 64), (4, 16, 64), 700, -0.5),
        (DoublyReparametrised(Iwae()), (0.05, 1.3, 8), (8, 32, 128), 100, 0.5),
    ],
    ids=["iwae", "doubly reparametrised"],
)
def test_the_encoder_s_signal_falls_with_the_samples_of_iwae_and_rises_doubly_reparametrised(
    objective: Objective, model: tuple[float, float, int], counts: tuple[int, ...], n_draws: int, expected: float
) -> None:
    """Like K^-1/2 and K^1/2 (Rainforth et al. 2018, theorem 1; Tucker et al. 2019), and the decoder's like K^1/2: in
    the limit, so the slope of log snr in log K has a margin of 0.2, in which its interval of four errors must lie."""
    shift, wider, n_data = model
    made = near_the_posterior(shift, wider)
    found = [signal(made, objective, X[:n_data], k, n_draws=n_draws, step=0, seed=0) for k in counts]
    for part, slope in (("z1", expected), ("z2", expected), ("decoder", 0.5)):
        snr = np.array([each[part].snr for each in found])
        error = (snr[:, 2] ** 2 - snr[:, 1] ** 2) / 1.96 / (2 * snr[:, 1] ** 2)
        design = np.stack([np.ones(len(counts)), np.log(counts)], 1) / error[:, None]
        covariance = np.linalg.inv(design.T @ design)
        fitted = (covariance @ design.T @ (np.log(snr[:, 1]) / error))[1]
        assert abs(fitted - slope) + 4 * math.sqrt(covariance[1, 1]) < 0.2, (part, fitted, covariance[1, 1])


def test_at_the_exact_posterior_sticking_the_landing_has_no_noise() -> None:
    """To rounding, where the pathwise gradient has noise and no signal."""
    p = decoder((3, 2, 1))
    model = HVAE(p, exact_posterior(p, "bottom-up"))
    stuck = signal(model, StickingTheLanding(Elbo()), X[:4], 2, n_draws=20, step=0, seed=0)
    plain = signal(model, Elbo(), X[:4], 2, n_draws=20, step=0, seed=0)
    for part in ("z1", "z2"):
        assert stuck[part].variance[2] < 1e-20 < 1e-2 < plain[part].variance[0]
        assert isinstance(plain[part], Signal) and plain[part].snr[1] < 0.5


def test_fewer_than_three_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="n_draws is 2; give at least 3"):
        signal(near_the_posterior(0.1, 1.5), Elbo(), X, 1, n_draws=2, step=0, seed=0)

"""L^{>l}, the bound that the layers above z_l give: against dense Gaussians in numpy, which share no code with it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hvae import rng
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.knockouts import Knockouts
from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE
from hvae.exact.known_stacks import linear_stack
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.families import DiagonalGaussian
from hvae.network import BeliefNetwork, Conditional, Trace
from hvae.posterior import NetworkPosterior
from tests.diagnostics.test_usage import STACK
from tests.statistics import assert_mean
from tests.topdown.test_linear import data, dense, linear

Array = np.ndarray
N_PATHS, N_IMAGES = 5, 3


class Watched(Knockouts):
    """Keeps what the decoder walked."""

    def _joint(self, evidence: Any, changed: Trace, weighed: Any) -> Any:  # type: ignore[override]
        object.__setattr__(self, "walked", changed)
        return super()._joint(evidence, changed, weighed)


def watched(model: HVAE, x: torch.Tensor, n_paths: int = N_PATHS) -> Watched:
    sampler = Sampler(model, x, 0)
    return Watched(sampler, sampler.evidence(n_paths, "test"))


def log_normal(values: Array, mean: Array, covariance: Array) -> Array:
    """Of rows of values ``[..., D]``, by the covariance's eigenvectors."""
    variances, vectors = np.linalg.eigh(covariance)
    white = (values - mean) @ vectors
    found: Array = -0.5 * (white**2 / variances + np.log(2 * np.pi * variances)).sum(-1)
    return found


def drawn(values: Mapping[str, torch.Tensor], names: list[str]) -> Array:
    """All values side by side, ``[K, B, sum of D]``."""
    parts = [values[name].expand(N_PATHS, N_IMAGES, -1).numpy() for name in names]
    return np.concatenate([np.zeros((N_PATHS, N_IMAGES, 0)), *parts], -1)


@pytest.mark.parametrize("place", range(4))
def test_weights_are_those_of_the_dense_gaussian(place: int) -> None:
    """log p(x, z) less log p(z_{<=l} | z_{>l}), both of one dense Gaussian, less log q(z_{>l} | x)."""
    model, x = linear("1x1,2m1,2x1,4m2", 4), data(4, N_IMAGES)
    (mean, covariance), knockouts = dense(model), watched(model, x)
    below, above = list(model.latents[place::-1]), list(model.latents[:place:-1])
    with torch.no_grad():
        found = knockouts.above(model.latents[place]).log_px
        of_q = {name: site.value for name, site in knockouts.evidence.q.items()}
        of_p = {name: site.value for name, site in knockouts.walked.items()}  # type: ignore[attr-defined]
        log_q = sum((knockouts.evidence.q[name].log_prob.numpy() for name in above), start=np.zeros(()))
    seen, fresh = drawn(of_q, above), drawn(of_p, below)
    k, m = seen.shape[-1], seen.shape[-1] + fresh.shape[-1]
    joint = log_normal(np.concatenate([seen, fresh, drawn({"x": x}, ["x"])], -1), mean, covariance)
    gain = covariance[k:m, :k] @ np.linalg.inv(covariance[:k, :k])
    at = mean[k:m] + (seen - mean[:k]) @ gain.T
    conditional = log_normal(fresh - at, np.zeros(m - k), covariance[k:m, k:m] - gain @ covariance[:k, k:m])
    expected = np.logaddexp.reduce(joint - conditional - log_q, axis=0) - np.log(N_PATHS)
    assert found == pytest.approx(expected, abs=1e-10)


def test_the_first_is_what_the_encoder_knockout_leaves_of_the_elbo() -> None:
    model, x = linear("1x1,2m1,2x1,4m2", 4), data(4, N_IMAGES)
    with torch.no_grad():
        knockouts = watched(model, x, 1)
        for name in model.latents:
            elbo = knockouts.evidence.log_weight[0].numpy()
            assert elbo - knockouts.above(name).log_px == pytest.approx(knockouts.encoder(name), abs=1e-12)


def test_many_samples_close_each_of_them() -> None:
    """The weights have the mean p(x) whatever l is: on data of the model L^{>l} of 4000 samples is near log p(x)."""
    model = STACK.ladder()
    drawn = rng.noise(model.decoder.noise_specs(), 1, 120, seed=0, purpose="data", dtype=torch.float64)
    with torch.no_grad():
        x = model.decoder.walk({}, drawn)["x"].value[0]
        exact = LinearGaussian.of(model.decoder).log_px(x).numpy()
        few, many = (watched(model, x, n) for n in (1, 4000))
        for name in model.latents:
            assert_mean(exact - many.above(name).log_px, 0.0, detect=0.1)
            assert (exact - few.above(name).log_px).mean() > 0.1


def mean_field() -> HVAE:
    stack = linear_stack(1.0, "best", seed=0, widths=(6, 4, 3))
    source = torch.Generator().manual_seed(0)

    def of_x(name: str, units: int) -> Conditional:
        net = nn.Linear(6, 2 * units, dtype=torch.float64)
        with torch.no_grad():
            for weight in net.parameters():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=source, dtype=torch.float64))
        return Conditional(name, ["x"], net, DiagonalGaussian(units))

    return HVAE(stack.model.decoder, NetworkPosterior(BeliefNetwork([of_x("z1", 4), of_x("z2", 3)])))


def test_mean_field_keeps_the_layers_above_not_those_visited_before() -> None:
    model, x = mean_field(), linear_stack(1.0, "best", seed=0, widths=(6, 4, 3)).x[:N_IMAGES]
    with torch.no_grad():
        knockouts = watched(model, x)
        found = knockouts.above("z1").log_px
        z2, z1 = knockouts.evidence.q["z2"], knockouts.walked["z1"]  # type: ignore[attr-defined]
        p = model.decoder.walk({"z2": z2.value, "z1": z1.value, "x": x.unsqueeze(0)}, {})
        weight = p["x"].log_prob + p["z2"].log_prob - z2.log_prob
    assert found == pytest.approx(torch.logsumexp(weight, 0).numpy() - np.log(N_PATHS), abs=1e-10)
    assert not torch.equal(z1.value, knockouts.evidence.q["z1"].value)


def test_bottom_up_it_is_refused_below_the_top() -> None:
    stack = linear_stack(1.0, "best", seed=0)
    with torch.no_grad():
        knockouts = watched(stack.model, stack.x[:N_IMAGES])
        with pytest.raises(NotMeasuredError, match="q of z2 is conditioned on z1"):
            knockouts.above("z1")
        top = knockouts.above("z3").log_px
        assert top == pytest.approx(
            torch.logsumexp(knockouts.walked["x"].log_prob, 0).numpy() - np.log(N_PATHS),
            abs=1e-10,  # type: ignore[attr-defined]
        )

"""Approximation and amortisation against closed forms; refinement against the best diagonal Gaussian."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hvae.diagnostics.marginals import Marginal
from hvae.diagnostics.suboptimality import Suboptimality, suboptimality
from hvae.evidence import HVAE
from hvae.exact import LinearGaussian
from hvae.families import Bernoulli
from hvae.likelihood import Estimate
from hvae.likelihood.refinement import Refinement, refine, scaled
from hvae.likelihood.target import NotWhitenedError, from_encoder
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior
from tests.exact import stacks
from tests.statistics import assert_mean

SHALLOW, DEEP = (5, 3), (5, 3, 2)


def data(n: int = 120) -> Tensor:
    return torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def exact_log_px(reference: LinearGaussian, x: Tensor) -> Marginal:
    log_px = reference.log_px(x).numpy()
    zero = np.zeros_like(log_px)
    estimate = Estimate(log_px, "exact", zero, zero + np.inf, zero + np.nan, 0)
    return Marginal("log p(x)", estimate, zero, "exact")


def best(widths: tuple[int, ...]) -> tuple[LinearGaussian, HVAE]:
    network = stacks.decoder(widths)
    reference = LinearGaussian.of(network)
    return reference, HVAE(network, reference.best_posterior("bottom-up", "diagonal"))


def spoil(model: HVAE, name: str, how: str) -> HVAE:
    assert isinstance(model.posterior, NetworkPosterior)
    conditional = model.posterior.network[name]
    with torch.no_grad():
        if how == "over-confident":
            conditional.family.log_variance += 2 * math.log(0.5)  # type: ignore[operator]
        else:
            conditional.net.weight += 0.2  # type: ignore[operator]
    return model


def split(reference: LinearGaussian, model: HVAE, x: Tensor) -> Suboptimality:
    return suboptimality(model, x, exact_log_px(reference, x), n_draws=400, seed=0, refinement=Refinement(n_steps=150))


@pytest.mark.parametrize("how", ["over-confident", "tilted"])
def test_refinement_finds_the_best_diagonal_gaussian(how: str) -> None:
    """At depth 1, from an encoder that is wrong: the ELBO is within 0.001 nats of the best, Adam's noise."""
    reference, model = best(SHALLOW)
    model, x = spoil(model, "z1", how), data(20)
    target = from_encoder(model, x)
    shift, log_scale = refine(target, Refinement(), seed=0, purpose="test")
    with torch.no_grad():
        distribution = model.infer(x.unsqueeze(0), {"z1": torch.zeros(1, 20, 3).double()})["z1"].distribution
    conditional = reference.conditional(["z1"], ["x"])
    precision = torch.linalg.inv(conditional.covariance)
    mean_error = distribution.mean[0] + distribution.stddev[0] * shift - conditional.mean(x)
    growth = 2 * (distribution.stddev[0].log() + log_scale) + precision.diagonal().log()  # 0 for the best log-variance
    lost = ((mean_error @ precision * mean_error).sum(-1) + (growth.exp() - 1 - growth).sum(-1)) / 2
    assert lost.max() < 0.002 and lost.mean() < 0.001


def test_only_what_is_free_moves() -> None:
    _, model = best(DEEP)
    target = from_encoder(model, data(3))
    free = torch.tensor([0.0, 0, 0, 1, 1], dtype=torch.float64)
    for moved in refine(target, Refinement(n_steps=5), seed=0, purpose="test", free=free):
        assert (moved[:, :3] == 0).all() and (moved[:, 3:] != 0).all()


def test_the_best_diagonal_encoder_has_no_amortisation_gap() -> None:
    """approximation = (Σ log Λ_ii - log |Λ|) / 2 of each datum, from the joint covariance by numpy."""
    reference, model = best(SHALLOW)
    found = split(reference, model, data())
    index, _, covariance = stacks.joint(model.decoder)
    whole = np.linalg.inv(covariance)[np.ix_(index["z1"], index["z1"])]  # the precision of z1 given x
    approximation = (np.log(np.diag(whole)).sum() - np.linalg.slogdet(whole)[1]) / 2
    assert_mean(found.approximation.datum_nats, approximation, detect=0.02)
    assert_mean(found.amortisation.datum_nats, 0.0, detect=0.02)
    assert approximation > 0.04


@pytest.mark.parametrize("how", ["over-confident", "tilted"])
def test_at_depth_one_amortisation_is_what_the_encoder_loses(how: str) -> None:
    """Against the exact ELBOs of the spoilt encoder and of the best one, datum by datum."""
    reference, model = best(SHALLOW)
    at_best = reference.gaps(model.posterior, data())
    model = spoil(model, "z1", how)
    now = reference.gaps(model.posterior, data())
    found = split(reference, model, data())
    lost = (at_best.elbo - now.elbo).numpy()
    assert lost.mean() > 0.3
    assert_mean(found.amortisation.datum_nats - lost, 0.0, detect=0.2)
    assert_mean(found.approximation.datum_nats - at_best.total.numpy(), 0.0, detect=0.02)
    assert_mean(found.elbo.datum_nats - now.elbo.numpy(), 0.0, detect=0.2)
    np.testing.assert_allclose(found.freed["z1"].datum_nats, found.amortisation.datum_nats, atol=0.1)


def test_parts_add_up() -> None:
    """approximation + amortisation = log p(x) - ELBO, and remainder = amortisation - Σ freed, at rounding."""
    reference, model = best(DEEP)
    found = split(reference, spoil(spoil(model, "z1", "tilted"), "z2", "tilted"), data(10))
    total = reference.log_px(data(10)).numpy() - found.elbo.datum_nats
    np.testing.assert_allclose(found.approximation.datum_nats + found.amortisation.datum_nats, total, atol=1e-10)
    freed = sum(term.datum_nats for term in found.freed.values())
    np.testing.assert_allclose(found.remainder.datum_nats, found.amortisation.datum_nats - freed, atol=1e-10)
    np.testing.assert_allclose(
        found.refined_elbo.datum_nats - found.elbo.datum_nats, found.amortisation.datum_nats, atol=1e-10
    )
    assert tuple(found.freed) == model.latents
    assert found.remainder.standard_error.shape == (10,)


@pytest.mark.parametrize("name", ["z1", "z2"])
def test_the_layer_that_is_wrong_is_the_one_that_frees(name: str) -> None:
    """Of two layers one is over-confident: refining it wins all back, log 2 - 3/8 a unit, refining the other little."""
    reference, model = best(DEEP)
    units = model.decoder[name].family.units
    found = split(reference, spoil(model, name, "over-confident"), data())
    lost = units * (math.log(2) - 3 / 8)
    assert_mean(found.freed[name].datum_nats, lost, detect=0.15)
    other = "z2" if name == "z1" else "z1"
    assert abs(found.freed[other].datum_nats.mean()) < lost / 4


def test_an_uncertain_log_px_widens_the_approximation() -> None:
    reference, model = best(SHALLOW)
    log_px = exact_log_px(reference, data(5))
    estimate = Estimate(log_px.estimate.log_px, "lower", np.full(5, 0.3), np.full(5, 10.0), np.full(5, 0.9), 20)
    doubtful = Marginal("log p(x)", estimate, np.full(5, 0.05), "q")
    quick = Refinement(n_steps=3)
    sure, unsure = (
        suboptimality(model, data(5), given, n_draws=20, seed=0, refinement=quick) for given in (log_px, doubtful)
    )
    np.testing.assert_allclose(unsure.approximation.standard_error**2 - sure.approximation.standard_error**2, 0.09)
    np.testing.assert_array_equal(unsure.amortisation.standard_error, sure.amortisation.standard_error)
    np.testing.assert_allclose(unsure.approximation.bias, doubtful.bias_datum_nats)
    assert sure.approximation.bias.max() == 0 and unsure.approximation.bias.min() >= 0.05
    gap = log_px.estimate.log_px - sure.elbo.datum_nats
    np.testing.assert_allclose((sure.approximation.datum_nats + sure.amortisation.datum_nats), gap, atol=1e-10)


def test_what_cannot_be_refined_is_refused() -> None:
    bernoulli, net = Bernoulli(2), torch.nn.Linear(2, 2)
    down = BeliefNetwork(
        [Conditional("z1", [], Root(torch.zeros(2), learned=True), bernoulli), Conditional("x", ["z1"], net, bernoulli)]
    )
    model = HVAE(down, NetworkPosterior(BeliefNetwork([Conditional("z1", ["x"], net, bernoulli)])))
    reference, gaussian = best(SHALLOW)
    with pytest.raises(NotWhitenedError, match="z1 is discrete"):
        suboptimality(model, torch.zeros(3, 2), exact_log_px(reference, data(3)), n_draws=5, seed=0)
    with pytest.raises(ValueError, match="n_draws is 1"):
        suboptimality(gaussian, data(3), exact_log_px(reference, data(3)), n_draws=1, seed=0)
    with torch.no_grad():
        gaussian.decoder["x"].net.bias.fill_(math.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(ValueError, match="q has log-weights that are not finite for 3 of 3 data"):
        suboptimality(gaussian, data(3), exact_log_px(reference, data(3)), n_draws=5, seed=0)


def test_a_refined_target_still_has_log_px_as_its_mean() -> None:
    reference, model = best(SHALLOW)
    x = data(4)
    target = from_encoder(spoil(model, "z1", "tilted"), x)
    refined = scaled(target, *refine(target, Refinement(n_steps=150), seed=0, purpose="test"))
    with torch.no_grad():
        log_weight = refined.log_weight(target.noise(40_000, seed=1, purpose="other"))
    ratio = (log_weight - reference.log_px(x)).exp().clamp(max=50).mean(1)
    assert_mean(ratio.numpy(), 1.0, detect=0.1)

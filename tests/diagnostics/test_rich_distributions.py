"""Diagnostics of distributions that only score and draw, against twins of the same distribution that have every closed
form.

A linear autoregressive Gaussian ``v = o + A v + s ε`` is the Gaussian ``v = (I - A)⁻¹ (o + s ε)`` of full covariance.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hvae.diagnostics import mixture, nested, proposals, units, usage
from hvae.diagnostics.draws import divergence
from hvae.diagnostics.information import information
from hvae.diagnostics.rates import rates
from hvae.evidence import HVAE
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.families import (
    Autoregressive,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Family,
    FullGaussian,
    MixtureGaussian,
    kl,
)
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional, Site
from hvae.posterior import NetworkPosterior
from tests.diagnostics.chains import holds, images, sampler
from tests.statistics import assert_mean

EXACT = {"atol": 1e-10, "rtol": 1e-10}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def twins(name: str, parent: str, n_in: int, n_out: int, seed: int, scale: float = 1.0) -> list[Conditional]:
    """One linear distribution twice: unit by unit, and by its Cholesky factor."""
    unit = DiagonalGaussian(n_out, variance="learned")
    one = Autoregressive(unit, 0, source=torch.Generator()).double()
    net, twin_net = nn.Linear(n_in, n_out).double(), nn.Linear(n_in, n_out).double()
    with torch.no_grad():
        one.direct.copy_(0.5 * normal(n_out, n_out, seed=seed))
        assert unit.log_variance is not None
        unit.log_variance.copy_(normal(n_out, seed=seed + 1) / 4)
        net.weight.copy_(scale * normal(n_out, n_in, seed=seed + 2))
        net.bias.copy_(0.3 * normal(n_out, seed=seed + 3))
        inverse = torch.linalg.inv(torch.eye(n_out).double() - one.direct * one.connect)
        twin_net.weight.copy_(inverse @ net.weight)
        twin_net.bias.copy_(inverse @ net.bias)
        tril = inverse * (unit.log_variance / 2).exp()
    other = FullGaussian(n_out, variance="fixed", scale_tril=tril)
    return [Conditional(name, [parent], net, one), Conditional(name, [parent], twin_net, other)]


def models(widths: Sequence[int] = (3, 3, 2)) -> list[HVAE]:
    """Widths (x, z1, z2), every distribution but those of z2's prior and x in both forms."""
    n_x, n_1, n_2 = widths
    first, second = twins("z1", "x", n_x, n_1, 10, 0.4), twins("z2", "z1", n_1, n_2, 20, 0.7)
    below = twins("z1", "z2", n_2, n_1, 30, 0.4)
    found = []
    for up1, up2, down1 in zip(first, second, below, strict=True):
        prior = DiagonalGaussian(n_2)
        root = Root(prior.standard_outputs().double(), learned=False)
        x = Conditional("x", ["z1"], nn.Linear(n_1, n_x).double(), DiagonalGaussian(n_x, variance="fixed"))
        with torch.no_grad():
            assert isinstance(x.net, nn.Linear)
            x.net.weight.copy_(normal(n_x, n_1, seed=40))
        decoder = BeliefNetwork([Conditional("z2", [], root, prior), down1, x])
        found.append(HVAE(decoder, NetworkPosterior(BeliefNetwork([up1, up2]))).double())
    return found


@torch.no_grad()
def test_pairs_are_scored_as_by_natural_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a term of the value alone; and cut into parts the scores are the same."""
    x = images(12, width=3)
    for name in ("z1", "z2"):
        rich, full = (sampler(model, x).paths(4, "raw")[name] for model in models())
        torch.testing.assert_close(rich.value, full.value, **EXACT)
        scores, exact = mixture.scorer(rich)(rich.value[0]), mixture.scorer(full)(rich.value[0])
        assert scores.shape == exact.shape == (12, 1 if name == "z1" else 4, 12)
        shift = (scores - exact).flatten(1)
        torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), **EXACT)
        monkeypatch.setattr(mixture, "PAIRS", 1)
        torch.testing.assert_close(mixture.scorer(rich)(rich.value[0]), scores, **EXACT)


@torch.no_grad()
def test_raw_bounds_are_those_of_the_twin_without_its_control(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (nested, mixture):
        monkeypatch.setattr(module, "controlled", lambda terms, control: terms)
    x = images(16, width=3)
    rich, full = (sampler(model, x).paths(8, "raw") for model in models())
    found, exact = mixture.bounds_of(rich["z2"]), mixture.bounds_of(full["z2"])
    for bound in ("parent_lower", "parent_upper", "datum_lower", "datum_upper"):
        assert getattr(found, bound) == pytest.approx(getattr(exact, bound), abs=1e-10), bound
    for one, other in zip(nested._known(rich["z1"]), nested._known(full["z1"]), strict=True):
        assert one == pytest.approx(other, abs=1e-10)
    assert found.divergence is None


def test_intervals_hold_the_information_of_the_population() -> None:
    """512 images of N(0, I) stand for all. The reference reads the twin's covariances, not the units' distributions."""
    rich, full = models((4, 3, 2))
    x, eye = images(512, width=4), torch.eye(4, dtype=torch.float64)
    joint = LinearGaussian.of_posterior(full.decoder, full.posterior, torch.zeros(4), eye)
    found = information(sampler(rich, x), epsilon=0.1, max_paths=32)
    for name, parent in (("z1", "x"), ("z2", "z1")):
        assert holds(found[name].about_datum, joint.mutual_information(["x"], [name])), name
        assert holds(found[name].from_parent, joint.mutual_information([parent], [name])), name
    assert found["z2"].from_parent[0] > 1


@torch.no_grad()
def test_the_classifier_of_draws_bounds_information_from_below() -> None:
    """Fitted to draws, it sees no path that it judges: in the mean no more than what the twin's distributions know."""
    rich, full = models()
    found = []
    for seed in range(150):
        x = images(16, width=3)
        site, twin = (sampler(model, x, seed).paths(8, "raw")["z2"] for model in (rich, full))
        found.append(mixture.bounds_of(site).classified.mean() - mixture.bounds_of(twin).datum_upper.mean())
    error = np.std(found, ddof=1) / len(found) ** 0.5
    assert np.mean(found) < -4 * error


@torch.no_grad()
def test_divergences_by_draws_have_the_closed_form_for_their_mean() -> None:
    rich, full = (model.posterior.network["z1"] for model in models())  # type: ignore[union-attr, index]
    x = images(1, width=3).unsqueeze(0)
    distribution, closed = rich({"x": x}), full({"x": x})
    kin = rich.family.kin
    value = rich.family.draw(distribution, normal(40_000, 1, 3, seed=5))
    terms = divergence(Site(value, distribution, rich.family), Site(value, kin.standard(value), kin))
    expected = kl(closed, full.family.standard(value)).item()
    assert_mean(terms[:, 0].numpy(), expected, detect=0.2)
    both = Site(value, closed, full.family), Site(value, full.family.standard(value), full.family)
    assert divergence(*both).item() == pytest.approx(expected, abs=1e-10)  # no draw has a part in it


def test_standard_distributions_are_scored_by_kin() -> None:
    source = torch.Generator().manual_seed(0)
    categorical = Autoregressive(Categorical(2, 3), 2, source=source)
    value = torch.eye(3)[torch.tensor([[0, 2], [1, 1]])].flatten(-2)
    scores = categorical.kin.log_prob(categorical.kin.standard(value), value)
    torch.testing.assert_close(scores, torch.full((2,), -2 * np.log(3)))
    for family in (MixtureGaussian(2, 3), FullGaussian(2), Autoregressive(DiagonalGaussian(2), 2, source=source)):
        scores = family.kin.log_prob(family.kin.standard(torch.zeros(1, 2)), torch.zeros(1, 2))
        torch.testing.assert_close(scores, torch.tensor([-np.log(2 * np.pi)]).float())


@torch.no_grad()
def test_rates_and_reading_agree_with_the_twin() -> None:
    x = images(400, width=3)
    found = []
    for model in models():
        here = sampler(model, x)
        evidence = here.evidence(32, "diagnostics")
        terms = {name: rates(evidence, name) for name in ("z1", "z2")}
        found.append((terms, usage.use(here, evidence), evidence))
    (rich, reading, evidence), (full, read, _) = found
    for name in ("z1", "z2"):
        assert rich[name]["rate_nats"] == pytest.approx(full[name]["rate_nats"], abs=1e-10)
        truth = full[name]["kl_standard_nats"]
        assert_mean(rich[name]["kl_standard_nats"] - truth, 0, detect=0.2 * truth.mean())
    assert reading["z1"] == pytest.approx(read["z1"], abs=1e-10)  # x has a closed form in both
    assert_mean(reading["z2"] - read["z2"], 0, detect=0.3 * read["z2"].mean())
    assert units.collapse_reference(evidence, "z2") == "aggregate"


FLAT: dict[str, Family] = {
    "coins": Autoregressive(Bernoulli(3), 4, source=torch.Generator().manual_seed(1)).double(),
    "plain Bernoulli units": Bernoulli(3),
}


@pytest.mark.parametrize("name", FLAT)
@torch.no_grad()
def test_the_flat_copy_of_bernoulli_is_a_distribution(name: str) -> None:
    family = FLAT[name]
    for i, weight in enumerate(family.parameters()):
        weight.copy_(normal(*weight.shape, seed=i))
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).double()
    distribution = family.distribution(3 * normal(1, family.n_outputs))
    flat = proposals._flat_log_prob(Site(states, distribution, family), 1.3).exp()
    assert float(flat.sum()) == pytest.approx(1, abs=1e-10)
    probability = family.log_prob(distribution, states).exp()
    entropies = [float(-(p * p.log()).sum()) for p in (probability, flat)]
    assert entropies[1] > entropies[0] + 0.1


@torch.no_grad()
def test_the_flat_copy_of_a_gaussian_has_grown_noise() -> None:
    rich, full = (model.posterior.network["z1"] for model in models())  # type: ignore[union-attr, index]
    x, noise = images(2, width=3).unsqueeze(0), normal(5, 2, 3, seed=6)
    distribution, other = rich({"x": x}), full({"x": x})
    site = Site(rich.family.draw(distribution, noise), distribution, rich.family)
    grown = torch.distributions.MultivariateNormal(other.mean, scale_tril=1.3 * other.scale_tril)
    torch.testing.assert_close(proposals._flat_log_prob(site, 1.3), grown.log_prob(site.value), **EXACT)
    drawn = proposals._flat_draw(site, noise, 1.3)
    torch.testing.assert_close(drawn - other.mean, 1.3 * (site.value - other.mean), **EXACT)

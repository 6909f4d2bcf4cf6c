"""Flat models of others: conditional, mixture priors, flows, discrete codes, missing data.

Tolerances are the errors in float32 that were seen when the models were first tried: rounding of sums of tens of nats.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    OneHotCategorical,
    RelaxedOneHotCategorical,
    Transform,
    TransformedDistribution,
    constraints,
)

import hvae
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.information import information
from hvae.diagnostics.rates import rates
from hvae.errors import NotMeasuredError
from hvae.likelihood import log_likelihood_curve
from tests.foreign.authors import coins, error, error_of, gaussian, stacked, weighed

N, D, P = 11, 4, 9


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return (torch.rand(N, P) > 0.5).float()


def stats(net: nn.Module, *given: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_scale = net(torch.cat(given, -1)).chunk(2, -1)
    return mean, (0.5 * log_scale).exp()


def infer_z(visit: Any) -> None:
    visit("z", Normal(*visit.code))


def test_c_a_conditional_vae(x: Tensor) -> None:
    """The label is a context: encoder, decoder and prior read it, and it is no observation."""
    encoder, decoder, prior = nn.Linear(P + 3, 2 * D), nn.Linear(D + 3, P), nn.Linear(3, 2 * D)
    y = nn.functional.one_hot(torch.arange(N) % 3, 3).float()

    def generate(visit: Any) -> None:
        z = visit("z", Normal(*stats(prior, visit.context)))
        visit("x", Bernoulli(logits=decoder(torch.cat([z, visit.context], -1))))

    def author(values: Any, i: int) -> Tensor:
        z = values["z"]
        log_p = coins(x[i], decoder(torch.cat([z, y[i]]))) + gaussian(z, *stats(prior, y[i]))
        return log_p - gaussian(z, *stats(encoder, x[i], y[i]))

    model = hvae.Model(infer_z, generate, encode=lambda x, y: stats(encoder, x, y))
    assert error_of(model, {"x": x}, author, y) <= 2.1e-6


class Masked(nn.Module):
    """Shifts and log-scales of each unit, from the units before it alone."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.scale = nn.Parameter(torch.randn(D, D).tril(-1)), nn.Parameter(torch.randn(D, D).tril(-1))
        self.of_x = nn.Linear(P, D)

    def forward(self, e: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h = e.tanh()
        return h @ self.shift.T + self.of_x(x), (h @ self.scale.T).tanh()


class InverseAutoregressive(Transform):
    """Kingma et al. 2016, as it is often written: no inverse, as training scores its own draws only."""

    domain = codomain = constraints.independent(constraints.real, 1)
    bijective = True

    def __init__(self, net: Masked, x: Tensor, cache_size: int = 1) -> None:
        super().__init__(cache_size=cache_size)
        self.net, self.x = net, x

    def _call(self, e: Tensor) -> Tensor:
        shift, log_scale = self.net(e, self.x)
        return e * log_scale.exp() + shift

    def log_abs_det_jacobian(self, e: Tensor, _: Tensor) -> Tensor:
        return self.net(e, self.x)[1].sum(-1)


def by_jacobian(net: Masked, x: Tensor, z: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """log q(z|x) of a flow that has no inverse: e unit by unit, and the log-determinant of its whole Jacobian."""
    e = torch.zeros(D)
    for unit in range(D):
        shift, log_scale = net(e, x)
        e = e.clone()
        e[unit] = ((z - shift) / log_scale.exp())[unit]

    def push(e: Tensor) -> Tensor:
        shift, log_scale = net(e, x)
        return e * log_scale.exp() + shift

    jacobian = torch.autograd.functional.jacobian(push, e)
    return gaussian(e, mean, scale) - torch.linalg.slogdet(jacobian).logabsdet


def flow(x: Tensor, infer: Any, net: Masked) -> tuple[hvae.Model, Any]:
    """The rest of both flows: a model, and its author."""
    encoder, decoder = nn.Linear(P, 2 * D), nn.Linear(D, P)

    def generate(visit: Any) -> None:
        visit("x", Bernoulli(logits=decoder(visit("z", Normal(torch.zeros(D), 1.0)))))

    def author(values: Any, i: int) -> Tensor:
        z = values["z"]
        log_q = by_jacobian(net, x[i], z, *stats(encoder, x[i]))
        return coins(x[i], decoder(z)) + gaussian(z, torch.zeros(D), 1.0) - log_q

    return hvae.Model(infer, generate, encode=lambda x: (*stats(encoder, x), x)), author


def test_d_a_flow_without_inverse(x: Tensor) -> None:
    """Its own draws are scored; what needs the density of another value is refused, and nothing else is."""
    net = Masked()

    def infer(visit: Any) -> None:
        mean, scale, x = visit.code
        visit("z", TransformedDistribution(Independent(Normal(mean, scale), 1), [InverseAutoregressive(net, x)]))

    model, author = flow(x, infer, net)
    stack = stacked(model, {"x": x})
    assert error(weighed(stack), author) <= 2.4e-6
    scored_only(stack)


def scored_only(stack: Any) -> None:
    """Rates, ELBO and L_K of a q that scores its own draws only; information by a sentence that names the variable."""
    sampler = Sampler(stack, stack.numbers, seed=0)
    with torch.no_grad():
        assert all(abs(values).max() < 100 for values in rates(sampler.evidence(4, "test"), "z").values())
        assert log_likelihood_curve(stack, stack.numbers, (1, 8), seed=0).bound_datum_nats.shape[0] == 2
    with pytest.raises(NotMeasuredError, match="cannot score a value that it did not draw"):
        information(sampler, epsilon=0.1, max_paths=16)
    with pytest.raises(NotMeasuredError, match=r"^z: .*cannot score a value that it did not draw"):
        stack(stack.numbers.unsqueeze(0), {}, {"z": torch.zeros(1, N, D)})


def test_l_a_flow_as_nvae_writes_it(x: Tensor) -> None:
    """``z, log_det = cell(e, x)``: no Transform, no inverse."""
    net = Masked()

    def cell(e: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = net(e, x)
        return e * log_scale.exp() + shift, log_scale

    def infer(visit: Any) -> None:
        mean, scale, x = visit.code
        visit("z", hvae.pushed(Normal(mean, scale), lambda e: cell(e, x)))

    model, author = flow(x, infer, net)
    stack = stacked(model, {"x": x})
    assert error(weighed(stack), author) <= 2.4e-6
    scored_only(stack)


def test_l_a_flow_with_its_inverse_is_measured_whole(x: Tensor) -> None:
    """`pull` gives what `pushed` lacks: information, and the density of given values."""
    encoder, decoder = nn.Linear(P, 2 * D), nn.Linear(D, P)

    def infer(visit: Any) -> None:
        push = lambda e: (e.sinh(), e.cosh().log())  # noqa: E731
        pull = lambda z: (z.asinh(), z.asinh().cosh().log())  # noqa: E731
        visit("z", hvae.pushed(Normal(*visit.code), push, pull))

    def generate(visit: Any) -> None:
        visit("x", Bernoulli(logits=decoder(visit("z", Normal(torch.zeros(D), 1.0)))))

    def author(values: Any, i: int) -> Tensor:
        z = values["z"]
        log_q = gaussian(z.asinh(), *stats(encoder, x[i])) - 0.5 * (1 + z**2).log().sum()
        return coins(x[i], decoder(z)) + gaussian(z, torch.zeros(D), 1.0) - log_q

    stack = stacked(hvae.Model(infer, generate, encode=lambda x: stats(encoder, x)), {"x": x})
    drawn = weighed(stack)
    assert error(drawn, author) <= 2e-5  # at 60 nats
    given = {"z": drawn.q["z"].value}
    with torch.no_grad():
        again = stack(stack.numbers.unsqueeze(0), {}, given)
    torch.testing.assert_close(again.log_weight, drawn.log_weight, rtol=0, atol=1e-4)
    carried = information(Sampler(stack, stack.numbers, seed=0), epsilon=0.1, max_paths=16)
    assert 0 <= carried["z"].about_datum[0] <= carried["z"].about_datum[2] <= 2.4  # log 11


def test_e_a_vampprior(x: Tensor) -> None:
    """Tomczak and Welling 2018: the prior is the mixture of q at five learned images, and has no row axis."""
    encoder, decoder, pseudo = nn.Linear(P, 2 * D), nn.Linear(D, P), torch.rand(5, P)

    def generate(visit: Any) -> None:
        parts = Independent(Normal(*stats(encoder, pseudo)), 1)
        z = visit("z", MixtureSameFamily(Categorical(logits=torch.zeros(5)), parts))
        visit("x", Bernoulli(logits=decoder(z)))

    def author(values: Any, i: int) -> Tensor:
        z = values["z"]
        parts = torch.stack([gaussian(z, *stats(encoder, image)) for image in pseudo])
        return coins(x[i], decoder(z)) + (parts.exp().sum() / 5).log() - gaussian(z, *stats(encoder, x[i]))

    model = hvae.Model(infer_z, generate, encode=lambda x: stats(encoder, x))
    assert error_of(model, {"x": x}, author) <= 2.5e-6


@pytest.mark.parametrize("groups", [1, 3])
def test_f_one_hot_codes_at_test_time(x: Tensor, groups: int) -> None:
    """Groups of four states, and a prior without rows; at one group the prior may be written without its axis."""
    encoder, decoder, prior = nn.Linear(P, groups * 4), nn.Linear(groups * 4, P), torch.randn(groups, 4)

    def infer(visit: Any) -> None:
        visit("z", OneHotCategorical(logits=visit.code.view(-1, groups, 4)))

    def generate(visit: Any) -> None:
        z = visit("z", OneHotCategorical(logits=prior))
        assert z.shape == (visit.rows, groups, 4) and ((z == 0) | (z == 1)).all()
        visit("x", Bernoulli(logits=decoder(z.flatten(1))))

    def author(values: Any, i: int) -> Tensor:
        z, logits = values["z"].view(groups, 4), encoder(x[i]).view(groups, 4)
        total = coins(x[i], decoder(z.flatten()))
        for group in range(groups):
            state = int(z[group].argmax())
            total = total + prior[group].log_softmax(-1)[state] - logits[group].log_softmax(-1)[state]
        return total

    assert error_of(hvae.Model(infer, generate, encode=encoder), {"x": x}, author) <= 1.8e-6


def test_f_relaxed_codes_as_in_training(x: Tensor) -> None:
    """Concrete distributions on both sides (Maddison et al. 2017): densities on the simplex, and no mean."""
    encoder, decoder, heat = nn.Linear(P, 4), nn.Linear(4, P), torch.tensor(0.7)

    def infer(visit: Any) -> None:
        visit("z", RelaxedOneHotCategorical(heat, logits=visit.code))

    def generate(visit: Any) -> None:
        z = visit("z", RelaxedOneHotCategorical(heat, logits=torch.zeros(4)))
        visit("x", Bernoulli(logits=decoder(z)))

    def density(z: Tensor, logits: Tensor) -> Tensor:
        """Maddison et al. 2017, equation 22."""
        powers = logits.log_softmax(-1) - heat * z.log()
        front = torch.tensor(6.0).log() + 3 * heat.log()
        return front + (powers - z.log()).sum() - 4 * powers.logsumexp(-1)

    def author(values: Any, i: int) -> Tensor:
        z = values["z"]
        return coins(x[i], decoder(z)) + density(z, torch.zeros(4)) - density(z, encoder(x[i]))

    stack = stacked(hvae.Model(infer, generate, encode=encoder), {"x": x})
    evidence = weighed(stack)
    assert error(evidence, author) <= 1e-5  # two densities near the corners of the simplex
    with pytest.raises(NotMeasuredError, match="no mean"):
        _ = evidence.q["z"].mean


def test_g_one_gaussian_over_two_layers(x: Tensor) -> None:
    """A full covariance over (z1, z2): by the chain rule, or as one variable, against the density of both at once."""
    encoder, decoder, upper = nn.Linear(P, 4 + 16), nn.Linear(2, P), nn.Linear(2, 2)

    def joint(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, root = encoder(x).split([4, 16], -1)
        root = root.reshape(*root.shape[:-1], 4, 4).tril()
        return mean, root @ root.mT + 0.5 * torch.eye(4)

    def chain(visit: Any) -> None:
        """q(z2), then q(z1 | z2): the blocks of the covariance."""
        mean, covariance = visit.code
        lower, cross, top = covariance[:, :2, :2], covariance[:, :2, 2:], covariance[:, 2:, 2:]
        z2 = visit("z2", torch.distributions.MultivariateNormal(mean[:, 2:], top))
        slope = cross @ top.inverse()
        moved = mean[:, :2] + (slope @ (z2 - mean[:, 2:]).unsqueeze(-1)).squeeze(-1)
        visit("z1", torch.distributions.MultivariateNormal(moved, lower - slope @ cross.mT))

    def generate_two(visit: Any) -> None:
        z2 = visit("z2", Normal(torch.zeros(2), 1.0))
        visit("x", Bernoulli(logits=decoder(visit("z1", Normal(upper(z2), 0.7)))))

    def one(visit: Any) -> None:
        visit("z", torch.distributions.MultivariateNormal(*visit.code))

    def generate_one(visit: Any) -> None:
        z2_z1 = hvae.law(lambda z: chained(z).sum(-1))
        visit("x", Bernoulli(logits=decoder(visit("z", z2_z1)[:, :2])))

    def chained(z: Tensor) -> Tensor:
        z1, z2 = z.chunk(2, -1)
        return Normal(0.0, 1.0).log_prob(z2) + Normal(upper(z2), 0.7).log_prob(z1)

    def author(values: Any, i: int) -> Tensor:
        z = values["z"] if "z" in values else torch.cat([values["z1"], values["z2"]])
        mean, covariance = joint(x[i])
        distance = (z - mean) @ covariance.inverse() @ (z - mean)
        log_q = -0.5 * (distance + torch.linalg.slogdet(6.283185307179586 * covariance).logabsdet)
        log_p = gaussian(z[2:], torch.zeros(2), 1.0) + gaussian(z[:2], upper(z[2:]), 0.7) + coins(x[i], decoder(z[:2]))
        return log_p - log_q

    assert error_of(hvae.Model(chain, generate_two, encode=joint), {"x": x}, author) <= 3.0e-6
    assert error_of(hvae.Model(one, generate_one, encode=joint), {"x": x}, author) <= 2.4e-6


def test_m_missing_data(x: Tensor) -> None:
    """Mattei and Frellsen 2019 (MIWAE): NaN where nothing was seen; those entries have no density."""
    torch.manual_seed(1)
    whole = torch.randn(N, P)
    seen = torch.rand(N, P) > 0.4
    with_holes = torch.where(seen, whole, torch.nan)
    encoder, decoder = nn.Linear(P, 2 * D), nn.Linear(D, 2 * P)

    def generate(visit: Any) -> None:
        z = visit("z", Normal(torch.zeros(D), 1.0))
        visit("x", hvae.masked(Normal(*stats(decoder, z)), visit.context, fill=float("nan")))

    def author(values: Any, i: int) -> Tensor:
        """The seen entries alone."""
        z = values["z"]
        mean, scale = stats(decoder, z)
        log_p = gaussian(whole[i][seen[i]], mean[seen[i]], scale[seen[i]]) + gaussian(z, torch.zeros(D), 1.0)
        return log_p - gaussian(z, *stats(encoder, whole[i] * seen[i]))

    model = hvae.Model(infer_z, generate, encode=lambda x, seen: stats(encoder, x.nan_to_num()))
    assert error_of(model, {"x": with_holes}, author, seen) <= 7.7e-6

    stack = stacked(model, {"x": with_holes}, seen)  # a drawn x has its holes where the datum had
    noise = hvae.noise(stack.decoder.noise_specs(), 1, N, seed=0, purpose="test")
    with torch.no_grad():
        numbers = stack.decoder.walk({}, noise)["x"].value.flatten().long()
    assert torch.equal(stack.functions.shelf.values("x", numbers).isnan(), ~seen)

"""What a model's distributions cannot give is refused by name, and nothing else breaks; shapes that coincide."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Cauchy,
    Distribution,
    Independent,
    Laplace,
    Normal,
    StudentT,
    Uniform,
)

import hvae
from hvae.diagnostics import rates
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.information import information
from hvae.diagnostics.usage import use
from hvae.errors import ConfigError, NotMeasuredError
from hvae.foreign import Model, Stack
from hvae.likelihood import log_likelihood_curve
from tests.foreign.authors import stacked, weighed

N, P, D = 12, 4, 3


def data(*event: int) -> Tensor:
    return torch.randn(N, *event, generator=torch.Generator().manual_seed(0))


def flat(q: Any, p: Any, x: Any = None) -> Model:
    """z of ``q(code)`` under the prior ``p()``; x of ``x(visit, z)``, by default Gaussian around the sum of z."""

    def infer(visit: Any) -> None:
        visit("z", q(visit.code))

    def generate(visit: Any) -> None:
        z = visit("z", p())
        law = Normal(z.flatten(1).sum(-1, keepdim=True).expand(-1, P), 1.0) if x is None else x(visit, z)
        visit("x", law)

    return Model(infer, generate)


def everything_else(stack: Stack, *, u: bool = True) -> Any:
    """Rates, bounds and use."""
    sampler = Sampler(stack, stack.numbers, seed=0)
    with torch.no_grad():
        evidence = sampler.evidence(4, "test")
        assert all(values.shape[-1] == N for values in rates.rates(evidence, "z").values())
        assert log_likelihood_curve(stack, stack.numbers, (1, 4), seed=0).bound_datum_nats.shape == (2, N)
        if u:
            assert use(sampler, evidence)
    return sampler


@pytest.mark.parametrize("law", [Cauchy, lambda loc, scale: StudentT(0.9, loc, scale)])
def test_a_distribution_without_mean(law: Any) -> None:
    stack = stacked(flat(lambda x: law(x[:, :D], 0.5), lambda: Normal(torch.zeros(D), 1.0)), {"x": data(P)})
    with pytest.raises(NotMeasuredError, match="no finite mean"):
        _ = weighed(stack).q["z"].mean
    sampler = everything_else(stack)
    carried = information(sampler, epsilon=0.1, max_paths=16)["z"].about_datum
    assert 0 <= carried[0] <= carried[2] < float("inf")  # of images at large: log n does not bound it


def test_a_categorical_index_has_no_mean_and_is_long() -> None:
    def x(visit: Any, z: Tensor) -> Distribution:
        assert z.dtype == torch.long and z.shape == (visit.rows,)
        return Normal(z.unsqueeze(-1).float().expand(-1, P), 1.0)

    model = flat(lambda x: Categorical(logits=x), lambda: Categorical(logits=torch.zeros(P)), x)
    stack = stacked(model, {"x": data(P)})
    with pytest.raises(NotMeasuredError, match="Categorical has no"):
        _ = weighed(stack).q["z"].mean
    assert not stack.decoder.has_mean("z")
    everything_else(stack)


def test_two_functions_without_sample() -> None:
    """x of `hvae.law` without ``sample`` is scored; drawing it is refused."""
    model = flat(
        lambda x: Normal(x[:, :D], 1.0),
        lambda: Normal(torch.zeros(D), 1.0),
        lambda visit, z: hvae.law(lambda x: Normal(z.sum(-1, keepdim=True), 1.0).log_prob(x).sum(-1)),
    )
    stack = stacked(model, {"x": data(P)})
    everything_else(stack, u=False)
    noise = hvae.noise(stack.decoder.noise_specs(), 1, N, seed=0, purpose="test")
    with pytest.raises(NotMeasuredError, match=r"^x: hvae.law was given no function that draws"):
        stack.decoder.walk({}, noise)


def test_two_functions_without_sample_are_no_q() -> None:
    model = flat(lambda x: hvae.law(lambda z: -z.square().sum(-1)), lambda: Normal(torch.zeros(D), 1.0))
    with pytest.raises(NotMeasuredError, match=r"^z: hvae.law was given no function that draws"):
        stacked(model, {"x": data(P)})


def test_two_functions_as_q() -> None:
    """Drawn under a seed, scored by the user's own function; its moments are unknown."""

    def q(code: Tensor) -> Distribution:
        own = Normal(code[:, :D], 0.5)
        return hvae.law(lambda z: own.log_prob(z).sum(-1), own.sample)

    stack = stacked(flat(q, lambda: Normal(torch.zeros(D), 1.0)), {"x": data(P)})
    assert torch.equal(weighed(stack).log_weight, weighed(stack).log_weight)
    everything_else(stack)
    with pytest.raises(NotMeasuredError, match="Law has no mean"):
        _ = weighed(stack).q["z"].mean


@pytest.mark.parametrize("where", ["infer", "generate"])
def test_a_negative_scale_is_one_line_with_the_name(where: str) -> None:
    """torch's own message has thousands of characters and no name."""
    bad, good = (
        (lambda x: Normal(x[:, :D], -torch.ones(len(x), D), validate_args=True)),
        (lambda x: Normal(x[:, :D], 1.0)),
    )
    model = flat(
        bad if where == "infer" else good,
        lambda: Normal(torch.zeros(D), 1.0),
        lambda visit, z: Normal(z.sum(-1, keepdim=True).expand(-1, P), -1.0, validate_args=True),
    )
    place = "infer, before its first visit" if where == "infer" else "generate, after z"
    with pytest.raises(ConfigError, match=rf"^{place}: ValueError: Expected parameter scale") as refusal:
        stacked(model, {"x": data(P)})
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 300


@pytest.mark.parametrize("prior", ["scalar", "units", "Independent"])
@pytest.mark.parametrize("d", [1, 3, 8, 11, 16])
def test_a_prior_without_row_axis_whatever_its_width(prior: str, d: int) -> None:
    """As many units as rows of a first walk, or as data, is no row axis."""
    priors = {
        "scalar": lambda: Normal(torch.tensor(0.0), 1.0),
        "units": lambda: Laplace(torch.zeros(d), 1.0),
        "Independent": lambda: Independent(Laplace(torch.zeros(d), torch.ones(d)), 1),
    }
    x = torch.randn(16, 20, generator=torch.Generator().manual_seed(0))
    model = flat(
        lambda code: Normal(code[:, :d], 0.5),
        priors[prior],
        lambda visit, z: Normal(z.sum(-1, keepdim=True).expand(-1, 20), 1.0),
    )

    for n in (3, 8, 11, 16):
        evidence = weighed(stacked(model, {"x": x[:n]}))
        z = evidence.q["z"].value
        assert z.shape == (4, n, d)
        own = priors[prior]().log_prob(z)
        own = own if prior == "Independent" else own.sum(-1)
        torch.testing.assert_close(evidence.p["z"].log_prob.float(), own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("event", [(), (1,), (5,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("law", [Normal, Laplace])
def test_events_of_any_shape(event: tuple[int, ...], law: Any) -> None:
    """Scalars, vectors, maps: of families of the house and of torch, as latents and as data."""
    x = data(*event)

    def seen(visit: Any, z: Tensor) -> Distribution:
        assert z.shape == (visit.rows, *event)
        return law(z, 1.0)

    evidence = weighed(stacked(flat(lambda x: law(x, 0.5), lambda: law(torch.zeros(event), 1.0), seen), {"x": x}))
    z = evidence.q["z"].value.reshape(4, N, *event)
    terms = law(z, 1.0).log_prob(x) + law(0.0, 1.0).log_prob(z) - law(x, 0.5).log_prob(z)
    torch.testing.assert_close(evidence.log_weight.float(), terms.reshape(4, N, -1).sum(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("law", [Normal, Laplace])
@pytest.mark.parametrize(("own", "event"), [((1,), ()), ((), (1,)), ((P, 1), (P,)), ((1, P), (P,))])
def test_shapes_that_torch_would_broadcast_to_all_pairs(law: Any, own: tuple[int, ...], event: tuple[int, ...]) -> None:
    """``[rows, 1]`` against ``[rows]`` gives ``[rows, rows]`` in torch, and a silent sum over all data."""
    model = flat(
        lambda x: Normal(torch.zeros(len(x), 1), 1.0),
        lambda: Normal(torch.zeros(1), 1.0),
        lambda visit, z: law(torch.zeros(visit.rows, *own), 1.0),
    )
    with pytest.raises(ConfigError, match="both must agree"):
        stacked(model, {"x": data(*event)})


def test_one_parameter_for_all_units_of_a_row() -> None:
    """``[rows, 1]`` against values ``[rows, D]`` is what torch makes of it: the same for each unit."""
    for law in (Normal, Laplace):
        model = flat(
            lambda x: Normal(x[:, :1], 1.0), lambda: Normal(torch.zeros(1), 1.0), lambda visit, z, law=law: law(z, 1.0)
        )
        evidence = weighed(stacked(model, {"x": data(P)}))
        own = law(evidence.q["z"].value, 1.0).log_prob(data(P)).sum(-1)
        torch.testing.assert_close(evidence.p["x"].log_prob.float(), own, rtol=1e-5, atol=1e-5)


def test_two_latents_in_one_visit() -> None:
    def infer(visit: Any) -> None:
        visit(("z1", "z2"), Normal(visit.code, 1.0))

    with pytest.raises(ConfigError, match="z1 and z2 are drawn together by q: visit them one after the other"):
        stacked(Model(infer, lambda visit: None), {"x": data(P)})


def test_supports_that_differ_between_data() -> None:
    """A value of another datum has density 0 here, where torch would raise; the user's distribution still validates."""
    apart = 10.0 * torch.arange(N).unsqueeze(-1).expand(-1, P)
    made = []

    def q(x: Tensor) -> Distribution:
        made.append(Uniform(x[:, :1], x[:, :1] + 1))
        return made[-1]

    stack = stacked(flat(q, lambda: Normal(torch.zeros(1), 100.0)), {"x": apart})
    carried = information(everything_else(stack), epsilon=0.1, max_paths=16)["z"].about_datum
    assert abs(carried[1] - torch.tensor(float(N)).log()) < 1e-6
    assert "_validate_args" not in vars(made[-1])
    with pytest.raises(ValueError, match="to be within the support"):
        made[-1].log_prob(torch.full((1,), -1.0))

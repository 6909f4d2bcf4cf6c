"""From the door to the verdict: what `diagnose` says of models whose distributions, data or nets are unusual."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Distribution,
    Exponential,
    Gamma,
    Geometric,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    Normal,
    Poisson,
    StudentT,
)

import hvae
from hvae.foreign.stack import Stack

SIZES = hvae.Sizes(n_images=48, max_paths=16, n_mixture=1, n_paths=4, n_paths_use=2, n_paths_knockout=2,
                   n_likelihood=48, n_samples=10, n_pictures=4)  # fmt: skip


def flat(q: Callable[[Tensor], Distribution], p: Callable[[int], Distribution], d: int, **parts: Any) -> hvae.Model:
    def infer(visit: Any) -> None:
        visit("z", q(visit.code))

    def generate(visit: Any) -> None:
        z = visit("z", p(d))
        visit("x", Normal(z.float() / 2, 1.0))

    return hvae.Model(infer, generate, **parts)


ones = torch.ones
LAWS: dict[str, tuple[Callable[[Tensor], Distribution], Callable[[int], Distribution]]] = {
    "Laplace": (lambda x: Laplace(x, 1.0), lambda d: Laplace(torch.zeros(d), 1.0)),
    "Student": (lambda x: StudentT(5.0, x, 1.0), lambda d: StudentT(5.0, torch.zeros(d), 1.0)),
    "Gamma": (lambda x: Gamma(2 + x.abs(), 1.0), lambda d: Gamma(2 * ones(d), 1.0)),
    "Beta": (lambda x: Beta(2 + x.abs(), 2.0), lambda d: Beta(2 * ones(d), 2.0)),
    "Poisson": (lambda x: Poisson(1 + x.abs()), lambda d: Poisson(ones(d))),
    "log-normal": (lambda x: LogNormal(x / 4, 1.0), lambda d: LogNormal(torch.zeros(d), 1.0)),
    "Exponential": (lambda x: Exponential(1 + x.abs()), lambda d: Exponential(ones(d))),
    "Geometric": (lambda x: Geometric(logits=x), lambda d: Geometric(logits=torch.zeros(d))),
    "index": (
        lambda x: Categorical(logits=torch.stack([x, -x, 0 * x], -1)),
        lambda d: Categorical(logits=torch.zeros(d, 3)),
    ),
    "mixture": (
        lambda x: Normal(x, 1.0),
        lambda d: MixtureSameFamily(Categorical(logits=torch.zeros(d, 2)), Normal(torch.zeros(d, 2), 1.0)),
    ),
}


@pytest.mark.parametrize("d", [3, 16])
@pytest.mark.parametrize("name", LAWS)
def test_every_distribution_reaches_a_verdict(name: str, d: int) -> None:
    """Also where the prior has no rows and as many units as a look or a block has rows."""
    q, p = LAWS[name]
    found = hvae.diagnose(flat(q, p, d), torch.randn(60, d), sizes=SIZES, progress=False, max_rows=max(d, 16))
    (layer,) = found.layers
    assert layer.verdict[0, 1] in ("active", "undecided", "coded but unread", "collapsed to a constant")
    assert found.likelihood is not None and torch.tensor(found.likelihood.best).isfinite().all()
    for (_, quantity), reason in ((key[::-1], text) for key, text in found.not_measured.items()):
        assert reason and quantity
    assert "rate_nats" in layer.intervals and "reading_nats" in layer.intervals


def test_a_prior_without_rows_draws_for_each_row() -> None:
    """The knock-out of a rowless Student prior is that of the same prior written out, also where D is the rows."""
    x = torch.randn(16, 8)
    lost = []
    for prior in (lambda _: StudentT(5.0, torch.zeros(8), 1.0), lambda rows: StudentT(5.0, torch.zeros(rows, 8), 1.0)):

        def infer(visit: Any) -> None:
            visit("z", Normal(visit.code, 0.5))

        def generate(visit: Any, prior: Any = prior) -> None:
            visit("x", Normal(visit("z", prior(visit.rows)), 0.5))

        model = hvae.Model(infer, lambda visit, g=generate: g(visit))
        lost.append(hvae.diagnose(model, x, sizes=SIZES, progress=False, max_rows=8).layers[0])
    for quantity in ("knockout_encoder_nats", "knockout_whole_nats", "knockout_clamped_nats", "reading_nats"):
        assert lost[0].interval(quantity).tolist() == lost[1].interval(quantity).tolist()


def test_all_data_are_looked_at_not_the_first_rows() -> None:
    x = torch.bernoulli(torch.full((48, 3), 0.5))

    def infer(visit: Any) -> None:
        visit("z", Normal(visit.code, 1.0))

    def generate(visit: Any) -> None:
        visit("x", Bernoulli(logits=visit("z", Normal(torch.zeros(3), 1.0)), validate_args=False))

    for place, wrong in itertools.product(range(0, 48, 5), (255.0, float("nan"), float("inf"))):
        bad = x.clone()
        bad[place, 1] = wrong
        with pytest.raises(hvae.ConfigError, match=r"outside the support|not finite|missing values|invalid values"):
            hvae.diagnose(hvae.Model(infer, generate), bad, sizes=SIZES, progress=False)


def test_a_net_of_half_precision_rounds_no_data() -> None:
    """x lies within 0.01 of 3, where bfloat16 has steps of 0.016: scored as given, by a density of deviation 0.003."""
    net = nn.Linear(4, 2).bfloat16()
    x = 3 + 0.003 * torch.randn(60, 4)

    def infer(visit: Any) -> None:
        visit("z", Normal(net(visit.code), 1.0))

    def generate(visit: Any) -> None:
        visit("z", Normal(torch.zeros(2), 1.0))
        visit("x", Normal(torch.full((visit.rows, 4), 3.0), 0.003))

    stack = Stack.of(hvae.Model(infer, generate, module=net), {"x": x}, seen_as=torch.bfloat16)
    with torch.no_grad():
        drawn = hvae.noise(stack.noise_specs(), 2, 60, seed=0, purpose="test")
        evidence = stack(stack.numbers.unsqueeze(0), drawn)
    right = Normal(3.0, 0.003).log_prob(x).sum(-1)
    torch.testing.assert_close(-evidence.distortion[0].float(), right, rtol=1e-4, atol=1e-3)
    found = hvae.diagnose(hvae.Model(infer, generate, module=net), x, sizes=SIZES, progress=False)
    assert found.verdicts["z"][0] != "failed"


def test_whole_numbers_under_a_density_are_measured_as_numbers() -> None:
    """The contexts are not shared, so U takes data that the decoder draws, which are fractions, also below 0."""
    x = torch.randint(0, 256, (60, 3))

    def infer(visit: Any) -> None:
        visit("z", Normal((visit.code.float() - 128) / 100, 0.5))

    def generate(visit: Any) -> None:
        visit("x", Normal(100 * visit("z", Normal(torch.zeros(3), 1.0)) + 128, 80.0))

    found = [
        hvae.diagnose(hvae.Model(infer, generate), x.to(kind), torch.arange(60.0), sizes=SIZES, progress=False)
        for kind in (torch.uint8, torch.int64, torch.float32)
    ]
    uses = [each.layers[0].interval("reading_nats") for each in found]
    assert uses[0] == pytest.approx(uses[2], rel=1e-5) and uses[1] == pytest.approx(uses[2], rel=1e-5)


def test_a_replica_without_a_finite_likelihood_is_not_left_out_in_silence() -> None:
    q, p = LAWS["Laplace"]
    found = hvae.diagnose([flat(q, p, 2), flat(q, p, 2)], torch.randn(60, 2), sizes=SIZES, progress=False)
    assert found.likelihood is not None
    bound, log_px = found.likelihood.bound_nats.copy(), found.likelihood.log_px_nats.copy()
    bound[1] = log_px[1] = -float("inf")
    infinite = {"bound_nats": bound, "log_px_nats": log_px}
    one = dataclasses.replace(found, likelihood=dataclasses.replace(found.likelihood, **infinite))
    assert "It is not finite in 1 of 2 replicas" in " ".join(one.to_text(80).split())
    nowhere = {key: values[[1, 1]] for key, values in infinite.items()}
    none = dataclasses.replace(found, likelihood=dataclasses.replace(found.likelihood, **nowhere))
    assert "The likelihood is not finite" in " ".join(none.to_text(80).split())


@pytest.mark.parametrize("name", ["probs", "variance", "entropy"])
def test_an_encode_that_returns_a_distribution_that_was_read(name: str) -> None:
    """torch keeps what it works out; only what the distribution was made of counts."""

    def encode(x: Tensor) -> Distribution:
        found = Bernoulli(logits=x)
        value = getattr(found, name)
        if callable(value):
            value()
        return found

    def infer(visit: Any) -> None:
        visit("z", visit.code)

    def generate(visit: Any) -> None:
        visit("x", Normal(visit("z", Bernoulli(logits=torch.zeros(3))), 1.0))

    found = hvae.diagnose(hvae.Model(infer, generate, encode=encode), torch.randn(60, 3), sizes=SIZES, progress=False)
    assert found.verdicts["z"][0] in ("active", "undecided")


def test_drawn_data_are_let_go() -> None:
    def infer(visit: Any) -> None:
        z2 = visit("z2", Normal(visit.code, 1.0))
        visit("z1", Normal(z2 + visit.code, 1.0))

    def generate(visit: Any) -> None:
        z2 = visit("z2", Normal(visit.context, 1.0))
        visit("x", Normal(visit("z1", Normal(z2, 1.0)), 1.0))

    from hvae.diagnostics.draws import Sampler
    from hvae.diagnostics.usage import use

    stack = Stack.of(hvae.Model(infer, generate, encode=lambda x, _: x), {"x": torch.randn(40, 2)}, torch.randn(40, 2))
    sampler = Sampler(stack, stack.numbers, seed=0)
    with torch.no_grad():
        use(sampler, sampler.evidence(2, "test"))
    assert stack.functions.shelf.n == stack.functions.shelf.first == 40


@pytest.mark.parametrize("word", ["gap", "annealed"])
def test_what_needs_normal_noise_says_so(word: str) -> None:
    q, p = LAWS["Gamma"]
    few = hvae.diagnosis.Budget(images=4, temperatures=3, chains=4, leapfrog=1, draws=2, samples=20)
    found = hvae.diagnose(flat(q, p, 2), torch.randn(60, 2), sizes=SIZES, further=[word], budget=few, progress=False)
    record = getattr(found, word)
    said = " ".join((*record.refused, *getattr(record, "posterior_refused", ())))
    assert "wider copy" in said or "z" in said

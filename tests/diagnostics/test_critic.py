"""V_l, the decoder's own likelihood as critic: planted layers whose use is known.

Closed forms: in the linear ladders q is exact, so V_l lies between 0 and KL_l = I(x; z_l | z_{l+1}), written beside
each. The references share no code with the library: a handful of lines of numpy draw the data, and the numbers are
those of logarithms. A mean of n terms between -1 and log 65 has a standard error of at most 4.2 / (2 √n).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from hvae.diagnostics import alternatives as module
from hvae.diagnostics import critic
from hvae.diagnostics.critic import Used, decoder_use
from hvae.diagnostics.draws import Sampler
from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE
from hvae.exact.known_stacks import linear_stack
from hvae.foreign.model import Model
from hvae.foreign.stack import Stack
from hvae.network import walked
from tests.diagnostics.chains import Stack as Chain
from tests.diagnostics.chains import link, root

N = 400
Walk = Callable[[Any], None]


@pytest.fixture(autouse=True)
def _double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def used(model: Model, x: Tensor, n: int = N, context: Tensor | None = None, n_walks: int = 8) -> dict[str, Used]:
    stack = Stack.of(model, {"x": x}, context)
    sampler = Sampler(stack, stack.numbers[:n], seed=0)
    with torch.no_grad():
        return decoder_use(sampler, sampler.evidence(1, "use"), stack.numbers[n:], n_walks=n_walks)


def means(found: dict[str, Used]) -> dict[str, float]:
    return {name: float(layer.terms.mean()) for name, layer in found.items()}


def two_layers(s2: float, q1: Callable[[Tensor, Tensor], Normal] | None = None, reads: float = 1.0) -> Model:
    """z2 ~ N(0, 1), z1 ~ N(z2, 1), x ~ N(reads z1, s2); q is exact unless another q(z1 | z2, x) is given."""

    def exact(z2: Tensor, x: Tensor) -> Normal:
        return Normal((z2 + x / s2) / (1 + 1 / s2), (1 + 1 / s2) ** -0.5)

    def walk(visit: Any) -> None:
        v = 1 / (1 + 1 / (1 + s2))
        zero = torch.zeros(visit.rows, visit.context.shape[-1])
        z2 = visit("z2", p=Normal(zero, 1.0), q=lambda: Normal(v * visit.code / (1 + s2), math.sqrt(v)))
        z1 = visit("z1", p=Normal(z2, 1.0), q=lambda: (q1 or exact)(z2, visit.code))
        visit("x", p=Normal(reads * z1, math.sqrt(s2)))

    return Model.joint(walk, encode=lambda x, _: x)


def of_two_layers(s2: float, d: int, n: int, **changes: Any) -> dict[str, float]:
    x = drawn(2 * n, d, seed=1) * math.sqrt(2 + s2)
    return means(used(two_layers(s2, **changes), x, n, context=torch.zeros(2 * n, d)))


@pytest.mark.parametrize(
    ("d", "s2", "kl", "least"),
    [(1, 1.0, 0.347, 0.28), (1, 0.01, 2.308, 1.96), (8, 1.0, 2.773, 2.30), (8, 0.01, 18.46, 0.98 * math.log(65))],
)
def test_a_layer_that_is_used_exactly(d: int, s2: float, kl: float, least: float) -> None:
    """V is at most KL_1 = D/2 log(1 + 1/s2), and at most log 65; it loses at most 15 % of the smaller."""
    found = of_two_layers(s2, d, N)["z1"]
    assert least <= found <= min(kl, math.log(65)) + 0.15


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"q1": lambda z2, x: Normal(z2, 1.0)}, "collapsed to its prior"),
        ({"reads": 0.0}, "the decoder reads nothing"),
        ({"reads": 0.0, "q1": lambda z2, x: Normal(x, 0.1)}, "coded but unread"),
        ({"q1": lambda z2, x: Normal(z2, 0.1)}, "another law that x does not move"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_zero_where_zero_is_right(changes: dict[str, Any], what: str) -> None:
    assert abs(of_two_layers(0.01 if "law" in what else 1.0, 1, N, **changes)["z1"]) < 0.06


def test_a_layer_that_is_not_read_at_all_is_zero_to_the_last_bit() -> None:
    assert of_two_layers(1.0, 2, 60, reads=0.0)["z1"] == pytest.approx(0.0, abs=1e-12)


def test_a_posterior_that_is_too_wide_is_used_all_the_same() -> None:
    """Variance times 6: the gain in likelihood is negative (-0.14), the layer is read: V about 1.4."""
    wide = of_two_layers(0.01, 1, N, q1=lambda z2, x: Normal((z2 + x / 0.01) / 101, math.sqrt(6 / 101)))
    assert 1.1 < wide["z1"] < 1.6


def ladder(depth: int, d: int, a: float, s2: float) -> Model:
    """z_L ~ N(0, 1), z_l = a z_{l+1} + N(0, 1 - a²), x = z_1 + N(0, s2), with the exact q."""
    rest = 1 - a * a

    def walk(visit: Any) -> None:
        z = torch.zeros(visit.rows, d)
        for place in range(depth, 0, -1):
            variance = 1.0 if place == depth else rest
            slope, noise = a ** (place - 1), 1 - a ** (2 * (place - 1)) + s2
            v = 1 / (1 / variance + slope**2 / noise)
            mean = a * z
            z = visit(
                f"z{place}",
                p=Normal(mean, math.sqrt(variance)),
                q=lambda mean=mean, variance=variance, slope=slope, noise=noise, v=v: Normal(
                    v * (mean / variance + slope * visit.code / noise), math.sqrt(v)
                ),
            )
        visit("x", p=Normal(z, math.sqrt(s2)))

    return Model.joint(walk)


def test_the_layers_of_a_deep_ladder() -> None:
    """Four layers of eight units: KL 2.99, 1.21 and 2.28 in closed form; the middle path is near tight."""
    n, d, a, s2 = 256, 8, 0.9, 0.01
    z = drawn(2 * n, d, seed=2)
    for place in range(3):
        z = a * z + math.sqrt(1 - a * a) * drawn(2 * n, d, seed=3 + place)
    found = means(used(ladder(4, d, a, s2), z + math.sqrt(s2) * drawn(2 * n, d, seed=9), n, n_walks=4))
    for name, kl in (("z4", 2.99), ("z3", 1.21), ("z2", 2.28)):
        assert 0.75 * kl < found[name] < kl + 0.15, (name, found[name])
    assert found["z1"] > 0.95 * math.log(65)


def test_bottom_up_a_layer_that_codes_the_noise_below_is_not_used() -> None:
    """q(z2 | z1) repeats the noise of z1 and nothing of x; p(z1 | z2) follows it. V_2 is 0, V_1 is not."""

    def infer(visit: Any) -> None:
        z1 = visit("z1", Normal(torch.cat([visit.code, 0 * visit.code], -1), 0.5))
        visit("z2", Normal(z1[:, 1:], 0.1))

    def generate(visit: Any) -> None:
        z2 = visit("z2", Normal(torch.zeros(1), 1.0))
        z1 = visit("z1", Normal(torch.cat([0 * z2, z2], -1), 1.0))
        visit("x", Normal(z1[:, :1], 0.5))

    found = means(used(Model(infer, generate), drawn(2 * N, 1, seed=4)))
    assert abs(found["z2"]) < 0.06 and found["z1"] > 0.5


def test_a_layer_that_moves_only_the_variance_below_is_seen_by_walks() -> None:
    """x tells the scale of z1, which z2 codes: the middle path is blind to it, walks see it."""
    scale = torch.tensor([0.1, 3.0])[torch.tensor(np.random.default_rng(5).integers(0, 2, 2 * N))].unsqueeze(-1)
    x = scale * drawn(2 * N, 4, seed=6)

    def walk(visit: Any) -> None:
        def q() -> Normal:
            return Normal(visit.code.square().mean(-1, keepdim=True).sqrt().log(), 0.1)

        z2 = visit("z2", p=Normal(torch.zeros(1), 1.5), q=q)
        z1 = visit("z1", p=Normal(torch.zeros(4), z2.exp()), q=lambda: Normal(visit.code, 0.01))
        visit("x", p=Normal(z1, 0.02))

    assert means(used(Model.joint(walk), x, n_walks=16))["z2"] > 0.2


def test_a_code_of_the_context_alone_is_not_used() -> None:
    """z repeats the label, which the decoder knows: among data of one label no alternative is worse."""
    labels = torch.tensor(np.random.default_rng(7).integers(0, 3, 2 * N)).double().unsqueeze(-1)
    x = labels + drawn(2 * N, 1, seed=8)

    def infer(visit: Any) -> None:
        visit("z", Normal(3 * visit.context, 1.0))

    def generate(visit: Any) -> None:
        z = visit("z", Normal(3 * visit.context, 1.0))
        visit("x", Normal(z / 3, 1.0))

    assert abs(means(used(Model(infer, generate), x, context=labels))["z"]) < 0.05


def test_xor_with_a_skip() -> None:
    """x = a xor b, with b in z1 given a in z2: 0.675 nats at logits of ±4; the first visited alone tells nothing."""
    source = np.random.default_rng(9)
    x = torch.tensor(source.integers(0, 2, (2 * N, 1))).double()

    def walk(visit: Any) -> None:
        fair = Bernoulli(logits=torch.zeros(visit.rows, 1))
        z2 = visit("z2", p=fair, q=lambda: fair)
        other = lambda: Bernoulli(logits=40 * ((visit.code - z2).abs() - 0.5))  # noqa: E731 - as q takes it
        z1 = visit("z1", p=fair, q=other)
        visit("x", p=Bernoulli(logits=8 * ((z1 - z2).abs() - 0.5)))

    found = means(used(Model.joint(walk), x))
    assert found["z1"] == pytest.approx(0.675, abs=0.05) and abs(found["z2"]) < 0.05


# Growth: what all layers together ask of the decoder, and what an image's numbers depend on


def chain(depth: int) -> HVAE:
    """A ladder that does nothing but to be deep."""
    up = [link(0.5, 1.0) for _ in range(depth)]
    return Chain(up, [root(1.0), *(link(0.5, 1.0) for _ in range(depth))]).ladder()


def visits(depth: int, monkeypatch: pytest.MonkeyPatch, **knobs: Any) -> int:
    """Rows of a conditional of the decoder that V of all layers asks for."""
    model, count = chain(depth), 0
    decoder = type(model.decoder)

    def counted(self: Any, given: Any, noises: Any) -> Any:
        nonlocal count
        trace = walked(self, given, noises)
        count += sum(site.distribution.batch_shape[:-1].numel() for site in trace.values())
        return trace

    x = drawn(66, 1, seed=0)
    sampler = Sampler(model, x[:2], 0)
    with torch.no_grad(), monkeypatch.context() as patch:
        evidence = sampler.evidence(1, "use")
        patch.setattr(decoder, "walk", counted)
        decoder_use(sampler, evidence, x[2:], **knobs)
    return count


def test_all_layers_together_take_a_time_that_grows_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exponent is 1.3 at most, where as many alternatives and walks in every layer make it about 2."""
    few, many = (visits(depth, monkeypatch) for depth in (16, 48))
    assert math.log(many / few) / math.log(3) < 1.3
    decoder = chain(70).decoder
    assert [critic.alternatives(decoder, name) for name in ("z1", "z17", "z34", "z70")] == [64, 32, 16, 16]


def test_walks_are_taken_where_the_middle_path_leaves_the_question_open(monkeypatch: pytest.MonkeyPatch) -> None:
    everywhere, nowhere = (visits(3, monkeypatch, epsilon=epsilon) for epsilon in (math.inf, -math.inf))
    assert everywhere > 1.5 * nowhere


def test_an_image_has_the_same_alternatives_whatever_images_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critic, "IMAGES", 4)
    monkeypatch.setattr(module, "IMAGES", 4)
    for model in (chain(2), Chain([link(0.5, 1.0)] * 2, [root(1.0), *[link(0.5, 1.0)] * 2]).bottom_up()):
        x, found = drawn(30, 1, seed=0), []
        for n in (6, 9):
            sampler = Sampler(model, x[:n], 0)
            draws = {name: torch.arange(1.0, n + 1).reshape(1, n, 1) for name in model.latents}
            with torch.no_grad():
                evidence = sampler.model.weigh(sampler.model.infer(x[:n].unsqueeze(0), {}, draws), x[:n].unsqueeze(0))
                partners = module.Partners.of(sampler, x[20:], 5, own=False)
                kinds = ("other images",) if model.bottom_up else ("other images", "prior")
                asked = {name: kinds for name in model.latents}
                numbers = dict.fromkeys(model.latents, 5)
                found.append(critic._critics(sampler, evidence, x[20:], partners, numbers, asked, 3))
        for key, log_c in found[0].items():
            torch.testing.assert_close(log_c, found[1][key][:, :6], rtol=0, atol=1e-12)


@pytest.mark.parametrize("better", [0.0, 50.0, 1000.0])
def test_an_alternative_that_does_not_count_moves_nothing(better: float) -> None:
    """Of two alternatives one is of another context: it stands there, however much better, and is left out."""
    log_c = torch.tensor([[0.0], [-1.0], [better]])
    found = critic._ratio(log_c, 1.0, torch.tensor([1.0], dtype=torch.float64))
    assert found == pytest.approx([math.log(2 / (1 + math.exp(-1)))], abs=1e-12)


def test_two_images_are_enough_for_one_alternative() -> None:
    """Each is the other's; one alone is refused."""
    stack = linear_stack(1.0, "best", seed=0)
    two, one = (Sampler(stack.model, stack.x[:n], seed=0) for n in (2, 1))
    found = decoder_use(two, two.evidence(1, "use"), None, n_walks=2)
    assert {use.cap for use in found.values()} == {math.log(2)}
    assert all(use.terms.shape == (2,) and np.isfinite(use.terms).all() for use in found.values())
    with pytest.raises(NotMeasuredError, match="one datum alone"):
        decoder_use(one, one.evidence(1, "use"), None)

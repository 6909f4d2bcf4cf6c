"""One contract for every decoder, one for every posterior, one for every objective.

Members are found: what a configuration can name, and every class that the library has. Whatever can be walked obeys
the walk, also behind the four abstract members alone.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from inspect import isabstract
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import hvae.objectives
from hvae import BlockStyle, rng
from hvae.data import Dataset
from hvae.data.images import Kind
from hvae.diagnostics.unamortised import unamortised
from hvae.evidence import HVAE
from hvae.lab.assembly import build_hvae
from hvae.lab.config import ModelConfig
from hvae.lab.config.latents import LatentFamily, Order
from hvae.lab.config.model import Net, Prior
from hvae.lab.config.observations import COUNTS, ObservationFamily
from hvae.network import Decoder
from hvae.objectives import Objective
from hvae.posterior import Posterior
from tests.objectives.test_pairs import WORKS, in_python
from tests.test_own_decoder import Plain
from tests.topdown.stacks import stack

K, B = 3, 4
ROOMS = ("hvae.network", "hvae.posterior", "hvae.topdown", "hvae.objectives", "hvae.exact", "hvae.diagnostics")
"""of the instrument; an experiment asks its own"""
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def images(kind: Kind = "binary") -> Dataset:
    values = torch.rand(20, 64, generator=torch.Generator().manual_seed(0))
    values = (values > 0.5).float() if kind == "binary" else (values * 255).round() / (1 if kind == "counts" else 255)
    return Dataset("toy", values[:16], values[16:], (8, 8), kind, False)


def images_for(observation: str) -> Dataset:
    """With values that the distribution of x can produce."""
    return images("counts" if observation in COUNTS else "binary" if observation == "bernoulli" else "grey")


def built(**knobs: Any) -> HVAE:
    config = ModelConfig(**{"latents": (3, 2), "hidden": ((4,),), "n_masked": 4} | knobs)
    return build_hvae(config, images_for(config.observation), seed=0).double().eval()


def of_blocks(*, skips: bool = True) -> HVAE:
    return stack("1x1,2m1,8m2,8x1", style=BlockStyle(width=8, channels=2, skips=skips)).double()


KNOBS: dict[str, dict[str, Any]] = {
    **{f"net {net}": {"nets": (net, "mlp")} for net in get_args(Net)},
    **{f"prior {prior}": {"prior": prior} for prior in get_args(Prior)},
    **{f"layers {family}": {"families": (family,)} for family in get_args(LatentFamily)},
    **{f"x {family}": {"observation": family} for family in get_args(ObservationFamily)},
    "skips": {"generative_skips": True},
}
MODELS: dict[str, Callable[[], HVAE]] = {
    **{name: partial(built, **knobs) for name, knobs in KNOBS.items()},
    "blocks": of_blocks,
    "blocks without skips": partial(of_blocks, skips=False),
}
PARTS = {"as it is": lambda decoder: decoder, "by its four members": Plain}
decoders = pytest.mark.parametrize(
    ("model", "part"), list(itertools.product(MODELS.values(), PARTS.values())),
    ids=[f"{model}, {part}" for model, part in itertools.product(MODELS, PARTS)],
)  # fmt: skip


def subclasses(of: type) -> Iterator[type]:
    for below in of.__subclasses__():
        if below.__module__.startswith(ROOMS) and not isabstract(below):
            yield below
        yield from subclasses(below)


def noise(specs: rng.NoiseSpecs) -> dict[str, Tensor]:
    return rng.noise(specs, K, B, seed=0, purpose="test", dtype=torch.float64)


@decoders
def test_a_decoder_obeys_the_walk(model: Callable[[], HVAE], part: Any) -> None:
    """Draws are scored as they were drawn; what is given stays and moves nothing above it; factors are the same."""
    decoder: Decoder = part(model().decoder)
    names = decoder.variables
    assert names[-1] == "x" and len(set(names)) == len(names)
    assert all(set(decoder.parents(name)) <= set(names[:place]) for place, name in enumerate(names))
    specs = decoder.noise_specs()
    assert tuple(specs) == names
    with torch.no_grad():
        drawn = decoder.walk({}, noise(specs))
        assert tuple(drawn) == names
        values = {name: site.value for name, site in drawn.items()}
        for name, site in drawn.items():
            assert site.value.shape == (K, B, decoder.family(name).width) and site.log_prob.isfinite().all()
        scored = decoder.walk(values, {})
        clamped = decoder.walk({names[0]: values[names[0]]}, noise(specs))
        for name in names:
            torch.testing.assert_close(scored[name].log_prob, drawn[name].log_prob, **EXACT)
            torch.testing.assert_close(clamped[name].value, values[name], **EXACT)
            assert scored[name].log_prob.shape == (K, B)
            alone = decoder.family(name).log_prob(decoder.distribution(name, values), values[name])
            torch.testing.assert_close(alone, scored[name].log_prob, **EXACT)
        others = {name: value for name, value in values.items() if name != "x"}
        (only,) = decoder.factors(["x"]).walk({**others, "x": values["x"]}, {}).values()
        torch.testing.assert_close(only.log_prob, scored["x"].log_prob, **EXACT)
        walk = dict(values)
        assert [name for name, _ in decoder.descend(walk)] == list(names)
        with pytest.raises(KeyError):
            decoder.walk({}, {name: value for name, value in noise(specs).items() if name != names[0]})


def test_every_class_of_decoder_is_asked() -> None:
    """Belief networks as they are built, and what stands for the factors of any other."""
    whole = built().decoder
    reached = {type(whole), type(of_blocks().decoder), type(Plain(whole).factors(["x"]))}  # type: ignore[arg-type]
    assert set(subclasses(Decoder)) == reached


def posterior(order: str) -> HVAE:
    if order == "blocks":
        return of_blocks()
    if order == "unamortised":
        decoder = built().decoder
        return HVAE(decoder, unamortised(decoder, images().train.double())).double()
    return built(order=order)


ORDERS = [*(order for order in get_args(Order) if order != "exact"), "blocks"]
"""tests/exact asks the exact ones"""


@pytest.mark.parametrize("order", ORDERS)
def test_a_posterior_visits_every_latent_once_and_scores_what_is_given(order: str) -> None:
    model = posterior(order)
    q, x = model.posterior, images().train[:B].double().unsqueeze(0)
    assert sorted(q.order) == sorted(model.latents) and set(q.noise_specs()) == set(model.latents)
    assert q.bottom_up(model.decoder) == (q.order == model.latents)
    for place, name in enumerate(q.order):
        assert set(q.parents(name)) <= {"x", *q.order[:place]}
    with torch.no_grad():
        drawn = model(x, noise(q.noise_specs()))
        assert tuple(drawn.q) == q.order and drawn.latents == model.latents
        values = {name: site.value for name, site in drawn.q.items()}
        given = model(x, {}, values)
        for name, value in values.items():
            assert value.shape == (K, B, model.decoder.family(name).width)
            torch.testing.assert_close(given.q[name].log_prob, drawn.q[name].log_prob, **EXACT)
            assert drawn.rate(name).shape == (K, B)
        assert drawn.log_weight.shape == (K, B) and drawn.log_weight.dtype == torch.float64
        terms = -drawn.distortion - sum(drawn.rate(name) for name in model.latents)
        torch.testing.assert_close(drawn.log_weight, terms, **EXACT)
        once = {name: value[:1] for name, value in noise(q.noise_specs()).items()}
        torch.testing.assert_close(model(x, once).log_weight[0], drawn.log_weight[0], **EXACT)
    frozen = model(x, noise(q.noise_specs())).frozen
    torch.testing.assert_close(frozen.log_weight.detach(), drawn.log_weight, **EXACT)
    upper = q.order[0]
    with torch.no_grad():
        moved = model(x, noise(q.noise_specs()), {upper: values[upper] + 1})
    torch.testing.assert_close(moved.q[upper].value, values[upper] + 1, **EXACT)


def test_every_class_of_posterior_is_asked() -> None:
    assert set(subclasses(Posterior)) == {type(posterior(order).posterior) for order in ORDERS}


OBJECTIVES = list(WORKS)


@pytest.mark.parametrize(("name", "gradient"), OBJECTIVES, ids=["-".join(pair) for pair in OBJECTIVES])
def test_an_objective_is_one_finite_number_and_its_evidence_is_that_of_the_model(name: str, gradient: str) -> None:
    """Equal draws equal losses; a float64 model has a float64 loss; of Python's own refusal see `test_pairs`."""
    kind = "gaussian" if "gaussian" in WORKS[name, gradient] else "bernoulli"
    model = built(families=(kind,))
    objective = in_python(name, gradient)
    objective.refuse(model)
    x, numbers = images().train[:B].double().unsqueeze(0), noise(objective.noise_specs(model))
    loss, evidence = objective.on(model, x, numbers, 0)
    again, _ = objective.on(model, x, numbers, 0)
    assert loss.shape == () and loss.isfinite() and loss.dtype == torch.float64 and loss.item() == again.item()
    expected = model(x, {latent: numbers[latent] for latent in model.latents})
    torch.testing.assert_close(evidence.log_weight, expected.log_weight, **EXACT)


def test_every_class_of_objective_is_asked() -> None:
    def within(objective: Objective) -> Iterator[type]:
        yield type(objective)
        for part in vars(objective).values():
            if isinstance(part, Objective):
                yield from within(part)

    reached = {found for pair in OBJECTIVES for found in within(in_python(*pair))}
    assert {found for found in subclasses(Objective)} == reached
    assert {found.__name__ for found in reached} <= set(hvae.objectives.__all__)

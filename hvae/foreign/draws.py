"""Draws from any distribution of torch as a function of noise, where it has such a map, and seeded draws elsewhere.

A noise map keeps a draw a smooth function of noise, keyed for each sample and datum: Gaussians, what is transformed
from them, mixtures of them, and every distribution with an inverse distribution function `icdf`. The others (Gamma,
Beta, Dirichlet, counts, a user's own) are drawn under a seed made of the noise: reproducible, but as one block, not
smooth.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    TransformedDistribution,
    constraints,
)

from hvae.errors import ConfigError, NotMeasuredError
from hvae.foreign.laws import Law, Masked, Pushed, elementwise, innermost, summed
from hvae.rng import NoiseKind


def noise_kind(distribution: Distribution) -> NoiseKind | None:
    """The noise that a draw is made of; None where draws are seeded."""
    match elementwise(distribution):
        case Normal() | MultivariateNormal() | LowRankMultivariateNormal():
            return "normal"
        case TransformedDistribution(base_dist=base) | Pushed(base=base) | Masked(distribution=base):
            return noise_kind(base)
        case MixtureSameFamily(component_distribution=components):
            one_each = noise_width(components, False) == _numel(components, False)
            return noise_kind(components) if one_each else None
        case Bernoulli() | Categorical() | OneHotCategorical():
            return "uniform"
        case base if type(base).icdf is not Distribution.icdf:
            return "uniform"
    return None


def is_smooth(distribution: Distribution) -> bool:
    """Whether a draw is a smooth function of noise and parameters: no states, and no choice of a component."""
    match elementwise(distribution):
        case TransformedDistribution(base_dist=base) | Pushed(base=base) | Masked(distribution=base):
            return is_smooth(base)
        case Bernoulli() | Categorical() | OneHotCategorical() | MixtureSameFamily():
            return False
    return noise_kind(distribution) is not None


def noise_width(distribution: Distribution, per_row: bool) -> int:
    """Numbers of noise in one draw; ``per_row`` says that the first axis is the rows."""
    match elementwise(distribution):
        case TransformedDistribution(base_dist=base) | Pushed(base=base) | Masked(distribution=base):
            return noise_width(base, per_row)
        case MixtureSameFamily() as mixture:
            return _numel(mixture, per_row) + mixture.batch_shape[int(per_row) :].numel()
        case base:
            return _numel(base, per_row) if noise_kind(base) else 1


def draw(distribution: Distribution, noise: Tensor) -> tuple[Tensor, Tensor | None]:
    """The value ``[rows, ...]`` that ``noise [rows, width]`` becomes, and its log-probability ``[rows]`` if the draw
    tells it (a push-forward without inverse)."""
    match elementwise(distribution):
        case Pushed() as flow:
            return flow.scored(draw(flow.base, noise)[0])
        case Masked() as masked:
            return masked.filled(draw(masked.distribution, noise)[0]), None
        case TransformedDistribution() as transformed:
            value = draw(transformed.base_dist, noise)[0]
            for transform in transformed.transforms:
                value = transform(value)
            return value, None
    if noise_kind(distribution) is None:
        return _seeded(distribution, noise), None
    return _mapped(elementwise(distribution), noise), None


def _mapped(distribution: Distribution, noise: Tensor) -> Tensor:
    rows = len(noise)
    match distribution:
        case Normal(loc=mean, scale=scale):
            return mean + scale * _shaped(noise, mean, rows)
        case MultivariateNormal() | LowRankMultivariateNormal():
            standard = _shaped(noise, distribution.mean, rows)
            product = (distribution.scale_tril @ standard.unsqueeze(-1)).squeeze(-1)
            moved: Tensor = distribution.mean + product
            return moved
        case Bernoulli(probs=probs):
            return (_shaped(noise, probs, rows) < probs).to(probs.dtype)
        case OneHotCategorical(logits=logits):
            return _one_hot(logits, _shaped(noise, logits, rows))
        case Categorical(probs=probs):
            u = _shaped(noise, probs[..., 0], rows)
            below = probs.cumsum(-1) / probs.sum(-1, keepdim=True)
            return (below[..., :-1] <= u.unsqueeze(-1)).sum(-1)
        case MixtureSameFamily() as mixture:
            return _mixed(mixture, noise)
    tiny = torch.finfo(noise.dtype).eps
    inverse: Tensor = distribution.icdf(_shaped(noise.clamp(tiny, 1 - tiny), distribution, rows))
    return inverse


def _mixed(mixture: MixtureSameFamily, noise: Tensor) -> Tensor:
    """The component by the first numbers, the value by the others."""
    rows, n_events = len(noise), len(mixture.event_shape)
    probs = mixture.mixture_distribution.probs
    n_mixtures = noise.shape[-1] - _numel(mixture, _has_rows(mixture, rows))
    first = noise[:, :n_mixtures]
    uniform = torch.special.ndtr(first) if noise_kind(mixture) == "normal" else first
    which = _mapped(Categorical(probs=probs, validate_args=False), uniform)
    components = elementwise(mixture.component_distribution)
    place = which.ndim
    like = noise[:, n_mixtures:]
    shape = components.batch_shape + components.event_shape
    n_components = shape[place] if _has_rows(mixture, rows) else shape[place - 1]
    event = (*which.shape[1:], *shape[len(shape) - n_events :]) if n_events else which.shape[1:]
    wide = like.reshape(rows, *which.shape[1:], 1, *event[len(which.shape) - 1 :])
    wide = wide.expand(*wide.shape[:place], n_components, *wide.shape[place + 1 :])
    values = draw(components, wide.reshape(rows, -1))[0]
    index = which.reshape(*which.shape, 1, *(1,) * n_events)
    return values.gather(place, index.expand(*which.shape, 1, *values.shape[place + 1 :])).squeeze(place)


def _one_hot(logits: Tensor, noise: Tensor) -> Tensor:
    """The state of the largest logit after Gumbel noise ``-log -log u`` is added (Gumbel 1954)."""
    u = noise.clamp(torch.finfo(noise.dtype).tiny, 1 - torch.finfo(noise.dtype).eps)
    states: Tensor = (logits - (-u.log()).log()).argmax(-1)
    return torch.nn.functional.one_hot(states, logits.shape[-1]).to(logits.dtype)


def _seeded(distribution: Distribution, noise: Tensor) -> Tensor:
    """A draw under a seed made of the noise, so the same noise gives the same block of draws."""
    if isinstance(distribution, Law) and not distribution.can_sample:
        raise NotMeasuredError("hvae.law was given no function that draws; hand it `sample`.")
    rows = len(noise)
    seed = int.from_bytes(hashlib.sha256(noise.detach().cpu().numpy().tobytes()).digest()[:8], "big") >> 1
    with torch.random.fork_rng(devices=[noise.device] if noise.is_cuda else []):
        torch.manual_seed(seed)
        if isinstance(distribution, Law) or _has_rows(distribution, rows):
            return distribution.sample()
        return distribution.sample(torch.Size([rows]))


def _has_rows(distribution: Distribution, rows: int) -> bool:
    return (distribution.batch_shape + distribution.event_shape)[:1] == (rows,)


def _numel(distribution: Distribution, per_row: bool) -> int:
    return (distribution.batch_shape + distribution.event_shape)[int(per_row) :].numel()


def _shaped(noise: Tensor, like: Tensor | Distribution, rows: int) -> Tensor:
    """Noise in the shape of the values: ``[rows, ...]``."""
    shape = like.shape if isinstance(like, Tensor) else like.batch_shape + like.event_shape
    event = shape[1:] if shape[:1] == (rows,) and shape[1:].numel() == noise.shape[-1] else shape
    return noise.reshape(rows, *event)


def score(distribution: Distribution, value: Tensor) -> Tensor:
    """``log p(value) [rows]``, summed in float64; refused where it cannot be had."""
    return summed(log_prob(distribution, value))


BOUNDED = (
    constraints.interval, constraints.half_open_interval, constraints.greater_than, constraints.greater_than_eq,
    constraints.less_than,
)  # fmt: skip
"""supports that may differ between data, outside of which torch raises or answers with a number"""


def log_prob(distribution: Distribution, value: Tensor) -> Tensor:
    """Terms of ``log p(value)`` as torch has them, ``[rows, ...]`` for independent elements; -inf outside the support.

    So a value that another datum has drawn is scored too. Raises `NotMeasuredError` where only own draws are scored.
    """
    base = elementwise(distribution)
    try:
        with _unchecked(base):
            terms: Tensor = base.log_prob(value)
    except NotImplementedError as error:
        raise NotMeasuredError(
            f"{type(base).__name__} cannot score a value that it did not draw (a transform without inverse); give the "
            "transform an inverse, or use hvae.pushed with `pull`"
        ) from error
    _one_a_row(terms, len(value))
    try:
        support = base.support
    except (NotImplementedError, AttributeError):
        return terms
    if support is None or not isinstance(innermost(support), BOUNDED):
        return terms
    return torch.where(support.check(value), terms, -torch.inf)


class UnfitTerms(ConfigError):
    """What `log_prob` gave is not one number a row; `hvae.foreign.visit.run` says of which variable.

    >>> log_prob(Law(lambda value: value.sum(), None), torch.zeros(5, 2))
    Traceback (most recent call last):
    ...
    hvae.foreign.draws.UnfitTerms: gave shape (), the rows are 5: return one number a row, without a mean or a sum \
over the rows.
    """


def _one_a_row(terms: object, rows: int) -> None:
    fits = isinstance(terms, Tensor) and terms.ndim > 0 and len(terms) == rows
    if not fits or (isinstance(terms, Tensor) and terms.is_complex()):
        gave = f"shape {tuple(terms.shape)}" if isinstance(terms, Tensor) else type(terms).__name__
        raise UnfitTerms(
            f"gave {gave}, the rows are {rows}: return one number a row, without a mean or a sum over the rows."
        )


@contextmanager
def _unchecked(distribution: Distribution) -> Iterator[None]:
    """torch's validation of values off, in all parts."""
    parts = list(_parts(distribution))
    before = [vars(part).get("_validate_args") for part in parts]
    for part in parts:
        part._validate_args = False
    try:
        yield
    finally:
        for part, was in zip(parts, before, strict=True):
            if was is None:
                del part._validate_args
            else:
                part._validate_args = was


def _parts(distribution: Distribution) -> Iterator[Distribution]:
    yield distribution
    for part in vars(distribution).values():
        if isinstance(part, Distribution):
            yield from _parts(part)

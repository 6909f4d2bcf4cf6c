"""A flat VAE in two lines: a distribution of z for each x, one of x for each z, and a prior."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.distributions import Distribution

from hvae.errors import ConfigError
from hvae.foreign.data import tensors_of
from hvae.foreign.model import Model


def from_laws(
    encode: Callable[..., Distribution],
    decode: Callable[..., Distribution],
    prior: Distribution | Callable[..., Distribution],
    *,
    module: nn.Module | None = None,
) -> Model:
    """A flat VAE from ``encode(x) -> q(z|x)``, ``decode(z) -> p(x|z)`` and ``prior``, distributions of torch.

    Shapes: x ``[n, ...]``, z ``[rows, ...]``; the first axis of both distributions is the rows. The prior has no row
    axis. With a context, as `hvae.diagnose` takes one, the calls are ``encode(x, context)`` and ``decode(z, context)``,
    and a prior that depends on it is a function ``prior(context)``. ``module`` is the nets, which are put in
    evaluation mode.

    ``encode`` runs once per datum where its distribution is one of torch with tensors as parameters, else (a mixture,
    a flow, one of `hvae.law`) once per sample.

    >>> from torch import nn
    >>> from hvae import from_laws
    >>> import torch
    >>> from torch.distributions import Bernoulli, Normal
    >>> encoder, decoder = nn.Linear(6, 4), nn.Linear(2, 6)
    >>> def encode(x):
    ...     mean, log_scale = encoder(x).chunk(2, -1)
    ...     return Normal(mean, log_scale.exp())
    >>> model = from_laws(encode, lambda z: Bernoulli(logits=decoder(z)), Normal(torch.zeros(2), 1.0))
    """

    def code(x: Any, *context: Any) -> dict[str, Any]:
        law = encode(x, *context)
        if not isinstance(law, Distribution):
            raise ConfigError(
                f"encode gave a {type(law).__name__}; from_laws takes a distribution of z, as Normal(mean, scale). For "
                "functions that visit, take hvae.Model."
            )
        return {"q": law} if _has_rows(law) else {"x": x}

    def infer(visit: Any) -> None:
        visit("z", visit.code["q"] if "q" in visit.code else encode(visit.code["x"], *_given(visit)))

    def generate(visit: Any) -> None:
        z = visit("z", prior if isinstance(prior, Distribution) else prior(*_given(visit)))
        visit("x", decode(z, *_given(visit)))

    return Model(infer, generate, encode=code, module=module)


def _given(visit: Any) -> tuple[Any, ...]:
    return () if visit.context is None else (visit.context,)


def _has_rows(law: Distribution) -> bool:
    """Whether its parameters are tensors, of which rows can be taken."""
    try:
        return bool(tensors_of(law))
    except ConfigError:
        return False

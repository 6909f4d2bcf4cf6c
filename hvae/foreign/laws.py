"""Three distributions that `torch.distributions` lacks: two functions, a push-forward, and one with missing elements.

Each is handed to `visit` like any other distribution.

    law(log_prob, sample)        any density or mass: autoregressive decoders with teacher forcing inside log_prob
    pushed(base, push, pull)     z = push(e), e from base; log q(z) = log base(e) - log|det dz/de|
    masked(distribution, mask)   elements off the mask do not exist: padding, missing data, ragged sequences
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from hvae.errors import ConfigError, NotMeasuredError

LogProbOf = Callable[[Tensor], Tensor]
Push = Callable[[Tensor], tuple[Tensor, Tensor]]


class Law(Distribution):
    """A distribution of which only two functions are known; made by `law`.

    >>> coin = law(lambda value: value.new_full((len(value),), -0.7), lambda: torch.ones(5, 1))
    >>> coin.log_prob(torch.zeros(5, 1)).shape, coin.sample().shape
    (torch.Size([5]), torch.Size([5, 1]))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so
    has_rsample = False

    def __init__(self, log_prob: LogProbOf, sample: Callable[[], Tensor] | None) -> None:
        _callable("law", log_prob=log_prob)
        if sample is not None:
            _callable("law", sample=sample)
        self._log_prob, self._sample = log_prob, sample
        super().__init__(validate_args=False)

    @property
    def can_sample(self) -> bool:
        """Whether a function that draws was handed over."""
        return self._sample is not None

    def log_prob(self, value: Tensor) -> Tensor:
        return self._log_prob(value)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        if self._sample is None:
            raise NotMeasuredError("hvae.law was given no function that draws; hand it `sample`.")
        return self._sample()


def law(log_prob: LogProbOf, sample: Callable[[], Tensor] | None = None) -> Law:
    """A distribution from two functions: ``log_prob(value) -> [rows]`` in nats, and ``sample() -> [rows, ...]``.

    For decoders that predict one element after another: teacher forcing lives in ``log_prob``, the loop in ``sample``.
    Without ``sample`` all is measured that needs no draws of this variable. ``sample`` may draw as it likes; it runs
    under a seed of its own.

    >>> import torch
    >>> import hvae
    >>> words = torch.tensor([[0, 1, 1], [1, 0, 1]])
    >>> logits = torch.zeros(2, 3, 2)  # what a net says of each word, given those before it
    >>> text = hvae.law(lambda x: logits.log_softmax(-1).gather(-1, x.unsqueeze(-1)).sum((1, 2)))
    >>> text.log_prob(words).tolist() == [3 * torch.tensor(0.5).log().item()] * 2
    True
    """
    return Law(log_prob, sample)


class Pushed(Distribution):
    """A push-forward; made by `pushed`.

    >>> from torch.distributions import Normal
    >>> shifted = pushed(Normal(torch.zeros(5, 2), 1.0), lambda e: (e + 1, torch.zeros(5)))
    >>> shifted.base.batch_shape
    torch.Size([5, 2])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so
    has_rsample = False

    def __init__(self, base: Distribution, push: Push, pull: Push | None) -> None:
        _distribution("pushed", base)
        _callable("pushed", push=push)
        if pull is not None:
            _callable("pushed", pull=pull)
        self.base, self.push, self._pull = base, push, pull
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real

    def pull(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """``(e, log|det dz/de|)`` of a value that this distribution need not have drawn."""
        if self._pull is None:
            raise NotMeasuredError(
                "it cannot score a value that it did not draw (a flow without inverse); hand `pull` to hvae.pushed"
            )
        return self._pull(value)

    def scored(self, base_value: Tensor) -> tuple[Tensor, Tensor]:
        """``(z, log q(z))`` of the draw that ``base_value`` becomes."""
        value, log_det = self.push(base_value)
        return value, summed(self.base.log_prob(base_value)) - summed(log_det)

    def log_prob(self, value: Tensor) -> Tensor:
        base_value, log_det = self.pull(value)
        return summed(self.base.log_prob(base_value)) - summed(log_det)


def pushed(base: Distribution, push: Push, pull: Push | None = None) -> Pushed:
    """The distribution of ``z = push(e)`` with e from ``base``.

    ``push(e) -> (z, log|det dz/de|)``, ``pull(z) -> (e, log|det dz/de|)``, the log-determinant ``[rows]`` or one term
    for each element. ``log q(z) = log base(e) - log|det dz/de|`` (Rezende and Mohamed 2015, equation 6). Without
    ``pull`` its own draws are scored, and what needs the density of other values is not measured.

    >>> import torch
    >>> import hvae
    >>> from torch.distributions import Normal
    >>> flow = hvae.pushed(Normal(torch.zeros(5, 2), 1.0), lambda e: (2 * e, torch.full((5,), 2 * 0.6931)))
    >>> z, log_q = flow.scored(torch.zeros(5, 2))
    >>> round(log_q[0].item(), 4)  # log N(0; 0, 4 I) in two dimensions
    -3.2241
    """
    return Pushed(base, push, pull)


class Masked(Distribution):
    """A distribution of which some elements do not exist; made by `masked`.

    >>> from torch.distributions import Normal
    >>> real = torch.tensor([[True, True, False], [True, False, False]])
    >>> masked(Normal(torch.zeros(2, 3), 1.0), real).log_prob(torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so
    has_rsample = False

    def __init__(self, distribution: Distribution, mask: Tensor, fill: float) -> None:
        _distribution("masked", distribution)
        if not isinstance(mask, Tensor):
            raise ConfigError(
                f"the mask of hvae.masked is a {type(mask).__name__}; give a tensor of booleans [rows, ...]."
            )
        self.distribution = elementwise(distribution)
        self.mask, self.fill = mask.bool(), fill
        n_axes = self.mask.ndim
        if n_axes > len(self.distribution.batch_shape):
            raise ValueError(
                f"a mask of shape {tuple(mask.shape)} stands over elements that depend on each other: the distribution "
                f"has independent ones {tuple(self.distribution.batch_shape)}; give a mask of fewer axes."
            )
        own = self.distribution.batch_shape[:n_axes]
        if any(a != b and 1 not in (a, b) for a, b in zip(self.mask.shape, own, strict=True)):
            raise ConfigError(
                f"a mask of shape {tuple(mask.shape)} does not cover the first axes {tuple(own)} of its distribution; "
                "give it one row a datum, and the elements in the order of the value."
            )
        super().__init__(distribution.batch_shape, distribution.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real

    def _over(self, value: Tensor) -> Tensor:
        """The mask over the elements of ``value``."""
        missing = value.ndim - self.mask.ndim
        return self.mask.reshape(*self.mask.shape, *(1,) * missing).expand(value.shape)

    def filled(self, value: Tensor) -> Tensor:
        """``value`` with `fill` in the elements that do not exist."""
        return torch.where(self._over(value), value, torch.full_like(value, self.fill))

    def inside(self, value: Tensor) -> Tensor:
        """``value`` with an admissible number in the elements that do not exist, so that they may be scored."""
        support, event = self.distribution.support, self.distribution.event_shape
        if support is constraints.simplex:
            usual = self.distribution.mean.to(value.dtype)
        elif getattr(support, "is_discrete", False):
            usual = torch.zeros(event, dtype=value.dtype, device=value.device)
            if event:
                usual[..., 0] = 1  # of one-hot states the first
        else:
            usual = torch.full((), 0.5, dtype=value.dtype, device=value.device)  # real, positive, and within (0, 1)
        return torch.where(self._over(value), value, usual.expand(value.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        terms = self.distribution.log_prob(self.inside(value))
        return summed(torch.where(self._over(terms), terms, torch.zeros_like(terms)))


def masked(distribution: Distribution, mask: Tensor, fill: float = 0.0) -> Masked:
    """``distribution`` over the elements on the ``mask`` alone; the others do not exist.

    ``mask [rows, ...]`` covers the leading axes of independent elements. A value has ``fill`` in the others: 0 for
    padding, NaN for missing data. Raises ValueError for a mask over elements that depend on each other.

    >>> import torch
    >>> import hvae
    >>> from torch.distributions import Normal
    >>> seen = torch.tensor([[True, False]])
    >>> row = hvae.masked(Normal(torch.zeros(1, 2), 1.0), seen, fill=float("nan"))
    >>> round(row.log_prob(torch.tensor([[0.0, float("nan")]])).item(), 4)
    -0.9189
    """
    return Masked(distribution, mask, fill)


def _callable(law: str, **functions: object) -> None:
    for name, function in functions.items():
        if not callable(function):
            raise ConfigError(f"{name} of hvae.{law} is {function!r}; give a function.")


def _distribution(law: str, given: object) -> None:
    if not isinstance(given, Distribution):
        raise ConfigError(
            f"hvae.{law} was given a {type(given).__name__}; its first argument is a distribution of "
            "torch.distributions."
        )


def elementwise(distribution: Distribution) -> Distribution:
    """The same without `Independent`: its independent elements are axes of the batch."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def innermost(support: constraints.Constraint | None) -> constraints.Constraint | None:
    """A support without `constraints.independent`: what holds for each element."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def summed(terms: Tensor) -> Tensor:
    """Terms ``[rows, ...]`` summed in float64 for each row."""
    return terms.double().flatten(1).sum(1) if terms.ndim > 1 else terms.double()

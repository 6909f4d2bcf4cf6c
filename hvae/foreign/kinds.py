"""From the distributions of a user's functions to those of the house: ``[rows, *event]`` to ``[K, B, D]``.

Gaussians, Bernoulli and one-hot units become the house's own families, so all that is known of these (closed forms,
terms per unit, natural parameters) holds for them. Every other distribution of torch is a `Foreign`: it scores and
draws, and what it cannot give is refused by name (`NotMeasuredError`). Half-precision parameters are raised to float32
before anything is scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    constraints,
    kl_divergence,
)

from hvae import families
from hvae.errors import NotMeasuredError
from hvae.families import DiagonalGaussian, DiagonalNormal, Family, FullGaussian, GeneralFamily
from hvae.families.logistic import DiscretisedLogistic, LevelsDistribution
from hvae.foreign.draws import draw, is_smooth, log_prob, noise_kind, noise_width, score
from hvae.foreign.laws import elementwise, summed
from hvae.foreign.reading import (
    AnyLaw,
    OfFamily,
    build,
    dtype_of,
    has_mean,
    is_discrete,
    is_real,
    layout,
    over_rows,
    parameters,
    wide,
)
from hvae.rng import NoiseKind
from hvae.shapes import LogProb, Noise, UnitLogProb, Value


class RowLaws(Distribution):
    """Distributions of torch over ``[rows, *event]`` as one over ``[K, B, D]``, in blocks of rows.

    >>> gammas = [torch.distributions.Gamma(torch.ones(rows, 3), 1.0) for rows in (6, 4)]
    >>> kind = kind_of(gammas[0], torch.Size([3]), rows=6)
    >>> kind.join(gammas, [6, 4], torch.Size([2, 5])).mean.shape
    torch.Size([2, 5, 3])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so
    has_rsample = False

    def __init__(self, laws: Sequence[Distribution], sizes: Sequence[int], batch: torch.Size, kind: "Kind") -> None:
        self.laws, self.sizes, self.kind = laws, list(sizes), kind
        super().__init__(batch, torch.Size([kind.width]), validate_args=False)

    def terms(self, value: Value) -> Tensor:
        """Log-probability of ``value [..., D]``, whose batch meets this one: ``[..., K, B]``, or per unit with D."""
        batch = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        if batch[len(batch) - 2 :] != self.batch_shape:
            raise NotMeasuredError("its distributions were made for other rows than the values that are to be scored")
        ahead = batch[: len(batch) - 2]
        rows = value.expand(*batch, value.shape[-1]).reshape(ahead.numel(), -1, value.shape[-1])
        return torch.stack([self._scored(layer) for layer in rows]).reshape(*batch, -1)

    def _scored(self, rows: Tensor) -> Tensor:
        parts = zip(self.laws, rows.split(self.sizes), strict=True)
        return torch.cat([self.kind.terms(law, self.kind.shaped(part)) for law, part in parts])

    def closed_kl(self, other: Distribution) -> LogProb | None:
        """``KL(this ‖ other)`` where torch has a closed form for each pair of blocks, else None."""
        if not isinstance(other, RowLaws) or other.sizes != self.sizes or other.batch_shape != self.batch_shape:
            return None
        try:
            parts = [
                summed(kl_divergence(elementwise(a), elementwise(b)).expand(size, *self.kind.batch))
                for a, b, size in zip(self.laws, other.laws, self.sizes, strict=True)
            ]
        except (NotImplementedError, RuntimeError, AttributeError):
            return None
        return torch.cat(parts).reshape(self.batch_shape)

    @property
    def mean(self) -> Tensor:
        """``[K, B, D]``; refused where a distribution has none."""
        parts = []
        for law, size in zip(self.laws, self.sizes, strict=True):
            try:
                mean = elementwise(law).mean
            except (NotImplementedError, AttributeError) as error:
                raise NotMeasuredError(f"{type(elementwise(law)).__name__} has no mean") from error
            parts.append(mean.expand(size, *self.kind.event).reshape(size, -1))
        found = torch.cat(parts)
        if not found.isfinite().all():
            raise NotMeasuredError(f"{type(elementwise(self.laws[0])).__name__} has no finite mean")
        return found.reshape(*self.batch_shape, -1)


class Foreign(GeneralFamily):
    """The family of a distribution that the house has no family for: it scores and draws.

    >>> gamma = torch.distributions.Gamma(torch.ones(5, 3), 1.0)
    >>> kind_of(gamma, torch.Size([3]), rows=5).family.factorised
    True
    """

    def __init__(
        self, units: int, noise: NoiseKind, width: int, *, factorised: bool, seeded: bool, real: bool = False
    ) -> None:
        super().__init__()
        self.real = real
        self.units = self.width = units
        self.noise, self._noise_width = noise, width
        self.factorised, self.reparametrised = factorised, not seeded

    @property
    def noise_width(self) -> int:
        return self._noise_width

    def distribution(self, outputs: Tensor) -> Distribution:
        raise TypeError("a user's function makes these distributions; there are no outputs of a net to read.")

    @property
    def kin(self) -> Family:
        if not self.real:
            raise NotMeasuredError("its values do not fill the real line, so there is no N(0, I) to compare it with")
        return DiagonalGaussian(self.units)

    def standard(self, like: Tensor) -> Distribution:
        return self.kin.standard(like)

    def standard_outputs(self) -> Tensor:
        raise TypeError("a user's function makes these distributions; there are no outputs to start from.")

    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        laws = _rows(distribution)
        rows = noise.expand(*laws.batch_shape, noise.shape[-1]).reshape(-1, noise.shape[-1])
        parts = [draw(law, part)[0] for law, part in zip(laws.laws, rows.split(laws.sizes), strict=True)]
        return torch.cat([laws.kind.flat(part) for part in parts]).reshape(*laws.batch_shape, -1)

    def noise_of(self, distribution: Distribution, value: Value) -> Noise:
        raise NotMeasuredError(f"a draw of {_rows(distribution).kind.name} does not tell the noise that it was made of")

    def log_prob(self, distribution: Distribution, value: Value) -> LogProb:
        return _rows(distribution).terms(value).sum(-1)

    def unit_log_prob(self, distribution: Distribution, value: Value) -> UnitLogProb:
        if not self.factorised:
            raise TypeError(
                "its units depend on each other, so there are no terms per unit; read the layer as a whole."
            )
        return _rows(distribution).terms(value)

    def mean(self, distribution: Distribution) -> Value:
        return distribution.mean


def _rows(distribution: Distribution) -> RowLaws:
    assert isinstance(distribution, RowLaws)
    return distribution


@dataclass(frozen=True)
class Kind:
    """What all distributions of one variable have in common, found when the model is first walked.

    >>> kind = kind_of(Bernoulli(torch.full((5, 2, 3), 0.5)), torch.Size([2, 3]), rows=5)
    >>> kind.family, kind.width, kind.shaped(torch.zeros(5, 6)).shape
    (Bernoulli(), 6, torch.Size([5, 2, 3]))
    """

    family: Family
    event: torch.Size
    dtype: torch.dtype
    """of the values that the user's functions see"""
    has_rows: bool
    """whether a distribution has the row axis; a prior may lack it"""
    continuous: bool
    has_mean: bool
    name: str
    """of its class, for sentences"""
    batch: tuple[int, ...] = ()
    """the axes of independent elements, without rows"""
    by_outputs: bool = False
    """whether its distributions come as the outputs that the family reads"""

    @property
    def width(self) -> int:
        """D."""
        return self.event.numel()

    def shaped(self, flat: Tensor) -> Tensor:
        """``[rows, D]`` as the user's functions see it: ``[rows, *event]``."""
        return flat.reshape(len(flat), *self.event).to(self.dtype)

    def flat(self, value: Tensor) -> Tensor:
        """``[rows, *event]`` as ``[rows, D]``, a float of at least 32 bits."""
        return wide(value.reshape(len(value), -1)) if value.is_floating_point() else value.reshape(len(value), -1) * 1.0

    def terms(self, law: Distribution, value: Tensor) -> Tensor:
        """``[rows, D]`` per unit where the units are independent, else ``[rows, 1]``."""
        if not self.family.factorised:
            return score(law, value).unsqueeze(-1)
        return log_prob(law, value).double().reshape(len(value), -1)

    def read(self, law: AnyLaw, rows: int) -> tuple[Tensor, ...] | Distribution:
        """The parameters ``[rows, ...]`` that the house's family takes, or the distribution itself."""
        if isinstance(law, OfFamily):
            return (law.outputs.expand(rows, -1),)
        own = parameters(law)
        if own is None or isinstance(self.family, Foreign):
            return over_rows(law, rows, self.batch)
        return tuple(
            wide(tensor).expand(rows, *self.event, *tensor.shape[tensor.ndim - extra :]).reshape(rows, *ahead)
            for tensor, extra, ahead in layout(self.family, own)
        )

    def draw(self, read: tuple[Tensor, ...] | Distribution, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """The value ``[rows, *event]`` that ``noise [rows, width]`` becomes, and its log-probability if only the draw
        knows it."""
        if isinstance(read, Distribution):
            value, log_prob = draw(read, noise)
            return value.to(self.dtype), log_prob
        rows = len(noise)
        return self.shaped(self.family.draw(self.join([read], [rows], torch.Size([rows])), noise)), None

    def join(
        self, parts: Sequence[tuple[Tensor, ...] | Distribution], sizes: Sequence[int], batch: torch.Size
    ) -> Distribution:
        """One distribution ``[K, B]`` from those of blocks of rows."""
        if isinstance(parts[0], Distribution):
            return RowLaws([part for part in parts if isinstance(part, Distribution)], sizes, batch, self)
        tensors = [
            torch.cat(blocks).reshape(*batch, *blocks[0].shape[1:])
            for blocks in zip(*(part for part in parts if isinstance(part, tuple)), strict=True)
        ]
        return self.family.distribution(tensors[0]) if self.by_outputs else build(self.family, tensors)


def kind_of(
    law: AnyLaw, event: torch.Size, rows: int, *, has_rows: bool = True, dtype: torch.dtype | None = None
) -> Kind:
    """The kind of a distribution over ``[rows, *event]``; ``dtype`` of its values, else its parameters'."""
    if isinstance(law, OfFamily):
        family = law.family
        return Kind(
            family, event, dtype or law.outputs.dtype, has_rows, family.noise == "normal", True, type(family).__name__,
            by_outputs=True,
        )  # fmt: skip
    base, width = elementwise(law), event.numel()
    own: Family | None = None
    match base:
        case Normal() | DiagonalNormal():
            own = DiagonalGaussian(width)
        case MultivariateNormal() | LowRankMultivariateNormal() if len(event) == 1:
            own = FullGaussian(width)
        case Bernoulli():
            own = families.Bernoulli(width)
        case OneHotCategorical():
            own = families.Categorical(event[:-1].numel(), event[-1])
        case LevelsDistribution():
            own = DiscretisedLogistic(width, n_levels=base.n_levels)
    batch = event[: len(event) - len(base.event_shape)]
    law = over_rows(law, rows, batch)
    noise = noise_kind(law)
    factorised = len(base.event_shape) == 0 and type(base).__module__.startswith("torch.distributions")
    found = own or Foreign(
        width,
        noise or "uniform",
        noise_width(law, (law.batch_shape + law.event_shape)[:1] == (rows,)),
        factorised=factorised,
        seeded=not is_smooth(law),
        real=is_real(base),
    )
    return Kind(
        found, event, dtype or dtype_of(law), has_rows, not is_discrete(base), has_mean(base), type(base).__name__,
        batch,
    )  # fmt: skip

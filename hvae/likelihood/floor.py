"""A floor under log p(x): independent columns of the model's own family of x, in closed form. Nats.

A model whose layers have all collapsed can still say this much. The columns (pixels, variables) are fitted to n
training data with half a count added, so that no value that a column can take has probability 0. With S_d the sum of
``(x - mean_d)²`` over the training data and ``s² = Σ_d S_d / (n D)``, the variance that all columns share:

    Bernoulli            p_d = (n mean_d + 1/2) / (n + 1)
    categorical, C       p_dc = (n mean_dc + 1/2) / (n + C/2)
    Gaussian, fixed      N(mean_d, the model's variance or covariance)
    Gaussian, shared     N(mean_d, s²)
    Gaussian, else       N(mean_d, (S_d + s²/2) / (n + 1/2)): learned, an output of the net, or a full covariance
    Poisson              m_d = mean_d + 1/(2n)
    negative binomial    m_d, and r_d = m_d² / (v_d - m_d) with v_d = (S_d + m_d/2) / (n + 1/2), Poisson if v_d <= m_d
    levels               a logistic of mean_d and the scale √(3 u_d)/π, u_d = (S_d + s²/2) / (n + 1/2)

For 0/1 columns that is the estimator of Krichevsky and Trofimov 1981. A Gaussian column gets half a datum at distance
s from its mean. So a constant column has the variance s² / (2n + 1), never 0, and one whose unit is far smaller than
those of the others has a floor that is too low. Columns that a model standardises are standardised here too. A
log-variance stays within ±20, as in the family. The mean needs no count. Grey training data of a Bernoulli x, which
are binarised at every presentation, are counted as their expectation.

The dispersion of largest likelihood has no closed form. r_d is that of the moments, with half a datum at the distance
√m_d of a Poisson count, and e^20 at most.

Nor has the scale of a logistic that is cut into levels. That of the moments is one logistic for each pixel and colour,
which any number of components can be. A histogram of the column would say more than one logistic can, so that a
collapsed stack lay below it. Where values pile up at 0 or 1 the best location and scale say more than the moments.

It is a floor for a model that is trained well, not a bound: optimisation leaves it somewhat below. Logits that are
off by a deviation of 0.3 cost 3.6 nats on MNIST.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hvae.errors import NotMeasuredError
from hvae.families import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    DiscretisedLogistic,
    DiscretisedLogisticMixture,
    Family,
    FullGaussian,
    NegativeBinomial,
    Poisson,
)
from hvae.families.counts import LOG_LIMIT, NegativeBinomialDistribution, PoissonDistribution
from hvae.families.gaussian import LOG_VARIANCE_LIMIT, DiagonalNormal
from hvae.families.logistic import LevelsDistribution

HALF = 0.5
"""the count that is added"""
N_AT_ONCE = 4096
ROUNDING = 1e-12


@dataclass(frozen=True)
class Columns:
    """What is kept of n data: the mean of each column, and its sum of squared deviations, in float64.

    >>> x = torch.tensor([[0.0], [2.0], [4.0]])
    >>> columns = Columns.of(x)
    >>> columns.n, columns.mean.tolist(), columns.squares.tolist(), columns.without(x).mean.tolist()
    (3, [2.0], [8.0], [[3.0], [2.0], [1.0]])
    """

    n: int
    mean: Tensor
    """[D], or of each of B fits [B, D]"""
    squares: Tensor
    """S, of that shape"""

    @staticmethod
    def of(x: Tensor) -> "Columns":
        """Of data ``x [n, D]``. Raises ValueError for none."""
        if len(x) == 0:
            raise ValueError("There are no data to fit a floor to; give at least one.")
        parts = x.detach().split(N_AT_ONCE)
        mean = torch.stack([part.cpu().double().sum(0) for part in parts]).sum(0) / len(x)
        squares = torch.stack([(part.cpu().double() - mean).square().sum(0) for part in parts]).sum(0)
        return Columns(len(x), mean, squares)

    def without(self, x: Tensor) -> "Columns":
        """B fits, each to all data but one: ``x [B, D]``, which are among them.

        Data that a floor is fitted to lie above it by as much as the fit gained from them, half a nat a parameter in
        all. Raises `NotMeasuredError` for a single datum.
        """
        if self.n < 2:
            raise NotMeasuredError("A floor from the measured data takes at least 2 of them.")
        value, fewer = x.detach().cpu().double(), self.n - 1
        away = value - self.mean
        others = self.mean - away / fewer
        # of equal others the mean is theirs, and rounding must not leave the support of x
        others = torch.where((others - others.round()).abs() < ROUNDING, others.round(), others)
        return Columns(fewer, others, (self.squares - away.square() * (self.n / fewer)).clamp(min=0))

    def standardised(self, shift: Tensor, scale: Tensor) -> "Columns":
        """Those of ``(x - shift) / scale``."""
        return Columns(self.n, (self.mean - shift) / scale, self.squares / scale.square())

    @property
    def shared(self) -> Tensor:
        """s² ``[1]``, or ``[B, 1]``. Raises `NotMeasuredError` where every column is constant."""
        found = self.squares.mean(-1, keepdim=True) / self.n
        if not (found > 0).all():
            raise NotMeasuredError("Every column of the data that the floor is fitted to is constant.")
        return found

    @property
    def count(self) -> Tensor:
        """``m_d``: the mean of counts, with half a count added."""
        return self.mean + HALF / self.n

    @property
    def log_dispersion(self) -> Tensor:
        """``log r_d`` of counts, by their moments."""
        excess = (self.squares + HALF * self.count) / (self.n + HALF) - self.count
        return (2 * self.count.log() - excess.clamp(min=0).log()).clamp(-LOG_LIMIT, LOG_LIMIT)

    @property
    def variance(self) -> Tensor:
        """``(S_d + s²/2) / (n + 1/2)``."""
        return (self.squares + HALF * self.shared) / (self.n + HALF)

    @property
    def log_scale(self) -> Tensor:
        """Of a logistic distribution of that variance."""
        return (3 * self.variance).log() / 2 - math.log(math.pi)


@torch.no_grad()
def floor_datum_nats(family: Family, columns: Columns, x: Tensor) -> Tensor:
    """The floor under log p(x) of data ``x [B, D]``: ``[B]`` in float64.

    Raises `NotMeasuredError` for a family without a closed form.

    >>> from hvae.families import Bernoulli
    >>> x = torch.tensor([[0.0], [1.0], [1.0]])
    >>> floor_datum_nats(Bernoulli(1), Columns.of(x), x).exp().tolist()  # 2.5 of 4 counts are ones
    [0.375, 0.625, 0.625]
    """
    family, x, n = copy.deepcopy(family).cpu().double(), x.detach().cpu().double(), columns.n
    match family:
        case Bernoulli():
            if not (0 <= columns.mean.min() and columns.mean.max() <= 1):
                raise NotMeasuredError("A Bernoulli x has a floor for values between 0 and 1 only.")
            ones = n * columns.mean
            logits = (ones + HALF).log() - (n - ones + HALF).log()
            return family.log_prob(family.distribution(logits), x)
        case Categorical():
            if columns.mean.min() < 0:
                raise NotMeasuredError("A categorical x has a floor for one-hot values only.")
            return family.log_prob(family.distribution((n * columns.mean + HALF).log()), x)
        case Poisson() | NegativeBinomial():
            if columns.mean.min() < 0:
                raise NotMeasuredError(f"A {type(family).__name__} x has a floor for counts from 0 on only.")
            log_mean = columns.count.log()
            if isinstance(family, Poisson):
                return PoissonDistribution(log_mean).log_prob(x)
            return NegativeBinomialDistribution(log_mean, columns.log_dispersion).log_prob(x)
        case DiscretisedLogistic(n_levels=n_levels) | DiscretisedLogisticMixture(n_levels=n_levels):
            if not (0 <= columns.mean.min() and columns.mean.max() <= 1):
                raise NotMeasuredError("Levels have a floor for values between 0 and 1 only.")
            given = family.log_scale if isinstance(family, DiscretisedLogistic) else None
            scale = columns.log_scale if given is None or isinstance(given, nn.Parameter) else given
            return LevelsDistribution(columns.mean, scale, n_levels).log_prob(x)
        case DiagonalGaussian(shift=Tensor() as shift, scale=Tensor() as scale):
            family.shift = family.scale = None
            within = floor_datum_nats(family, columns.standardised(shift, scale), (x - shift) / scale)
            return within - scale.log().sum()
        case DiagonalGaussian(log_variance=spread) | FullGaussian(scale=spread):
            if isinstance(spread, Tensor) and not isinstance(spread, nn.Parameter):
                return family.log_prob(family.distribution(columns.mean), x)
            one_for_all = isinstance(family, DiagonalGaussian) and isinstance(spread, Tensor) and len(spread) == 1
            variance = columns.shared if one_for_all else columns.variance
            return DiagonalNormal(columns.mean, variance.log().clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)).log_prob(
                x
            )
    ours = type(family).__module__.startswith("hvae.families")
    name = type(family).__name__ if ours else "a distribution from outside"
    raise NotMeasuredError(
        "The floor is known in closed form for Bernoulli, categorical and Gaussian x, levels and counts; for "
        f"{name} it is not."
    )

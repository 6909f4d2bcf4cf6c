"""The interface of every family."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.distributions import Distribution

from hvae.rng import NoiseKind
from hvae.shapes import LogProb, Noise, Outputs, UnitLogProb, Value


class Family(nn.Module, ABC):
    """The form of a variable's distribution; a module, as a learned variance is a parameter of its own.

    >>> import torch
    >>> from hvae.families import DiagonalGaussian
    >>> family = DiagonalGaussian(2)  # outputs = [mean, log-variance]
    >>> distribution = family.distribution(torch.tensor([1.0, 2.0, 0.0, 0.0]))
    >>> family.draw(distribution, noise=torch.tensor([0.0, 0.5])).tolist()
    [1.0, 2.5]
    """

    units: int
    """D: what per-unit quantities count"""
    width: int
    """numbers in one value; equals `units` but for one-hot units, and for channels of many pixels"""
    n_outputs: int
    """numbers the net must give"""
    noise: NoiseKind
    factorised: bool
    """whether the distribution is a product over units"""
    reparametrised: bool
    """whether gradients pass from a draw to the distribution's parameters"""
    exponential: bool = True
    """whether there are `statistic`, `natural`, `product` and `match`, which raise TypeError elsewhere"""
    planes: bool = False
    """whether outputs are planes ``[n, rows, columns]`` of an image, also where the colours of a pixel stand together;
    else they are images in the order of the value, one after another"""

    @property
    def noise_width(self) -> int:
        """Numbers of noise in one draw."""
        return self.width

    @property
    def row_size(self) -> int:
        """Numbers that a row takes at least, be it as a value or as what the net gives for it: a measure of memory."""
        return max(self.width, getattr(self, "n_outputs", 0))  # a user's distributions come from no net of ours

    @property
    def kin(self) -> "Family":
        """The family of the `standard` distribution: this one, or the factorised one of the same values."""
        return self

    @abstractmethod
    def distribution(self, outputs: Outputs) -> Distribution:
        """The distribution that ``outputs`` describe."""

    @abstractmethod
    def standard_outputs(self) -> Tensor:
        """Outputs ``[n_outputs]`` that a prior starts from: mean 0, and log-variance 0 where the net gives it."""

    @abstractmethod
    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        """The value that ``noise`` becomes under ``distribution``."""

    def noise_of(self, distribution: Distribution, value: Value) -> Noise:
        """The noise that `draw` turns into ``value``. Raises TypeError where many do, as for discrete draws."""
        raise TypeError(f"a draw of {type(self).__name__} does not tell the noise that it was made of.")

    def log_prob(self, distribution: Distribution, value: Value) -> LogProb:
        """Log-probability (density for continuous values) of ``value``: the sum of its terms per unit."""
        return self.unit_log_prob(distribution, value).sum(-1)

    @abstractmethod
    def unit_log_prob(self, distribution: Distribution, value: Value) -> UnitLogProb:
        """Log-probability of each unit. Raises TypeError where the distribution does not factorise."""

    @abstractmethod
    def mean(self, distribution: Distribution) -> Value:
        """Mean of the distribution ``[..., width]``."""

    @abstractmethod
    def statistic(self, value: Value) -> Tensor:
        """Sufficient statistic T(v) ``[..., S]``."""

    @abstractmethod
    def natural(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        """Natural parameter eta ``[..., S]`` and log-normaliser A ``[...]`` of ``distribution``."""

    @abstractmethod
    def product(self, distribution: Distribution, other: Distribution) -> Distribution:
        """The normalised product of two distributions of this family: their natural parameters added."""

    @abstractmethod
    def match(self, distribution: Distribution, weight: Tensor | None = None) -> Distribution:
        """The distribution of this family nearest to the equal mixture of a batch: it has the mixture's mean
        statistic, the minimum of ``KL(mixture ‖ ·)``. With ``weight [R, B]``, of rows that sum to 1, of R mixtures of a
        batch ``[R, B]``: a batch ``[R, 1]``."""

    def per_unit(self, terms: Tensor) -> Tensor:
        """Terms ``[..., width]`` summed within each unit, ``[..., D]``; terms ``[..., D]`` stay as they are."""
        return terms if self.width == self.units else terms.unflatten(-1, (self.units, -1)).sum(-1)

    @abstractmethod
    def standard(self, like: Tensor) -> Distribution:
        """N(0, I), or fair Bernoulli or categorical units, for any variance of this family. ``like`` sets device and
        dtype."""

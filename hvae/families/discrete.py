"""Discrete families, by logits only: Bernoulli and categorical units.

A draw is hard, the state with the largest sum of logit and noise, and no gradient passes through it. A module in
training mode with a `Relaxation` draws a continuous value from the *same* noise; at temperature T -> 0 it is the hard
one (Jang et al. 2017; Maddison et al. 2017):

    Bernoulli      v = sigmoid((logit - log u + log(1 - u)) / T)     hard: v > 1/2, which is u < sigmoid(logit)
    categorical    v = softmax((logits - log(-log u)) / T)           hard: the largest

Both are scored by the discrete log-probabilities, which are linear in v. They are no density of a relaxed v: relaxed
draws maximise a surrogate, which tends to the bound as T -> 0 and is no bound itself. The concrete density would give a
proper bound, of another model.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, Independent, OneHotCategorical
from torch.nn import functional as F

from hvae.families.family import Family
from hvae.numerics import log_mean_exp
from hvae.rng import NoiseKind
from hvae.shapes import Noise, Outputs, UnitLogProb, Value

SOFTPLUS_LIMIT = 40.0
"""logits above which `softplus(v) = v` in float64; torch's own limit of 20 leaves 2e-9 nats a unit"""


@dataclass(frozen=True)
class Relaxation:
    """How a gradient passes through the draws of a discrete layer in training.

    ``straight_through`` takes the hard value with the gradient of the relaxed one (Jang et al. 2017, section 2.2):
    values and bound are those of the discrete model, and the gradient is biased at any temperature. For one Bernoulli
    unit the exact gradient has ``f(1) - f(0)``, and this one tends to ``(f'(0) + f'(1)) / 2`` as T -> 0.
    Raises ValueError for a temperature that is not positive.

    >>> family = Bernoulli(1)
    >>> family.relaxation = Relaxation(temperature=1.0)
    >>> fair, u = family.distribution(torch.zeros(1)), torch.tensor([0.25])
    >>> round(family.train().draw(fair, u).item(), 4), family.eval().draw(fair, u).item()  # sigmoid(log 3); u < 1/2
    (0.75, 1.0)
    """

    temperature: float
    straight_through: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; give more than 0.")


class Discrete(Family):
    """Factorised distributions of finitely many states, by logits.

    >>> family = Categorical(1, n_classes=3)
    >>> family.relaxation = Relaxation(temperature=0.5)
    >>> family.train().reparametrised, family.eval().reparametrised
    (True, False)
    """

    noise: NoiseKind = "uniform"
    factorised = True
    relaxation: Relaxation | None = None
    """how gradients pass in training mode; None for hard draws, which stop them"""

    @property
    def reparametrised(self) -> bool:  # type: ignore[override]
        return self.training and self.relaxation is not None

    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        if not self.reparametrised:
            return self.hard(distribution, noise)
        assert self.relaxation is not None
        soft = self.soft(distribution, noise, self.relaxation.temperature)
        return self.hard(distribution, noise) + (soft - soft.detach()) if self.relaxation.straight_through else soft

    @abstractmethod
    def hard(self, distribution: Distribution, noise: Noise) -> Value:
        """The state drawn by ``noise``."""

    @abstractmethod
    def soft(self, distribution: Distribution, noise: Noise, temperature: float) -> Value:
        """A value between the states, from the same noise; `hard` in the limit of temperature 0."""


class Bernoulli(Discrete):
    """Independent Bernoulli units with ``logits = outputs``; values 0 and 1.

    Never by probabilities: `torch.distributions.Bernoulli(probs=)` answers 15.9 nats where the truth is 1000.

    >>> import torch
    >>> from hvae import Bernoulli
    >>> family = Bernoulli(2)
    >>> family.log_prob(family.distribution(torch.tensor([1000.0, 1000.0])), torch.tensor([0.0, 1.0])).item()
    -1000.0
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = self.width = self.n_outputs = units

    def distribution(self, outputs: Outputs) -> Distribution:
        return Independent(BernoulliDistribution(logits=outputs, validate_args=False), 1, validate_args=False)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.units)

    def standard(self, like: Tensor) -> Distribution:
        return self.distribution(like.new_zeros(self.n_outputs))

    def hard(self, distribution: Distribution, noise: Noise) -> Value:
        return (noise < distribution.mean).to(noise.dtype)

    def soft(self, distribution: Distribution, noise: Noise, temperature: float) -> Value:
        return ((_logits(distribution) - torch.logit(noise)) / temperature).sigmoid()

    def unit_log_prob(self, distribution: Distribution, value: Value) -> UnitLogProb:
        """``v·logit - softplus(logit)``."""
        logits = _logits(distribution)
        return value * logits - F.softplus(logits, threshold=SOFTPLUS_LIMIT)

    def mean(self, distribution: Distribution) -> Value:
        return distribution.mean

    def statistic(self, value: Value) -> Tensor:
        """``T(v) = v``."""
        return value

    def natural(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        """``eta = logits``, ``A = sum softplus(logits)``."""
        logits = _logits(distribution)
        return logits, F.softplus(logits, threshold=SOFTPLUS_LIMIT).sum(-1)

    def product(self, distribution: Distribution, other: Distribution) -> Distribution:
        return self.distribution(_logits(distribution) + _logits(other))

    def match(self, distribution: Distribution, weight: Tensor | None = None) -> Distribution:
        """The logit of the mean probability, ``log mean p - log mean (1 - p)``: finite where p rounds to 1."""
        logits = _logits(distribution)
        return self.distribution(_log_mean(F.logsigmoid(logits), weight) - _log_mean(F.logsigmoid(-logits), weight))


class Categorical(Discrete):
    """``units`` independent categorical units of ``n_classes`` states.

    Each is a one-hot stretch of the value ``[..., units·n_classes]``.

    >>> import torch
    >>> from hvae import Categorical
    >>> family = Categorical(2, n_classes=3)
    >>> distribution = family.distribution(torch.tensor([5.0, 0.0, 0.0, 0.0, 5.0, 0.0]))
    >>> family.draw(distribution, torch.full((6,), 0.5)).tolist()
    [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    """

    def __init__(self, units: int, n_classes: int) -> None:
        super().__init__()
        self.units = units
        self.n_classes = n_classes
        self.width = self.n_outputs = units * n_classes

    def distribution(self, outputs: Outputs) -> Distribution:
        logits = self._split(outputs)
        return Independent(OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    def standard(self, like: Tensor) -> Distribution:
        return self.distribution(like.new_zeros(self.n_outputs))

    def hard(self, distribution: Distribution, noise: Noise) -> Value:
        winner = self._scores(distribution, noise).argmax(-1, keepdim=True) == torch.arange(
            self.n_classes, device=noise.device
        )
        return winner.to(noise.dtype).flatten(-2)

    def soft(self, distribution: Distribution, noise: Noise, temperature: float) -> Value:
        return (self._scores(distribution, noise) / temperature).softmax(-1).flatten(-2)

    def unit_log_prob(self, distribution: Distribution, value: Value) -> UnitLogProb:
        return (self._split(value) * _logits(distribution).log_softmax(-1)).sum(-1)

    def mean(self, distribution: Distribution) -> Value:
        return distribution.mean.flatten(-2)

    def statistic(self, value: Value) -> Tensor:
        """``T(v) = v``."""
        return value

    def natural(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        """``eta = logits``, ``A = sum over units of logsumexp(logits)``."""
        logits = _logits(distribution)
        return logits.flatten(-2), torch.logsumexp(logits, -1).sum(-1)

    def product(self, distribution: Distribution, other: Distribution) -> Distribution:
        return self.distribution((_logits(distribution) + _logits(other)).flatten(-2))

    def match(self, distribution: Distribution, weight: Tensor | None = None) -> Distribution:
        log_probs = _logits(distribution).log_softmax(-1).flatten(-2)
        return self.distribution(_log_mean(log_probs, weight))

    def _scores(self, distribution: Distribution, noise: Noise) -> Tensor:
        """``logit - log(-log(noise))``; the largest is drawn, the Gumbel-max trick (Maddison et al. 2014)."""
        tiny = torch.finfo(noise.dtype).tiny
        gumbel = -(-self._split(noise).clamp(tiny, 1 - 1e-7).log()).log()
        return _logits(distribution) + gumbel

    def _split(self, value: Tensor) -> Tensor:
        one_hot: Tensor = value.unflatten(-1, (self.units, self.n_classes))
        return one_hot


def _log_mean(log_probs: Tensor, weight: Tensor | None) -> Tensor:
    """``log mean exp`` of ``[..., width]`` over the batch, or by ``weight [R, B]`` over the last axis of the batch."""
    if weight is None:
        return log_mean_exp(log_probs.flatten(end_dim=-2), 0)
    log_probs = log_probs.expand(*weight.shape, log_probs.shape[-1])
    return (log_probs + weight.log().to(log_probs.dtype).unsqueeze(-1)).logsumexp(-2, keepdim=True)


def _logits(distribution: Distribution) -> Tensor:
    assert isinstance(distribution, Independent)
    logits = distribution.base_dist.logits
    assert isinstance(logits, Tensor)
    return logits

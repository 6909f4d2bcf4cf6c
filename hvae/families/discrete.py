"""Discrete families, by logits only: coins and dice. No gradient passes through their draws."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliLaw
from torch.distributions import Distribution, Independent, OneHotCategorical
from torch.nn import functional as F

from hvae.families.family import Family
from hvae.numerics import log_mean_exp
from hvae.rng import NoiseKind
from hvae.shapes import Noise, Outputs, UnitLogProb, Value


class Bernoulli(Family):
    """Independent coins with ``logits = outputs``; values 0 and 1.

    Never by probabilities: `torch.distributions.Bernoulli(probs=)` answers 15.9 nats where the truth is 1000.
    """

    noise: NoiseKind = "uniform"
    factorised = True
    reparametrised = False

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = self.width = self.n_outputs = units

    def law(self, outputs: Outputs) -> Distribution:
        return Independent(BernoulliLaw(logits=outputs, validate_args=False), 1, validate_args=False)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.units)

    def standard(self, like: Tensor) -> Distribution:
        return self.law(like.new_zeros(self.n_outputs))

    def draw(self, law: Distribution, noise: Noise) -> Value:
        return (noise < law.mean).to(noise.dtype)

    def unit_log_prob(self, law: Distribution, value: Value) -> UnitLogProb:
        """``v·logit - softplus(logit)``."""
        logits = _logits(law)
        return value * logits - F.softplus(logits)

    def mean(self, law: Distribution) -> Value:
        return law.mean

    def statistic(self, value: Value) -> Tensor:
        """``T(v) = v``."""
        return value

    def natural(self, law: Distribution) -> tuple[Tensor, Tensor]:
        """``eta = logits``, ``A = sum softplus(logits)``."""
        logits = _logits(law)
        return logits, F.softplus(logits).sum(-1)

    def product(self, law: Distribution, other: Distribution) -> Distribution:
        return self.law(_logits(law) + _logits(other))

    def match(self, law: Distribution) -> Distribution:
        """In log-odds of log-mean probabilities: a coin whose probability rounds to 1 keeps a finite logit."""
        logits = _logits(law).flatten(end_dim=-2)
        return self.law(log_mean_exp(F.logsigmoid(logits), 0) - log_mean_exp(F.logsigmoid(-logits), 0))


class Categorical(Family):
    """``units`` independent dice of ``n_classes`` states.

    Each is a one-hot stretch of the value ``[..., units·n_classes]``.
    """

    noise: NoiseKind = "uniform"
    factorised = True
    reparametrised = False

    def __init__(self, units: int, n_classes: int) -> None:
        super().__init__()
        self.units = units
        self.n_classes = n_classes
        self.width = self.n_outputs = units * n_classes

    def law(self, outputs: Outputs) -> Distribution:
        logits = self._split(outputs)
        return Independent(OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    def standard(self, like: Tensor) -> Distribution:
        return self.law(like.new_zeros(self.n_outputs))

    def draw(self, law: Distribution, noise: Noise) -> Value:
        """The largest of ``logit - log(-log(noise))``: the Gumbel-max trick (Maddison et al. 2014)."""
        tiny = torch.finfo(noise.dtype).tiny
        gumbel = -(-self._split(noise).clamp(tiny, 1 - 1e-7).log()).log()
        score = _logits(law) + gumbel
        winner = score.argmax(-1, keepdim=True) == torch.arange(self.n_classes, device=noise.device)
        return winner.to(noise.dtype).flatten(-2)

    def unit_log_prob(self, law: Distribution, value: Value) -> UnitLogProb:
        return (self._split(value) * _logits(law).log_softmax(-1)).sum(-1)

    def mean(self, law: Distribution) -> Value:
        return law.mean.flatten(-2)

    def statistic(self, value: Value) -> Tensor:
        """``T(v) = v``."""
        return value

    def natural(self, law: Distribution) -> tuple[Tensor, Tensor]:
        """``eta = logits``, ``A = sum over units of logsumexp(logits)``."""
        logits = _logits(law)
        return logits.flatten(-2), torch.logsumexp(logits, -1).sum(-1)

    def product(self, law: Distribution, other: Distribution) -> Distribution:
        return self.law((_logits(law) + _logits(other)).flatten(-2))

    def match(self, law: Distribution) -> Distribution:
        return self.law(log_mean_exp(_logits(law).log_softmax(-1).flatten(end_dim=-3), 0).flatten())

    def _split(self, value: Tensor) -> Tensor:
        one_hot: Tensor = value.unflatten(-1, (self.units, self.n_classes))
        return one_hot


def _logits(law: Distribution) -> Tensor:
    assert isinstance(law, Independent)
    logits = law.base_dist.logits
    assert isinstance(logits, Tensor)
    return logits

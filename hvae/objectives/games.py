"""Objectives of two players, each with its own utility (Flach et al. 2024):

    L_p = E_data E_q(z|x) log p(x, z), which only the decoder's weights raise,
    L_q = E_p(x, z) log q(z|x),        which only the encoder's weights raise, on dreams (x, z) ~ p.

The loss is -L_p - L_q. Each term is a constant for the other player, so one optimiser that works weight by weight
serves both. No gradient passes through a draw, so discrete and Gaussian layers are alike, and K = 1 will do.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hvae.evidence import HVAE, Evidence
from hvae.gradients import asleep, awake
from hvae.objectives.objective import Objective, total
from hvae.rng import NoiseSpecs
from hvae.shapes import Noise, Scalar, Value
from hvae.suitability import ObjectiveTraits

DREAM = "dream of "
"""prefix of a decoder's variable in the noise of a batch; the latents that q draws keep their names"""


class Game(Objective):
    """Evidence of data and of dreams, both of `hvae.gradients.players` -> the loss, each term moved by one player.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> list(WakeSleep().noise_specs(linear_stack(1.0, "best", seed=0, widths=(6, 4, 3)).model))
    ['z1', 'z2', 'dream of z2', 'dream of z1', 'dream of x']
    """

    @abstractmethod
    def __call__(self, evidence: Evidence, dreams: Evidence) -> Scalar: ...

    @property
    def traits(self) -> ObjectiveTraits:
        return ObjectiveTraits("players", f"the objective is {type(self).__name__}", for_relaxed=False)

    def noise_specs(self, model: HVAE) -> NoiseSpecs:
        dreams = {DREAM + name: spec for name, spec in model.decoder.noise_specs().items()}
        return {**model.noise_specs(), **dreams}

    def on(self, model: HVAE, x: Value, noise: Mapping[str, Noise], step: int) -> tuple[Scalar, Evidence]:
        """As many dreams as draws from q: ``[K, B]``."""
        self.admit(model)
        evidence = awake(model, x, noise)
        dreams = asleep(model, {name: noise[DREAM + name] for name in model.decoder.variables})
        return self(evidence, dreams), evidence


@dataclass(frozen=True)
class WakeSleep(Game):
    """``-mean log p(x, z) over z ~ q(z|x) - mean log q(z|x) over (x, z) ~ p`` (Hinton et al. 1995).

    It rests where ``q = p(z|x)`` and p(x) is the distribution of the data. It is no bound on log p(x).

    >>> import torch
    >>> from hvae import WakeSleep
    >>> from hvae.objectives.objective import total
    >>> from hvae.exact.known_stacks import linear_stack
    >>> evidence = dreams = linear_stack(1.0, "best", seed=0).evidence(5)
    >>> torch.allclose(WakeSleep()(evidence, dreams), -(total(evidence.p) + total(dreams.q)).mean())
    True
    """

    def __call__(self, evidence: Evidence, dreams: Evidence) -> Scalar:
        return -total(evidence.p).mean() - total(dreams.q).mean()


@dataclass(frozen=True)
class SymmetricEquilibrium(Game):
    """``-L_p - L_q`` of the two players above, each mean over its batch (Flach et al. 2024).

    Without labels it is `WakeSleep`. Labelled ``pairs`` (x, z) ``[1, N]``, as the `players` weigh them, join both
    batches as N more data. The paper's encoder may share the decoder's conditionals, constants for it; a ladder's does
    so in every game here. In the paper the players move in turn; here they move at once.

    >>> import torch
    >>> from hvae import SymmetricEquilibrium, WakeSleep
    >>> from hvae.exact.known_stacks import linear_stack
    >>> evidence = dreams = linear_stack(1.0, "best", seed=0).evidence(1)
    >>> pairs = evidence  # the same data again, labelled: the means stay as they are
    >>> torch.allclose(SymmetricEquilibrium()(evidence, dreams, pairs), WakeSleep()(evidence, dreams))
    True
    """

    def __call__(self, evidence: Evidence, dreams: Evidence, pairs: Evidence | None = None) -> Scalar:
        log_p, log_q = total(evidence.p).mean(0), total(dreams.q).mean(0)
        if pairs is not None:
            log_p, log_q = torch.cat([log_p, total(pairs.p)[0]]), torch.cat([log_q, total(pairs.q)[0]])
        return -log_p.mean() - log_q.mean()


@dataclass(frozen=True)
class ReweightedWakeSleep(Game):
    """K draws of q that count by their importance ``s = softmax(log_weight)`` (Bornschein and Bengio 2015):

        ``-Σ_k s_k log p(x, z_k) - (1 - sleep) Σ_k s_k log q(z_k|x) - sleep · mean log q(z|x) over dreams``

    averaged over data. The decoder's gradient is that of the IWAE bound. The first two terms are the wake phases of p
    and q, the last the sleep phase of q. Raises ValueError for one draw, which counts 1: p would learn as in wake-sleep
    and q nothing, as E_q ∇ log q = 0.

    >>> import torch
    >>> from hvae import ReweightedWakeSleep
    >>> from hvae.objectives.objective import total
    >>> from hvae.exact.known_stacks import linear_stack
    >>> evidence = dreams = linear_stack(1.0, "best", seed=0).evidence(5)
    >>> share = evidence.log_weight.softmax(0)
    >>> wake = (share * (total(evidence.p) + total(evidence.q))).sum(0).mean()
    >>> torch.allclose(ReweightedWakeSleep(sleep=0.0)(evidence, dreams), -wake)
    True
    """

    sleep: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.sleep <= 1:
            raise ValueError(f"sleep is {self.sleep}; give a share in [0, 1].")

    def __call__(self, evidence: Evidence, dreams: Evidence) -> Scalar:
        log_p, log_q = total(evidence.p), total(evidence.q)
        if len(log_p) < 2:
            raise ValueError("reweighted wake-sleep needs at least 2 samples to weigh; got 1.")
        share = (log_p - log_q).detach().softmax(0)
        wake = (share * (log_p + (1 - self.sleep) * log_q)).sum(0).mean()
        return -wake - self.sleep * total(dreams.q).mean()

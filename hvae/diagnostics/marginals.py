"""The evidence of the rest of a stack, by the best proposal at hand, and when it is trusted. Nats.

Where the free latents have few joint states it is the sum over them, and exact.

An estimate of log p(given, x) is a lower bound in expectation, whatever the proposal, so one that lies surely higher
refutes another. It is trusted if, for at least 95 % of the data, the effective sample size is above 200 and Pareto
k-hat below 0.7, if halving the draws moves the mean by less than 0.01 nats, and if no other proposal that was tried
finds surely more. Tied weights, those of discrete draws, have no k-hat; there half of the draws must be effective. No
such rule is proof: it holds as well where no draw of any proposal left one of two modes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.proposals import PROPOSALS, annealed
from hvae.diagnostics.rest import Rest
from hvae.evidence import HVAE
from hvae.likelihood.annealing import Annealing
from hvae.likelihood.estimate import EQUAL_ESS_SHARE, TOLERATED_SHARE, Estimate
from hvae.likelihood.importance import DrawLogWeight, importance_sample
from hvae.likelihood.refinement import DEFAULT, Refinement
from hvae.numerics import FloatArray
from hvae.shapes import Value
from hvae.vocabulary import PARETO_K_LIMIT

TRUSTED_ESS = 200.0
"""effective draws above which the estimate of a datum is trusted"""
TIED_ESS_SHARE = 0.5
"""share of the draws that must be effective where ties leave no k-hat"""
TRUSTED_HALVING_NATS = 0.01
"""mean change when the draws are halved, below which the estimates are"""
ROWS = 8192
"""draws times data in one pass: bounds the memory"""
DATA = 128
"""data fitted together"""
MOST_STATES = 2**10
"""joint states of the free latents up to which they are summed instead of drawn"""
N_EPS = 64
"""roundings of a sum over units"""


@dataclass(frozen=True)
class Marginal:
    """log p(given, x) of B data, and whether it is trusted.

    >>> found = measured("log p(x)", "prior", lambda chunk, k: torch.zeros(k, 3), n_samples=1000, chunk_samples=500)
    >>> found.trusted, float(found.halving_datum_nats.max()) < 1e-9  # all weights are 1
    (True, True)
    """

    what: str
    """such as ``log p(x, z1)``"""
    estimate: Estimate
    halving_datum_nats: FloatArray
    """``[B]``, L_K less the mean of the L_{K/2} of both halves of the draws; inf for a single draw. Of an exact value
    what half of its nodes move it"""
    proposal: str
    refuted: str = ""
    """a proposal that passed the same rules, and that this one refutes"""

    @property
    def bias_datum_nats(self) -> FloatArray:
        """``[B]``, about how far below the truth it lies: the larger of `(1/ESS - 1/K) / 2` and the halving difference.

        Both estimate `var(w) / (2 K mean(w)^2)`, the leading term; halving sees more of a heavy tail.
        """
        if self.estimate.direction == "exact":
            return self.halving_datum_nats
        delta = (1 / self.estimate.ess - 1 / self.estimate.n_samples) / 2
        return np.maximum(np.maximum(delta, self.halving_datum_nats), 0.0)

    @property
    def halving_nats(self) -> float:
        """Mean over data of the halving difference."""
        return float(self.halving_datum_nats.mean())

    @property
    def doubtful_share(self) -> float:
        """Share of the data with weights that are too few or too heavy-tailed."""
        estimate = self.estimate
        if estimate.direction == "exact":
            return 0.0
        light = estimate.pareto_k < PARETO_K_LIMIT
        undefined = np.isnan(estimate.pareto_k)
        equal = undefined & (estimate.ess > EQUAL_ESS_SHARE * estimate.n_samples)
        # tied weights of discrete draws have no k-hat; most of the draws must be effective
        light |= undefined & ~equal & (estimate.ess > TIED_ESS_SHARE * estimate.n_samples)
        if self.proposal in ("widened", "prior", "refined", "full"):  # those of q may come from one mode of several
            light |= equal
        return float((~light | ~(estimate.ess > TRUSTED_ESS)).mean())

    @property
    def reason(self) -> str:
        """Why it is not trusted, in a sentence; empty where it is."""
        n_samples = self.estimate.n_samples
        if self.refuted:
            return (
                f"{self.what} is not trusted: the proposal {self.proposal} finds surely more than the proposal "
                f"{self.refuted}, whose weights looked as good, so more may be missed."
            )
        if self.doubtful_share > TOLERATED_SHARE:
            return (
                f"{self.what} is not trusted: with {n_samples} draws of the proposal {self.proposal} the effective "
                f"sample size is at most {TRUSTED_ESS:.0f} (median {np.median(self.estimate.ess):.3g}) or Pareto k-hat "
                f"not below {PARETO_K_LIMIT} for {self.doubtful_share:.0%} of {len(self.estimate.ess)} evaluations; "
                f"give more {'chains' if self.proposal == 'annealed' else 'samples'}."
            )
        if not self.halving_nats < TRUSTED_HALVING_NATS:
            return (
                f"{self.what} is not trusted: half of the {n_samples} draws of the proposal {self.proposal} move it by "
                f"{self.halving_nats:.3g} nats, where {TRUSTED_HALVING_NATS} is the limit."
            )
        return ""

    @property
    def trusted(self) -> bool:
        """ESS > 200 and k-hat < 0.7 for 95 % of the data, and a mean halving difference below 0.01 nats."""
        return not self.reason


@dataclass(frozen=True)
class Sampling:
    """The proposals that may be tried for a marginal, in their order, and the number of draws.

    >>> Sampling(1000, seed=0).proposals
    ('widened', 'prior', 'full', 'refined')
    """

    n_samples: int
    """K"""
    seed: int
    proposals: Sequence[str] = ("widened", "prior", "full", "refined")
    refinement: Refinement = DEFAULT
    annealing: Annealing | None = None
    """tried last; its chains are its samples, so it takes about 500 of them to be trusted"""

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"n_samples is {self.n_samples}; give at least 1.")
        if not self.proposals or set(self.proposals) - set(PROPOSALS):
            raise ValueError(f"The proposals are {list(self.proposals)}; choose among {list(PROPOSALS)}.")


def best_marginal(model: HVAE, x: Tensor, given: Mapping[str, Value], sampling: Sampling) -> Marginal:
    """log p(given, x) of `x [B, D]`, by the proposal that `settled` picks; at least two are tried if named.

    ``given`` holds values ``[1, B, D]`` of the first latents visited. Raises ValueError where no proposal suits.
    """
    what = f"log p({', '.join(('x', *given))})"
    rests = [
        Rest.of(model, x[start : start + DATA], {name: value[:, start : start + DATA] for name, value in given.items()})
        for start in range(0, len(x), DATA)
    ]
    states = rests[0].states(MOST_STATES)
    if states is not None:
        return _summed(what, rests, states)
    tried: list[Marginal] = []
    for marginal in _attempts(what, rests, sampling):
        tried.append(marginal)
        if len(tried) > 1 and settled(tried).trusted:
            break
    if not tried:
        raise ValueError(
            f"None of the proposals {list(sampling.proposals)} suits {what}, where {', '.join(rests[0].specs)} are "
            "free; Bernoulli and categorical units take q or widened, and full is for few dimensions."
        )
    return settled(tried)


def _summed(what: str, rests: Sequence[Rest], states: Mapping[str, Value]) -> Marginal:
    """The exact evidence, `log sum over states of p(given, states, x)`; its error is the rounding of its dtype."""
    n_states = len(next(iter(states.values())))
    parts = []
    for rest in rests:
        rows = torch.arange(n_states).split(max(1, ROWS // len(rest.x)))
        given = ({name: value[pick].expand(-1, len(rest.x), -1) for name, value in states.items()} for pick in rows)
        parts.append(torch.cat([rest.log_joint(values) for values in given]))
    log_px = torch.cat([part.logsumexp(0) for part in parts]).detach().cpu().numpy()
    zero, undefined = np.zeros_like(log_px), np.full_like(log_px, np.nan)
    rounding = N_EPS * torch.finfo(rests[0].x.dtype).eps * np.abs(log_px)
    return Marginal(what, Estimate(log_px, "exact", zero, zero + np.inf, undefined, 0), rounding, "states")


def settled(tried: Sequence[Marginal]) -> Marginal:
    """The first that is trusted and that no other refutes, else the one with the highest mean.

    An estimate that refutes a trusted one is not trusted itself: the rule has failed on these data. The highest of
    several noisy bounds leans up by chance and is no bound any more, so it is not trusted either.
    """
    finite = [marginal for marginal in tried if np.isfinite(marginal.estimate.log_px).all()]
    if not finite:
        broken = ~np.isfinite(tried[-1].estimate.log_px)
        raise ValueError(
            f"{tried[-1].what} has no estimate: its weights are nan, infinite or all zero for {broken.sum()} of "
            f"{len(broken)} evaluations; look for parameters of the model that are no numbers."
        )
    trusted = [marginal for marginal in finite if marginal.trusted]
    failed = [marginal for marginal in trusted if any(refutes(other, marginal) for other in finite)]
    if trusted and not failed:
        return trusted[0]
    best = max(finite, key=lambda marginal: float(marginal.estimate.log_px.mean()))
    return replace(best, refuted=failed[0].proposal) if failed else best


def refutes(other: Marginal, marginal: Marginal) -> bool:
    """Whether ``other``, a lower bound too, lies above by more than 3 standard errors and `TRUSTED_HALVING_NATS`."""
    a, b = other.estimate, marginal.estimate
    error = math.sqrt(float((np.square(a.standard_error) + np.square(b.standard_error)).sum())) / len(a.log_px)
    return float((a.log_px - b.log_px).mean()) > 3 * error + TRUSTED_HALVING_NATS


def _attempts(what: str, rests: Sequence[Rest], sampling: Sampling) -> Iterator[Marginal]:
    for name in sampling.proposals:
        if PROPOSALS[name].suits(rests[0]):
            parts = [
                PROPOSALS[name].sampler(rest, sampling.refinement, sampling.seed, f"{what}/{name}/{part}")
                for part, rest in enumerate(rests)
            ]
            yield measured(what, name, _joined(parts), sampling.n_samples, max(1, ROWS // len(rests[0].x)))
    if sampling.annealing is not None and rests[0].gaussian:
        weights = [
            annealed(rest, sampling.annealing, sampling.refinement, sampling.seed, f"{what}/annealed/{part}")
            for part, rest in enumerate(rests)
        ]
        log_weight = torch.cat(weights, 1)
        yield measured(what, "annealed", lambda _, k: log_weight[:k], len(log_weight), len(log_weight))


def _joined(parts: Sequence[DrawLogWeight]) -> DrawLogWeight:
    return lambda chunk, k: torch.cat([part(chunk, k) for part in parts], 1)


def measured(what: str, proposal: str, draw: DrawLogWeight, n_samples: int, chunk_samples: int) -> Marginal:
    """The estimate of `n_samples` draws, and how far half of them move it."""
    ks = (n_samples // 2, n_samples) if n_samples > 1 else (1,)
    curve = importance_sample(draw, ks, chunk_samples=chunk_samples)
    with np.errstate(invalid="ignore"):  # where all weights of a datum are 0
        halving = curve.bound_datum_nats[-1] - curve.bound_datum_nats[0]
    return Marginal(what, curve.estimate, halving if n_samples > 1 else np.full_like(halving, math.inf), proposal)

"""The loss without a layer, in q or in the decoder; per datum, nats.

- encoder knock-out: ELBO lost when q stops before layer l and the decoder draws the latents that it would visit from
  there on: z_{>=l} ~ p(z_{>=l}) where z1 is visited first, top-down z_{<=l} ~ p(z_{<=l} | z_{>l}).
- model knock-out: likelihood lost when z_l is set to its prior mean c in the decoder, and only there (set, not
  observed: the layers above keep their prior). Both likelihoods come from the same draws of the whole q,

      log 1/K Σ w,    w = p(x, z_W ; z_l = c) / Π_{k in W} q(z_k | ·),

  W the latents on which x still depends: those below z_l, and with generative skips also those above. The draws of
  latents outside W are part of the proposal and integrate out, so this is a lower bound in every order of visit.

Bounds of K draws lie below the likelihoods, and q may suit one stack better than the other. What is missing is judged
by what the bound gained from K/2 draws to K, and by the tail index k of the weights (Hill 1975), both averaged over
data. With weights of tail index k < 1 the gains of further doublings shrink by ``2^(1 - 1/k)`` each (by a half for
k <= 1/2), which sums to ``gain / (2^(1/k - 1) - 1)``. The bound is said to miss 2.5 times that, as this was too little
by a factor of up to 2.4 wherever it was below `MOST_MISSING`: for log-normal weights and over-confident Gaussian
proposals, 1 to 16 units, K = 8 to 256. The gain alone does not tell: 0.07 nats went with 1.4 that were missing. So K
grows up to `MOST` times, and where one of the two bounds misses more than `MOST_MISSING` the loss is refused. Weights
that spread
by more than about 1.5 nats are too wild for that; both bounds stand all the same.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.draws import N_PRIOR_DRAWS, Sampler, per_datum
from hvae.diagnostics.usage import swapped
from hvae.errors import NotMeasuredError
from hvae.evidence import Evidence
from hvae.likelihood.estimate import tail_length
from hvae.network import Decoder, Trace
from hvae.numerics import FloatArray, log_mean_exp
from hvae.shapes import LogProb, Value

MOST_MISSING = 0.25
"""nats that a bound may miss, on average over data"""
SAFETY = 2.5
"""times what the doublings to come would gain: what a bound is said to miss"""
MOST = 8
"""times the draws of the evidence that model knock-outs may take"""
VISITS, FEWEST_PATHS = 256, 4
"""latents that the decoder draws for one datum and one encoder knock-out; paths at least"""


@dataclass(frozen=True)
class Bound:
    """A lower bound on the log-likelihood of each datum by K draws, and its doubt.

    >>> Bound.of(torch.zeros(8, 5)).ess.tolist()
    [8.0, 8.0, 8.0, 8.0, 8.0]
    """

    log_px: FloatArray
    """``[n]``"""
    standard_error: FloatArray
    """``[n]`` over draws, by the delta method"""
    ess: FloatArray
    """``[n]`` effective draws"""
    missing: float
    """nats by which it may lie below the likelihood, mean over data; infinite where that cannot be told"""
    n_samples: int

    @staticmethod
    def of(log_weight: LogProb) -> "Bound":
        """From log-weights ``[K, n]``."""
        log_weight, n = log_weight.detach(), len(log_weight)
        ess = (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()
        error = (1 / ess - 1 / n).clamp(min=0).sqrt()
        log_px, error_, ess_ = (part.cpu().numpy() for part in (log_mean_exp(log_weight, 0), error, ess))
        return Bound(log_px, error_, ess_, missing(log_weight), n)


def missing(log_weight: LogProb) -> float:
    """Nats by which L_K may lie below the log-likelihood, mean over data, from log-weights ``[K, n]``.

    >>> missing(torch.zeros(8, 5)), missing(torch.arange(8.0).unsqueeze(1))
    (0.0, inf)
    """
    log_weight, half = log_weight.detach(), len(log_weight) // 2
    n_tail = tail_length(len(log_weight))
    if not n_tail:
        return math.inf
    halves = log_mean_exp(log_weight[: 2 * half].unflatten(0, (2, half)), 1).mean(0)
    gain = max(0.0, float((log_mean_exp(log_weight[: 2 * half], 0) - halves).mean()))
    largest = log_weight.topk(n_tail + 1, dim=0).values
    k = max(0.5, float((largest[:-1] - largest[-1]).mean()))
    return SAFETY * gain / (2 ** (1 / k - 1) - 1) if k < 1 else math.inf


@dataclass(frozen=True)
class Knocked:
    """Bounds on the likelihoods of the whole stack and of the one with a layer clamped.

    >>> equal, heavy = torch.zeros(8, 5).double(), torch.arange(8.0).double().unsqueeze(1).expand(8, 5)
    >>> Knocked(Bound.of(equal), Bound.of(equal - 2)).loss().tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0]
    >>> Knocked(Bound.of(equal), Bound.of(heavy)).loss()
    Traceback (most recent call last):
    ...
    hvae.errors.NotMeasuredError: With the layer clamped, the likelihood may be too low by more than 0.25 nats; give \
more draws (n_paths_knockout).
    """

    whole: Bound
    clamped: Bound

    def loss(self) -> FloatArray:
        """``log p(x) - log p(x; z_l = c)``, ``[n]``. Raises `NotMeasuredError` where one of them is not settled."""
        for bound, what in ((self.whole, "Of the whole stack"), (self.clamped, "With the layer clamped")):
            if not bound.missing <= MOST_MISSING:
                raise NotMeasuredError(
                    f"{what}, the likelihood may be too low by more than {MOST_MISSING} nats; give more draws "
                    "(n_paths_knockout)."
                )
        return self.whole.log_px - self.clamped.log_px

    def widened(self, interval: FloatArray) -> FloatArray:
        """An interval (low, middle, high) of the loss, wider by what the two bounds may miss."""
        found: FloatArray = interval + np.array([-self.clamped.missing, 0.0, self.whole.missing])
        return found


@dataclass(frozen=True)
class Knockouts:
    """Knock-outs of all layers, on the draws of one evidence; what layers share is computed once.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> sampler = Sampler(stack.model, stack.x, seed=0)
    >>> with torch.no_grad():
    ...     knockouts = Knockouts(sampler, sampler.evidence(32, "example"))
    ...     knockouts.encoder("z2").shape, knockouts.model("z1").clamped.n_samples
    ((6,), 32)
    """

    sampler: Sampler
    evidence: Evidence

    def encoder(self, name: str) -> FloatArray:
        """ELBO with q minus ELBO with q stopped before ``name``, on the same draws: ``[n]``."""
        if name not in self._at_prior:
            return self._stopped(name)
        order = self.sampler.model.posterior.order
        bound = self._joint(self.evidence, self._at_prior[name], order[: order.index(name)])
        return per_datum(self.evidence.log_weight - bound, self.sampler.n_images)

    def model(self, name: str) -> Knocked:
        """The likelihoods with and without a clamp in the decoder."""
        whole, found = self._weights
        clamped = found[name]
        if isinstance(clamped, NotMeasuredError):
            raise clamped
        return Knocked(whole, clamped)

    @cached_property
    def _at_prior(self) -> Mapping[str, Trace]:
        """Bottom-up, where every variable hangs from one latent: the children of each latent at a draw of its prior."""
        sampler, decoder = self.sampler, self.sampler.model.decoder
        latents = [name for name in decoder.variables if name != "x"]
        if not sampler.model.bottom_up or any(len({*decoder.parents(z)} - {"x"}) > 1 for z in decoder.variables):
            return {}
        prior = decoder.factors(latents)
        n_paths = len(self.evidence.q[latents[0]].value)
        drawn = prior.walk({"x": sampler.x.unsqueeze(0)}, sampler.noise(n_paths, "knock-out", prior.noise_specs()))
        return dict(swapped(decoder, _values(self.evidence), {name: site.value for name, site in drawn.items()}))

    def _stopped(self, name: str) -> FloatArray:
        """By a walk of the decoder from the layers that q keeps. Far from x it takes fewer of the paths."""
        model, n_images = self.sampler.model, self.sampler.n_images
        order, decoder = model.posterior.order, model.decoder
        kept = order[: order.index(name)]
        fresh = [z for z in decoder.variables if z not in kept]
        fresh += [z for z in kept if set(decoder.parents(z)) & set(fresh)]
        factors = decoder.factors(fresh)
        n_paths = min(len(self.evidence.q[name].value), max(FEWEST_PATHS, VISITS // len(fresh)))
        given = {z: self.evidence.q[z].value[:n_paths] for z in kept} | {"x": self.sampler.x.unsqueeze(0)}
        specs = {z: spec for z, spec in decoder.noise_specs().items() if z in fresh and z not in given}
        walked = factors.walk(given, self.sampler.noise(n_paths, f"knock-out {name}", specs))
        bound = self._joint(self.evidence, walked, kept, n_paths)
        return per_datum(self.evidence.log_weight[:n_paths] - bound, n_images)

    @staticmethod
    def _joint(evidence: Evidence, changed: Trace, weighed: Sequence[str], n_paths: int | None = None) -> LogProb:
        """``log p(x | ·) + Σ_k log p(z_k | ·) - log q(z_k | ·)`` over the latents that are weighed, float64."""
        paths = slice(n_paths)

        def under_p(variable: str) -> LogProb:
            site = changed.get(variable)
            return (evidence.p[variable].log_prob[paths] if site is None else site.log_prob).double()

        rates = (under_p(z) - evidence.q[z].log_prob[paths].double() for z in weighed)
        return sum(rates, start=under_p("x"))

    @cached_property
    def _weights(self) -> tuple[Bound, Mapping[str, Bound | NotMeasuredError]]:
        """The whole stack's bound and those with a layer clamped; K grows while one of them is not settled,
        and may become so."""
        decoder, n_paths = self.sampler.model.decoder, len(self.evidence.q[self.evidence.latents[0]].value)
        parts: dict[str, list[LogProb]] = {"": [], **{name: [] for name in self.evidence.latents}}
        refused: dict[str, NotMeasuredError] = {}
        for block in range(MOST):
            clamps, pieces = self._clamps(n_paths, block), {name: list[LogProb]() for name in parts}
            for images, evidence in self._draws(n_paths, block):
                pieces[""].append(evidence.log_weight)
                here = {name: value if value.shape[1] == 1 else value[:, images] for name, value in clamps.items()}
                for name, changed in swapped(decoder, _values(evidence), here):
                    try:
                        weight = self._joint(evidence, changed, _read(decoder, without=name))
                        pieces[name].append(weight.expand(n_paths, len(images)))
                    except NotMeasuredError as refusal:
                        refused[name] = refusal
            for name in pieces:
                if name not in refused:
                    parts[name].append(torch.cat(pieces[name], 1))
            weights = {name: torch.cat(found) for name, found in parts.items() if name not in refused}
            left = [missed for missed in map(missing, weights.values()) if missed > MOST_MISSING]
            if not left or (block and min(left) > MOST * MOST_MISSING):  # an error falls like 1/K at best
                break
        bounds = {name: Bound.of(found) for name, found in weights.items()}
        return bounds.pop(""), {**bounds, **refused}

    def _draws(self, n_paths: int, block: int) -> Iterator[tuple[Tensor, Evidence]]:
        """The draws at hand; and further ones, some images at a time."""
        model, x = self.sampler.model, self.sampler.x
        if block == 0:
            yield torch.arange(len(x), device=x.device), self.evidence
            return
        for number, images in enumerate(self.sampler.blocks):
            some = x[images].unsqueeze(0)
            noise = self.sampler.block_noise(number, n_paths, f"knock-out/{block}")
            yield images, model.weigh(model.infer(some, noise), some)

    def _clamps(self, n_paths: int, block: int) -> dict[str, Value]:
        """What each z_l is set to: its prior mean, or a prior draw ``[K, n, D]`` where a mean is no value."""
        decoder, x = self.sampler.model.decoder, self.sampler.x.unsqueeze(0)
        names = [name for name in decoder.variables if name != "x"]
        without = [name for name in names if name not in self._means]
        if not without:
            return dict(self._means)
        latents = decoder.factors(names)
        drawn = latents.walk({"x": x}, self.sampler.noise(n_paths, f"prior draw/{block}", latents.noise_specs()))
        return {name: drawn[name].value if name in without else self._means[name] for name in names}

    @cached_property
    def _means(self) -> Mapping[str, Value]:
        """Prior means: ``[1, 1, D]``, or with a context ``[1, n, D]``."""
        sampler, decoder = self.sampler, self.sampler.model.decoder
        if sampler.groups is None:
            return {name: mean.reshape(1, 1, -1) for name, mean in sampler.prior_means.items()}
        latents = decoder.factors([name for name in decoder.variables if name != "x"])
        n_draws = max(1, N_PRIOR_DRAWS // sampler.n_images)
        noise = sampler.noise(n_draws, "prior mean", latents.noise_specs())
        sites = latents.walk({"x": sampler.x.unsqueeze(0)}, noise)
        return {
            name: site.mean.expand(n_draws, sampler.n_images, -1).mean(0, keepdim=True)
            for name, site in sites.items()
            if decoder.has_mean(name)
        }


def _values(evidence: Evidence) -> dict[str, Value]:
    return {name: site.value for name, site in evidence.p.items()}


def _read(decoder: Decoder, *, without: str) -> list[str]:
    """Latents on which x depends in the decoder once ``without`` is set, nearest first."""
    found = ["x"]
    for variable in found:
        found += [parent for parent in decoder.parents(variable) if parent not in (*found, without)]
    return found[1:]

"""The loss without a layer, in q or in the decoder, and the bound that the layers above it give; per datum, nats.

- encoder knock-out: ELBO lost when q stops before layer l and the decoder draws the latents that it would visit from
  there on: z_{>=l} ~ p(z_{>=l}) where z1 is visited first, top-down z_{<=l} ~ p(z_{<=l} | z_{>l}).
- model knock-out: likelihood lost when z_l is set to its prior mean c in the decoder, and only there (set, not
  observed: the layers above keep their prior). Both likelihoods come from the same draws of the whole q,

      log 1/K Σ w,    w = p(x, z_W ; z_l = c) / Π_{k in W} q(z_k | ·),

  W the latents on which x still depends: those below z_l, and with generative skips also those above. The draws of
  latents outside W are part of the proposal and integrate out, so this is a lower bound in every order of visit.
- bound from above a layer: L^{>l}, log p(x) from below with z_{<=l} ~ p(z_{<=l} | z_{>l}) and z_{>l} ~ q(z_{>l} | x)
  (`Knockouts.above`). With z1 visited last, ELBO - L^{>l} of one sample is the encoder knock-out.

Bounds of K draws lie below the likelihoods, and q may suit one stack better than the other. What is missing is judged
image by image, as that of every likelihood (`hvae.likelihood.estimate`): K grows up to `MOST` times, and where one of
the two may miss more than `MOST_MISSING`, on average over data, the loss is refused. An image whose weights are not
settled counts with all that it may miss, so a code of few images is not averaged away. Both bounds stand all the same.
The loss is shown without an interval: a spread over images says nothing of what a bound misses, and sets of images that
are refused differ from those that are not.
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
from hvae.likelihood.estimate import Estimate
from hvae.likelihood.weights import estimate
from hvae.network import Decoder, Trace
from hvae.numerics import FloatArray
from hvae.shapes import LogProb, Value
from hvae.vocabulary import FEWEST_FOR_ABSENCE, FEWEST_SAMPLES

MOST_MISSING = 0.25
"""nats that a bound may miss, on average over data"""
MOST = 8
"""times the draws of the evidence that model knock-outs may take"""
MOST_WALKS = 4096
"""images times layers for what walks the decoder once a layer: with all images its time grows with the square of L"""


def images_of_walks(n_images: int, n_layers: int) -> int:
    """How many images serve where the decoder is walked once for each layer: all for few layers, at least 72.

    >>> [images_of_walks(512, n_layers) for n_layers in (8, 24, 48, 200)]
    [512, 170, 85, 72]
    """
    return min(n_images, max(FEWEST_FOR_ABSENCE, MOST_WALKS // n_layers))


def missing(bound: Estimate) -> float:
    """Nats by which L_K may lie below the log-likelihood, mean over data; infinite where that cannot be told.

    >>> missing(estimate(torch.zeros(32, 5))), missing(estimate(torch.arange(8.0).unsqueeze(1)))
    (0.0, inf)
    """
    return max(0.0, sum(bound.doubt_nats)) if np.min(bound.n_samples) >= FEWEST_SAMPLES else math.inf


@dataclass(frozen=True)
class Knocked:
    """Bounds on the likelihoods of the whole stack and of the one with a layer clamped.

    >>> equal, heavy = torch.zeros(32, 5).double(), torch.arange(32.0).double().unsqueeze(1).expand(32, 5)
    >>> Knocked(estimate(equal), estimate(equal - 2)).loss().tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0]
    >>> Knocked(estimate(equal), estimate(heavy)).loss()
    Traceback (most recent call last):
    ...
    hvae.errors.NotMeasuredError: With the layer clamped, the likelihood may be too low by more than 0.25 nats; give \
more draws (n_paths_knockout).
    """

    whole: Estimate
    clamped: Estimate

    def loss(self) -> FloatArray:
        """``log p(x) - log p(x; z_l = c)``, ``[n]``. Raises `NotMeasuredError` where one of them is not settled."""
        for bound, what in ((self.whole, "Of the whole stack"), (self.clamped, "With the layer clamped")):
            if not missing(bound) <= MOST_MISSING:
                raise NotMeasuredError(
                    f"{what}, the likelihood may be too low by more than {MOST_MISSING} nats; give more draws "
                    "(n_paths_knockout)."
                )
        return self.whole.log_px - self.clamped.log_px


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

    def above(self, name: str) -> Estimate:
        """L^{>l} of K samples, from below: what the layers above z_l, as q codes them, say of x.

            E log 1/K Σ_k p(x, z_{>l}) / q(z_{>l} | x),    z_{>l} ~ q(z_{>l} | x),  z_{<=l} ~ p(z_{<=l} | z_{>l}),

        with p(x | z) for p(x | z_{>l}) at the draw of z_{<=l}, whose p stands in both products and leaves the weight.
        Its mean is p(x) for every l, so it is a lower bound on log p(x) that rises with K; its standard error is in
        the estimate. At l = L everything is drawn from p, and L^{>0} would be L_K. Of K = 1 it is that of Havtorn et
        al. 2021 (arXiv:2102.08248), L^{>k}, and L^{>0} less it their likelihood ratio.

        Raises `NotMeasuredError` where q(z_{>l} | x) cannot be walked without z_{<=l}, as where z1 is visited first.
        These could be drawn beside it, but the weight would then hold q(z_{>l} | z_{<=l}), and the bound would be
        lower by what the upper layers tell of the noise of the lower ones. Top-down orders and mean field have it.
        """
        model = self.sampler.model
        kept = model.latents[model.latents.index(name) + 1 :]
        for z in kept:
            seen = [parent for parent in model.posterior.parents(z) if parent not in ("x", *kept)]
            if seen:
                raise NotMeasuredError(
                    f"q of {z} is conditioned on {seen[0]}, so it has no draw of the layers above {name} alone."
                )
        order = model.posterior.order
        same = set(order[: order.index(name)]) == set(kept)
        weight = self._stopped_at(name) if same else self._redrawn(kept, f"above {name}")
        return estimate(weight.expand(-1, self.sampler.n_images), tails=False)

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
        return per_datum(self.evidence.log_weight - self._stopped_at(name), self.sampler.n_images)

    def _stopped_at(self, name: str) -> LogProb:
        """Log-weights with q stopped before ``name``; the last layer's are kept, for its knock-out and its bound."""
        if name not in self._last:
            order = self.sampler.model.posterior.order
            self._last.clear()
            self._last[name] = self._redrawn(order[: order.index(name)], f"knock-out {name}")
        return self._last[name]

    @cached_property
    def _last(self) -> dict[str, LogProb]:
        return {}

    def _redrawn(self, kept: Sequence[str], purpose: str) -> LogProb:
        """Log-weights of the latents that q keeps, the others by a walk of the decoder from there."""
        decoder = self.sampler.model.decoder
        fresh = [z for z in decoder.variables if z not in kept]
        fresh += [z for z in kept if set(decoder.parents(z)) & set(fresh)]
        given = {z: self.evidence.q[z].value for z in kept} | {"x": self.sampler.x.unsqueeze(0)}
        specs = {z: spec for z, spec in decoder.noise_specs().items() if z in fresh and z not in given}
        n_paths = len(self.evidence.q[self.evidence.latents[0]].value)
        walked = decoder.factors(fresh).walk(given, self.sampler.noise(n_paths, purpose, specs))
        return self._joint(self.evidence, walked, kept)

    @staticmethod
    def _joint(evidence: Evidence, changed: Trace, weighed: Sequence[str]) -> LogProb:
        """``log p(x | ·) + Σ_k log p(z_k | ·) - log q(z_k | ·)`` over the latents that are weighed, float64."""

        def under_p(variable: str) -> LogProb:
            site = changed.get(variable)
            return (evidence.p[variable].log_prob if site is None else site.log_prob).double()

        rates = (under_p(z) - evidence.q[z].log_prob.double() for z in weighed)
        return sum(rates, start=under_p("x"))

    @cached_property
    def _weights(self) -> tuple[Estimate, Mapping[str, Estimate | NotMeasuredError]]:
        """The whole stack's bound and those with a layer clamped; K grows while one of them is not settled,
        and may become so."""
        decoder, n_paths = self.sampler.model.decoder, len(self.evidence.q[self.evidence.latents[0]].value)
        parts: dict[str, list[LogProb]] = {"": [], **{name: [] for name in self.evidence.latents}}
        refused: dict[str, NotMeasuredError] = {}
        bounds: dict[str, Estimate] = {}
        settled: set[str] = set()
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
            if (block + 1) & block:  # judged at doublings
                continue
            bounds = {name: _judged(found, known=name in settled) for name, found in weights.items()}
            settled |= {name for name, bound in bounds.items() if missing(bound) <= MOST_MISSING}
            left = [sum(bound.doubt_nats) for name, bound in bounds.items() if name not in settled]
            if not left or (block and min(left) > MOST * MOST_MISSING):  # an error falls like 1/K at best
                break
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


def _judged(log_weight: LogProb, *, known: bool) -> Estimate:
    """With k-hat, the dear part, where nothing else speaks against the bound and fewer draws had not settled it."""
    cheap = estimate(log_weight, tails=False)
    return cheap if known or missing(cheap) > MOST_MISSING else estimate(log_weight)


def _values(evidence: Evidence) -> dict[str, Value]:
    return {name: site.value for name, site in evidence.p.items()}


def _read(decoder: Decoder, *, without: str) -> list[str]:
    """Latents on which x depends in the decoder once ``without`` is set, nearest first."""
    found = ["x"]
    for variable in found:
        found += [parent for parent in decoder.parents(variable) if parent not in (*found, without)]
    return found[1:]

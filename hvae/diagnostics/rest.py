"""The rest of a stack once some latents are given: an integral over the free ones.

With x and the first latents of the visit given,

    p(given, x) = E_q(free | given, x) [p(given, free, x) / q(free | given, x)]

is the evidence of a smaller stack, on which every estimator of log p(x) works (`hvae.likelihood.target`). It holds for
every decoder. Factors of p without a free latent are a constant of each datum, evaluated once: with z1 given, bottom-up
in a Markov decoder, that is p(x|z1), the widest net. Top-down, and with generative skips, x depends on the free
latents, and there is no such saving: the rest is then p(z_{>l} | z_{<=l}, x) and not p(z_{>l} | z_l).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.evidence import HVAE
from hvae.exact.discrete_visits import all_states, enumerable, has_states
from hvae.likelihood.target import Target, split
from hvae.network import Decoder, Trace
from hvae.posterior import NetworkPosterior, Posterior
from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Noise, Value


@dataclass(frozen=True)
class Rest:
    """The free latents of B data, and their distributions under p and q.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> rest = Rest.of(stack.model, stack.x, {"z1": stack.evidence(1).q["z1"].value})
    >>> list(rest.specs), rest.decoder.variables  # x depends on z1 alone: its factor is a constant
    (['z2', 'z3'], ('z3', 'z2', 'z1'))
    """

    model: HVAE
    known: Mapping[str, Value]
    """x and the given latents, ``[1, B, D]``"""
    specs: NoiseSpecs
    """the noise of the free latents, in the order of the visit"""
    decoder: Decoder
    """the factors of p that see a free latent"""
    posterior: Posterior
    """q; of a network posterior only the conditionals of the free latents"""
    constant: LogProb
    """log of the other factors, ``[1, B]``"""

    @staticmethod
    def of(model: HVAE, x: Tensor, given: Mapping[str, Value]) -> "Rest":
        """``given`` holds values ``[1, B, D]`` of the first latents of the visit, x is ``[B, D]``."""
        known, posterior, decoder = {**given, "x": x.unsqueeze(0)}, model.posterior, model.decoder
        settled = [name for name in decoder.variables if {name, *decoder.parents(name)} <= known.keys()]
        trace = decoder.factors(settled).walk(known, {})
        constant = torch.zeros(1, len(x), dtype=torch.float64, device=x.device)
        specs = {name: spec for name, spec in model.noise_specs().items() if name not in known}
        if isinstance(posterior, NetworkPosterior):
            posterior = NetworkPosterior(posterior.network.factors(specs))
        return Rest(
            model,
            known,
            specs,
            decoder.factors([name for name in decoder.variables if name not in settled]),
            posterior,
            sum((trace[name].log_prob.double() for name in settled), start=constant).detach(),
        )

    @property
    def x(self) -> Tensor:
        """``[B, D]``."""
        return self.known["x"][0]

    def visit(self, noise: Mapping[str, Noise], values: Mapping[str, Value] | None = None) -> Trace:
        """q of the free latents: scored where ``values`` has them, drawn from ``noise`` elsewhere."""
        trace = self.posterior.walk(self.model.decoder, {**self.known, **(values or {})}, noise)
        return {name: trace[name] for name in self.specs}

    def log_joint(self, values: Mapping[str, Value]) -> LogProb:
        """``log p(given, free, x)``."""
        trace = self.decoder.walk({**self.known, **values}, {})
        return sum((site.log_prob.double() for site in trace.values()), start=self.constant)

    def log_weight(self, noise: Mapping[str, Noise]) -> LogProb:
        """``log p(given, free, x) - log q(free | given, x)`` of the draw that ``noise`` becomes."""
        trace = self.visit(noise)
        log_q = sum(site.log_prob.double() for site in trace.values())
        return self.log_joint({name: site.value for name, site in trace.items()}) - log_q

    def states(self, most: int) -> dict[str, Value] | None:
        """All joint states ``[S, 1, D]`` of the free latents; None where one is not discrete, or S exceeds ``most``."""
        zeros = {name: self.x.new_full((1, len(self.x), width), 0.5) for name, (_, width) in self.specs.items()}
        families = {name: site.family for name, site in self.visit(zeros).items()}
        if not all(has_states(family) for family in families.values()):
            return None
        sizes = [enumerable(family) for family in families.values()]
        if math.prod(n_classes**n_units for n_units, n_classes in sizes) > most:
            return None
        each = [all_states(family).to(self.x) for family in families.values()]
        picks = torch.cartesian_prod(*(torch.arange(len(states)) for states in each)).reshape(-1, len(each))
        return {name: own[pick].unsqueeze(1) for name, own, pick in zip(families, each, picks.T, strict=True)}

    @property
    def width(self) -> int:
        """Numbers of noise for one draw of the free latents."""
        return sum(width for _, width in self.specs.values())

    @property
    def gaussian(self) -> bool:
        """Whether the free latents are functions of normal noise, so that there is a `target`."""
        return all(kind == "normal" for kind, _ in self.specs.values())

    def target(self) -> Target:
        """The same as a mean over standard normal noise; Gaussian latents only."""
        assert self.gaussian
        return Target(lambda noise: self.log_weight(split(noise, self.specs)), self.specs, self.x)

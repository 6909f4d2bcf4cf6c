"""Evidence: the densities of p and q at the same draws. The only place where the two meet.

Along draws z ~ q(z|x), with every term in nats and of shape ``[K, B]``:

    rate_l      log q(z_l | ·) - log p(z_l | ·)
    distortion  -log p(x | z1)
    log_weight  log p(x, z) - log q(z | x) = -distortion - Σ_l rate_l

The mean of `log_weight` is the ELBO; the log of the mean of its exponential estimates log p(x).
A rate is one term of a sum, not a divergence, and bottom-up it may well be negative.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hvae.errors import NotMeasuredError
from hvae.families import has_closed_kl, kl, unit_kl
from hvae.network import Decoder, Trace
from hvae.posterior import Posterior, scored
from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Noise, UnitLogProb, Value


class ClosedFormError(NotMeasuredError):
    """A closed-form KL was asked for where it would be wrong."""


DECODER, ENCODER = "decoder", "encoder"
"""owners of the weights that belong to no single latent of q"""


def _unknown() -> "Evidence":
    raise ValueError("no model stands behind this evidence to weigh its draws anew; get it by calling an HVAE.")


@dataclass(frozen=True)
class Evidence:
    """The p-trace and the q-trace of the same draws.

    >>> import torch
    >>> from hvae import Evidence
    >>> from hvae.families import DiagonalGaussian
    >>> from hvae.network import Site
    >>> normal = DiagonalGaussian(1, variance="fixed")
    >>> def site(value, mean):
    ...     return Site(torch.full((1, 1, 1), value), normal.distribution(torch.full((1, 1, 1), mean)), normal)
    >>> evidence = Evidence({"z1": site(1.0, 0.0), "x": site(2.0, 2.0)}, {"z1": site(1.0, 1.0)}, {"z1": ()})
    >>> round(evidence.rate("z1").item(), 4)  # log N(1; 1, 1) - log N(1; 0, 1)
    0.5
    >>> round(evidence.log_weight.item(), 4)  # log N(2; 2, 1) - 0.5
    -1.4189
    """

    p: Trace
    q: Trace
    prior_parents: Mapping[str, tuple[str, ...]]
    """parents of each latent in the decoder"""
    reweigh: Callable[[], "Evidence"] = field(default=_unknown, repr=False, compare=False)
    """makes `frozen`"""
    redraw: Callable[[], Trace] | None = field(default=None, repr=False, compare=False)
    """a second visit of the latents on other noise (`HVAE.redraw`); None where no model stands behind it"""

    @property
    def latents(self) -> tuple[str, ...]:
        """Latents, z1 first."""
        return tuple(name for name in reversed(tuple(self.p)) if name in self.q)

    def rate(self, name: str) -> LogProb:
        """``log q(z_l|·) - log p(z_l|·)`` along the draws."""
        return self.q[name].log_prob - self.p[name].log_prob

    def unit_rate(self, name: str) -> UnitLogProb:
        """The terms of `rate`, one per unit; factorised distributions only."""
        return self.q[name].unit_log_prob - self.p[name].unit_log_prob

    @cached_property
    def frozen(self) -> "Evidence":
        """The same draws weighed by constant weights: gradients reach the draws, and pass through them only.

        Every term keeps its value. The *weights* are constants, never the distributions' parameters: q(z2|z1) still
        moves with z1, and detaching its mean would cut the path through z1. Raises ValueError for evidence that no
        call of an `HVAE` made.
        """
        return self.reweigh()

    @property
    def distortion(self) -> LogProb:
        """``-log p(x | z)``."""
        return -self.p["x"].log_prob

    @property
    def log_weight(self) -> LogProb:
        """``log p(x, z) - log q(z | x)`` from *sampled* log-densities, summed in float64.

        Closed-form rates never enter: ``exp(log p(x|z) - Σ KL)`` is not a weight, and its mean is
        no bound (+7.4 nats too high at 50 units with the exact posterior).
        """
        return sum((-self.rate(name).double() for name in self.q), start=-self.distortion.double())

    def kl(self, name: str) -> LogProb:
        """``KL(q(z_l|·) ‖ p(z_l|·))`` in closed form, ``[K, B]``, given the draws before z_l.

        Right only if every parent of z_l in the decoder is visited before z_l: top-down, and for a
        layer without parent. Bottom-up, z_{l+1} was drawn *from* z_l and the formula answers 3.00 nats
        where the truth is 0.72; there it raises `ClosedFormError`. Raises TypeError for distributions that have no
        closed form.
        """
        self._check_closed_form(name)
        divergence = kl(self.q[name].distribution, self.p[name].distribution)
        return divergence.expand(torch.broadcast_shapes(divergence.shape, self.q[name].value.shape[:-1]))

    def unit_kl(self, name: str) -> UnitLogProb:
        """The terms of `kl`, one per unit; factorised distributions only."""
        self._check_closed_form(name)
        q = self.q[name]
        terms = q.family.per_unit(unit_kl(q.distribution, self.p[name].distribution))
        batch = torch.broadcast_shapes(terms.shape[:-1], q.value.shape[:-1])
        return terms.expand(*batch, terms.shape[-1])

    def closed_form(self, name: str) -> bool:
        """Whether `kl` is right here: z_l's parents in p are visited before it, and its distributions have one."""
        return self.parents_first(name) and has_closed_kl(self.q[name].distribution, self.p[name].distribution)

    def parents_first(self, name: str) -> bool:
        """Whether z_l's parents in p are visited before it, so that its expected rate is a divergence."""
        order = tuple(self.q)
        return set(self.prior_parents[name]) - {"x"} <= set(order[: order.index(name)])

    def _check_closed_form(self, name: str) -> None:
        if not self.parents_first(name):
            parents = ", ".join(self.prior_parents[name])
            raise ClosedFormError(
                f"no closed-form KL for {name}: its prior is conditioned on {parents}, which this posterior visits "
                f"after {name}; use the sampled rate."
            )


class HVAE(nn.Module):
    """A decoder p and a posterior q over the same latents; called, it weighs them on the same draws.

    Raises ValueError where their latents differ.

    >>> import torch
    >>> from torch import nn
    >>> from hvae import HVAE
    >>> from hvae import BeliefNetwork, Conditional, DiagonalGaussian, NetworkPosterior, Root, noise
    >>> prior = Conditional("z1", [], Root(torch.zeros(4), learned=False), DiagonalGaussian(2))
    >>> decoder = BeliefNetwork([prior, Conditional("x", ["z1"], nn.Linear(2, 6), DiagonalGaussian(3))])
    >>> encoder = BeliefNetwork([Conditional("z1", ["x"], nn.Linear(3, 4), DiagonalGaussian(2))])
    >>> model = HVAE(decoder, NetworkPosterior(encoder))
    >>> model(torch.zeros(1, 5, 3), noise(model.noise_specs(), 7, 5, seed=0, purpose="example")).log_weight.shape
    torch.Size([7, 5])
    """

    maps = True
    """whether a step of training may run under `torch.func.vmap`"""

    def __init__(self, decoder: Decoder, posterior: Posterior) -> None:
        super().__init__()
        self.decoder = decoder
        self.posterior = posterior
        latents = {name for name in decoder.variables if name != "x"}
        if latents != set(posterior.order):
            raise ValueError(f"decoder and posterior disagree on the latents: {sorted(latents)}, {posterior.order}.")

    @property
    def latents(self) -> tuple[str, ...]:
        """Latents, z1 first."""
        return tuple(name for name in reversed(self.decoder.variables) if name != "x")

    @property
    def bottom_up(self) -> bool:
        """Whether the posterior visits z1 first, then z2 and so on up (`Posterior.bottom_up`)."""
        return self.posterior.bottom_up(self.decoder)

    @property
    def owners(self) -> Mapping[str, str]:
        """Name of a weight -> its owner: a latent for the weights of its conditional in q, "encoder" for other weights
        of q, "decoder" for the rest. A weight that p and q share is q's."""
        inside = {id(weight): path.split(".") for path, weight in self.posterior.named_parameters()}

        def owner(weight: nn.Parameter) -> str:
            path = inside.get(id(weight))
            return DECODER if path is None else next((name for name in self.latents if name in path), ENCODER)

        return {name: owner(weight) for name, weight in self.named_parameters()}

    def noise_specs(self) -> NoiseSpecs:
        """The noise that one visit of the latents takes."""
        return self.posterior.noise_specs()

    def groups(self, x: Tensor) -> Tensor | None:
        """Labels ``[n]``, equal where data ``x [n, ·]`` share a context; None for a model without context."""
        return None

    def shown(self, x: Tensor) -> Tensor:
        """Data ``x [n, ·]`` as numbers ``[n, D]`` that stand beside the mean of p(x | z)."""
        return x

    def infer(self, x: Value, noise: Mapping[str, Noise], given: Mapping[str, Value] | None = None) -> Trace:
        """Visit the latents by q, given x ``[1, B, D]`` and any latents that are fixed."""
        return self.posterior.walk(self.decoder, {**(given or {}), "x": x}, noise)

    def forward(self, x: Value, noise: Mapping[str, Noise], given: Mapping[str, Value] | None = None) -> Evidence:
        """Draw z ~ q(z|x) from ``noise`` and weigh: x is ``[1, B, D]``, the noise ``[K, B, ·]``.

        Latents in ``given`` are fixed there. The evidence keeps the weights of this call for `Evidence.frozen`, so that
        it is right inside `torch.func.functional_call` and `vmap` too, also when the call is over.
        """
        p, q = self.visit(x, noise, given)
        evidence = self._evidence(p, q)
        weights = self._held()

        def reweigh() -> Evidence:
            constants = {name: weight.detach() for name, weight in weights.items()}
            draws = {name: site.value for name, site in evidence.q.items()}
            frozen = functional_call(self, constants, (x, {}, draws))
            assert isinstance(frozen, Evidence)
            return frozen

        return replace(evidence, reweigh=reweigh, redraw=self._redraw(weights, x, noise, given))

    def redraw(
        self, x: Value, noise: Mapping[str, Noise], given: Mapping[str, Value] | None = None
    ) -> Callable[[], Trace]:
        """Makes a second visit of the latents with the weights of now, every datum on the noise of its neighbour.

        So it is independent of the first one given x, and no more noise is needed.
        """
        return self._redraw(self._held(), x, noise, given)

    def _redraw(
        self,
        weights: Mapping[str, Tensor],
        x: Value,
        noise: Mapping[str, Noise],
        given: Mapping[str, Value] | None,
    ) -> Callable[[], Trace]:
        def again() -> Trace:
            neighbours = {name: values.roll(1, dims=1) for name, values in noise.items()}
            second = functional_call(self, dict(weights), (x, neighbours, given))
            assert isinstance(second, Evidence)
            return second.q

        return again

    def _held(self) -> dict[str, Tensor]:
        """Weights and buffers as they are now, which `torch.func.functional_call` may have exchanged.

        Those of `named_parameters` and `named_buffers`, by one plain walk: theirs are a tenth of a small net's step.
        """
        found: dict[int, tuple[str, Tensor]] = {}

        def look(module: nn.Module, path: str) -> None:
            for name, value in chain(module._parameters.items(), module._buffers.items()):
                if value is not None:
                    found.setdefault(id(value), (path + name, value))
            for name, part in module._modules.items():
                if part is not None:
                    look(part, f"{path}{name}.")

        look(self, "")
        return dict(found.values())

    def visit(
        self, x: Value, noise: Mapping[str, Noise], given: Mapping[str, Value] | None = None
    ) -> tuple[Trace, Trace]:
        """The p-trace and the q-trace of the same draws: by two walks, or by one where a model walks both at once."""
        return self.posterior.visit(self.decoder, {**(given or {}), "x": x}, noise)

    def redrawn(self, x: Value, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Value:
        """Other data ``[K, B, D]`` in the contexts of ``x``: drawn by the decoder, with the latents in ``given``."""
        return self.decoder.walk(given, noise)["x"].value

    def forget(self) -> None:
        """Let go of data that `redrawn` made, where a model keeps them."""

    def weigh(self, q: Trace, x: Value) -> Evidence:
        """Score the draws of ``q``, and x, under the decoder."""
        return self._evidence(scored(self.decoder, q, x), q)

    def _evidence(self, p: Trace, q: Trace) -> Evidence:
        return Evidence(p, q, {name: self.decoder.parents(name) for name in q})

"""What every reference answers, and the error of one that cannot.

With the latents visited in the order v_1, v_2, … of a posterior (bottom-up z1 first, top-down zL first), the
chain rule of the divergence splits the gap of the ELBO into one term per layer, whatever the order:

    log p(x) - ELBO = KL(q(z|x) ‖ p(z|x)) = sum_k G_k,
    G_k = E_q KL(q(v_k | v_<k, x) ‖ p(v_k | v_<k, x)).

The same numbers follow from what is left of the gap once v_1 … v_k are drawn,

    R_k = E_q [log p(v_1 … v_k, x) - (log p(z, x) - log q(v_>k | v_<=k, x))],    G_k = R_{k-1} - R_k,

with R_0 the gap and R_L = 0; bottom-up R_l is written D_l, top-down F_l. A reference computes the G_k from
divergences and the R_k from marginals, so that their agreement proves something.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hvae.errors import NotMeasuredError
from hvae.nets import BatchNorm
from hvae.posterior import Posterior
from hvae.shapes import PerDatum

LARGEST_ROUNDING = 1e-8
"""share of (1 + gap) nats by which two routes to the gap of a layer may differ"""


class NoReferenceError(NotMeasuredError):
    """A stack without the exact answers that were asked for; the message says why.

    >>> from hvae.exact import DiscreteChain
    >>> from hvae.exact.known_stacks import linear_stack
    >>> DiscreteChain.of(linear_stack(1.0, "best", seed=0).model.decoder)
    Traceback (most recent call last):
    ...
    hvae.exact.answers.NoReferenceError: a DiagonalGaussian layer has no states to enumerate.
    """


def refuse_batch_statistics(module: nn.Module) -> None:
    """Raise `NoReferenceError` if a distribution of ``module`` depends on the rest of the batch."""
    if any(isinstance(layer, BatchNorm) and layer.training for layer in module.modules()):
        raise NoReferenceError(
            "batch norm in training mode makes distributions depend on the batch; call eval() first."
        )


@dataclass(frozen=True)
class Gaps:
    """Exact answers about a posterior q on data x: per datum `[B]`, float64, nats, expectations under q.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> gaps = linear_stack(1.0, "over-confident", seed=0).exact
    >>> (gaps.total - sum(gaps.layers.values())).abs().max() < 1e-9  # log p(x) - ELBO = sum_l G_l
    tensor(True)
    """

    log_px: PerDatum
    elbo: PerDatum
    rates: Mapping[str, PerDatum]
    """E_q [log q(z_l | ·) - log p(z_l | ·)]"""
    layers: Mapping[str, PerDatum]
    """G_l, from divergences to exact conditionals"""
    remaining: Mapping[str, PerDatum]
    """what is left of the gap once z_l is visited, from marginals: D_l bottom-up, F_l top-down, 0 for the last"""
    error: float = 0.0
    """the largest change of any number when the nodes of a quadrature are doubled; 0 for closed arithmetic"""

    @property
    def total(self) -> PerDatum:
        """log p(x) - ELBO."""
        return self.log_px - self.elbo


def settled(gaps: Gaps) -> Gaps:
    """``gaps``, once both routes to every number agree: `G_k = R_{k-1} - R_k` for every layer and datum.

    Raises `NoReferenceError` where they differ by more than `LARGEST_ROUNDING` of (1 + gap) nats. The divergences of
    one datum add up to its gap, so a layer is held to what the whole can show.
    """
    parts, rest = torch.stack([*gaps.layers.values()]), torch.stack([gaps.total, *gaps.remaining.values()])
    error = (rest[:-1] - rest[1:] - parts).abs()
    if not (error <= LARGEST_ROUNDING * (1 + gaps.total.abs())).all():
        raise NoReferenceError(
            f"rounding moves the gap of {float(gaps.total.abs().max()):.3g} nats by {float(error.max()):.2g}; the "
            "couplings are too strong for exact answers in float64, so rescale the decoder."
        )
    return gaps


class Reference(ABC):
    """Exact answers about one decoder, by other arithmetic than its own.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> stack.reference.log_px(stack.x).shape
    torch.Size([6])
    """

    @abstractmethod
    def log_px(self, x: Tensor) -> PerDatum:
        """log p(x) `[B]` of `x [B, D]`."""

    @abstractmethod
    def log_px_error(self, x: Tensor) -> PerDatum:
        """How far `log_px` may lie off `[B]`, nats: 0 where arithmetic is closed and was checked."""

    @abstractmethod
    def gaps(self, posterior: Posterior, x: Tensor) -> Gaps:
        """Every exact answer about ``posterior`` on `x [B, D]`. Raises `NoReferenceError` with the reason."""

"""What the models of others are compared by: their author's own arithmetic, one datum and one draw at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import hvae
from hvae.evidence import Evidence
from hvae.foreign import Model, Stack

K = 4
"""draws per datum"""

Author = Callable[[Mapping[str, Tensor], int], Tensor]
"""(flat value of each latent, number of the datum) -> log p(x, z) - log q(z | x)"""


def stacked(model: Model, data: Mapping[str, Tensor], context: Any = None, **how: Any) -> Stack:
    """The model handed over; ``x`` alone is whole, several names are a dict."""
    return Stack.of(model, data, context, whole=list(data) == ["x"], **how)


def weighed(stack: Stack, n_samples: int = K) -> Evidence:
    """Draws of all data, weighed."""
    x = stack.numbers
    noise = hvae.noise(stack.noise_specs(), n_samples, len(x), seed=0, purpose="test", dtype=x.dtype)
    with torch.no_grad():
        evidence = stack(x.unsqueeze(0), noise)
        assert evidence.log_weight.shape == (n_samples, len(x)) and evidence.log_weight.dtype == torch.float64
    return evidence


def error(evidence: Evidence, author: Author, of: int = K) -> float:
    """The largest difference of a log-weight from the author's, over the first draws of all data."""
    ours = evidence.log_weight[:of]
    with torch.no_grad():
        own = torch.stack([
            author({name: site.value[k, b] for name, site in evidence.q.items()}, b).double()
            for k in range(len(ours)) for b in range(ours.shape[1])
        ]).view_as(ours)  # fmt: skip
    assert own.isfinite().all() and own.std() > 0
    return float((own - ours).abs().max())


def error_of(model: Model, data: Mapping[str, Tensor], author: Author, context: Any = None) -> float:
    """`error` of fresh draws."""
    return error(weighed(stacked(model, data, context)), author)


def gaussian(value: Tensor, mean: Tensor, scale: Tensor | float) -> Tensor:
    """log N(value; mean, scale²), summed in float64: the formula."""
    value, mean, scale = value.double(), mean.double(), torch.as_tensor(scale).double()
    return (-0.5 * ((value - mean) / scale) ** 2 - scale.log() - 0.9189385332046727).sum()


def coins(value: Tensor, logits: Tensor) -> Tensor:
    """log of a Bernoulli mass, summed in float64: the formula."""
    value, logits = value.double(), logits.double()
    return (
        value * torch.nn.functional.logsigmoid(logits) + (1 - value) * torch.nn.functional.logsigmoid(-logits)
    ).sum()

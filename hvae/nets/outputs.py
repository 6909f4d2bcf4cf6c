"""Layers that may follow a net: some of its outputs normalised, some held below a limit."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvae.nets.normalisation import BatchNorm


class NormalisedMeans(nn.Module):
    """The first ``n`` of the outputs normalised to a set spread, over samples and data (Zhu et al. 2020, section 3).

    ``spread * (h - mean) / sqrt(variance + 1e-5) + shift``, with a learned shift and a ``spread`` that does not learn;
    the others pass with their bias. Over the batch, or over the inputs of `estimate_constants`, the mean square of
    output i is ``shift_i² + spread² v_i / (v_i + 1e-5)``, with v_i the variance of h_i. Where they are the D means of a
    Gaussian q with prior N(0, I), the mean KL is, for any variances of q, at least

        spread² / 2 · sum_i v_i / (v_i + 1e-5),

    that is ``D spread² / 2`` but for the 1e-5. This does not hold on other inputs.

    >>> means = NormalisedMeans(1, 2, spread=0.5)(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    >>> [[round(h, 4) for h in row] for row in means.tolist()]
    [[-0.5, 7.0], [0.5, 7.0]]
    """

    def __init__(self, n: int, n_outputs: int, spread: float) -> None:
        super().__init__()
        self.norm = BatchNorm(n, spread=spread)
        self.bias = nn.Parameter(torch.zeros(n_outputs - n))

    def forward(self, outputs: Tensor) -> Tensor:
        n = len(self.norm.shift)
        return torch.cat([self.norm(outputs[..., :n]), outputs[..., n:] + self.bias], dim=-1)


class Capped(nn.Module):
    """All outputs but the first ``n`` held below ``limit``, smoothly: ``limit - softplus(limit - h)``.

    About h where h is far below, never above the limit, with a gradient ``sigmoid(limit - h)``.

    >>> Capped(1, limit=2.0)(torch.tensor([9.0, 50.0, -50.0])).tolist()
    [9.0, 2.0, -50.0]
    """

    def __init__(self, n: int, limit: float) -> None:
        super().__init__()
        self.n = n
        self.limit = limit

    def forward(self, outputs: Tensor) -> Tensor:
        held = self.limit - F.softplus(self.limit - outputs[..., self.n :])
        return torch.cat([outputs[..., : self.n], held], dim=-1)


def normalise_means(net: nn.Sequential, n: int, spread: float) -> nn.Sequential:
    """``net`` with its first ``n`` outputs normalised; its last layer loses its bias, for the reason given in `mlp`."""
    last = net[-1]
    assert isinstance(last, nn.Linear)
    last.register_parameter("bias", None)
    return net.append(NormalisedMeans(n, last.out_features, spread))

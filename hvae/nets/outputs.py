"""What may follow a net: some of its outputs normalised, some held below a limit."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvae.nets.normalisation import BatchNorm


class NormalisedMeans(nn.Module):
    """The first ``n`` of the outputs normalised to a set spread, over samples and data (Zhu et al. 2020, section 3).

    ``spread * (h - mean) / sqrt(variance + 1e-5) + shift``, with a learned shift and a ``spread`` that does not learn;
    the others pass with their bias. Over the batch, or over inputs with the constants of `estimate_constants`, the mean
    square of output i is ``shift_i² + spread² v_i / (v_i + 1e-5)``, v_i the variance of what came in. So where they are
    the D means of a unit Gaussian prior's posterior, its mean divergence is, whatever the variances, at least

        spread² / 2 · sum_i v_i / (v_i + 1e-5),

    that is ``D spread² / 2`` but for the 1e-5. On other inputs nothing is promised.
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
    """

    def __init__(self, n: int, limit: float) -> None:
        super().__init__()
        self.n = n
        self.limit = limit

    def forward(self, outputs: Tensor) -> Tensor:
        held = self.limit - F.softplus(self.limit - outputs[..., self.n :])
        return torch.cat([outputs[..., : self.n], held], dim=-1)


def normalise_means(net: nn.Sequential, n: int, spread: float) -> nn.Sequential:
    """``net`` with its first ``n`` outputs normalised; its last layer loses its bias, as `mlp` says of batch norm."""
    last = net[-1]
    assert isinstance(last, nn.Linear)
    last.register_parameter("bias", None)
    return net.append(NormalisedMeans(n, last.out_features, spread))

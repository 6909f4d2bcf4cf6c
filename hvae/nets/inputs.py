"""First layers of a net that sees x: the last D of its numbers are x in the units of the data, and become small here.

Other parents, before x, pass as they are. So whatever is drawn, scored and recorded keeps the units of the data.
"""

import torch
from torch import Tensor, nn


class Standardised(nn.Module):
    """``(x - shift) / scale`` by column, ``[D]`` each; constants of the training data, no weights.

    >>> Standardised(torch.tensor([1.0]), torch.tensor([10.0]))(torch.tensor([5.0, 21.0])).tolist()
    [5.0, 2.0]
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift.clone())
        self.register_buffer("scale", scale.clone())

    @classmethod
    def of(cls, x: Tensor) -> "Standardised":
        """By mean and deviation of data ``x [N, D]``; a column that is constant keeps its scale."""
        values = x.double()
        scale = values.std(0, unbiased=False)
        return cls(values.mean(0).to(x.dtype), torch.where(scale > 0, scale, torch.ones_like(scale)).to(x.dtype))

    def forward(self, values: Tensor) -> Tensor:
        others, x = values.split([values.shape[-1] - len(self.shift), len(self.shift)], dim=-1)
        seen = (x - self.shift) / self.scale
        return torch.cat([others, seen], dim=-1) if others.shape[-1] else seen


class LogCounts(nn.Module):
    """``log (1 + x)`` of D counts: a count of a million is 14, where it would saturate every unit of a net.

    >>> LogCounts(1)(torch.tensor([5.0, 0.0])).tolist()
    [5.0, 0.0]
    """

    def __init__(self, n_counts: int) -> None:
        super().__init__()
        self.n_counts = n_counts

    def forward(self, values: Tensor) -> Tensor:
        others, x = values.split([values.shape[-1] - self.n_counts, self.n_counts], dim=-1)
        seen = x.log1p()
        return torch.cat([others, seen], dim=-1) if others.shape[-1] else seen

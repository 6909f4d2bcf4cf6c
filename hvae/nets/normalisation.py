"""Normalisation over all samples and data of a batch, and the constants that replace it after training."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.Module):
    """Batch normalisation over all samples and data of a batch (Ioffe and Szegedy 2015), with K·B flattened.

    ``scale * (h - mean) / sqrt(variance + 1e-5) + shift``. While training, mean and variance are
    those of the batch; in evaluation they are the constants that `estimate_constants` stored from one
    pass over the training data, as Sønderby et al. 2016 do it. There are no running averages, so a
    training step changes nothing but parameters.

    >>> normalised = BatchNorm(1)(torch.tensor([[[1.0], [3.0]]]))  # mean 2, variance 1
    >>> [round(h, 4) for h in normalised.flatten().tolist()]
    [-1.0, 1.0]
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, *, spread: float | None = None) -> None:
        """A ``spread`` is a scale that does not learn."""
        super().__init__()
        self.scale: Tensor
        if spread is None:
            self.scale = nn.Parameter(torch.ones(width))
        else:
            self.register_buffer("scale", torch.full((width,), spread))
        self.shift = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self._batches: list[tuple[Tensor, Tensor, int]] | None = None

    def forward(self, h: Tensor) -> Tensor:
        flat = h.flatten(end_dim=-2)
        if self.training:
            if self._batches is not None:
                self._batches.append((flat.mean(0), flat.var(0, unbiased=False), len(flat)))
            normalised = F.batch_norm(flat, None, None, self.scale, self.shift, training=True)
        else:
            normalised = F.batch_norm(flat, self.mean, self.variance, self.scale, self.shift)
        return normalised.view_as(h)

    def collect(self) -> None:
        """Start to remember the statistics of every batch seen."""
        self._batches = []

    def settle(self) -> None:
        """Store mean and variance of all batches seen since `collect`, and stop remembering.

        The variance is the pooled one: the mean of the batch variances plus the variance of the
        batch means, each weighted by the batch's size.
        """
        batches, self._batches = self._batches, None
        if not batches:
            return
        size = torch.tensor([n for _, _, n in batches], dtype=torch.float64)
        share = (size / size.sum()).unsqueeze(-1)
        means = torch.stack([mean for mean, _, _ in batches]).double()
        variances = torch.stack([variance for _, variance, _ in batches]).double()
        share = share.to(means.device)
        mean = (share * means).sum(0)
        self.mean.copy_(mean)
        self.variance.copy_((share * (variances + (means - mean).square())).sum(0))


class ImageNorm(BatchNorm):
    """The same for each channel of ``[..., C, rows, columns]``, over samples, data and pixels.

    >>> ImageNorm(4)(torch.ones(7, 5, 4, 2, 2)).shape
    torch.Size([7, 5, 4, 2, 2])
    """

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h.movedim(-3, -1)).movedim(-1, -3)


def estimate_constants(model: nn.Module, passes: Callable[[], None]) -> None:
    """Set every `BatchNorm` of ``model`` to its statistics over the batches that ``passes`` gives the model."""
    layers = [module for module in model.modules() if isinstance(module, BatchNorm)]
    for layer in layers:
        layer.collect()
    model.train()
    with torch.no_grad():
        passes()
        for layer in layers:
            layer.settle()
    model.eval()

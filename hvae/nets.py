"""Nets: from a parent's value to the numbers that a family reads as a law. They know no probability.

A net takes ``[..., n_in]`` and answers ``[..., n_outputs]``. The net of a variable without parent
is `Root`, or `PseudoInputs`. Weights are initialised from a generator that the caller hands over; biases start
at 0 unless said otherwise.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}

Initialise = Callable[[Tensor, torch.Generator], None]


def xavier(weight: Tensor, source: torch.Generator) -> None:
    """Uniform on ±sqrt(6 / (n_in + n_out)) (Glorot and Bengio 2010, equation 16)."""
    nn.init.xavier_uniform_(weight, generator=source)


def kaiming(weight: Tensor, source: torch.Generator) -> None:
    """Normal with variance 2 / n_in (He et al. 2015, equation 10)."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=source)


def orthogonal(weight: Tensor, source: torch.Generator) -> None:
    """Orthonormal rows or columns (Saxe et al. 2014)."""
    nn.init.orthogonal_(weight, generator=source)


INITIALISERS: dict[str, Initialise] = {"xavier": xavier, "kaiming": kaiming, "orthogonal": orthogonal}


class Root(nn.Module):
    """The net of a variable without parent: the same ``outputs`` always, learned or fixed."""

    def __init__(self, outputs: Tensor, *, learned: bool) -> None:
        super().__init__()
        if learned:
            self.outputs = nn.Parameter(outputs.clone())
        else:
            self.register_buffer("outputs", outputs.clone())

    def forward(self) -> Tensor:
        return self.outputs


class PseudoInputs(nn.Module):
    """The net of a variable without parent: what ``net``, which another variable owns, makes of learned ``inputs``.

    ``inputs [C, n_in]`` are parameters; the C outputs stand side by side. The net is no submodule here: a weight that
    stands under two names is not put back by `torch.func.functional_call`.
    """

    def __init__(self, inputs: Tensor, net: nn.Module) -> None:
        super().__init__()
        self.inputs = nn.Parameter(inputs.clone())
        self.shared = (net,)

    def forward(self) -> Tensor:
        outputs: Tensor = self.shared[0](self.inputs)
        return outputs.flatten(-2)


class BatchNorm(nn.Module):
    """Batch normalisation over all samples and data of a batch (Ioffe and Szegedy 2015), with K·B flattened.

    ``scale * (h - mean) / sqrt(variance + 1e-5) + shift``. While training, mean and variance are
    those of the batch; in evaluation they are the constants that `estimate_constants` stored from one
    pass over the training data, as Sønderby et al. 2016 do it. There are no running averages, so a
    training step changes nothing but parameters.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
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


def estimate_constants(model: nn.Module, passes: Callable[[], None]) -> None:
    """Set every `BatchNorm` of ``model`` to its statistics over what ``passes`` shows the model."""
    layers = [module for module in model.modules() if isinstance(module, BatchNorm)]
    for layer in layers:
        layer.collect()
    model.train()
    with torch.no_grad():
        passes()
        for layer in layers:
            layer.settle()
    model.eval()


def mlp(
    n_in: int,
    hidden: Sequence[int],
    n_outputs: int,
    *,
    activation: Callable[[], nn.Module],
    initialise: Initialise,
    source: torch.Generator,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Linear layers of the widths ``hidden``, each followed by (batch norm and) ``activation``, then a linear output.

    ``hidden = ()`` is a linear net. The output layer is never normalised. A linear layer before batch
    norm has no bias: its gradient is 0, and Adam would turn the rounding of that 0 into full steps.
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(_linear(n_in, width, initialise, source, bias=not batch_norm))
        if batch_norm:
            layers.append(BatchNorm(width))
        layers.append(activation())
        n_in = width
    layers.append(_linear(n_in, n_outputs, initialise, source, bias=True))
    return nn.Sequential(*layers)


def _linear(n_in: int, n_out: int, initialise: Initialise, source: torch.Generator, *, bias: bool) -> nn.Linear:
    layer = nn.Linear(n_in, n_out, bias=bias)
    with torch.no_grad():
        initialise(layer.weight, source)
        if bias:
            layer.bias.zero_()
    return layer

"""Parts of dense nets: activations, initialisation, and hidden layers in a row, plain or residual."""

from collections.abc import Callable, Sequence
from typing import NotRequired, TypedDict, Unpack

import torch
from torch import Tensor, nn

from hvae.nets.normalisation import BatchNorm

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
    """The net of a variable without parent: the same ``outputs`` always, learned or fixed.

    >>> import torch
    >>> from hvae import Root
    >>> Root(torch.zeros(4), learned=False)().tolist()  # N(0, I) with 2 units, as `DiagonalGaussian` reads it
    [0.0, 0.0, 0.0, 0.0]
    """

    def __init__(self, outputs: Tensor, *, learned: bool) -> None:
        super().__init__()
        if learned:
            self.outputs = nn.Parameter(outputs.clone())
        else:
            self.register_buffer("outputs", outputs.clone())

    def forward(self) -> Tensor:
        return self.outputs


class PseudoInputs(nn.Module):
    """The net of a variable without parent: another variable's ``net`` at learned ``inputs``.

    ``inputs [C, n_in]`` are parameters; the C outputs stand side by side. The net is no submodule here: a weight that
    stands under two names is not put back by `torch.func.functional_call`.

    >>> encoder = nn.Linear(5, 2)
    >>> PseudoInputs(torch.zeros(3, 5), encoder)().shape  # C · n_outputs
    torch.Size([6])
    """

    def __init__(self, inputs: Tensor, net: nn.Module) -> None:
        super().__init__()
        self.inputs = nn.Parameter(inputs.clone())
        self.shared = (net,)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PseudoInputs":
        """The net follows in dtype and device, also where its owner stays behind."""
        self.shared[0]._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self) -> Tensor:
        outputs: Tensor = self.shared[0](self.inputs)
        return outputs.flatten(-2)


class Style(TypedDict):
    """The settings that all hidden layers of a net share.

    >>> style = Style(activation=nn.Tanh, initialise=xavier, source=torch.Generator().manual_seed(0))
    >>> mlp(3, (8, 8), 2, **style)(torch.zeros(7, 5, 3)).shape
    torch.Size([7, 5, 2])
    """

    activation: Callable[[], nn.Module]
    initialise: Initialise
    source: torch.Generator
    batch_norm: NotRequired[bool]


class Residual(nn.Module):
    """``h + layer(h)`` (He et al. 2016, equation 1).

    >>> Residual(nn.Identity())(torch.tensor([1.0, 2.0])).tolist()
    [2.0, 4.0]
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, h: Tensor) -> Tensor:
        added: Tensor = self.layer(h)
        return h + added


def mlp(n_in: int, hidden: Sequence[int], n_outputs: int, **style: Unpack[Style]) -> nn.Sequential:
    """Linear layers of the widths ``hidden``, each followed by (batch norm and) ``activation``, then a linear output.

    ``hidden = ()`` is a linear net. The output layer is never normalised. A linear layer before batch
    norm has no bias: its gradient is 0, and Adam would turn the rounding of that 0 into full steps.

    >>> import torch
    >>> from torch import nn
    >>> from hvae import mlp
    >>> from hvae.nets.layers import xavier
    >>> net = mlp(3, (8,), 2, activation=nn.Tanh, initialise=xavier, source=torch.Generator(), batch_norm=True)
    >>> [type(layer).__name__ for layer in net]
    ['Linear', 'BatchNorm', 'Tanh', 'Linear']
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += dense(n_in, width, **style)
        n_in = width
    return nn.Sequential(*layers, linear(n_in, n_outputs, style["initialise"], style["source"], bias=True))


def residual(n_in: int, hidden: Sequence[int], n_outputs: int, **style: Unpack[Style]) -> nn.Sequential:
    """An `mlp` with hidden layers that add to their input, ``h + act(W h + b)``, where they keep its width.

    The first hidden layer, layers that change the width, and the output are plain.
    """
    layers: list[nn.Module] = []
    for position, width in enumerate(hidden):
        made = dense(n_in, width, **style)
        layers += [Residual(nn.Sequential(*made))] if position and width == n_in else made
        n_in = width
    return nn.Sequential(*layers, linear(n_in, n_outputs, style["initialise"], style["source"], bias=True))


def dense(n_in: int, n_out: int, **style: Unpack[Style]) -> list[nn.Module]:
    """One hidden layer: linear, (batch norm,) activation."""
    normed = style.get("batch_norm", False)
    first = linear(n_in, n_out, style["initialise"], style["source"], bias=not normed)
    return [first, *([BatchNorm(n_out)] if normed else []), style["activation"]()]


def linear(n_in: int, n_out: int, initialise: Initialise, source: torch.Generator, *, bias: bool) -> nn.Linear:
    """A linear layer; its bias starts at 0."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    with torch.no_grad():
        initialise(layer.weight, source)
        if bias:
            layer.bias.zero_()
    return layer

"""Layers in a row that save memory while they train, by time or by precision. In evaluation they do neither.

recompute     what enters is kept; what lies between is computed again in the backward pass (Chen et al. 2016)
precision     convolutions and matrix products have fewer bits; weights, and what comes out, keep theirs
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from hvae.errors import ConfigError


class Frugal(nn.Sequential):
    """Layers that see parts ``[..., C, H, W]`` side by side in their channels.

    What is computed again is so with the weights of the forward pass, also where `torch.func.functional_call` had
    exchanged them. ``recompute`` is not for `torch.func.vmap`, which is over when the backward pass begins.

    >>> net = Frugal(nn.Conv2d(3, 4, 1), nn.GELU())
    >>> net(torch.zeros(5, 2, 7, 7), torch.ones(1, 1, 7, 7)).shape
    torch.Size([5, 4, 7, 7])
    """

    recompute = False
    precision: torch.dtype | None = None
    """None for that of the weights"""

    def forward(self, *parts: Tensor) -> Tensor:
        few = self.precision if self.training else None
        recompute = self.training and self.recompute and torch.is_grad_enabled()
        if few is None and not recompute:
            h = side_by_side(parts)
            for layer in self:
                h = layer(h)
            return h
        held = dict(self.named_parameters())
        if not recompute:
            return self._through(parts, held, few)
        modes = [(module, module.training) for module in self.modules()]

        def again(*inputs: Tensor) -> Tensor:
            with in_modes(modes):  # the backward pass may come when training mode is over
                return self._through(inputs[: len(parts)], dict(zip(held, inputs[len(parts) :], strict=True)), few)

        found = checkpoint(again, *parts, *held.values(), use_reentrant=False)
        assert isinstance(found, Tensor)
        return found

    def _through(self, parts: Sequence[Tensor], weights: Mapping[str, Tensor], few: torch.dtype | None) -> Tensor:
        """All layers with these weights, in ``few`` bits. `torch.autocast` would do nothing under `torch.func.vmap`."""
        own = parts[0].dtype
        h = side_by_side(parts).to(few or own)
        for name, layer in self.named_children():
            start = f"{name}."
            theirs = {key.removeprefix(start): w for key, w in weights.items() if key.startswith(start)}
            if few is not None:
                theirs = {key: weight.to(few) for key, weight in theirs.items()}
            h = functional_call(layer, theirs, (h,))
        return h.to(own)


@contextmanager
def in_modes(modes: Sequence[tuple[nn.Module, bool]]) -> Iterator[None]:
    """Modules in training or evaluation mode as listed, and afterwards as they were."""
    before = [(module, module.training) for module, _ in modes]
    for module, mode in modes:
        module.training = mode
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Images ``[..., C, H, W]`` as one with all channels; leading axes are broadcast."""
    if len(parts) == 1:
        return parts[0]
    batch = torch.broadcast_shapes(*(part.shape[:-3] for part in parts))
    return torch.cat([part.expand(*batch, *part.shape[-3:]) for part in parts], dim=-3)


def recomputes(model: nn.Module) -> bool:
    """Whether a net of the model is computed again in the backward pass."""
    return any(net.recompute for net in _frugal([model]))


def save_memory(models: Iterable[nn.Module], *, recompute: bool, precision: torch.dtype | None) -> None:
    """Set how the nets of the models save memory. Raises `ConfigError`, one sentence, where they cannot."""
    nets = _frugal(models)
    if precision not in (None, torch.float32, torch.bfloat16):
        raise ConfigError(f"precision is {precision}; give torch.bfloat16, or None for that of the weights.")
    few = precision if precision == torch.bfloat16 else None
    if not nets and (recompute or few):
        what = "checkpoint_gradients" if recompute else "precision bfloat16"
        raise ConfigError(
            f"{what} is for stacks of residual blocks (hvae.ResidualDecoder), and the models have none; leave it out."
        )
    doubles = [name for net in nets for name, weight in net.named_parameters() if weight.dtype == torch.float64]
    if few and doubles:
        raise ConfigError("precision is bfloat16, but the models' weights are float64; make them float32 by .float().")
    for net in nets:
        net.recompute, net.precision = recompute, few


def _frugal(models: Iterable[nn.Module]) -> list[Frugal]:
    return [module for model in models for module in model.modules() if isinstance(module, Frugal)]

"""The nets of a stack, between layer l-1 and layer l, upward and downward."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from hvae import nets
from hvae.data import Dataset
from hvae.families import DiagonalGaussian, Family, FullGaussian
from hvae.lab.config import ModelConfig, per_layer
from hvae.lab.config.observations import COUNTS
from hvae.numerics import log_variance_cap

T = TypeVar("T")


@dataclass(frozen=True)
class Nets:
    """Makes the nets of a configuration for the images of ``data``; weights start from ``source``.

    The net of layer l has the hidden widths ``model.hidden[l-1]`` upward and the same mirrored downward; a
    convolutional one has its channels on the side of the image.
    """

    config: ModelConfig
    data: Dataset
    source: torch.Generator

    def upward(
        self, layer: int, n_in: int, family: Family, crossed: tuple[int, ...] = (), *, sees_x: bool = False
    ) -> nn.Sequential:
        """From ``n_in`` numbers to the encoder's distribution of ``layer`` (0 is z1), with the cures on its outputs.

        ``crossed`` are hidden widths before its own, of the layers that x crosses as a parent of z2 and above. Where
        it ``sees_x``, which is then the last of its parents, x comes to it as `seen`.
        """
        widths, n_outputs = (*crossed, *self._own(self.config.hidden, layer)), family.n_outputs
        match self._own(self.config.nets, layer):
            case "convolutional":
                channels = self.config.channels
                net = nets.convolutional(self.data.image_shape, channels, widths, n_outputs, **self._style(layer))
            case "residual":
                net = nets.residual(n_in, widths, n_outputs, **self._style(layer))
            case _:
                net = nets.mlp(n_in, widths, n_outputs, **self._style(layer))
        spread, floor = self._own(self.config.normalised_means, layer), self.config.floor_nats
        if spread > 0:
            assert isinstance(family, DiagonalGaussian | FullGaussian)
            net = nets.normalise_means(net, family.units, spread)
        if floor > 0 and layer == len(self.config.latents) - 1:
            net = net.append(nets.Capped(family.units, log_variance_cap(floor / family.units)))
        view = self.seen if sees_x else None
        return net if view is None else nn.Sequential(view, *net)

    @property
    def units(self) -> nets.Standardised | None:
        """The units of x, where the nets see z-scores."""
        return self.seen if isinstance(self.seen, nets.Standardised) else None

    @property
    def seen(self) -> nets.Standardised | nets.LogCounts | None:
        """A first layer for nets that see x; None where they see it as it is."""
        if self.config.standardise:
            return nets.Standardised.of(self.data.train)
        if self.config.observation in COUNTS:
            return nets.LogCounts(self.data.train.shape[1])
        return None

    def downward(self, layer: int, n_in: int, family: Family) -> nn.Sequential:
        """From ``n_in`` numbers of the layers above to the decoder's distribution of the variable below them."""
        widths, n_outputs = self._own(self.config.hidden, layer)[::-1], family.n_outputs
        match self._own(self.config.nets, layer):
            case "convolutional":
                channels = self.config.channels[::-1]
                shape, order = self.data.image_shape, nn.Flatten(-3) if family.planes else None
                return nets.transposed(n_in, widths, channels, shape, n_outputs, fold=order, **self._style(layer))
            case "residual":
                return nets.residual(n_in, widths, n_outputs, **self._style(layer))
            case _:
                return nets.mlp(n_in, widths, n_outputs, **self._style(layer))

    def _style(self, layer: int) -> nets.Style:
        return {
            "activation": nets.ACTIVATIONS[self._own(self.config.activation, layer)],
            "initialise": nets.INITIALISERS[self._own(self.config.init, layer)],
            "source": self.source,
            "batch_norm": self._own(self.config.batch_norm, layer),
        }

    def _own(self, entries: tuple[T, ...], layer: int) -> T:
        return per_layer("model", entries, len(self.config.latents))[layer]

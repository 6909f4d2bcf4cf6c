"""How many units of a layer respond to the image."""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from hvae.analysis.figures.panels import Panels, Quantity, layer_figure
from hvae.analysis.load import Array, LoadedRun
from hvae.diagnosis.layer import Layer


def active_units(panels: Panels) -> Figure | None:
    """Units with a variance over data above 0.01, in per cent of the layer's D units.

    Filled: without what a unit inherits (twin covariance or residual). Hollow: Burda's variance of the mean.
    """

    def share(run: LoadedRun, layer: Layer, statistic: str = "") -> Array:
        percent = 100.0 * layer.active_units(statistic) / layer.n_units
        return np.stack([percent, percent, percent], axis=1)

    return layer_figure(
        panels,
        Quantity(share, "active units (% of D)", ylim=(-4.0, 104.0)),
        hollow=(partial(share, statistic="burda_variance"), "Burda's count"),
        tick=lambda layer: f"{layer.name}\n{layer.n_units}",
        xlabel="latent layer, D units",
    )

"""Figures of Dang et al.: strengths of two linear layers over their closed form, and ReLU stacks."""

from collections.abc import Callable, Mapping

import numpy as np

from hvae.analysis.claims import Measured, Runs
from hvae.analysis.load import Array
from hvae.analysis.papers import Curves, Line
from hvae.diagnosis.layer import Layer
from hvae.experiments.dang_strengths.claims import BETA2_OF_BETA1, RELU

MODES = (1, 2, 5, 10)


def strengths(name: str, knob: str) -> Callable[[Runs, Measured], Mapping[str, Mapping[str, Line]]]:
    """λ and ω along a sweep: starts as points over the closed form."""

    def panels(runs: Runs, measured: Measured) -> Mapping[str, Mapping[str, Line]]:
        if name not in measured:
            return {}
        rows = measured[name]
        modes = [mode for mode in MODES if mode <= rows["encoder"].shape[-1]]
        return {
            title: {
                f"mode {mode}": Line(
                    rows[knob],
                    rows[layer][..., mode - 1],
                    expected=(rows[knob], rows[f"expected_{layer}"][:, mode - 1]),
                )
                for mode in modes
            }
            for title, layer in (("λ, lower layer", "encoder"), ("ω, top layer", "decoder"))
        }

    return panels


def of_relu(
    lines: Mapping[str, tuple[int, Callable[[Layer], Array]]],
) -> Callable[[Runs, Measured], Mapping[str, Mapping[str, Line]]]:
    """Lines (a layer's number and what is read of it, [R, 3] or [R, 1]) along the sweeps of ReLU stacks."""

    def panels(runs: Runs, measured: Measured) -> Mapping[str, Mapping[str, Line]]:
        found = {}
        for sweep, labels in RELU.items():
            here = {value: runs[label] for value, label in labels.items() if label in runs and runs[label].evaluated}
            if here:
                x = np.array(list(here))
                found[sweep] = {
                    name: _with_interval(x, np.array([read(run.layers[number - 1]) for run in here.values()]))
                    for name, (number, read) in lines.items()
                }
        return found

    return panels


def _with_interval(x: Array, found: Array) -> Line:
    """`found` [N, R, 3] low, middle and high, or [N, R, 1]."""
    if found.shape[-1] == 1:
        return Line(x, found[..., 0])
    return Line(x, found[..., 1], intervals=found[..., [0, 2]])


def _interval(quantity: str) -> Callable[[Layer], Array]:
    return lambda layer: layer.interval(quantity)


def _units(layer: Layer) -> Array:
    return layer.active_units()[:, None]


SWEPT = {sweep: sweep.split()[0] for sweep in RELU}
"""what is on the x axis, by the title of a panel"""
_CLOSED = "Points: six starts from random weights, at some of the values; lines: the closed form. "
curves = (
    Curves(
        "strengths-beta2", "Linear stack: strengths against β2",
        _CLOSED + "MNIST, 10 units a layer, σ1 = η_enc = η_dec = 0.5, β1 = 1 (smoke: digits, 3 units). The top layer "
        "gives up one mode after the other; the lower layer keeps them.",
        "β2", "strength", strengths("beta2", "beta2"), as_png=True,
    ),
    Curves(
        "strengths-beta1", "Linear stack: strengths against β1",
        _CLOSED + f"As above with β2 = {BETA2_OF_BETA1:g}: a larger β1 wakes the top layer, and weakens the lower one.",
        "β1", "strength", strengths("beta1", "beta1"),
    ),
    Curves(
        "strengths-eta", "Linear stack: strengths against η",
        _CLOSED + "η_enc = η_dec = η, σ1 = 0.5, β1 = β2 = 1.", "η", "strength", strengths("eta", "eta_dec"),
        x_scale="log",
    ),
    Curves(
        "strengths-given", "Linear stack: strengths against β2 where Σ2 is given",
        _CLOSED + "Deviations of q(z2|z1) held at half η_enc, all else as against β2: the top layer lives longer.",
        "β2", "strength", strengths("given", "beta2"),
    ),
    Curves(
        "relu-rates", "ReLU stack: rates and information per layer",
        "Rates of both layers, and the information of z2 about z1 and about x (at most the logarithm of the number of "
        "images). Bars: each replica's own interval over images. Rates alone are no evidence of use.",
        SWEPT, "nats",
        of_relu(
            {
                "rate of z1": (1, _interval("rate_nats")),
                "rate of z2": (2, _interval("rate_nats")),
                "I(z1; z2)": (2, _interval("parent_information_nats")),
                "I(x; z2)": (2, _interval("information_nats")),
            }
        ),
        x_scale="log",
    ),
    Curves(
        "relu-units", "ReLU stack: active units",
        "Units of each layer with a variance of the mean over data above 0.01, unbiased by the noise of the path. In a "
        "layer that codes only noise the count is chance.",
        SWEPT, "units",
        of_relu({"z1": (1, _units), "z2": (2, _units)}),
        x_scale="log",
    ),
)  # fmt: skip

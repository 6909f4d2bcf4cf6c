"""The posterior of a stack: one order of inference, the same layers.

The net of layer l has the hidden widths ``model.hidden[l-1]``. In some orders upper layers see x themselves. Then
their nets have the hidden layers that x crosses on its way up in other orders, ``hidden[0]`` to ``hidden[l-1]``. So no
layer sees x through a net that is sized for a few latents.
"""

from collections.abc import Callable, Sequence

from hvae.families import Family
from hvae.lab.assembly.nets import Nets
from hvae.lab.config import ModelConfig, OrderName, per_layer
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, NetworkPosterior, Posterior, alone, shared


def build_upward(
    config: ModelConfig, names: Sequence[str], n_pixels: int, family: Callable[[int], Family], nets: Nets
) -> list[Conditional]:
    """The encoder's conditionals of the latents ``names``, z1 first."""
    hidden = per_layer("model.hidden", config.hidden, len(names))
    conditionals: list[Conditional] = []
    widths = {"x": n_pixels}
    for layer, name in enumerate(names):
        distribution = family(layer)
        parents = _parents(config, names, layer)
        crossed = sum(hidden[:layer], ()) if layer and "x" in parents else ()
        n_in = sum(widths[parent] for parent in parents)
        net = nets.upward(layer, n_in, distribution, crossed, sees_x="x" in parents)
        conditionals.append(Conditional(name, parents, net, distribution))
        widths[name] = distribution.width
    return conditionals


def visited_in(order: OrderName, upward: BeliefNetwork) -> Posterior:
    """q(z | x): the conditionals ``upward`` themselves, or merged with the decoder's from the top down."""
    match order:
        case "top-down":
            return Ladder(upward, alone)
        case "top-down-shared":
            return Ladder(upward, shared)
        case _:
            return NetworkPosterior(upward)


def _parents(config: ModelConfig, names: Sequence[str], layer: int) -> list[str]:
    if layer == 0 or config.order == "mean-field":
        return ["x"]
    return [names[layer - 1], "x"] if config.order == "bottom-up-x" else [names[layer - 1]]

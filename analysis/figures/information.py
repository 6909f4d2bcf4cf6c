"""Information about the image and rate, per layer."""

from matplotlib.figure import Figure

from hvae.analysis.figures.panels import Panels, layer_figure


def information(panels: Panels) -> Figure | None:
    """I_l of every layer: I(x; z_l) with z1 first, I(x; z_l | z_>l) top-down, in nats."""
    epsilon = next(iter(panels.values()))[0].epsilon_nats
    return layer_figure(
        panels,
        lambda run, layer: layer.interval("information_nats"),
        ylabel="information on x (nats)",
        linear_below=epsilon,
        reference=(epsilon, f"threshold {epsilon:g} nats"),
        ylim=(-0.02, None),
    )


def rate(panels: Panels) -> Figure | None:
    """E[log q(z_l|.) - log p(z_l|.)] of every layer in nats; bottom-up it may be negative."""
    return layer_figure(
        panels,
        lambda run, layer: layer.interval("rate_nats"),
        ylabel="rate (nats)",
        linear_below=0.1,
        reference=(0.0, "zero"),
    )

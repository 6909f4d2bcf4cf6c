"""What the decoder uses of each layer, what the layer says of the image, and what it costs; the rate."""

from matplotlib.figure import Figure

from hvae.analysis.figures.panels import Panels, Quantity, layer_figure, of_one_kind


def information(panels: Panels) -> Figure | None:
    """V_l, I_l and the divergence of q(z_l|.) from its prior beside each other, in nats.

    V_l is a lower bound on what the decoder uses, with its cap log (N + 1). I_l is I(x; z_l) with z1 first and
    I(x; z_l | z_>l) top-down, which never share axes.
    """
    epsilon = next(iter(panels.values()))[0].epsilon_nats
    threshold = (epsilon, f"threshold {epsilon:g} nats")
    return layer_figure(
        of_one_kind(panels),
        Quantity(
            lambda run, layer: layer.interval("used_nats"),
            "use V (nats)",
            linear_below=epsilon,
            reference=threshold,
            caps=lambda layer: layer.used_cap,
        ),
        Quantity(
            lambda run, layer: layer.interval("information_nats"),
            "$I(x;\\, z_l)$ (nats)",
            of_ladders="$I(x;\\, z_l\\,|\\,z_{>l})$ (nats)",
            linear_below=epsilon,
            reference=threshold,
            ylim=(-0.02, None),
        ),
        Quantity(
            lambda run, layer: layer.interval("kl_prior_nats"),
            "KL to prior (nats)",
            linear_below=epsilon,
            reference=threshold,
            ylim=(-0.02, None),
        ),
    )


def rate(panels: Panels) -> Figure | None:
    """E[log q(z_l|.) - log p(z_l|.)] of every layer in nats; bottom-up it may be negative."""
    read = Quantity(
        lambda run, layer: layer.interval("rate_nats"), "rate (nats)", linear_below=0.1, reference=(0.0, "zero")
    )
    return layer_figure(panels, read)

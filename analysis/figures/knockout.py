"""The loss when a layer is taken out."""

from matplotlib.figure import Figure

from hvae.analysis.figures.panels import Panels, layer_figure


def knockout_encoder(panels: Panels) -> Figure | None:
    """Bound lost, in nats, when the encoder's distribution of a layer is replaced by the prior's."""
    return layer_figure(
        panels,
        lambda run, layer: layer.interval("knockout_encoder_nats"),
        ylabel="bound lost (nats)",
        linear_below=0.1,
        reference=(0.0, "nothing lost"),
    )


def knockout_model(panels: Panels) -> Figure | None:
    """Likelihood lost, in nats, when a layer is clamped to its prior mean in the decoder."""
    return layer_figure(
        panels,
        lambda run, layer: layer.interval("knockout_model_nats"),
        ylabel="likelihood lost (nats)",
        linear_below=0.1,
        reference=(0.0, "nothing lost"),
    )

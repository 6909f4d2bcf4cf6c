"""The loss when a layer is taken out."""

from matplotlib.figure import Figure

from hvae.analysis.figures.panels import Panels, Quantity, layer_figure

NOTHING = (0.0, "nothing lost")


def knockout_encoder(panels: Panels) -> Figure | None:
    """Bound lost, in nats, when the encoder's distribution of a layer is replaced by the prior's."""
    read = Quantity(
        lambda run, layer: layer.interval("knockout_encoder_nats"), "bound lost (nats)", linear_below=0.1,
        reference=NOTHING,
    )  # fmt: skip
    return layer_figure(panels, read)


def knockout_model(panels: Panels) -> Figure | None:
    """Likelihood lost, in nats, when a layer is clamped to its prior mean in the decoder."""
    read = Quantity(
        lambda run, layer: layer.interval("knockout_model_nats"), "likelihood lost (nats)", linear_below=0.1,
        reference=NOTHING,
    )  # fmt: skip
    return layer_figure(panels, read)

"""The signal of the gradients."""

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.figures.signal import gradient_signal
from hvae.analysis.sections.section import Section

FIGURES = (
    Exhibit(
        "signal",
        "Signal-to-noise ratio of the gradients, per layer",
        "Root mean square of |E g| / sd g over the weights of a part; logarithmic. g is the gradient that training "
        "follows at its last step, on the same test images with new draws. Parts are the encoder of each layer and "
        "the decoder. One line per replica, with the 95 % interval of the draws by the jackknife. A bar without a "
        "point: no signal was found. A ratio that falls with K: more samples teach this part less.",
        lambda study: gradient_signal(study.runs),
        "",
    ),
)

SECTION = Section(
    "signal",
    "Gradients",
    "",
    lambda study: {},
    lambda study: {},
    FIGURES,
)

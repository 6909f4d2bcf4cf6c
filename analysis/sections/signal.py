"""The signal of the gradients."""

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.figures.signal import gradient_signal
from hvae.analysis.sections.section import Section

FIGURES = (
    Exhibit(
        "signal",
        "Signal-to-noise ratio of the gradients, per layer",
        "Root mean square over a part's weights of |E g| / sd g, with g the gradient that training follows at its last "
        "step, drawn anew on the same test images; logarithmic. Parts are the encoder of each layer and the decoder. "
        "One line per replica, with the 95 % interval of the draws by the jackknife; a bar without a point says that "
        "no signal was found. A ratio that falls with K says that more samples teach this part less.",
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
